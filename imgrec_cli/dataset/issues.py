"""Labels that are likely wrong, from probabilities that models gave to pictures they had not seen: confident learning.

Northcutt, Jiang and Chuang 2021, Confident Learning: Estimating Uncertainty in Dataset Labels, section 3: an image
counts as one of class j where its probability of j reaches the mean that images labelled j have (equation 2); where
that class is not its label, the label is in doubt. The order is by normalised margin (section 3.2, Prune by Class and
Noise Rate): the probability of the label less the largest other one.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Issue:
    """An image, its label, the class that is suggested in its place, and the probabilities of the two.

    `doubted` is whether the probabilities contradict the label; others are in the list because it ranks all images.
    """

    file: str
    shown: str
    split: str
    digest: str
    label: str
    suggested: str
    given_probability: float
    suggested_probability: float
    doubted: bool

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "path": self.shown,
            "split": self.split,
            "label": self.label,
            "suggested": self.suggested,
            "label_probability": round(self.given_probability, 6),
            "suggested_probability": round(self.suggested_probability, 6),
            "doubted": self.doubted,
        }


@dataclass(frozen=True, slots=True)
class LabelIssues:
    """All images that nobody has looked at, the most doubtful label first, with the classes and what they are called.

    `corrections` is the config's file, or None.
    """

    class_names: tuple[str, ...]
    titles: dict[str, str]
    corrections: str | None
    ranked: list[Issue]


def in_doubt(probabilities: NDArray[np.floating[Any]], labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each label is off the diagonal of the confident joint: bool [N].

    `probabilities` [N, classes] are out of fold, `labels` int64 [N]. A class without images has no threshold, and
    nothing counts as one of it.
    """
    thresholds = np.full(probabilities.shape[1], np.inf)
    for label in np.unique(labels):
        thresholds[label] = probabilities[labels == label, label].mean()
    confident = np.where(probabilities >= thresholds - 1e-12, probabilities, -1.0)
    counted_as = confident.argmax(axis=1)
    doubted: NDArray[np.bool_] = (confident.max(axis=1) >= 0) & (counted_as != labels)
    return doubted


def doubtful_order(
    probabilities: NDArray[np.floating[Any]], labels: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """All images int64 [N], the most doubtful label first, and `in_doubt` of each image.

    Labels in doubt come first; in both parts the smaller margin leads, from -1 (sure of another class) to 1.
    """
    doubted = in_doubt(probabilities, labels)
    own = probabilities[np.arange(len(labels)), labels]
    margins = own - _without(probabilities, labels).max(axis=1)
    return np.lexsort((np.arange(len(labels)), margins, ~doubted)).astype(np.int64), doubted


def suggestions(probabilities: NDArray[np.floating[Any]], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """The most probable class but the label: int64 [N]."""
    likely: NDArray[np.int64] = _without(probabilities, labels).argmax(axis=1).astype(np.int64)
    return likely


def _without(probabilities: NDArray[np.floating[Any]], labels: NDArray[np.int64]) -> NDArray[np.floating[Any]]:
    others = probabilities.copy()
    others[np.arange(len(labels)), labels] = -1
    return others
