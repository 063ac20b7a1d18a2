"""Where packs are kept between runs, and how they are listed and cleared; all of it can be built anew.

packs/KEY/          pixels.bin (uint8 [images, height, width, channels]) and records.json, written last; of a whole
                    data set, or of one part of it (dataset.parts)
packs/NAME.partial/ a pack that is being built, or was when its run was killed
surveys/KEY.json    what the files of a data set with deep images hold, without pixels
files/NAME.npz      size, times and digest of every file seen in a folder, so that unchanged files are not read again
shards/NAME.npz     what lies where in a tar shard
locks/NAME.lock     held while a pack or survey is built

KEY and NAME are 32 hexadecimal digits. The folder may be one that holds other things too: nothing else is removed.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from imgrec_cli.machine import cache_folder, cache_subfolder
from imgrec_cli.progress import Listener, Note

PIXELS = "pixels.bin"
RECORDS = "records.json"
PARTIAL = ".partial"
_NAME = "[0-9a-f]{32}"
LARGER_DISK = "set the environment variable IMGREC_CACHE to a folder on a larger disk, or clear old packs: "
LARGER_DISK += "imgrec data cache lists them"


@dataclass(frozen=True, slots=True)
class PackInfo:
    """One pack: its key, the folders it was made from, number of images, size in bytes, time of last use (epoch)."""

    key: str
    source: str
    images: int
    bytes: int
    last_used: float


def list_packs() -> list[PackInfo]:
    """All finished packs, the one used last first."""
    packs = []
    for folder in _made_by_us("packs", _NAME):
        try:
            records = json.loads((folder / RECORDS).read_text(encoding="utf-8"))
            size = (folder / PIXELS).stat().st_size
            used = (folder / RECORDS).stat().st_mtime
            packs.append(PackInfo(folder.name, records["source"], len(records["files"]), size, used))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # damaged, or cleared meanwhile
    return sorted(packs, key=lambda pack: pack.last_used, reverse=True)


def clear_packs() -> int:
    """Remove everything but what is being built now, and return the number of bytes freed."""
    freed = remove_abandoned()
    for folder in _made_by_us("packs", _NAME):
        freed += remove_pack(folder)
    for kind in ("surveys", "files", "shards"):
        # the second is what a run leaves that is killed while it writes the first
        for file in _made_by_us(kind, rf"{_NAME}\.(json|npz)|\.{_NAME}\.(json|npz)\.\d+\.tmp"):
            with suppress(OSError):
                freed += _remove(file)
    return freed


def remove_abandoned() -> int:
    """Remove the half-built packs of killed runs, those whose lock nobody holds, and return the bytes freed."""
    from filelock import FileLock, Timeout

    freed = 0
    for folder in _made_by_us("packs", _NAME + re.escape(PARTIAL)):
        try:
            with FileLock(_lock_file(folder.stem), timeout=0):
                freed += remove_pack(folder)
        except Timeout:
            continue
    return freed


def remove_pack(folder: Path) -> int:
    """Remove a pack, finished or not, as far as that is possible, and return the bytes freed."""
    freed = 0
    with suppress(OSError):
        # Pixels first: Windows does not remove what another run has mapped, and the pack then stays whole.
        freed += _remove(folder / PIXELS)
        freed += _remove(folder / RECORDS)
        folder.rmdir()
    return freed


@contextmanager
def building(name: str, on_event: Listener) -> Iterator[None]:
    """Hold the lock for building `name`, waiting for another run that does; it is freed when the process dies."""
    from filelock import FileLock, Timeout

    lock = FileLock(_lock_file(name))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        on_event(Note("another run is packing these images: waiting for it"))
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _lock_file(name: str) -> Path:
    return cache_subfolder("locks") / f"{name}.lock"


def _made_by_us(kind: str, name: str) -> list[Path]:
    """What lies in a folder of the cache and has such a name, a regular expression."""
    try:
        return [entry for entry in (cache_folder() / kind).iterdir() if re.fullmatch(name, entry.name)]
    except OSError:
        return []


def _remove(file: Path) -> int:
    try:
        size = file.stat().st_size
        file.unlink()
    except FileNotFoundError:
        return 0
    return size
