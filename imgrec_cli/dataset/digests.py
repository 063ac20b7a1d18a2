"""Content digests of image files, remembered between runs so that unchanged files are not read again."""

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from imgrec_cli.atomic import replacing
from imgrec_cli.dataset import cache
from imgrec_cli.errors import BadImageError
from imgrec_cli.imaging import open_file
from imgrec_cli.machine import available_cores


class Files:
    """Image files in their order, and the folders they come from, by which they are remembered and spoken of.

    A file of the same size, times and inode as before has the same content.
    """

    def __init__(self, paths: Sequence[str], source: str) -> None:
        self.paths = paths
        self.source = source
        # Taken before the files are read: one that is changed while it is read is read again the next time.
        self._status = [_status(path) for path in paths]
        self._digests: list[str] | None = None
        self._index = cache.subfolder("files") / f"{digest_of_texts(source)}.json"

    @property
    def mean_bytes(self) -> float:
        """Mean size of a file."""
        sizes = [status[0] for status in self._status if status is not None]
        return sum(sizes) / max(1, len(sizes))

    def known_digests(self) -> list[str] | None:
        """The digest of every file, empty for one that cannot be read; None where nothing is known of the folders.

        New and changed files are read. In folders never seen before it is better to decode at once, which reads them
        too.
        """
        if self._digests is not None:
            return self._digests
        try:
            index: dict[str, list[Any]] = json.loads(self._index.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        known = [
            entry[1] if status is not None and (entry := index.get(path)) and entry[0] == status else None
            for path, status in zip(self.paths, self._status, strict=True)
        ]
        if None not in known:
            self._digests = [digest or "" for digest in known]
            return self._digests
        with ThreadPoolExecutor(available_cores()) as pool:
            unread = [path for path, digest in zip(self.paths, known, strict=True) if digest is None]
            read = iter(list(pool.map(digest_of_file, unread)))
        self.remember([next(read) if digest is None else digest for digest in known])
        return self._digests

    def remember(self, digests: Sequence[str]) -> None:
        """Keep the digests of all files that could be read."""
        self._digests = list(digests)
        index = {
            path: (status, digest)
            for path, status, digest in zip(self.paths, self._status, digests, strict=True)
            if status is not None and digest
        }
        with suppress(OSError), replacing(self._index) as stream:  # where it cannot be written it costs time, no more
            stream.write(json.dumps(index).encode())


def digest_of_stream(stream: BinaryIO) -> str:
    """BLAKE2b of a file's bytes, 32 hexadecimal digits; the stream is then at its begin again."""
    digest = hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()  # type: ignore[arg-type]
    stream.seek(0)
    return digest


def digest_of_texts(*texts: str) -> str:
    """BLAKE2b of some texts, 32 hexadecimal digits."""
    return hashlib.blake2b("\n".join(texts).encode(), digest_size=16).hexdigest()


def digest_of_file(path: str) -> str:
    try:
        with open_file(Path(path)) as stream:
            return digest_of_stream(stream)
    except (OSError, BadImageError):
        return ""


def _status(path: str) -> list[int] | None:
    try:
        status = os.stat(path)  # noqa: PTH116 - a Path per file takes longer than the call
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
