"""What lies in a folder and counts: image files and the folders below, without hidden files and litter."""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Literal

from imgrec_cli.errors import DataError
from imgrec_cli.imaging import SUFFIXES_OF

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
SUFFIXES = frozenset(suffix for suffixes in SUFFIXES_OF.values() for suffix in suffixes)
LARGEST_SORTED = 100_000
# What operating systems and network drives leave behind; names that begin with a dot are litter as well.
LITTER = frozenset(
    ("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir", "$recycle.bin", "lost+found")
)


def images_below(folder: Path, others: Counter[str] | None = None) -> Iterator[tuple[str, str]]:
    """(path relative to `folder`, file) of all images below it; other files are counted by suffix."""
    waiting = [(folder, "", frozenset[tuple[int, int]]())]
    while waiting:
        current, prefix, above = waiting.pop()
        status = current.stat()
        identity = (status.st_dev, status.st_ino)
        if identity in above:  # a link to a folder that it lies in
            continue
        for entry in entries(current):
            if entry.is_dir():
                waiting.append((Path(entry.path), f"{prefix}{nfc(entry.name)}/", above | {identity}))
            elif suffix_of(entry.name) in SUFFIXES:
                yield prefix + nfc(entry.name), entry.path
            elif others is not None:
                others[suffix_of(entry.name)] += 1


def images_in_order(folder: Path) -> Iterator[str]:
    """All image files in a folder and below it, one after the other: in natural order within a folder.

    Nothing but the names of the folders on the way is held in memory. A folder with more than 100,000 entries is read
    in its own order. Raises DataError where a folder cannot be read.
    """
    waiting: list[Iterator[tuple[bool, str]]] = [_named(folder)]
    above: list[tuple[int, int]] = [_identity(folder)]
    while waiting:
        is_folder, path = next(waiting[-1], (False, ""))
        if not path:
            waiting.pop()
            above.pop()
        elif not is_folder:
            yield path
        elif (identity := _identity(Path(path))) not in above:  # else a link to a folder that it lies in
            waiting.append(_named(Path(path)))
            above.append(identity)


def _named(folder: Path) -> Iterator[tuple[bool, str]]:
    """(whether it is a folder, path) of the folders and images in a folder."""
    wanted = ((e.is_dir(), e.path) for e in entries(folder) if e.is_dir() or suffix_of(e.name) in SUFFIXES)
    first = list(islice(wanted, LARGEST_SORTED))
    if len(first) < LARGEST_SORTED:
        first.sort(key=lambda entry: natural_order(nfc(os.path.basename(entry[1]))))  # noqa: PTH119 - much faster
    yield from first
    yield from wanted


def _identity(folder: Path) -> tuple[int, int]:
    try:
        status = folder.stat()
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror}", "check its permissions") from error
    return status.st_dev, status.st_ino


def entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """What lies in a folder, without hidden files and litter; os.scandir because a Path per file takes longer."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name.casefold() in LITTER:
                    continue
                if not entry.name.isascii() and not _encodable(entry.name):
                    raise DataError(
                        f"{folder}: a name in it is not valid UTF-8: {os.fsencode(entry.name)!r}", "rename it"
                    )
                yield entry
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror}", "check its permissions") from error


def _encodable(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def natural_order(name: str) -> tuple[list[str | int], str]:
    """Sorts `2` before `10` and without regard to case."""
    # every second part is a number, so that numbers meet numbers only
    parts = re.split(r"(\d+)", name.casefold())
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], name


def nfc(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def suffix_of(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 - pathlib is ten times slower
