"""Many answers: as rows of a table, into a file that an interrupted run goes on with, and images sorted by class."""

import csv
import filecmp
import hashlib
import json
import os
import shutil
import zlib
from array import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from imgrec_cli.atomic import full_disk_said, write_json
from imgrec_cli.bundle import Manifest
from imgrec_cli.classifier import Prediction
from imgrec_cli.errors import InputError

SYNCED_ANSWERS = 1000  # after so many answers the file is made sure to be on the disk
NOT_SURE = "not sure"


def csv_columns(class_names: Iterable[str]) -> list[str]:
    """The header of answers as CSV: one score per class among them."""
    scores = [f"score:{name}" for name in class_names]
    return ["path", "label", "confidence", *scores, "decision", "unfamiliar", "likely"]


def csv_row(answer: Prediction, class_names: Iterable[str]) -> list[str]:
    """One answer in the order of `csv_columns`."""
    known = answer.scores
    scores = [f"{known[name]:.6g}" for name in class_names]
    unfamiliar = "" if answer.unfamiliarity is None else str(answer.unfamiliar).lower()
    rest = [answer.decision, unfamiliar, "|".join(answer.likely or ())]
    return [answer.source, answer.label, f"{answer.confidence:.6g}", *scores, *rest]


def json_line(answer: Prediction, top: int | None) -> str:
    """One answer as a line of JSON, with its `top` most probable classes."""
    return json.dumps(answer.as_dict(top), ensure_ascii=False)


def in_shard(path: str, shard: tuple[int, int]) -> bool:
    """Whether a path belongs to part i of n, i from 1: by its text alone, so that all parts agree without talking."""
    part, parts = shard
    return zlib.crc32(path.encode("utf-8", "surrogateescape")) % parts == part - 1


class AnswerFile:
    """A file of answers, `.csv` or `.jsonl`, that is added to as they come.

    While it is unfinished, `FILE.unfinished.json` beside it says what it is being made with: the same command goes on
    where it stopped, another is refused. A finished file is never touched.
    """

    def __init__(self, file: Path, manifest: Manifest, options: dict[str, Any], top: int | None) -> None:
        """`options` are what else decides the answers. Raises InputError where the file is finished, or was begun
        otherwise."""
        self.file = file
        self._names, self._top = manifest.class_names, top
        self._state = file.with_name(f"{file.name}.unfinished.json")
        if file.suffix not in (".csv", ".jsonl"):
            raise InputError(f"{file}: answers are written as .csv or .jsonl", f"name {file.stem}.csv")
        digests = "".join(f"{name} {record.sha256}\n" for name, record in sorted(manifest.files.items()))
        told = digests + json.dumps(asdict(manifest.decision), sort_keys=True)
        begun = {"model": hashlib.sha256(told.encode()).hexdigest(), **options}
        self.answered = Answered()
        if file.exists():
            if not self._state.exists():
                raise InputError(f"{file}: exists already", "name another file, or remove it")
            if json.loads(self._state.read_text(encoding="utf-8")) != begun:
                raise InputError(
                    f"{file}: was begun with another model or other options", "name another file, or remove this one"
                )
            self._keep_whole_answers()
        else:
            write_json(self._state, begun)

    def _keep_whole_answers(self) -> None:
        """Cut off what a killed process wrote half, and remember whose answers are there."""
        with self.file.open("r+b") as stream:
            end = stream.seek(0, os.SEEK_END)
            while end:  # back to the last line end, in blocks
                start = max(0, end - 65536)
                stream.seek(start)
                found = stream.read(end - start).rfind(b"\n")
                if found >= 0:
                    end = start + found + 1
                    break
                end = start
            stream.truncate(end)
        with self.file.open(encoding="utf-8", newline="") as text:
            if self.file.suffix == ".csv":
                rows = csv.reader(text)
                next(rows, None)
                self.answered.add(row[0] for row in rows if row)
            else:
                self.answered.add(json.loads(line)["path"] for line in text)

    @contextmanager
    def adding(self) -> Iterator["Writer"]:
        """Write answers as they come; when the block ends well the file is finished."""
        with full_disk_said(self.file), self.file.open("a", encoding="utf-8", newline="") as stream:
            writer = Writer(stream, self.file.suffix == ".csv", self._names, self._top)
            try:
                yield writer
            finally:
                writer.sync()
        self._state.unlink()


