"""The paths and file formats inside a run folder that more than one room uses."""

import csv
import json
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from imgrec_cli.atomic import full_disk_said, write_csv, write_json, write_text
from imgrec_cli.errors import InputError

FORMAT_VERSION = 1
RUNS_FOLDER = "runs"


@dataclass(frozen=True, slots=True)
class RecordedExample:
    """One line of `examples.csv`: an image as it was when the run began.

    `path` is relative to the split's folder (`/`, NFC), `digest` the BLAKE2b of the file's bytes.
    """

    split: str
    label: str
    path: str
    file: str
    digest: str


@dataclass(frozen=True, slots=True)
class Run:
    """A run folder: the config as written and as resolved, examples, metrics, checkpoints, bundle, evaluation."""

    folder: Path

    @classmethod
    def create(cls, parent: Path, config_name: str) -> "Run":
        """Make a new folder `<date>-<time>-<config name>` below `parent`; an existing one is never used again.

        Raises InputError where the folder cannot be made.
        """
        stem = f"{time.strftime('%Y-%m-%d-%H%M')}-{_folder_name(config_name)}"
        try:
            parent.mkdir(parents=True, exist_ok=True)
            for attempt in range(1, 1000):
                folder = parent / (stem if attempt == 1 else f"{stem}-{attempt}")
                try:
                    folder.mkdir()
                except FileExistsError:
                    continue
                (folder / "checkpoints").mkdir()
                return cls(folder)
        except OSError as error:
            raise InputError(
                f"{parent}: cannot make a run folder here: {error.strerror}",
                "change to a folder you can write to: runs are kept in ./runs",
            ) from error
        raise InputError(f"{parent}: a thousand runs named {stem} already", "remove some: imgrec runs prune --keep 10")

    def part(self, kind: str, number: int) -> "Run":
        """One training of a run of several: `kind` is `folds` or `seeds`, `number` counts from 1."""
        return Run(self.folder / kind / str(number))

    def trials(self) -> "list[Run]":
        """The trials of a search, in no order; none in another run."""
        folder = self.folder / "trials"
        return [Run(one) for one in folder.iterdir()] if folder.is_dir() else []

    def made(self) -> "Run":
        """Make the folder anew and empty; one without run.json was left by a process killed at its start."""
        shutil.rmtree(self.folder, ignore_errors=True)
        (self.folder / "checkpoints").mkdir(parents=True)
        return self

    @classmethod
    def open(cls, folder: Path) -> "Run":
        """The run in `folder`. Raises InputError where there is none."""
        run = cls(folder)
        if not run.record_file.is_file():
            raise InputError(f"{folder}: not a run folder, it has no run.json", "imgrec runs lists them")
        return run

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def record_file(self) -> Path:
        return self.folder / "run.json"

    @property
    def config_file(self) -> Path:
        return self.folder / "config.yaml"

    @property
    def resolved_config_file(self) -> Path:
        return self.folder / "config.resolved.yaml"

    @property
    def examples_file(self) -> Path:
        return self.folder / "examples.csv"

    @property
    def skipped_file(self) -> Path:
        return self.folder / "skipped.csv"

    @property
    def metrics_file(self) -> Path:
        return self.folder / "metrics.jsonl"

    @property
    def metrics_table(self) -> Path:
        return self.folder / "metrics.csv"

    @property
    def last_checkpoint(self) -> Path:
        return self.folder / "checkpoints" / "last.npz"

    @property
    def previous_checkpoint(self) -> Path:
        return self.folder / "checkpoints" / "previous.npz"

    @property
    def next_checkpoint(self) -> Path:
        """What becomes the last checkpoint when it has been read back."""
        return self.folder / "checkpoints" / "next.npz"

    def state_folder(self, name: str) -> Path:
        """What a checkpoint keeps beside it where the state lies in parts on several devices."""
        return self.folder / "checkpoints" / name

    def state_folders(self) -> list[Path]:
        return sorted((self.folder / "checkpoints").glob("state-*"))

    @property
    def best_checkpoint(self) -> Path:
        return self.folder / "checkpoints" / "best.npz"

    @property
    def teacher_checkpoint(self) -> Path:
        """What a teacher answers for the training images, for as long as they are learnt from."""
        return self.folder / "checkpoints" / "teacher.npz"

    @property
    def bundle_folder(self) -> Path:
        return self.folder / "bundle"

    @property
    def tensorboard_folder(self) -> Path:
        return self.folder / "tensorboard"

    @property
    def exports_folder(self) -> Path:
        return self.folder / "exports"

    @property
    def compressed_folder(self) -> Path:
        return self.folder / "compressed"

    @property
    def report_file(self) -> Path:
        return self.folder / "report.html"

    @property
    def audit_file(self) -> Path:
        return self.folder / "analysis" / "audit.json"

    @property
    def layers_file(self) -> Path:
        return self.folder / "analysis" / "layers.json"

    @property
    def learning_curve_file(self) -> Path:
        return self.folder / "analysis" / "learning-curve.json"

    @property
    def augmented_file(self) -> Path:
        return self.folder / "analysis" / "augmented.png"

    @property
    def judged_folders_file(self) -> Path:
        """Which folder of images has which name below `evaluation/`, by digests of their paths."""
        return self.folder / "evaluation" / "folders.json"

    def evaluation_folder(self, split: str) -> Path:
        return self.folder / "evaluation" / split

    def explanations_file(self, split: str) -> Path:
        return self.evaluation_folder(split) / "explanations.npz"

    def stress_file(self, split: str) -> Path:
        return self.evaluation_folder(split) / "stress.json"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the run for this process; the hold ends with the process, however that ends.

        Raises InputError where another process holds it.
        """
        from filelock import FileLock, Timeout

        lock = FileLock(self._lock_file, timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise InputError(
                f"{self.folder}: another process works on this run", "wait for it, or stop it first"
            ) from None
        try:
            self._remove_unfinished()
            yield
        finally:
            lock.release()  # the file stays: one taken away under a process that waits for it would be held by two

    def _remove_unfinished(self) -> None:
        """Remove what a killed process was writing."""
        for path in self.folder.rglob(".*.tmp"):
            with suppress(OSError):
                path.unlink()

    @contextmanager
    def searched(self) -> Iterator[None]:
        """Hold a search for this process beside the others that work on it: between two trials it holds no other."""
        from filelock import FileLock, Timeout

        for number in count(1):
            lock = FileLock(self.folder / f".searching-{number}.lock", timeout=0)
            with suppress(Timeout):
                lock.acquire()
                break
        try:
            yield
        finally:
            lock.release()

    def is_held(self) -> bool:
        """Whether a process holds the run, or works on the search in it."""
        from filelock import FileLock

        for file in (self._lock_file, *self.folder.glob(".searching-*.lock")):
            try:
                if file.exists():
                    with FileLock(file, timeout=0):
                        pass
            except OSError:  # Timeout is one; where the lock cannot be tried, the run is taken for held
                return True
        return False

    @property
    def _lock_file(self) -> Path:
        return self.folder / ".lock"

    def drop_checkpoints(self) -> None:
        """Remove what training goes on from; the best weights stay."""
        for path in (self.next_checkpoint, self.previous_checkpoint, self.last_checkpoint, self.teacher_checkpoint):
            with suppress(OSError):
                path.unlink(missing_ok=True)
        for folder in self.state_folders():
            shutil.rmtree(folder, ignore_errors=True)

    @property
    def record(self) -> dict[str, Any]:
        """What `run.json` says: format, status, times, versions, device, data, scores."""
        try:
            record = json.loads(self.record_file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{self.record_file}: cannot be read: {error}") from error
        if not isinstance(record, dict) or record.get("format") != FORMAT_VERSION:
            raise InputError(f"{self.record_file}: not a run record of format {FORMAT_VERSION}", "upgrade imgrec")
        return record

    def update_record(self, **changes: object) -> None:
        """Write `changes` into `run.json`, which is made where it does not exist."""
        record = self.record if self.record_file.exists() else {"format": FORMAT_VERSION}
        write_json(self.record_file, {**record, **changes})

    def append_metrics(self, line: Mapping[str, object]) -> None:
        """Add one epoch to `metrics.jsonl` and to `metrics.csv`, which is written anew where a column is new."""
        with full_disk_said(self.metrics_file), self.metrics_file.open("a", encoding="utf-8", newline="\n") as stream:
            stream.write(json.dumps(line, allow_nan=False) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        if self.metrics_table.exists():
            with (
                full_disk_said(self.metrics_table),
                self.metrics_table.open("r+", encoding="utf-8", newline="") as table,
            ):
                if next(csv.reader(table), []) == list(line):
                    table.seek(0, os.SEEK_END)
                    csv.writer(table, lineterminator="\n").writerow(line.values())
                    return
        self._write_metrics_table(self.read_metrics())

    def _write_metrics_table(self, epochs: Sequence[Mapping[str, object]]) -> None:
        columns = list(dict.fromkeys(key for epoch in epochs for key in epoch))
        write_csv(self.metrics_table, columns, ([epoch.get(key, "") for key in columns] for epoch in epochs))

    def forget_metrics_from(self, epoch: int) -> None:
        """Take away the lines of this epoch and later ones, which will be trained again, and a line cut off."""
        epochs = []
        if self.metrics_file.exists():
            for line in self.metrics_file.read_bytes().splitlines():
                try:
                    found = json.loads(line)
                    if found["epoch"] < epoch:
                        epochs.append(found)
                except (ValueError, TypeError, KeyError):
                    continue
            write_text(self.metrics_file, "".join(json.dumps(found, allow_nan=False) + "\n" for found in epochs))
            self._write_metrics_table(epochs)

    def forget_images(self) -> None:
        """Take the list of images away: a run that goes on records them anew."""
        for path in (self.examples_file, self.skipped_file):
            path.unlink(missing_ok=True)
        if self.record_file.exists():
            write_json(self.record_file, {key: value for key, value in self.record.items() if key != "data"})

    def read_metrics(self) -> list[dict[str, Any]]:
        """All epochs of `metrics.jsonl`, first to last."""
        if not self.metrics_file.exists():
            return []
        return [json.loads(line) for line in self.metrics_file.read_text(encoding="utf-8").splitlines()]

    def write_examples(self, examples: Iterable[RecordedExample]) -> None:
        """Record every image that the run uses, with its split, label and digest."""
        write_csv(
            self.examples_file,
            ("split", "label", "path", "file", "digest"),
            ((e.split, e.label, e.path, e.file, e.digest) for e in examples),
        )

    def read_all_examples(self) -> list[RecordedExample]:
        """All recorded images, in the order of the file."""
        with self.examples_file.open(encoding="utf-8", newline="") as stream:
            return [RecordedExample(**row) for row in csv.DictReader(stream)]

    def read_examples(self, split: str) -> list[RecordedExample]:
        """The recorded images of one split, in the order of the file."""
        return [example for example in self.read_all_examples() if example.split == split]


def list_runs(parent: Path) -> list[tuple[Run, dict[str, Any]]]:
    """All runs below `parent` with their records, newest first by the time they started.

    A run whose record cannot be read is listed last, with nothing but the status `damaged`; one that says it is
    running though no process holds it has the status `killed`. `resumable` is whether `imgrec train --resume` can go
    on with it.
    """
    if not parent.is_dir():
        return []
    found = []
    for folder in parent.iterdir():
        run = Run(folder)
        if run.record_file.is_file():
            try:
                record = run.record
            except InputError:
                record = {"status": "damaged", "started": ""}
            if record["status"] == "running" and not any(one.is_held() for one in (run, *run.trials())):
                record = {**record, "status": "killed", "resumable": True}
            found.append((run, record))
    return sorted(found, key=lambda pair: (pair[1].get("started", ""), pair[0].name), reverse=True)


def newest_finished_run(parent: Path) -> tuple[Run, dict[str, Any]]:
    """The finished run below `parent` that started last, and its record. Raises InputError where there is none.

    A run of several trainings, or a search, has no model of its own and is passed over.
    """
    for run, record in list_runs(parent):
        if record.get("status") == "finished" and not {"repeats", "search"} & record.keys():
            return run, record
    raise InputError(
        f"no finished run in {parent}", "train one: imgrec train CONFIG, or name a run or bundle with -m PATH"
    )


def unfinished_run(parent: Path, config_name: str) -> Path | None:
    """The newest run below `parent` of a config's name, where `imgrec train --resume` can go on with it."""
    name = re.escape(_folder_name(config_name))
    for run, record in list_runs(parent):
        if re.fullmatch(rf"\d{{4}}-\d\d-\d\d-\d{{4}}-{name}(-\d+)?", run.name):
            return run.folder if record.get("resumable") else None
    return None


def _folder_name(config_name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", config_name).strip("-.") or "config"
