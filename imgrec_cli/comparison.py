"""Two or more runs judged on the same images: how far apart they are, and whether that is more than chance."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from imgrec_cli.bundle import Manifest
from imgrec_cli.errors import InputError
from imgrec_cli.evaluation import CAVEATS
from imgrec_cli.judged import Judged, Key
from imgrec_cli.metrics.intervals import Interval, t_interval, welch, wilson
from imgrec_cli.metrics.paired import (
    SIGNIFICANT,
    Floats,
    Tallies,
    bootstrap_p,
    holm,
    mcnemar,
    percentile_interval,
    resampled,
    tallies,
)
from imgrec_cli.repeats import FIGURES
from imgrec_cli.rundir import Run

_KINDS = (
    *FIGURES,
    "kappa",
    *(f"{mean}.{of}" for mean in ("macro", "weighted") for of in ("precision", "recall", "f1")),
)


@dataclass(frozen=True, slots=True)
class Difference:
    """One figure of two runs: `difference` is new minus base, `interval` its 95 % interval by the paired bootstrap.

    `p` is the p value of McNemar's exact test for accuracy and recalls, of the bootstrap for others; where several
    tests belong together (several new runs, the recalls of all classes) it is Holm's. Of runs of several seeds, base
    and new are means over the trainings, and interval and p value are Welch's.
    """

    figure: str
    base: float
    new: float
    difference: float
    interval: Interval
    p: float

    @property
    def is_real(self) -> bool:
        return self.p < SIGNIFICANT

    @property
    def verdict(self) -> str:
        """The same in words."""
        if not self.is_real:
            return "no real difference"
        return "really better" if self.difference > 0 else "really worse"


@dataclass(frozen=True, slots=True)
class Against:
    """One new run beside the base: overall figures, the recall of every class, and on how many images one alone was
    right (None for runs of several seeds)."""

    name: str
    figures: list[Difference]
    recalls: list[Difference]
    only_base: int | None
    only_new: int | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """All runs on the images that all of them were judged on.

    `figures` holds for each run name → (value, 95 % interval). `trainings` counts those behind each run. `notes` say
    what was not the same.
    """

    split: str
    caveat: str
    images: int
    names: list[str]
    trainings: list[int]
    class_names: list[str]
    figures: list[dict[str, tuple[float, Interval]]]
    against: list[Against]
    costs: list[dict[str, float | None]]
    notes: list[str]


def _cost(run: Run | None) -> dict[str, float | None]:
    """What a run took and weighs: seconds in all, epochs, parameters, bytes of the model, milliseconds an image where
    they are known."""
    if run is None:
        return dict.fromkeys(("seconds", "epochs", "parameters", "bytes", "milliseconds"))
    record = run.record
    if repeats := record.get("repeats"):
        first = _cost(run.part(repeats["kind"], 1))
        return {**first, "seconds": record.get("seconds"), "epochs": None}
    layers = json.loads(run.layers_file.read_text(encoding="utf-8")) if run.layers_file.is_file() else None
    manifest = Manifest.read(run.bundle_folder) if run.bundle_folder.is_dir() else None
    return {
        "seconds": record.get("seconds"),
        "epochs": len(run.read_metrics()) or None,
        "parameters": sum(row["parameters"] for row in layers) if layers else None,
        "bytes": manifest.model_bytes if manifest else None,
        "milliseconds": manifest.parity.milliseconds if manifest else None,
    }


def compare(judged: Sequence[Judged], wanted: Sequence[str] = ()) -> Comparison:
    """Compare the first of two or more evaluations with each other one, on the images that all have.

    `wanted` are figures beside the usual ones, such as f1.CLASS. Images are the same where their files' content is, or
    their path where no content is known. Raises InputError where classes or all images differ.
    """
    judged = _named_apart(judged)
    names = judged[0].class_names
    for other in judged[1:]:
        if set(other.class_names) != set(names):
            lacking = ", ".join(sorted(set(names) ^ set(other.class_names))[:10])
            raise InputError(
                f"{other.name}: its classes are not those of {judged[0].name}: {lacking} only in one of them",
                "compare runs on the same classes",
            )
    if len({one.by_content for one in judged}) > 1:
        judged = [_by_path(one) for one in judged]
    keys, notes = _common(judged)
    place = {name: number for number, name in enumerate(names)}
    labels = np.array([place[judged[0].answers[key][0]] for key in keys], np.int64)
    trainings = [len(next(iter(one.answers.values()))[1]) for one in judged]
    # int64 [trainings, N] of each run
    answers = [np.array([[place[a] for a in one.answers[key][1]] for key in keys], np.int64).T for one in judged]
    for figure in wanted:
        _parsed(figure, names)
    shown = list(dict.fromkeys([*FIGURES, *wanted]))
    if max(trainings) == 1:
        singles = [answer[0] for answer in answers]
        measured = tallies(labels, singles, len(names))
        drawn = resampled(labels, singles, len(names))
        figures = [
            {figure: _with_interval(figure, names, one, many) for figure in shown}
            for one, many in zip(measured, drawn, strict=True)
        ]
        against = [
            _against(number, judged[number].name, labels, singles, measured, drawn, shown, names)
            for number in range(1, len(judged))
        ]
    elif min(trainings) == 1:
        single, several = (judged[trainings.index(count)].name for count in (1, max(trainings)))
        raise InputError(
            f"{several} is {max(trainings)} trainings, {single} is one",
            f"train {single} with --seeds too, or name one training, such as {several}/seeds/1",
        )
    else:
        repeated = [tallies(labels, list(answer), len(names)) for answer in answers]
        figures = [{figure: _mean(figure, names, many) for figure in shown} for many in repeated]
        against = [
            _against_seeds(judged[number].name, repeated[0], repeated[number], shown, names)
            for number in range(1, len(judged))
        ]
    splits = [one.split.removesuffix("-tta") for one in judged]
    return Comparison(
        split=judged[0].split if len({one.split for one in judged}) == 1 else "several splits",
        caveat="; ".join(dict.fromkeys(CAVEATS[split] for split in splits if split in CAVEATS)),
        images=len(keys),
        names=[one.name for one in judged],
        trainings=trainings,
        class_names=names,
        figures=figures,
        against=_adjusted(against),
        costs=[_cost(one.run) for one in judged],
        notes=notes,
    )


def _named_apart(judged: Sequence[Judged]) -> list[Judged]:
    """The same with names that differ."""

    names = [one.name for one in judged]
    if len(set(names)) == len(names):
        return list(judged)
    return [replace(one, name=f"{one.name} ({number})") for number, one in enumerate(judged, 1)]


def _by_path(one: Judged) -> Judged:

    keys = {key: (one.shown[key], 0) for key in one.answers}
    return replace(
        one,
        by_content=False,
        answers={keys[key]: answer for key, answer in one.answers.items()},
        shown={keys[key]: path for key, path in one.shown.items()},
    )


def _common(judged: Sequence[Judged]) -> tuple[list[Key], list[str]]:
    """The images that all have under one label, in a stable order, and what there is to say about the others."""
    keys = set.intersection(*(set(one.answers) for one in judged))
    if not keys:
        raise InputError(
            f"{' and '.join(one.name for one in judged)}: no image is among those that all were judged on",
            "judge them on the same images: imgrec evaluate -m RUN --data DIR for each, then compare their folders "
            "RUN/evaluation/data-…",
        )
    notes = []
    if any(len(one.answers) != len(keys) for one in judged):
        counts = ", ".join(f"{len(one.answers):,} of {one.name}" for one in judged)
        notes.append(f"the images are not the same: compared on the {len(keys):,} that all have, of {counts}")
    if not judged[0].by_content:
        notes.append("images are matched by their paths: that their content is the same is not known")
    unequal = {key for key in keys if len({one.answers[key][0] for one in judged}) > 1}
    if unequal:
        example = judged[0].shown[min(unequal)]
        notes.append(f"{len(unequal):,} images have another label in another run and are left out, such as {example}")
        keys -= unequal
        if not keys:
            raise InputError(
                f"{' and '.join(one.name for one in judged)}: no image has the same label in all",
                "compare runs on the same labels",
            )
    return sorted(keys), notes


def _parsed(figure: str, names: list[str]) -> tuple[str, int | None]:
    """A figure's name as Tallies takes it. Raises InputError for one that does not exist."""
    kind, _, rest = figure.partition(".")
    if figure in _KINDS:
        return figure, None
    if kind in ("precision", "recall", "f1") and rest in names:
        return kind, names.index(rest)
    raise InputError(
        f"{figure}: no such figure",
        f"{', '.join(_KINDS)}, or of one class f1.CLASS, recall.CLASS, precision.CLASS with one of "
        f"{', '.join(names[:20])}",
    )