class Writer:
    """Adds answers to an open file."""

    def __init__(self, stream: TextIO, as_csv: bool, class_names: list[str], top: int | None) -> None:
        self._stream, self._names, self._top = stream, class_names, top
        self._csv = csv.writer(stream, lineterminator="\n") if as_csv else None
        self._since = 0
        if self._csv is not None and stream.tell() == 0:
            self._csv.writerow(csv_columns(class_names))

    def add(self, answer: Prediction) -> None:
        if self._csv is not None:
            self._csv.writerow(csv_row(answer, self._names))
        else:
            self._stream.write(json_line(answer, self._top) + "\n")
        self._since += 1
        if self._since == SYNCED_ANSWERS:
            self.sync()

    def sync(self) -> None:
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._since = 0


class Answered:
    """Which paths have an answer, in 8 bytes each."""

    def __init__(self) -> None:
        self._hashes = np.empty(0, np.uint64)

    def __len__(self) -> int:
        return len(self._hashes)

    def add(self, paths: Iterable[str]) -> None:
        found = array("Q", (_hash(path) for path in paths))
        self._hashes = np.unique(np.concatenate([self._hashes, np.frombuffer(found, np.uint64)]))

    def __contains__(self, path: str) -> bool:
        place = int(np.searchsorted(self._hashes, np.uint64(_hash(path))))
        return place < len(self._hashes) and int(self._hashes[place]) == _hash(path)


def _hash(path: str) -> int:
    return int.from_bytes(hashlib.blake2b(path.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "little")


class SortedFolder:
    """A folder with one folder per class, into which images are copied or linked; the originals stay where they are."""

    def __init__(self, folder: Path, class_names: Iterable[str], *, link: bool) -> None:
        """Raises InputError where a class's name cannot be a folder's."""
        for name in class_names:
            if name in ("", ".", "..") or "/" in name or "\\" in name or "\0" in name:
                raise InputError(f"class {name!r}: no name for a folder")
        self.folder, self._link = folder, link

    def add(self, image: Path, answer: Prediction) -> Path:
        """Put an image into the folder of its answer, `not sure` for an abstention, and return where.

        Another image of the same name gets a number from its path at the end of its name; the same image is put once.
        """
        folder = self.folder / (NOT_SURE if answer.abstained else answer.label)
        with full_disk_said(folder):
            return self._put(image, folder)

    def _put(self, image: Path, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        number = zlib.crc32(os.fsencode(image.resolve()))
        for name in (image.name, f"{image.stem}-{number:08x}{image.suffix}"):
            place = folder / name
            if self._is_there(place, image):
                return place
            if not os.path.lexists(place):
                break
        if self._link:
            place.symlink_to(image.resolve())
        else:
            unfinished = place.with_name(f".{place.name}.{os.getpid()}.tmp")
            try:
                shutil.copy2(image, unfinished)
                unfinished.replace(place)
            finally:
                unfinished.unlink(missing_ok=True)
        return place

    def _is_there(self, place: Path, image: Path) -> bool:
        if not place.exists():
            return False
        if place.is_symlink():
            return place.samefile(image)
        # Copies keep the time of their original. Cameras and scripts write several files of one size in a second: where
        # both agree, the bytes decide.
        ours, theirs = place.stat(), image.stat()
        same = (ours.st_size, int(ours.st_mtime)) == (theirs.st_size, int(theirs.st_mtime))
        return same and filecmp.cmp(place, image, shallow=False)
