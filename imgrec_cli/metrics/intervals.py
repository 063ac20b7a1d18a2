"""How far a figure from few images may lie from the truth: 95 % intervals."""

import math
from collections.abc import Sequence

import numpy as np

Interval = tuple[float, float]
Z = 1.959963984540054  # the normal distribution's 97.5 % point


def wilson(hits: int, trials: int) -> Interval:
    """95 % interval of a share, such as accuracy, recall or precision (Wilson 1927); (0, 1) where nothing was tried."""
    if trials == 0:
        return 0.0, 1.0
    share, spread = hits / trials, Z * Z / trials
    centre = (share + spread / 2) / (1 + spread)
    half = math.sqrt(share * (1 - share) * spread + spread * spread / 4) / (1 + spread)
    # at the ends the formula gives 0 and 1 but for rounding
    return (0.0 if hits == 0 else centre - half), (1.0 if hits == trials else centre + half)


def f1_interval(true_positives: int, false_positives: int, false_negatives: int) -> Interval:
    """95 % interval of F1: Wilson's for F* = TP / (TP + FP + FN), of which F1 = 2 F* / (1 + F*) is a rising function
    (Lam, Gopal and Qian 2023, "Wilson indirect")."""
    low, high = wilson(true_positives, true_positives + false_positives + false_negatives)
    return 2 * low / (1 + low), 2 * high / (1 + high)


def t_interval(values: Sequence[float]) -> Interval:
    """95 % interval of the mean of a few values, such as the accuracies of several trainings (Student 1908).

    Raises ValueError for fewer than two.
    """
    if len(values) < 2:
        raise ValueError("one value has no spread")
    mean = float(np.mean(values))
    half = _t_point(len(values) - 1) * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return mean - half, mean + half


def welch(first: Sequence[float], second: Sequence[float]) -> tuple[float, Interval]:
    """Two-sided p value and 95 % interval of the difference of two means, second minus first (Welch 1947).

    Each takes two values or more. Where no value differs from the mean of its own the p value is 1 or 0.
    """
    difference = float(np.mean(second) - np.mean(first))
    parts = [float(np.var(values, ddof=1)) / len(values) for values in (first, second)]
    error = math.sqrt(sum(parts))
    if error == 0:
        return (1.0 if difference == 0 else 0.0), (difference, difference)
    freedom = sum(parts) ** 2 / sum(
        part**2 / (len(values) - 1) for part, values in zip(parts, (first, second), strict=True)
    )
    half = _t_point(freedom) * error
    return 2 * (1 - _t_share(abs(difference) / error, freedom)), (difference - half, difference + half)


def _t_share(t: float, freedom: float) -> float:
    """P(T < t) of Student's distribution for t ≥ 0: with t = √freedom · tan θ the density is a power of cos θ,
    integrated by 200 Gauss-Legendre points."""
    nodes, weights = np.polynomial.legendre.leggauss(200)

    def integral(to: float) -> float:
        return to / 2 * float((weights * np.cos(to * (nodes + 1) / 2) ** (freedom - 1)).sum())

    return 0.5 + integral(math.atan(t / math.sqrt(freedom))) / (2 * integral(math.pi / 2))


def _t_point(freedom: float) -> float:
    """Student's 97.5 % point, by halving."""
    low, high = 0.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_share(middle, freedom) < 0.975 else (low, middle)
    return (low + high) / 2
