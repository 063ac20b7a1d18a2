"""Facts → `report.html`: one file, no script, no network."""

from collections import defaultdict
from dataclasses import dataclass
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

import numpy as np

from imgrec_cli.atomic import write_text
from imgrec_cli.reporting import plots
from imgrec_cli.reporting.facts import SPLITS, Answer, Facts, read_facts
from imgrec_cli.reporting.findings import findings, interval, next_photographs, percent, weakest_classes
from imgrec_cli.reporting.pictures import Pictures
from imgrec_cli.rundir import Run

SHOWN = 12  # worst mistakes, and as many of the least sure
SHOWN_PER_CELL = 6
LARGEST_MATRIX = 40  # classes
LARGEST_TABLE = 60  # rows of a plot's numbers, or classes in a table that is open from the start
WEAKEST = 20  # classes that are shown of more


@dataclass(frozen=True)
class Plot:
    """A plot, what it says in words, and its numbers as a table."""

    title: str
    svg: str
    alternative: str
    header: list[str]
    rows: list[list[str]]


def write_report(run: Run, file: Path | None = None, *, images: bool = True) -> Path:
    """Write the page of a finished run and return its path, `report.html` in the run by default.

    With `images` the page embeds pictures, at most 3 MB of them. Raises InputError where the run was not judged yet.
    """
    import jinja2

    facts = read_facts(run)
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters.update(percent=percent, interval=interval, shown=_shown)
    here = resources("imgrec_cli.reporting")
    template = environment.from_string((here / "report.html.j2").read_text(encoding="utf-8"))
    style = (here / "report.css").read_text(encoding="utf-8")
    pictures = Pictures(facts.files(), facts.manifest.pixels, wanted=images)
    page = template.render(style=style, images=images, **_content(facts, pictures))
    target = file or run.report_file
    write_text(target, page)
    return target


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _content(facts: Facts, pictures: Pictures) -> dict[str, Any]:
    figures = facts.figures
    worst, unsure = facts.worst_mistakes(SHOWN), facts.least_sure(SHOWN)
    cells = _cells(facts)
    pictures.read(a.path for a in [*worst, *unsure, *(a for answers in cells.values() for a in answers)])
    chosen = [_card(facts, pictures, answer, explained=True) for answer in worst]
    least = [_card(facts, pictures, answer, explained=True) for answer in unsure]
    shown_cells = {
        place: [_card(facts, pictures, answer, explained=False) for answer in answers]
        for place, answers in cells.items()
    }
    curves = plots.one_against_rest("curves", facts.scores, facts.labels, facts.class_names)
    return {
        "name": facts.record.get("name", facts.run.name),
        "split": facts.split,
        "figures": figures,
        "record": facts.record,
        "findings": findings(facts),
        "training": _training_plots(facts),
        "recall": _recall_plot(facts),
        "curves": curves,
        "class_names": facts.class_names,
        "weakest": weakest_classes(facts)[:WEAKEST] if len(facts.class_names) > LARGEST_TABLE else None,
        "matrix": _matrix(facts) if len(facts.class_names) <= LARGEST_MATRIX else None,
        "pairs": _pairs(facts),
        "cells": shown_cells,
        "worst": chosen,
        "least_sure": least,
        "calibration": _calibration_plot(facts),
        "abstention": _abstention_plot(facts),
        "unfamiliar": _unfamiliar_plot(facts),
        "stress": _stress_plot(facts),
        "stress_facts": facts.stress,
        "splits": SPLITS,
        "counts": facts.counts(),
        "skipped": facts.skipped[:50],
        "skipped_count": len(facts.skipped),
        "audit": facts.audited(),
        "identical": facts.identical_files()[:50],
        "augmented": pictures.sheet(facts.run.augmented_file),
        "layers": facts.layers,
        "more_images": _learning_plot(facts),
        "next_photographs": next_photographs(facts)[:10],
        "learning_curve": facts.learning_curve,
        "config": facts.without_paths(facts.config),
        "overrides": [facts.without_paths(str(text)) for text in facts.record.get("overrides", [])],
        "manifest": facts.manifest,
        "missing": len(pictures.missing),
    }


