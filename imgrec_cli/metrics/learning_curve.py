"""Would more photographs help? The test score of a linear classifier on growing shares of the training features."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]

SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
DRAWS = 5  # of each share below the whole
# strengths that the leave-one-out error chooses from, in units of the features' mean variance
STRENGTHS = tuple(10.0**power for power in range(-5, 3))


@dataclass(frozen=True, slots=True)
class Point:
    """Mean, lowest and highest test accuracy over several draws of `images` training images, and the mean recall of
    each class [classes]; NaN for a class without test images."""

    images: int
    accuracy: float
    lowest: float
    highest: float
    recall: NDArray[np.float64]


def learning_curve(
    features: Floats, labels: Ints, test_features: Floats, test_labels: Ints, classes: int, seed: int
) -> list[Point]:
    """One point for each share of the training images, smallest first; each class keeps its share, at least one image.

    `features` float [N, d] and `labels` int [N] train, the others, float [M, d] and int [M], judge.
    """
    random = np.random.Generator(np.random.Philox(key=[seed, 1]))
    present = np.bincount(test_labels, minlength=classes)
    counts = np.bincount(labels, minlength=classes)
    points: list[Point] = []
    for share in SHARES:
        taken = np.minimum(np.maximum(np.round(share * counts).astype(int), 1), counts)
        images = int(taken.sum())
        if points and images <= points[-1].images:  # with few images of a class shares are the same
            continue
        accuracies, recalls = [], []
        for _ in range(DRAWS if share < 1 else 1):
            order = random.permutation(len(labels))
            rows = np.concatenate(
                [of_class[:most] for of_class, most in zip(_by_class(order, labels, classes), taken, strict=True)]
            )
            answers = ridge_classifier(features[rows], labels[rows], test_features, classes)
            right = answers == test_labels
            accuracies.append(right.mean())
            with np.errstate(invalid="ignore"):
                recalls.append(np.bincount(test_labels, right, classes) / present)
        points.append(
            Point(images, float(np.mean(accuracies)), min(accuracies), max(accuracies), np.mean(recalls, axis=0))
        )
    return points


def _by_class(order: Ints, labels: Ints, classes: int) -> list[Ints]:
    return [order[labels[order] == label] for label in range(classes)]


def ridge_classifier(features: Floats, labels: Ints, test_features: Floats, classes: int) -> Ints:
    """Answers int [M] of least squares on the classes' indicators with a penalty on the weights (ridge regression).

    Features are standardised by the training ones. The penalty is the one with the smallest leave-one-out error
    (Golub, Heath and Wahba 1979, with the exact diagonal of the hat matrix).
    """
    mean, deviation = features.mean(axis=0), features.std(axis=0)
    deviation = np.where(deviation < 1e-6 * max(float(deviation.max()), 1e-30), 1.0, deviation)
    x = ((features - mean) / deviation).astype(np.float64)
    targets = np.eye(classes)[labels]
    centre = targets.mean(axis=0)
    targets = targets - centre
    # from the smaller of the two square matrices: x = u · s · vᵀ
    if len(x) <= x.shape[1]:
        squared, u = np.linalg.eigh(x @ x.T)
        kept = squared > 1e-10 * squared[-1]
        squared, u = squared[kept], u[:, kept]
        v = x.T @ u / np.sqrt(squared)
    else:
        squared, v = np.linalg.eigh(x.T @ x)
        kept = squared > 1e-10 * squared[-1]
        squared, v = squared[kept], v[:, kept]
        u = x @ v / np.sqrt(squared)
    projected = u.T @ targets
    best, chosen = np.inf, np.zeros_like(squared)
    for strength in STRENGTHS:
        shrunk = squared / (squared + strength * len(x))
        left = targets - u @ (shrunk[:, None] * projected)
        # 1 / N for the mean that was taken away
        leverage = (u * u) @ shrunk + 1 / len(x)
        error = float(((left / np.maximum(1 - leverage, 1e-6)[:, None]) ** 2).mean())
        if error < best:
            best, chosen = error, shrunk
    weights = v @ ((chosen / np.sqrt(squared))[:, None] * projected)
    answers: Ints = (((test_features - mean) / deviation) @ weights + centre).argmax(axis=1)
    return answers


def gain_from_doubling(points: list[Point]) -> float | None:
    """What twice as many images would add to the accuracy, if the error keeps falling as a power of their number.

    None below three points, or where the error is zero. The line is the least squares fit of log error on log images.
    """
    known = [(point.images, 1 - point.accuracy) for point in points if point.accuracy < 1]
    if len(known) < 3:
        return None
    images, errors = np.log(np.array(known)).T
    slope = float(np.polyfit(images, errors, 1)[0])
    return float(known[-1][1] * (1 - 2.0 ** min(slope, 0.0)))
