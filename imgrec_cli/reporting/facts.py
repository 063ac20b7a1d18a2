"""What the files of a run say, read once: no figure is computed here that evaluation has not written."""

import csv
import json
import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgrec_cli.bundle import Manifest
from imgrec_cli.errors import InputError
from imgrec_cli.rundir import RecordedExample, Run
from imgrec_cli.storage import File, located

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Answer:
    """One line of `predictions.csv`: an image, its class by its folder, the class answered and its probability."""

    path: str
    label: str
    answer: str
    confidence: float
    largest: float
    unfamiliarity: float


@dataclass(frozen=True)
class Facts:
    """Everything the page tells of; what a run does not have is empty or None."""

    run: Run
    record: dict[str, Any]
    manifest: Manifest
    split: str
    figures: dict[str, Any]
    answers: list[Answer]
    scores: NDArray[np.float32]
    epochs: list[dict[str, Any]]
    examples: dict[str, list[RecordedExample]]
    skipped: list[dict[str, str]]
    audit: list[dict[str, Any]] | None
    layers: list[dict[str, Any]]
    learning_curve: dict[str, Any] | None
    stress: dict[str, Any] | None
    maps: dict[str, NDArray[np.uint8]]
    config: str

    @property
    def class_names(self) -> list[str]:
        return self.manifest.class_names

    @property
    def labels(self) -> NDArray[np.int64]:
        """Index int64 [N] of every answer's true class."""
        index = {name: label for label, name in enumerate(self.class_names)}
        return np.array([index[answer.label] for answer in self.answers], np.int64)

    def files(self) -> dict[str, File]:
        """Path in the data → file of the images that were judged."""
        return {example.path: located(example.file) for example in self.examples.get(self.split, [])}

    def worst_mistakes(self, count: int) -> list[Answer]:
        """The wrong answers that were surest, surest first."""
        wrong = [answer for answer in self.answers if answer.answer != answer.label]
        return sorted(wrong, key=lambda answer: -answer.confidence)[:count]

    def least_sure(self, count: int) -> list[Answer]:
        """The images with the smallest largest probability, least sure first."""
        return sorted(self.answers, key=lambda answer: answer.largest)[:count]

    def counts(self) -> dict[str, Counter[str]]:
        """Images of each class by split."""
        return {split: Counter(example.label for example in self.examples.get(split, [])) for split in SPLITS}

    def identical_files(self) -> list[tuple[str, list[str]]]:
        """Files that are equal byte by byte and lie in two splits or under two labels: why, and where."""
        by_digest: dict[str, list[RecordedExample]] = defaultdict(list)
        for examples in self.examples.values():
            for example in examples:
                if example.digest:
                    by_digest[example.digest].append(example)
        found = []
        for same in by_digest.values():
            labels, splits = {e.label for e in same}, {e.split for e in same}
            if len(labels) > 1 or len(splits) > 1:
                why = "two labels" if len(labels) > 1 else "two splits"
                found.append((why, [f"{e.split}: {e.path}" for e in same]))
        return sorted(found)

    def audited(self) -> list[dict[str, Any]] | None:
        """What may be wrong with the images, the worst first, without absolute paths; None for a run that kept none."""
        if self.audit is None:
            return None
        cut = self.without_paths
        return [
            {
                **finding,
                "message": cut(finding["message"]),
                "fix": cut(finding["fix"]),
                "examples": [[cut(_inside(name)) for name in group] for group in finding["examples"]],
            }
            for finding in self.audit
        ]

    def without_paths(self, text: str) -> str:
        """A text with every absolute path cut to its last part: the page goes to others."""
        for folder in self._folders():
            last = "…/" + re.split(r"[/\\]", folder)[-1]
            text = re.sub(re.escape(folder) + r"(?![\w/\\])", lambda _, last=last: last, text)  # type: ignore[misc]
        return re.sub(r"(?<![\w.…/\\])(?:[A-Za-z]:[\\/]|~?/)[^,}\]\"'#\n]*[\\/]([^,}\]\"'#\n\\/]+)", r"…/\1", text)

    def _folders(self) -> list[str]:
        """The folders that hold the class folders of the images, longest first."""
        found = set()
        for examples in self.examples.values():
            for example in examples[:1]:
                file = example.file.replace("\\", "/")
                if file.endswith(example.path):
                    found.add(example.file[: -len(example.path) - 1])
        return sorted(found, key=len, reverse=True)


def read_facts(run: Run) -> Facts:
    """Read a finished run and its evaluation on the split that its scores are of.

    Raises InputError where the run has no bundle or was not judged.
    """
    record = run.record
    split = record.get("scores", {}).get("split", "test")
    folder = run.evaluation_folder(split)
    if not (folder / "metrics.json").is_file() or not run.bundle_folder.is_dir():
        raise InputError(
            f"{run.folder}: not judged on {split} yet; its status is {record.get('status')}",
            f"judge it: imgrec evaluate -m {run.folder} --split {split}",
        )
    manifest = Manifest.read(run.bundle_folder)
    answers, scores = _answers(folder / "predictions.csv", manifest.class_names)
    return Facts(
        run=run,
        record=record,
        manifest=manifest,
        split=split,
        figures=_json(folder / "metrics.json"),
        answers=answers,
        scores=scores,
        epochs=run.read_metrics(),
        examples={name: run.read_examples(name) for name in SPLITS} if run.examples_file.is_file() else {},
        skipped=_csv(run.skipped_file),
        audit=_json(run.audit_file),
        layers=_json(run.layers_file) or [],
        learning_curve=_json(run.learning_curve_file) if split == "test" else None,
        stress=_json(run.stress_file(split)),
        maps=_maps(run.explanations_file(split)),
        config=run.config_file.read_text(encoding="utf-8") if run.config_file.is_file() else "",
    )


def _answers(file: Path, names: list[str]) -> tuple[list[Answer], NDArray[np.float32]]:
    answers, scores = [], []
    with file.open(encoding="utf-8", newline="") as stream:
        lines = csv.reader(stream)
        header = next(lines)
        first, place = header.index(f"score:{names[0]}"), {name: number for number, name in enumerate(names)}
        for line in lines:
            row = np.array(line[first : first + len(names)], np.float32)
            scores.append(row)
            confidence = float(row[place[line[2]]])
            answers.append(Answer(line[0], line[1], line[2], confidence, float(row.max()), float(line[-1])))
    return answers, np.stack(scores)


def _json(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def _inside(name: str) -> str:
    """The short name of an image; of one outside the data's folder, as a manifest may name, the last parts."""
    return "…/" + "/".join(name.split("/")[-2:]) if name.startswith("../") else name


def _csv(file: Path) -> list[dict[str, str]]:
    if not file.is_file():
        return []
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def _maps(file: Path) -> dict[str, NDArray[np.uint8]]:
    if not file.is_file():
        return {}
    with np.load(file, allow_pickle=False) as stored:
        return dict(zip(stored["paths"].tolist(), stored["maps"], strict=True))
