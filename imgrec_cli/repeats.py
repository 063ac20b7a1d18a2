"""A run of several trainings, by folds or by seeds: what each scored, their mean and spread, folds put together."""

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from imgrec_cli.atomic import write_csv, write_json
from imgrec_cli.metrics.intervals import Interval, t_interval, wilson
from imgrec_cli.metrics.summary import summarize
from imgrec_cli.rundir import RecordedExample, Run

FIGURES = ("accuracy", "balanced_accuracy", "macro.f1", "mcc")


@dataclass(frozen=True, slots=True)
class Spread:
    """One figure of all trainings: its values, their mean and standard deviation, the 95 % t interval of the mean."""

    values: list[float]
    mean: float
    deviation: float
    interval: Interval

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Of two values or more."""
        return cls(list(values), float(np.mean(values)), float(np.std(values, ddof=1)), t_interval(values))


def spreads(parts: Sequence[Run], split: str) -> dict[str, Spread]:
    """The usual figures of judged trainings on a split, by name."""
    told = []
    for part in parts:
        figures = json.loads((part.evaluation_folder(split) / "metrics.json").read_text(encoding="utf-8"))
        told.append({**figures, "macro.f1": figures["macro"]["f1"]})
    return {name: Spread.of([figures[name] for figures in told]) for name in FIGURES}


def record(run: Run, kind: str, number: int) -> None:
    """Write into the run what its finished trainings scored; folds are put together into one evaluation of all images,
    each judged once, by the model that was not trained on it."""
    parts = [run.part(kind, place) for place in range(1, number + 1)]
    split = parts[0].record["scores"]["split"]
    found = spreads(parts, split)
    if kind == "folds":
        scores = _put_together(run, parts)
    else:
        scores = {
            "split": split,
            "images": parts[0].record["scores"]["images"],
            "accuracy": found["accuracy"].mean,
            "accuracy_interval": found["accuracy"].interval,
            "macro_f1": found["macro.f1"].mean,
        }
    repeats = {"kind": kind, "number": number, "figures": {name: asdict(one) for name, one in found.items()}}
    run.update_record(scores=scores, repeats=repeats)


def _put_together(run: Run, parts: Sequence[Run]) -> dict[str, Any]:
    rows: list[list[str]] = []
    examples: list[RecordedExample] = []
    for part in parts:
        with (part.evaluation_folder("test") / "predictions.csv").open(encoding="utf-8", newline="") as stream:
            header, *answers = csv.reader(stream)
        rows += answers
        examples += part.read_examples("test")
    names = [name.removeprefix("score:") for name in header if name.startswith("score:")]
    place = {name: number for number, name in enumerate(names)}
    scores = np.array([row[3 : 3 + len(names)] for row in rows], np.float64)
    labels, predicted = (np.array([place[row[column]] for row in rows], np.int64) for column in (1, 2))
    summary = summarize(scores, labels, predicted)
    interval = wilson(int((labels == predicted).sum()), len(labels))
    folder = run.evaluation_folder("test")
    folder.mkdir(parents=True, exist_ok=True)
    run.write_examples(examples)
    write_csv(folder / "predictions.csv", header, rows)
    figures = {
        "split": "test",
        "caveat": "",
        "images": len(rows),
        "accuracy": summary.accuracy,
        "accuracy_interval": interval,
        "balanced_accuracy": summary.balanced_accuracy,
        "mcc": summary.mcc,
        "kappa": summary.kappa,
        "macro": asdict(summary.macro),
        "weighted": asdict(summary.weighted),
        "classes": {name: asdict(summary.classes[label]) for name, label in place.items()},
        "confusion": {"rows": "true class", "columns": "predicted", "counts": summary.confusion.tolist()},
        "class_names": names,
    }
    write_json(folder / "metrics.json", figures)
    return {
        "split": "test",
        "images": len(rows),
        "accuracy": summary.accuracy,
        "accuracy_interval": interval,
        "macro_f1": summary.macro.f1,
    }
