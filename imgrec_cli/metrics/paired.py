"""Whether two sets of answers to the same images differ by more than chance would explain."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SIGNIFICANT = 0.05
RESAMPLES = 4000
_VALUES_AT_ONCE = 2**24  # of a block of resamples

Floats = NDArray[np.float64]


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided p value of McNemar's exact test (McNemar 1947): of the images that just one of two models answers
    right, how likely is a split at least this uneven if both were equally good?

    `only_first` and `only_second` count the images that the first or the second alone answers right.
    """
    trials, fewer = only_first + only_second, min(only_first, only_second)
    if not trials:
        return 1.0
    # by logarithms: the binomial coefficients of a hundred thousand images have thirty thousand digits
    logs = [
        math.lgamma(trials + 1) - math.lgamma(k + 1) - math.lgamma(trials - k + 1) - trials * math.log(2)
        for k in range(fewer + 1)
    ]
    return min(1.0, 2 * math.fsum(math.exp(value) for value in logs))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p values of several tests, raised so that all of them together err as seldom as one alone (Holm 1979)."""
    adjusted, largest = [1.0] * len(p_values), 0.0
    for rank, place in enumerate(np.argsort(p_values, kind="stable").tolist()):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


@dataclass(frozen=True, slots=True)
class Tallies:
    """Counts by class, float64 [..., classes]: answered right, images there are, answers given."""

    hits: Floats
    support: Floats
    claimed: Floats

    def figure(self, kind: str, label: int | None = None) -> Floats:
        """One figure [...], for all images or for the class `label`; the definitions are those of metrics.summary.

        `kind`: accuracy, balanced_accuracy, mcc, kappa, macro.f1, weighted.recall, … or, with a label, recall,
        precision or f1.
        """
        hits, support, claimed = self.hits, self.support, self.claimed
        total, right = support.sum(-1), hits.sum(-1)
        match kind:
            case "accuracy":
                return _ratio(right, total)
            case "balanced_accuracy":
                return _ratio(_ratio(hits, support).sum(-1), (support > 0).sum(-1).astype(np.float64))
            case "kappa":
                by_chance = (support * claimed).sum(-1)
                return _ratio(right * total - by_chance, total**2 - by_chance)
            case "mcc":
                by_chance = (support * claimed).sum(-1)
                spread = (total**2 - (claimed**2).sum(-1)) * (total**2 - (support**2).sum(-1))
                return _ratio(right * total - by_chance, np.sqrt(spread))
        average, _, of_class = kind.rpartition(".")
        numerator, denominator = {
            "precision": (hits, claimed),
            "recall": (hits, support),
            "f1": (2 * hits, support + claimed),
        }[of_class]
        values = _ratio(numerator, denominator)
        if label is not None:
            return values[..., label]
        weights = support if average == "weighted" else (support + claimed > 0).astype(np.float64)
        return _ratio((values * weights).sum(-1), weights.sum(-1))


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    numerator, denominator = np.asarray(numerator), np.asarray(denominator)
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)


def tallies(
    labels: NDArray[np.int64], answers: Sequence[NDArray[np.int64]], classes: int, weights: Floats | None = None
) -> list[Tallies]:
    """The counts of each of several sets of answers, all int64 [N]; with `weights` [..., N] how often each image
    counts."""
    times = np.ones(len(labels)) if weights is None else weights
    one_hot = np.eye(classes)
    support = times @ one_hot[labels]
    return [
        Tallies(times @ (one_hot[labels] * (answer == labels)[:, None]), support, times @ one_hot[answer])
        for answer in answers
    ]


def resampled(
    labels: NDArray[np.int64], answers: Sequence[NDArray[np.int64]], classes: int, seed: int = 0
) -> list[Tallies]:
    """The counts [RESAMPLES, classes] of sets of answers on images drawn again with replacement, for all sets the same
    ones: the paired bootstrap (Efron and Tibshirani 1993, chapters 8 and 13)."""
    # images with the same label and the same answers are drawn as one kind, which costs far less than one by one
    kinds, counts = np.unique(np.stack([labels, *answers]), axis=1, return_counts=True)
    generator = np.random.default_rng(seed)
    parts: list[list[Tallies]] = []
    block = max(1, min(RESAMPLES, _VALUES_AT_ONCE // kinds.shape[1]))
    for start in range(0, RESAMPLES, block):
        size = min(block, RESAMPLES - start)
        drawn = generator.multinomial(len(labels), counts / len(labels), size).astype(np.float64)
        parts.append(tallies(kinds[0], list(kinds[1:]), classes, drawn))
    return [
        Tallies(*(np.concatenate([getattr(part[number], key) for part in parts]) for key in Tallies.__slots__))
        for number in range(len(answers))
    ]


def percentile_interval(values: Floats) -> tuple[float, float]:
    """The middle 95 % of bootstrapped values [RESAMPLES]."""
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def bootstrap_p(differences: Floats) -> float:
    """Two-sided p value from bootstrapped differences: twice the share of them on the other side of zero."""
    on_a_side = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    return min(1.0, 2 * (on_a_side + 1) / (len(differences) + 1))
