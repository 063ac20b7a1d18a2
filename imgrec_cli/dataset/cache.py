"""Where packs are kept between runs, and how they are listed and cleared; all of it can be built anew.

packs/KEY/          pixels.bin (uint8 [images, height, width, channels]) and records.json, written last
packs/NAME.partial/ a pack that is being built, or was when its run was killed
surveys/KEY.json    what the files of a data set with deep images hold, without pixels
files/NAME.json     size, times and digest of every file seen in a folder, so that unchanged files are not read again
locks/NAME.lock     held while a pack or survey is built
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from imgrec_cli.errors import InputError
from imgrec_cli.progress import Listener, Note

PIXELS = "pixels.bin"
RECORDS = "records.json"
PARTIAL = ".partial"
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


def cache_folder() -> Path:
    """The platform's cache folder for imgrec, or what the environment variable IMGREC_CACHE names."""
    import platformdirs  # here, as filelock below: `imgrec predict` passes by on its way to a folder's images

    named = os.environ.get("IMGREC_CACHE")
    return Path(named).absolute() if named else platformdirs.user_cache_path("imgrec", appauthor=False)


def subfolder(name: str) -> Path:
    """A folder in the cache, made where it does not exist. Raises InputError where that is not possible."""
    folder = cache_folder() / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be made: {error.strerror}",
            "set the environment variable IMGREC_CACHE to a folder that you can write to",
        ) from error
    return folder


def list_packs() -> list[PackInfo]:
    """All finished packs, the one used last first."""
    packs = []
    for folder in (cache_folder() / "packs").glob("*/"):
        try:
            records = json.loads((folder / RECORDS).read_text(encoding="utf-8"))
            size = (folder / PIXELS).stat().st_size
            used = (folder / RECORDS).stat().st_mtime
            packs.append(PackInfo(folder.name, records["source"], len(records["files"]), size, used))
        except (OSError, ValueError, KeyError):
            continue  # unfinished, or cleared meanwhile
    return sorted(packs, key=lambda pack: pack.last_used, reverse=True)


def clear_packs() -> int:
    """Remove everything but what is being built now, and return the number of bytes freed."""
    root = cache_folder()
    before = _size_of(root)
    remove_abandoned()
    for folder in (root / "packs").glob("*/"):
        if folder.suffix != PARTIAL:
            shutil.rmtree(folder, ignore_errors=True)  # Windows keeps what another run has mapped
    shutil.rmtree(root / "surveys", ignore_errors=True)
    shutil.rmtree(root / "files", ignore_errors=True)
    return before - _size_of(root)


def remove_abandoned() -> None:
    """Remove the half-built packs of killed runs: those whose lock nobody holds."""
    from filelock import FileLock, Timeout

    for folder in (cache_folder() / "packs").glob(f"*{PARTIAL}"):
        try:
            with FileLock(_lock_file(folder.stem), timeout=0):
                shutil.rmtree(folder, ignore_errors=True)
        except Timeout:
            continue


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


def readable_size(number: int) -> str:
    """Bytes as a short text in decimal units, such as `1.2 GB`."""
    size = float(number)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def _lock_file(name: str) -> Path:
    return subfolder("locks") / f"{name}.lock"


def _size_of(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(parent) / name).stat().st_size
            except OSError:
                continue
    return total
