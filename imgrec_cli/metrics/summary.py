"""Scores and labels → accuracy, precision, recall, F1, agreement, confusion: plain numpy, in float64."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]


def cross_entropy(probabilities: Floats, labels: Ints) -> float:
    """Mean negative log probability of the true class, in nats.

    `probabilities` float [N, classes] with rows that sum to 1, `labels` int [N]. Probabilities below 1e-7 count as
    1e-7, as in `keras.losses.SparseCategoricalCrossentropy`.
    """
    of_truth = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.log(np.clip(of_truth, 1e-7, 1.0)).mean())


def top_k_accuracy(scores: Floats, labels: Ints, k: int) -> float:
    """Share of examples whose true class is among the k highest scores; of equal scores the first class wins.

    `scores` float [N, classes], `labels` int [N].
    """
    ranking = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return float((ranking == np.asarray(labels)[:, None]).any(axis=1).mean())


def confusion_matrix(labels: Ints, predicted: Ints, classes: int) -> NDArray[np.int64]:
    """Counts int64 [classes, classes]: row = true class, column = predicted class."""
    flat = np.asarray(labels, np.int64) * classes + np.asarray(predicted, np.int64)
    return np.bincount(flat, minlength=classes * classes).reshape(classes, classes)


@dataclass(frozen=True, slots=True)
class ClassScores:
    """Precision, recall and F1 of one class (0 where undefined) and the number of its examples."""

    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True, slots=True)
class Summary:
    """Figures of one set of predictions; `macro` is the plain mean over the classes that have examples or were
    predicted, `weighted` the mean weighted by support.

    `balanced_accuracy` is the mean recall of the classes that have examples, `mcc` Matthews' correlation coefficient
    for several classes (Gorodkin 2004), `kappa` Cohen's (1960); both are 0 where they are undefined.
    """

    images: int
    accuracy: float
    balanced_accuracy: float
    mcc: float
    kappa: float
    top_k: dict[int, float]
    loss: float
    classes: list[ClassScores]
    macro: ClassScores
    weighted: ClassScores
    confusion: NDArray[np.int64]


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    return np.divide(numerator, denominator, out=np.zeros_like(numerator, np.float64), where=denominator > 0)


def class_figures(confusion: NDArray[np.int64]) -> tuple[Floats, Floats, Floats, Floats]:
    """Precision, recall and F1 of every class, float64 [classes], 0 where undefined; and as 1 or 0 whether a class has
    examples or was predicted, which is what macro means are over.

    `confusion` int64 [classes, classes]: row = true class, column = predicted class.
    """
    right = np.diag(confusion).astype(np.float64)
    support, claimed = confusion.sum(axis=1), confusion.sum(axis=0)
    precision, recall = _ratio(right, claimed), _ratio(right, support)
    return precision, recall, _ratio(2 * right, support + claimed), ((support + claimed) > 0).astype(np.float64)


def summarize(probabilities: Floats, labels: Ints, predicted: Ints | None = None) -> Summary:
    """All figures of one set of predictions; the definitions are scikit-learn's with `zero_division=0`.

    `probabilities` float [N, classes], `labels` int [N], N at least 1. `predicted` int [N] are the answers where they
    are not simply the most probable classes.
    """
    classes = probabilities.shape[1]
    predicted = probabilities.argmax(axis=1) if predicted is None else predicted
    confusion = confusion_matrix(labels, predicted, classes)
    support, claimed = confusion.sum(axis=1), confusion.sum(axis=0)
    precision, recall, f1, present = class_figures(confusion)
    total = int(support.sum())
    by_chance = float((support * claimed.astype(np.float64)).sum())
    spread = math.sqrt(total**2 - float((claimed.astype(np.float64) ** 2).sum())) * math.sqrt(
        total**2 - float((support.astype(np.float64) ** 2).sum())
    )
    hits = float(np.trace(confusion))

    def mean(weights: Floats) -> ClassScores:
        p, r, f = (float(np.average(values, weights=weights)) for values in (precision, recall, f1))
        return ClassScores(p, r, f, total)

    return Summary(
        images=total,
        accuracy=hits / total,
        balanced_accuracy=float(recall[support > 0].mean()),
        mcc=(hits * total - by_chance) / spread if spread else 0.0,
        kappa=(hits * total - by_chance) / (total**2 - by_chance) if total**2 > by_chance else 0.0,
        top_k={k: top_k_accuracy(probabilities, labels, k) for k in (3, 5) if k < classes},
        loss=cross_entropy(probabilities, labels),
        classes=[
            ClassScores(float(p), float(r), float(f), int(s))
            for p, r, f, s in zip(precision, recall, f1, support, strict=True)
        ],
        macro=mean(present),
        weighted=mean(support.astype(np.float64)),
        confusion=confusion,
    )