def _with_interval(figure: str, names: list[str], measured: Tallies, drawn: Tallies) -> tuple[float, Interval]:
    kind, label = _parsed(figure, names)
    value = float(measured.figure(kind, label))
    if figure == "accuracy":
        return value, wilson(int(measured.hits.sum()), int(measured.support.sum()))
    if kind == "recall" and label is not None:
        return value, wilson(int(measured.hits[label]), int(measured.support[label]))
    return value, percentile_interval(drawn.figure(kind, label))


def _against(
    number: int,
    name: str,
    labels: NDArray[np.int64],
    answers: list[NDArray[np.int64]],
    measured: list[Tallies],
    drawn: list[Tallies],
    shown: Sequence[str],
    names: list[str],
) -> Against:
    """The run at `number` beside the first."""
    right_base, right_new = answers[0] == labels, answers[number] == labels

    def exact(where: NDArray[np.bool_]) -> float:
        only_base = int((right_base & ~right_new & where).sum())
        return mcnemar(only_base, int((right_new & ~right_base & where).sum()))

    def difference(figure: str) -> Difference:
        kind, label = _parsed(figure, names)
        base, new = (float(measured[place].figure(kind, label)) for place in (0, number))
        spread: Floats = drawn[number].figure(kind, label) - drawn[0].figure(kind, label)
        if figure == "accuracy":
            p = exact(np.ones(len(labels), bool))
        elif kind == "recall" and label is not None:
            p = exact(labels == label)
        else:
            p = bootstrap_p(spread)
        return Difference(figure, base, new, new - base, percentile_interval(spread), p)

    return Against(
        name,
        [difference(figure) for figure in shown],
        [difference(f"recall.{class_name}") for class_name in names],
        int((right_base & ~right_new).sum()),
        int((right_new & ~right_base).sum()),
    )


