"""What to look at first: the few sentences that a colleague would say after an hour with the figures."""

from collections import Counter
from collections.abc import Sequence

from imgrec_cli.reporting.facts import Facts

SURE = 0.9
FEW_TO_JUDGE = 30  # images of a class: below, its recall is hardly known


def findings(facts: Facts) -> list[str]:
    """Sentences about a run, the most useful first; each names its figures."""
    return [
        *_weakest(facts),
        *_confused(facts),
        *_labels_to_check(facts),
        *_more_images(facts),
        *_imbalance(facts),
        *_certainty(facts),
        *_memorised(facts),
        *_left_out(facts),
    ]


def percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"


def interval(bounds: Sequence[float]) -> str:
    return f"{100 * bounds[0]:.1f} to {100 * bounds[1]:.1f} %"


def weakest_classes(facts: Facts) -> list[str]:
    """Classes that were judged, the smallest recall first; between equal ones that with fewer images."""
    classes = facts.figures["classes"]
    judged = [name for name in facts.class_names if classes[name]["support"]]
    return sorted(judged, key=lambda name: (classes[name]["recall"], classes[name]["support"]))


def next_photographs(facts: Facts) -> list[dict[str, float | str | None]]:
    """Classes to photograph next, the most promising first: those with the most left to find, and, of these, those
    whose recall still rose with the second half of their images."""
    train = facts.counts()["train"]
    grown = facts.learning_curve["classes"] if facts.learning_curve else {}
    rows = []
    for name in weakest_classes(facts):
        figures, curve = facts.figures["classes"][name], grown.get(name, {})
        half, whole = curve.get("half"), curve.get("all")
        rise = whole - half if half is not None and whole is not None else None
        rows.append({"class": name, "images": train[name], "recall": figures["recall"], "rise": rise})
    return sorted(rows, key=lambda row: row["recall"] - max(row["rise"] or 0, 0))


def _weakest(facts: Facts) -> list[str]:
    names = weakest_classes(facts)
    if not names or facts.figures["classes"][names[0]]["recall"] == 1:
        return []
    figures = facts.figures["classes"][names[0]]
    low, high = figures["recall_interval"]
    few = " That is few images to judge by." if figures["support"] < FEW_TO_JUDGE else ""
    return [
        f"The weakest class is {names[0]}: {percent(figures['recall'])} of its {figures['support']} images were found "
        f"({percent(low)} to {percent(high)}).{few}"
    ]


def _confused(facts: Facts) -> list[str]:
    pairs = Counter((a.label, a.answer) for a in facts.answers if a.label != a.answer)
    if not pairs:
        return []
    (label, answer), count = pairs.most_common(1)[0]
    if count < 2:
        return []
    total = sum(pairs.values())
    return [f"Most often {label} is taken for {answer}: {count} of all {total} mistakes."]


def _labels_to_check(facts: Facts) -> list[str]:
    sure = sum(a.answer != a.label and a.confidence >= SURE for a in facts.answers)
    if not sure:
        return []
    are = "answer is wrong though its probability is" if sure == 1 else "answers are wrong though their probability is"
    return [f"{sure} {are} {percent(SURE)} or more. Look at these first: often it is the label that is wrong."]


def _more_images(facts: Facts) -> list[str]:
    curve = facts.learning_curve
    if curve is None or curve["gain_from_doubling"] is None:
        return []
    gain = curve["gain_from_doubling"]
    names = " and ".join(str(row["class"]) for row in next_photographs(facts)[:2])
    if gain < 0.005:
        return ["Twice as many photographs would hardly help; better labels, larger images or another network might."]
    points = f"{100 * gain:.1f} points"
    return [f"Twice as many photographs would add about {points} of accuracy (an estimate); begin with {names}."]


def _imbalance(facts: Facts) -> list[str]:
    train = facts.counts()["train"]
    if len(train) < 2:
        return []
    (most, many), (least, few) = train.most_common()[0], train.most_common()[-1]
    if many < 3 * few:
        return []
    return [f"The classes are uneven: {many:,} training images of {most}, {few:,} of {least}."]


def _certainty(facts: Facts) -> list[str]:
    calibration = facts.figures["calibration"]
    if calibration["ece"] < 0.05:
        return []
    sure = sum(b["images"] * b["confidence"] for b in calibration["bins"])
    right = sum(b["images"] * b["accuracy"] for b in calibration["bins"])
    how = "too sure of itself" if sure > right else "less sure than it could be"
    return [f"The model is {how}: its probabilities are off by {percent(calibration['ece'])} on average."]


def _memorised(facts: Facts) -> list[str]:
    best = facts.record.get("best_epoch")
    last = facts.epochs[-1] if facts.epochs else {}
    at_best = next((epoch for epoch in facts.epochs if epoch["epoch"] == best), None)
    if not at_best or last["epoch"] <= best or last["val/loss"] < 1.1 * at_best["val/loss"]:
        return []
    return [
        f"After epoch {best} the training images were learnt by heart: the loss on validation rose from "
        f"{at_best['val/loss']:.3f} to {last['val/loss']:.3f}. What is shipped are the weights of epoch {best}."
    ]


def _left_out(facts: Facts) -> list[str]:
    found = []
    if facts.skipped:
        found.append(f"{len(facts.skipped)} files were left out; the reasons stand under The data.")
    if identical := facts.identical_files():
        found.append(f"{len(identical)} files occur in two splits or under two labels.")
    return found
