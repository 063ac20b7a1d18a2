"""Which class is answered: thresholds of single classes, and finding those that reach a wanted recall or precision."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]
Thresholds = NDArray[np.float64]


def decide(probabilities: Floats, thresholds: Thresholds) -> NDArray[np.int64]:
    """The answered classes, int64 [N], of `probabilities` float [N, classes].

    `thresholds` float64 [classes] in 0..1, NaN for a class that has none. A class whose probability reaches its
    threshold is answered; of several, the one that exceeds its threshold by the largest factor. Where none is
    reached, the most probable class without a threshold is answered, or of all where every class has one.
    """
    given = ~np.isnan(thresholds)
    if not given.any():
        return np.asarray(probabilities.argmax(axis=1), np.int64)
    others = np.where(given & (not given.all()), -1.0, probabilities).argmax(axis=1)
    factors = _factors(probabilities, thresholds)
    best = factors.argmax(axis=1)
    reached = factors[np.arange(len(best)), best] >= 1
    return np.asarray(np.where(reached, best, others), np.int64)


def _factors(probabilities: Floats, thresholds: Thresholds) -> NDArray[np.float64]:
    """Probability over threshold, 0 for classes without one."""
    with np.errstate(invalid="ignore"):
        factors = probabilities / np.maximum(thresholds, 1e-12)
    return np.where(np.isnan(factors), 0.0, factors)


def find_thresholds(
    probabilities: Floats, labels: Ints, thresholds: Thresholds, targets: list[tuple[str, int, float]]
) -> Thresholds:
    """`thresholds` with one more for each target (`recall` or `precision`, class, wanted share), found on these images.

    For a recall the largest threshold that reaches it, for a precision the smallest; where none does, the one that
    comes nearest. A class without images gets none. Targets are met together: each is found while the others stand, in
    turn until none moves, for 20 rounds at most.
    """
    found = thresholds.copy()
    for _ in range(20):
        before = found.copy()
        for kind, label, wanted in targets:
            found[label] = _threshold(probabilities, labels, found, kind, label, wanted)
        if np.array_equal(before, found, equal_nan=True):
            break
    return found


def _threshold(
    probabilities: Floats, labels: Ints, thresholds: Thresholds, kind: str, label: int, wanted: float
) -> float:
    """The threshold of one class, found while those of the others stand.

    The class is answered for an image where its threshold is at most p / max(1, the largest factor of another class):
    every such value that occurs is a candidate.
    """
    others = thresholds.copy()
    others[label] = np.nan
    rivals = np.maximum(_factors(probabilities, others).max(axis=1), 1.0)
    reach = probabilities[:, label].astype(np.float64) / rivals
    order = np.argsort(-reach, kind="stable")
    is_class = labels[order] == label
    last_of_ties = np.append(np.flatnonzero(np.diff(reach[order])), len(order) - 1)
    if not is_class.any():
        return np.nan
    hits = np.cumsum(is_class)[last_of_ties]
    candidates = reach[order][last_of_ties]  # falling
    if kind == "recall":
        share = hits / is_class.sum()
        enough = np.flatnonzero(share >= wanted - 1e-12)
        return float(candidates[enough[0] if len(enough) else -1])
    share = hits / (last_of_ties + 1)
    enough = np.flatnonzero(share >= wanted - 1e-12)
    return float(candidates[enough[-1] if len(enough) else int(share.argmax())])