def _values(figure: str, names: list[str], trainings: list[Tallies]) -> list[float]:
    return [float(one.figure(*_parsed(figure, names))) for one in trainings]


def _mean(figure: str, names: list[str], trainings: list[Tallies]) -> tuple[float, Interval]:
    values = _values(figure, names, trainings)
    return float(np.mean(values)), t_interval(values)


def _against_seeds(
    name: str, base: list[Tallies], new: list[Tallies], shown: Sequence[str], names: list[str]
) -> Against:
    """Several trainings beside several of the base."""

    def difference(figure: str) -> Difference:
        before, after = _values(figure, names, base), _values(figure, names, new)
        p, interval = welch(before, after)
        mean_before, mean_after = float(np.mean(before)), float(np.mean(after))
        return Difference(figure, mean_before, mean_after, mean_after - mean_before, interval, p)

    recalls = [difference(f"recall.{class_name}") for class_name in names]
    return Against(name, [difference(figure) for figure in shown], recalls, None, None)


def _adjusted(against: list[Against]) -> list[Against]:
    """The same with Holm's p values: a figure over all new runs, the recalls of a run over all classes and runs."""

    figures = [list(row) for row in zip(*(one.figures for one in against), strict=True)]
    for row in figures:
        row[:] = [replace(d, p=p) for d, p in zip(row, holm([d.p for d in row]), strict=True)]
    recalls = [d for one in against for d in one.recalls]
    recalls = [replace(d, p=p) for d, p in zip(recalls, holm([d.p for d in recalls]), strict=True)]
    count = len(against[0].recalls)
    return [
        replace(
            one,
            figures=[row[number] for row in figures],
            recalls=recalls[number * count : (number + 1) * count],
        )
        for number, one in enumerate(against)
    ]