def _cells(facts: Facts) -> dict[tuple[int, int], list[Answer]]:
    """The images behind every cell of the confusion matrix that has some: the surest of each."""
    index = {name: label for label, name in enumerate(facts.class_names)}
    found: dict[tuple[int, int], list[Answer]] = defaultdict(list)
    if len(facts.class_names) > LARGEST_MATRIX:
        return {}
    for answer in sorted(facts.answers, key=lambda a: -a.confidence):
        cell = found[index[answer.label], index[answer.answer]]
        if len(cell) < SHOWN_PER_CELL:
            cell.append(answer)
    return dict(sorted(found.items()))


def _card(facts: Facts, pictures: Pictures, answer: Answer, *, explained: bool) -> dict[str, Any]:
    strength = facts.maps.get(answer.path) if explained else None
    return {
        "answer": answer,
        "right": answer.answer == answer.label,
        "picture": pictures.plain(answer.path),
        "overlay": None if strength is None else pictures.explained(answer.path, strength),
    }


def _training_plots(facts: Facts) -> list[Plot]:
    epochs = facts.epochs
    if not epochs:
        return []
    numbers = [epoch["epoch"] for epoch in epochs]
    best = facts.record.get("best_epoch")

    def plot(title: str, y: str, keys: dict[str, str], *, shares: bool = False) -> Plot:
        series = {label: (numbers, [epoch[key] for epoch in epochs]) for label, key in keys.items()}
        svg = plots.lines(f"training-{title}", series, "epoch", y, shares=shares)
        ends = "; ".join(
            f"{label} from {_number(values[0], shares)} to {_number(values[-1], shares)}"
            for label, (_, values) in series.items()
        )
        rows = [
            [str(epoch["epoch"]), *(_number(epoch[key], shares) for key in keys.values())]
            for epoch in epochs[-LARGEST_TABLE:]
        ]
        return Plot(
            title, svg, f"{title} over {len(epochs)} epochs: {ends}. Best epoch {best}.", ["epoch", *keys], rows
        )

    return [
        plot("Loss", "loss", {"training": "train/loss", "validation": "val/loss"}),
        plot("Accuracy", "accuracy", {"training": "train/accuracy", "validation": "val/accuracy"}, shares=True),
        plot("Learning rate", "learning rate", {"learning rate": "lr"}),
        plot("Speed", "images/s", {"images/s": "images_per_second"}),
    ]


def _number(value: float, share: bool = False) -> str:
    return percent(value) if share else f"{value:.4g}"


def _recall_plot(facts: Facts) -> Plot | None:
    judged = [(name, facts.figures["classes"][name]) for name in facts.class_names]
    rows = [(name, f["recall"], tuple(f["recall_interval"])) for name, f in judged if f["support"]]
    if not 0 < len(rows) <= LARGEST_MATRIX:
        return None
    svg = plots.intervals("recall", rows, "recall")
    low, high = min(rows, key=lambda row: row[1]), max(rows, key=lambda row: row[1])
    text = f"Recall of {len(rows)} classes, from {percent(low[1])} ({low[0]}) to {percent(high[1])} ({high[0]})."
    return Plot("Recall with 95 % interval", svg, text, [], [])


def _matrix(facts: Facts) -> list[list[dict[str, Any]]]:
    counts = np.array(facts.figures["confusion"]["counts"])
    totals = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return [
        [{"count": int(count), "share": float(share)} for count, share in zip(row, shares, strict=True)]
        for row, shares in zip(counts, counts / totals, strict=True)
    ]


