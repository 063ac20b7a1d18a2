"""One file by its name: opened for reading, and what tells whether it has changed."""

import io
import os
import stat
from pathlib import Path
from typing import BinaryIO

from imgrec_cli.errors import BadImageError
from imgrec_cli.storage import remote, shards

File = Path | str  # a text is a URL
Stamp = tuple[int, int, int, int]  # the size in bytes comes first; each fits into 64 bits
_63_BITS = (1 << 63) - 1


def located(name: str) -> File:
    """A file by its name as it stands in lists."""
    return name if remote.is_url(name) else Path(name)


def open_file(file: File) -> BinaryIO:
    """A file opened for reading, at its begin.

    Raises OSError or BadImageError, with the reason, where there is none, or a folder, a pipe or a device;
    UnreachableError where a server does not answer.
    """
    if isinstance(file, str):
        tar, member = shards.parted(file)
        return io.BytesIO(shards.read_member(tar, member) if tar else remote.read(file))
    try:
        mode = file.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        tar, member = shards.parted(str(file))
        if not tar or not Path(tar).is_file():
            raise
        return io.BytesIO(shards.read_member(tar, member))
    if not stat.S_ISREG(mode):  # opening a pipe would wait forever
        raise BadImageError("a folder, not an image" if stat.S_ISDIR(mode) else "not a regular file")
    return file.open("rb")


def stamp_of(name: str) -> Stamp | None:
    """Numbers that are equal as long as a file is the same, its size first; None where there is no such file.

    Of what lies behind a URL, and in shards there, they are those of its last listing.
    """
    if remote.is_url(name):
        tar, member = shards.parted(name)
        return shards.stamp_of_member(tar, member) if tar else remote.stamp_of(name)
    try:
        status = os.stat(name)  # noqa: PTH116 - a Path per file takes longer than the call
    except OSError:
        tar, member = shards.parted(name)
        return shards.stamp_of_member(tar, member) if tar else None
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino & _63_BITS
