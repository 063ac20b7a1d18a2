"""What lies in one place: a folder, tar shards, or a folder behind a URL; all of them say it in the same words."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePath
from urllib.parse import unquote

from imgrec_cli.dataset.walk import LITTER, SUFFIXES, entries, images_below, nfc, suffix_of
from imgrec_cli.errors import DataError
from imgrec_cli.storage import File, are_shards, expanded, is_url, list_files, members
from imgrec_cli.storage.shards import Members

_SHARDS_AT_ONCE = 8  # from a server, each with some megabytes read ahead
_NUMBERED = re.compile(r"(.*?)(\d*)\.tar", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Found:
    """The images of one place.

    `images` are (path below the place, with `/` and in NFC; file; label, which shards give). `folders` are the names
    at the top of a folder, also of empty ones, and `others` counts the files that are no images by suffix.
    """

    images: list[tuple[str, str, str]]
    folders: list[str]
    others: Counter[str]


@dataclass
class Sources:
    """Looks into places; a server is asked once, whatever is wanted of its folders."""

    _listed: dict[str, list[str]] = field(default_factory=dict)

    def found(self, place: File) -> Found:
        """All images of a place. Raises DataError where it cannot be read."""
        if are_shards(str(place)):
            return _in_shards(str(place))
        others: Counter[str] = Counter()
        if isinstance(place, Path):
            images = [(path, file, "") for path, file in images_below(place, others)]
            return Found(images, self.subfolders(place), others)
        images = []
        for name in self._names(place):
            if suffix_of(name) in SUFFIXES:
                images.append((_path(place, name), f"{place}/{name}", ""))
            else:
                others[suffix_of(name)] += 1
        return Found(images, [], others)  # a server knows no empty folders

    def subfolders(self, place: File) -> list[str]:
        """Names of the folders at the top of a place, as they are spelled there."""
        if are_shards(str(place)):
            return []
        if isinstance(place, Path):
            return [entry.name for entry in entries(place) if entry.is_dir()]
        return list(dict.fromkeys(name.partition("/")[0] for name in self._names(place) if "/" in name))

    def has_images(self, place: File) -> bool:
        """Whether there is an image in a folder or below it."""
        if isinstance(place, Path):
            return next(images_below(place), None) is not None
        return any(suffix_of(name) in SUFFIXES for name in self._names(place))

    def shards(self, place: File) -> list[str]:
        """Names of the tar files at the top of a place."""
        names = [entry.name for entry in entries(place)] if isinstance(place, Path) else self._names(place)
        return [name for name in names if are_shards(name) and "/" not in name]

    def _names(self, url: str) -> list[str]:
        for listed, names in self._listed.items():
            if url == listed:
                return names
            if url.startswith(f"{listed}/"):
                below = url.removeprefix(f"{listed}/") + "/"
                return [name.removeprefix(below) for name in names if name.startswith(below)]
        self._listed[url] = [name for name in list_files(url) if _counts(name)]
        return self._listed[url]


def inside(place: File, name: str) -> File:
    """A folder in a place."""
    return place / name if isinstance(place, Path) else f"{place}/{name}"


def folder_of(place: File) -> File:
    """The folder of a place: itself, or what shards and manifests lie in."""
    if isinstance(place, Path):
        return place if place.is_dir() else place.parent
    return place.rpartition("/")[0] if are_shards(place) else place


def check_shards(place: File, key: str) -> None:
    """Raise DataError where one of the shards is not there; servers are asked when they are read."""
    missing = [name for name in expanded(str(place)) if not is_url(name) and not Path(name).is_file()]
    if missing:
        many = f" and {len(missing) - 1:,} more" if len(missing) > 1 else ""
        raise DataError(
            f"{key}: {missing[0]}{many}: no such tar file", "a row of shards is written train-{000..146}.tar"
        )


def _in_shards(place: str) -> Found:
    """The images in a row of shards, named as if each shard were a folder; their paths are those in the shards, behind
    the shard's name where two shards have the same ones."""
    others: Counter[str] = Counter()
    by_shard: dict[str, list[tuple[str, str, str]]] = {}
    for tar, held in _members_of(expanded(place)):
        images = by_shard[tar] = []
        labels: dict[bytes, str] = {}
        for raw, label in zip(held.names.tolist(), held.labels.tolist(), strict=True):
            name = _text(tar, raw)
            if not _counts(name):
                continue
            if suffix_of(name) in SUFFIXES:
                # one text for a class, not one for every image
                images.append((nfc(name), f"{tar}/{name}", labels.setdefault(label, nfc(_text(tar, label)))))
            else:
                others[suffix_of(name)] += 1
    if not any(label for found in by_shard.values() for _, _, label in found):
        for tar, found in by_shard.items():
            by_shard[tar] = [(path, file, path.partition("/")[0] if "/" in path else "") for path, file, _ in found]
    images = [image for found in by_shard.values() for image in found]
    if len({path for path, _, _ in images}) < len(images):
        images = [
            (f"{nfc(PurePath(tar).stem)}/{path}", file, label)
            for tar, found in by_shard.items()
            for path, file, label in found
        ]
    return Found(images, [], others)


def _members_of(tars: list[str]) -> Iterator[tuple[str, Members]]:
    """What lies in each shard; on a server several are read side by side."""
    pool = ThreadPoolExecutor(_SHARDS_AT_ONCE if is_url(tars[0]) else 1)
    try:
        yield from zip(tars, pool.map(partial(members, renewed=True), tars), strict=True)
    finally:  # the first that fails ends it
        pool.shutdown(cancel_futures=True)


def _text(tar: str, raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise DataError(f"{tar}: a name in it is not valid UTF-8: {raw!r}", "write the shard again") from None


def _path(url: str, name: str) -> str:
    return nfc(unquote(name) if url.startswith("http") else name)


def _counts(name: str) -> bool:
    """Not hidden, and no litter, on the whole way."""
    return not any(part.startswith(".") or part.casefold() in LITTER for part in name.split("/"))


def rows_of_shards(names: Iterable[str]) -> list[str]:
    """Names of shards, those that differ by a number alone as a row: train-{000..146}.tar."""
    rows: dict[tuple[str, int], list[str]] = {}
    for name in sorted(names):
        begin, number = _NUMBERED.findall(name)[0]
        rows.setdefault((begin, len(number)), []).append(number)
    return [
        f"{begin}{numbers[0] if len(numbers) == 1 else f'{{{numbers[0]}..{numbers[-1]}}}'}.tar"
        for (begin, _), numbers in rows.items()
    ]
