"""One class against the others at every threshold: ROC, precision and recall, and the areas below them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Curve:
    """Counts at every distinct threshold, from none called positive to all: float64 [thresholds + 1]."""

    true_positives: NDArray[np.float64]
    false_positives: NDArray[np.float64]

    @property
    def recall(self) -> NDArray[np.float64]:
        """Share of the positives found; also called true positive rate."""
        return np.asarray(self.true_positives / self.true_positives[-1])

    @property
    def false_positive_rate(self) -> NDArray[np.float64]:
        return np.asarray(self.false_positives / self.false_positives[-1])

    @property
    def precision(self) -> NDArray[np.float64]:
        """Share of those called positive that are; 1 where none is called so."""
        called = self.true_positives + self.false_positives
        return np.divide(self.true_positives, called, out=np.ones_like(called), where=called > 0)

    @property
    def auc(self) -> float:
        """Area under the ROC curve: the chance that a positive scores higher than a negative, ties counting half."""
        return float(np.trapezoid(self.recall, self.false_positive_rate))

    @property
    def average_precision(self) -> float:
        """Sum of the precisions weighted by the steps of recall, without interpolation; scikit-learn's definition."""
        return float((np.diff(self.recall) * self.precision[1:]).sum())


def curve(scores: Floats, positive: Bools) -> Curve | None:
    """The curve of one score, float [N], for `positive` bool [N]; None where all or none are positive."""
    if positive.all() or not positive.any():
        return None
    order = np.argsort(-scores, kind="stable")
    hits = positive[order].astype(np.float64)
    last_of_ties = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    found = np.concatenate([[0.0], np.cumsum(hits)[last_of_ties]])
    wrong = np.concatenate([[0.0], np.cumsum(1 - hits)[last_of_ties]])
    return Curve(found, wrong)
