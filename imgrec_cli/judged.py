"""Evaluations that were kept, read back: true class and answer by image."""

import csv
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

from imgrec_cli.errors import InputError
from imgrec_cli.rundir import Run

Key = tuple[str, int]  # the digest of an image's file, else its path; and which of several equal ones it is


@dataclass(frozen=True, slots=True)
class Judged:
    """One evaluation that was kept: true class and answer by image.

    `answers` has one answer of each training: several for a run of several seeds. `by_content` is whether images are
    known by the digests of their files; `shown` maps them to their paths.
    """

    name: str
    split: str
    class_names: list[str]
    answers: dict[Key, tuple[str, tuple[str, ...]]]
    shown: dict[Key, str]
    by_content: bool
    run: Run | None


def read_judged(path: Path, split: str) -> Judged:
    """The evaluation of a run on `split` (as its folder below `evaluation/` is called), or that in a folder itself.

    Raises InputError where there is none.
    """
    if (path / "run.json").is_file():
        run: Run | None = Run.open(path)
        repeats = Run(path).record.get("repeats", {})
        if repeats.get("kind") == "seeds":
            return _of_seeds(path, repeats["number"], split)
        folder = path / "evaluation" / split
        if not (folder / "predictions.csv").is_file():
            kept = sorted(found.parent.name for found in (path / "evaluation").glob("*/predictions.csv"))
            hint = f"judge it: imgrec evaluate -m {path} --split {split}" if split in ("test", "validation") else ""
            hint = hint or (f"it was judged on {', '.join(kept)}: --split {kept[0]}" if kept else "")
            raise InputError(f"{path}: not judged on {split}", hint)
    elif (path / "predictions.csv").is_file():
        folder = path
        owner = path.resolve().parents[1]
        run = Run.open(owner) if (owner / "run.json").is_file() else None
    else:
        raise InputError(
            f"{path}: neither a run nor an evaluation of one",
            "name runs, or folders with a predictions.csv such as runs/RUN/evaluation/test",
        )
    with (folder / "predictions.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.reader(stream))
    class_names = [name.removeprefix("score:") for name in next(iter(rows), []) if name.startswith("score:")]
    known = {*class_names}
    for number, row in enumerate(rows or [[]], 1):
        fits = (
            row[:3] == ["path", "label", "predicted"] and known
            if number == 1
            else len(row) > 2 and {row[1], row[2]} <= known
        )
        if not fits:
            raise InputError(
                f"{folder / 'predictions.csv'}:{number}: not as imgrec evaluate writes it", "judge it again"
            )
    digests = _digests(run, folder.name)
    by_content = bool(digests) and all(digests.get(row[0]) for row in rows[1:])
    seen: defaultdict[str, int] = defaultdict(int)
    answers: dict[Key, tuple[str, tuple[str, ...]]] = {}
    shown: dict[Key, str] = {}
    for row in sorted(rows[1:], key=lambda row: row[0]):
        identity = digests[row[0]] if by_content else row[0]
        key = identity, seen[identity]
        seen[identity] += 1
        answers[key], shown[key] = (row[1], (row[2],)), row[0]
    name = path.name if (path / "run.json").is_file() or run is None else f"{run.name}/{path.name}"
    return Judged(name, folder.name, class_names, answers, shown, by_content, run)


def _of_seeds(path: Path, number: int, split: str) -> Judged:
    """All trainings of a run of several seeds, on the images that all were judged on."""
    run = Run.open(path)
    parts = [read_judged(run.part("seeds", place).folder, split) for place in range(1, number + 1)]
    first = parts[0]
    answers = {
        key: (label, tuple(part.answers[key][1][0] for part in parts))
        for key, (label, _) in first.answers.items()
        if all(key in part.answers for part in parts)
    }
    if not answers:
        raise InputError(f"{path}: its trainings were judged on different images", "judge each on the same: --data DIR")
    return replace(first, name=path.name, answers=answers, run=run)


def _digests(run: Run | None, evaluation: str) -> dict[str, str]:
    """Path → digest of the images of a split of the run; empty for images from elsewhere."""
    if run is None or not run.examples_file.is_file():
        return {}
    return {example.path: example.digest for example in run.read_examples(evaluation.removesuffix("-tta"))}
