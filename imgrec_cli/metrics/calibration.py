"""Do probabilities mean what they say? Temperature, calibration error, sets that hold the truth as often as asked."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]

BINS = 15  # as in Guo et al. 2017
LEAST_PROBABILITY = 1e-38  # the smallest that float32 holds in full precision; a softmax may round to 0
TEMPERATURES = 0.1, 10.0
COVERAGES = tuple(round(0.50 + 0.01 * step, 2) for step in range(50))  # 0.50 to 0.99


def with_temperature(probabilities: Floats, temperature: float) -> NDArray[np.float32]:
    """The softmax of logits divided by `temperature`, from the probabilities at temperature 1 (Guo et al. 2017).

    `probabilities` float [N, classes], rows sum to 1; the logarithm gives back the logits but for a constant of the
    row, which softmax does not see. Above 1 the answer becomes less sure, and the order of the classes stays.
    """
    if temperature == 1:
        return probabilities.astype(np.float32, copy=False)
    powers = np.log(np.maximum(probabilities, LEAST_PROBABILITY).astype(np.float64)) / temperature
    powers = np.exp(powers - powers.max(axis=1, keepdims=True))
    scaled: NDArray[np.float32] = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
    return scaled


def without_zeros(probabilities: Floats, step: float) -> NDArray[np.float32]:
    """Probabilities float [N, classes] that a model gives in multiples of `step`, with a quarter step in place of none.

    A 0 says no more than: less than half a step. Read as never, it would outweigh all else under a logarithm.
    """
    raised = np.maximum(probabilities, step / 4)
    rows: NDArray[np.float32] = (raised / raised.sum(axis=1, keepdims=True)).astype(np.float32)
    return rows


def fit_temperature(probabilities: Floats, labels: Ints) -> float:
    """The temperature with the smallest cross-entropy on these images, between 0.1 and 10.

    `probabilities` float [N, classes], `labels` int [N]. 1 where every answer is right: nothing then says how sure is
    too sure. The loss is convex in 1 / temperature: the root of its derivative is found by bisection.
    """
    if (probabilities.argmax(axis=1) == labels).all():
        return 1.0
    logits = np.log(np.maximum(probabilities, LEAST_PROBABILITY).astype(np.float64))
    logits -= logits.max(axis=1, keepdims=True)
    of_truth = float(logits[np.arange(len(labels)), labels].mean())
    low, high = 1 / TEMPERATURES[1], 1 / TEMPERATURES[0]
    for _ in range(50):
        middle = (low + high) / 2
        weights = np.exp(middle * logits)
        expected = float(((weights * logits).sum(axis=1) / weights.sum(axis=1)).mean())
        low, high = (low, middle) if expected > of_truth else (middle, high)
    return 2 / (low + high)


@dataclass(frozen=True, slots=True)
class Reliability:
    """Answers sorted into equal bins of confidence: [15] counts, mean confidence and share of right answers (0 in
    empty bins), and the mean gap between the two, weighted by count (ECE, Naeini et al. 2015)."""

    counts: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    error: float


def reliability(probabilities: Floats, labels: Ints) -> Reliability:
    """How often answers of a confidence are right; `probabilities` float [N, classes], `labels` int [N].

    Bins are closed above, so that a confidence of 1 lies in the last.
    """
    sure = probabilities.max(axis=1).astype(np.float64)
    right = (probabilities.argmax(axis=1) == labels).astype(np.float64)
    place = np.clip(np.ceil(sure * BINS).astype(np.int64) - 1, 0, BINS - 1)
    counts = np.bincount(place, minlength=BINS)
    filled = np.maximum(counts, 1)
    confidence = np.bincount(place, sure, BINS) / filled
    accuracy = np.bincount(place, right, BINS) / filled
    return Reliability(
        counts, confidence, accuracy, float((counts * np.abs(confidence - accuracy)).sum() / len(labels))
    )


def conformal_limits(probabilities: Floats, labels: Ints) -> list[float]:
    """For each of COVERAGES the probability that a class needs to be in the set (Sadinle, Lei and Wasserman 2019).

    A set of all classes at or above the limit holds the true one with at least that chance, for images like these.
    `probabilities` float [N, classes] and `labels` int [N] are of images that trained nothing. 0 where N is too small
    to promise so much.
    """
    of_truth = np.sort(probabilities[np.arange(len(labels)), labels].astype(np.float64))[::-1]
    limits = []
    for coverage in COVERAGES:
        rank = math.ceil((len(labels) + 1) * coverage - 1e-9)
        limits.append(float(of_truth[rank - 1]) if rank <= len(labels) else 0.0)
    return limits


def conformal_limit(limits: list[float], coverage: float) -> float:
    """The limit of the smallest of COVERAGES that is not below `coverage`, at most 0.99."""
    return limits[next(place for place, offered in enumerate(COVERAGES) if offered >= coverage - 1e-9)]
