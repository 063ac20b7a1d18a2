"""Tar files of images: what lies in each, found in one pass over its headers and kept in the cache.

Read with Python's tarfile: the package webdataset reads a shard from begin to end and says of no member where it lies,
and a pack reads images class by class, from all shards.
"""

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from imgrec_cli.atomic import replacing
from imgrec_cli.errors import BadImageError, DataError
from imgrec_cli.machine import cache_subfolder
from imgrec_cli.storage import remote

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from imgrec_cli.storage.opening import Stamp

_NUMBERS = re.compile(r"\{(\d+)\.\.(\d+)\}")
_INSIDE = re.compile(r"(.+?\.tar)[/\\](.+)", re.DOTALL)
_BLOCK = 512  # bytes; POSIX.1-1988, ustar
_UNKNOWN = (0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Members:
    """The files in a shard but those with labels, sorted by name.

    `names` and `labels` are bytes [N] in UTF-8, a label empty where the shard gives none, `begins` and `sizes` int64
    [N] in bytes. `stamp` is that of the shard.
    """

    names: "NDArray[np.bytes_]"
    labels: "NDArray[np.bytes_]"
    begins: "NDArray[np.int64]"
    sizes: "NDArray[np.int64]"
    stamp: "Stamp"


_known: dict[str, Members] = {}


def are_shards(name: str) -> bool:
    """Whether a name is that of a shard, or of several as WebDataset writes them: train-{000..146}.tar."""
    return name.lower().endswith(".tar") and not os.path.isdir(name)  # noqa: PTH112 - may be a URL


def expanded(name: str) -> list[str]:
    """The shards that a name stands for. Raises DataError where its numbers do not rise."""
    match = _NUMBERS.search(name)
    if match is None:
        return [name]
    first, last = int(match[1]), int(match[2])
    if first > last:
        raise DataError(f"{name}: {match[0]} counts down", f"write {{{match[2]}..{match[1]}}}")
    numbers = (f"{number:0{len(match[1])}d}" for number in range(first, last + 1))
    return [one for number in numbers for one in expanded(name[: match.start()] + number + name[match.end() :])]


def parted(name: str) -> tuple[str, str]:
    """The shard and the member in it that a file's name stands for; two empty texts where it has no shard in it."""
    match = _INSIDE.fullmatch(name)
    return (match[1], match[2]) if match else ("", "")


def members(tar: str, renewed: bool = False) -> Members:
    """What lies in a shard: known from before, or read; `renewed` asks a server anew what the shard is like.

    Raises DataError where it is no intact tar file, and as `remote` does.
    """
    from zipfile import BadZipFile  # here, as tarfile below: `imgrec predict` passes by

    import numpy as np

    stamp = _stamp(tar, renewed)
    known = _known.get(tar)
    # where a server tells no version, what was read stays true until the next listing
    if known is not None and known.stamp == (stamp or _UNKNOWN) and not (renewed and stamp is None):
        return known
    kept = cache_subfolder("shards") / f"{remote.number_of(f'{tar} {stamp}'):032x}.npz"
    if stamp is not None:
        with suppress(OSError, ValueError, KeyError, EOFError, BadZipFile), np.load(kept) as file:
            _known[tar] = Members(file["names"], file["labels"], file["begins"], file["sizes"], stamp)
            return _known[tar]
    with _opened(tar) as (stream, mode):
        found = _read(tar, stream, mode, stamp or _UNKNOWN)
    if stamp is not None:
        with suppress(OSError), replacing(kept) as out:  # where it cannot be written it costs time, no more
            np.savez(out, names=found.names, labels=found.labels, begins=found.begins, sizes=found.sizes)
    _known[tar] = found
    return found


def read_member(tar: str, name: str) -> bytes:
    """All bytes of a member. Raises BadImageError where it is not there, and as `members` does."""
    found = members(tar)
    place = _place(found, name)
    if place is None:
        raise BadImageError(f"no such file in {tar}")
    begin, size = int(found.begins[place]), int(found.sizes[place])
    content = _part(tar, begin, size)
    if len(content) != size:
        raise BadImageError(f"{tar} ends before it")
    return content


def stamp_of_member(tar: str, name: str) -> "Stamp | None":
    """The stamp of a member, which changes with its shard."""
    try:
        found = members(tar)
    except (DataError, OSError):
        return None
    place = _place(found, name)
    if place is None or found.stamp == _UNKNOWN:
        return None
    return int(found.sizes[place]), remote.number_of(str(found.stamp)), int(found.begins[place]), 0


def _place(found: Members, name: str) -> int | None:
    import numpy as np

    wanted = np.bytes_(name.replace("\\", "/").encode())
    place = int(np.searchsorted(found.names, wanted))
    return place if place < len(found.names) and found.names[place] == wanted else None


def _stamp(tar: str, renewed: bool) -> "Stamp | None":
    if remote.is_url(tar):
        if renewed:
            remote.renew_stamp(tar)
        return remote.stamp_of(tar)
    status = os.stat(tar)  # noqa: PTH116 - asked for every member that is read
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


@contextmanager
def _opened(tar: str) -> Iterator[tuple[BinaryIO, str]]:
    """A shard to be read through, and how: with jumps over what is in it, or as it comes from a server."""
    if remote.is_url(tar):
        with remote.opened(tar) as stream:
            yield stream, "r|"
    else:
        with Path(tar).open("rb") as stream:
            yield stream, "r:"


def _part(tar: str, begin: int, size: int) -> bytes:
    if remote.is_url(tar):
        return remote.read_part(tar, begin, size)
    with open(tar, "rb", buffering=0) as stream:  # noqa: PTH123 - called for every member
        stream.seek(begin)
        return stream.read(size)


def _read(tar: str, stream: BinaryIO, mode: str, stamp: "Stamp") -> Members:
    """One pass over the headers; of the members only the labels are read."""
    import tarfile

    import numpy as np

    found: list[tuple[bytes, int, int]] = []
    labels: dict[bytes, bytes] = {}
    try:
        with tarfile.open(fileobj=stream, mode=mode) as file:  # type: ignore[call-overload]
            while (member := file.next()) is not None:
                file.members.clear()  # else they add up, a kilobyte for each
                if not member.isreg():
                    continue
                name = member.name.removeprefix("./")
                key, kind = _key(name)
                if kind in ("cls", "json"):
                    content = file.extractfile(member).read()
                    label = _label(f"{tar}/{name}", kind, content)
                    if label and (kind == "cls" or key not in labels):
                        labels[key] = label.encode()
                else:
                    found.append((name.encode(errors="surrogateescape"), member.offset_data, member.size))
            end = file.offset
    except (tarfile.TarError, EOFError) as error:
        raise DataError(
            f"{tar}: damaged, or no tar file: {error}", "compressed ones have to be unpacked first"
        ) from error
    if _part(tar, end, _BLOCK) != bytes(_BLOCK) or not found:  # tarfile takes a broken header for the end
        raise DataError(f"{tar}: damaged at byte {end:,}, or cut off there", "copy or write it again")
    found.sort()
    names = np.array([name for name, _, _ in found])
    doubled = np.flatnonzero(names[1:] == names[:-1])
    if len(doubled):
        raise DataError(f"{tar}: {names[doubled[0]].decode()} is in it twice", "write it again, each name once")
    return Members(
        names,
        np.array([labels.get(_key(name.decode(errors="surrogateescape"))[0], b"") for name, _, _ in found]),
        np.array([begin for _, begin, _ in found], np.int64),
        np.array([size for _, _, size in found], np.int64),
        stamp,
    )


def _key(name: str) -> tuple[bytes, str]:
    """What the files of a sample share, and the rest: up to the first point of the last part, as WebDataset has it."""
    folder, slash, last = name.rpartition("/")
    key, _, kind = last.partition(".")
    return (folder + slash + key).encode(errors="surrogateescape"), kind


def _label(place: str, kind: str, content: bytes) -> str:
    """The label in KEY.cls, a number or a name, or in KEY.json under `label`."""
    try:
        text = content.decode()
        if kind == "cls":
            if not text.strip():
                raise ValueError("it is empty")
            return text.strip()
        value = json.loads(text)
        return str(value["label"]) if isinstance(value, dict) and value.get("label") is not None else ""
    except ValueError as error:
        raise DataError(f"{place}: no label: {error}", "KEY.cls holds a number or a name, KEY.json a label") from error