def _pairs(facts: Facts) -> list[tuple[str, str, int]]:
    """The classes most often taken for another."""
    counts = np.array(facts.figures["confusion"]["counts"])
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[:15]
    places = [divmod(int(place), len(counts)) for place in order]
    names = facts.class_names
    return [(names[row], names[column], int(counts[row, column])) for row, column in places if counts[row, column]]


def _calibration_plot(facts: Facts) -> Plot:
    calibration = facts.figures["calibration"]
    svg = plots.reliability("reliability", calibration["bins_before"], calibration["bins"])
    text = (
        f"Share of right answers against confidence. The mean gap is {percent(calibration['ece_before'])} before and "
        f"{percent(calibration['ece'])} after the temperature of {calibration['temperature']:.3f}."
    )
    rows = [
        [percent(b["confidence"]), percent(b["accuracy"]), f"{b['images']:,}"]
        for b in calibration["bins"]
        if b["images"]
    ]
    return Plot("Reliability", svg, text, ["mean confidence", "right", "images"], rows)


def _abstention_plot(facts: Facts) -> Plot:
    rows = [row for row in facts.figures["abstention"] if row["accuracy"] is not None]
    answered, accuracy = [100 * row["answered"] for row in rows], [row["accuracy"] for row in rows]
    svg = plots.lines("abstention", {"accuracy": (answered, accuracy)}, "answered, %", "accuracy", shares=True)
    text = "; ".join(
        f"from {row['min_confidence']:g}: {percent(row['answered'])} answered, {percent(row['accuracy'])} right"
        for row in rows[-3:]
    )
    table = [[f"{r['min_confidence']:g}", percent(r["answered"]), percent(r["accuracy"])] for r in rows]
    header = ["least confidence", "answered", "accuracy"]
    return Plot(
        "Answering only when sure", svg, f"Accuracy against the share of images answered: {text}.", header, table
    )


def _unfamiliar_plot(facts: Facts) -> Plot | None:
    found = facts.figures["unfamiliar"]
    values = np.array([answer.unfamiliarity for answer in facts.answers])
    if found is None or np.isnan(values).all():
        return None
    svg = plots.histogram("unfamiliar", values, found["above"], "unfamiliarity", "limit")
    text = (
        f"Unfamiliarity of {len(values):,} images, median {np.median(values):.3f}; {percent(found['flagged'])} lie "
        f"above the limit of {found['above']:.3f} and would be called unfamiliar."
    )
    return Plot("Unfamiliarity", svg, text, [], [])


def _stress_plot(facts: Facts) -> Plot | None:
    stress = facts.stress
    if stress is None:
        return None
    strengths = list(range(1, 6))
    series = {
        kind["name"]: ([0, *strengths], [stress["accuracy"], *(level["accuracy"] for level in kind["levels"])])
        for kind in stress["kinds"]
    }
    svg = plots.lines("stress", series, "strength", "accuracy", shares=True)
    worst = min(stress["kinds"], key=lambda kind: min(level["accuracy"] for level in kind["levels"]))
    least = min(level["accuracy"] for level in worst["levels"])
    text = (
        f"Accuracy under {len(series)} kinds of disturbance at five strengths, from {percent(stress['accuracy'])} "
        f"undisturbed down to {percent(least)} for {worst['name']}."
    )
    return Plot("Robustness", svg, text, [], [])


def _learning_plot(facts: Facts) -> Plot | None:
    curve = facts.learning_curve
    if curve is None:
        return None
    points = curve["points"]
    series = {"accuracy": ([p["images"] for p in points], [p["accuracy"] for p in points])}
    svg = plots.lines("more-images", series, "training images", "accuracy", shares=True, log_x=True)
    text = "; ".join(f"{p['images']:,} images {percent(p['accuracy'])}" for p in points)
    rows = [[f"{p['images']:,}", percent(p["accuracy"]), interval([p["lowest"], p["highest"]])] for p in points]
    header = ["training images", "accuracy", "lowest to highest draw"]
    return Plot("Test accuracy and training images", svg, f"Accuracy against training images: {text}.", header, rows)
