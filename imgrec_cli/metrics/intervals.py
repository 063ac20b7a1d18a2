"""How far a figure from few images may lie from the truth: 95 % intervals."""

import math

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
