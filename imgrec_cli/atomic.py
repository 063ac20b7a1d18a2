"""Files that are written whole or not at all, and the full disk told as what it is."""

import csv
import errno
import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from imgrec_cli.errors import DiskSpaceError


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file beside `path` for writing that takes its place, synced to disk, only when the block ends well.

    Raises DiskSpaceError where the disk becomes full; an OSError names `path`, not the file beside it.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with full_disk_said(path):
        try:
            with unfinished.open("wb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            unfinished.replace(path)
        except OSError as error:
            if error.filename == str(unfinished):
                error.filename = str(path)  # the name that the user gave
            if isinstance(error, FileNotFoundError) and not path.parent.is_dir():
                error.strerror = f"there is no folder {path.parent}"
            raise
        finally:
            with suppress(OSError):  # such as on a disk that has gone: the first error is the one to tell
                unfinished.unlink(missing_ok=True)


@contextmanager
def full_disk_said(path: Path) -> Iterator[None]:
    """Raise DiskSpaceError, naming `path`, where the block meets a full disk, a used-up quota or a limit on files."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        reason = "the disk became full" if error.errno != errno.EFBIG else "larger than this system allows a file to be"
        raise DiskSpaceError(f"{path}: {reason}", "make room; what was written before is whole") from error


def write_text(path: Path, text: str) -> None:
    """Replace the file's content by `text` (UTF-8, `\\n` line ends), atomically."""
    with replacing(path) as stream:
        stream.write(text.encode("utf-8"))


def write_json(path: Path, value: Any, *, indented: bool = True) -> None:
    """Replace the file's content by `value` as JSON, atomically; NaN and infinity are refused."""
    write_text(path, json.dumps(value, indent=2 if indented else None, ensure_ascii=False, allow_nan=False) + "\n")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Replace the file's content by a CSV table (UTF-8, `\\n` line ends), atomically."""
    with replacing(path) as stream:
        text = io.TextIOWrapper(stream, encoding="utf-8", newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
        text.flush()
        text.detach()
