"""Content digests of image files, remembered between runs so that unchanged files are not read again."""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import chain
from typing import BinaryIO
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from imgrec_cli.atomic import replacing
from imgrec_cli.errors import BadImageError
from imgrec_cli.imaging import open_file
from imgrec_cli.machine import available_cores, cache_subfolder
from imgrec_cli.storage import REQUESTS, is_url, located, stamp_of

_UNKNOWN = (-1, -1, -1, -1)


class Files:
    """Image files in their order, and the folders they come from, by which they are remembered and spoken of.

    A file of the same stamp (storage.Stamp) as before has the same content. `part` is what they are of the folders,
    such as `part 3 of 8`, empty where they are all files.
    """

    def __init__(self, paths: Sequence[str], source: str, part: str = "") -> None:
        self.paths = paths
        self.part = part
        self.source = source = f"{source}, {part}" if part else source
        # Taken before the files are read: one that is changed while it is read is read again the next time.
        stamps = chain.from_iterable(stamp_of(path) or _UNKNOWN for path in paths)
        self._stamps = np.fromiter(stamps, np.int64).reshape(-1, len(_UNKNOWN))
        self._digests: list[str] | None = None
        self._index = cache_subfolder("files") / f"{digest_of_texts(source)}.npz"

    @property
    def mean_bytes(self) -> float:
        """Mean size of a file."""
        sizes = self._stamps[self._stamps[:, 0] >= 0, 0]
        return float(sizes.mean()) if len(sizes) else 0.0

    def known_digests(self) -> list[str] | None:
        """The digest of every file, empty for one that cannot be read; None where nothing is known of the folders.

        New and changed files are read. In folders never seen before it is better to decode at once, which reads them
        too.
        """
        if self._digests is not None:
            return self._digests
        try:
            with np.load(self._index) as kept:
                names, stamps, digests = kept["names"], kept["stamps"], kept["digests"]
        except (OSError, ValueError, KeyError, EOFError, BadZipFile):
            return None
        if not len(names):
            return None
        wanted = self._names()
        places = np.minimum(np.searchsorted(names, wanted), len(names) - 1)
        same = (names[places] == wanted) & (stamps[places] == self._stamps).all(axis=1) & (self._stamps[:, 0] >= 0)
        del stamps, wanted
        found = [digest.decode() for digest in digests[places]]
        unread = np.flatnonzero(~same).tolist()
        if not unread:
            self._digests = found
            return found
        for place, digest in zip(unread, digests_of_files([self.paths[place] for place in unread]), strict=True):
            found[place] = digest
        self.remember(found)
        return found

    def remember(self, digests: Sequence[str]) -> None:
        """Keep the digests of all files that could be read."""
        self._digests = list(digests)
        names = self._names()
        kept = np.array([bool(digest) for digest in digests], bool) & (self._stamps[:, 0] >= 0)
        order = np.flatnonzero(kept)[np.argsort(names[kept])]
        texts = np.array(digests, "S32")[order]
        with suppress(OSError), replacing(self._index) as stream:  # where it cannot be written it costs time, no more
            np.savez(stream, names=names[order], stamps=self._stamps[order], digests=texts)

    def _names(self) -> NDArray[np.uint64]:
        """Every path as a number: a tenth of its memory, and with its stamp beside it no two are taken for another."""
        numbers = (hashlib.blake2b(os.fsencode(path), digest_size=8).digest() for path in self.paths)
        return np.frombuffer(b"".join(numbers), np.uint64)


def digest_of_stream(stream: BinaryIO) -> str:
    """BLAKE2b of a file's bytes, 32 hexadecimal digits; the stream is then at its begin again."""
    digest = hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()  # type: ignore[arg-type]
    stream.seek(0)
    return digest


def digest_of_texts(*texts: str) -> str:
    """BLAKE2b of some texts, 32 hexadecimal digits."""
    return hashlib.blake2b("\n".join(texts).encode(), digest_size=16).hexdigest()


def readers(paths: Sequence[str]) -> int:
    """How many threads read files best: a server takes its time for each, and they wait side by side."""
    return REQUESTS if any(map(is_url, paths)) else available_cores()


def digests_of_files(paths: Sequence[str]) -> list[str]:
    """The digests of files by their names, empty for those that cannot be read. Raises UnreachableError."""
    with ThreadPoolExecutor(readers(paths)) as pool:
        return list(pool.map(digest_of_file, paths))


def digest_of_file(path: str) -> str:
    try:
        with open_file(located(path)) as stream:
            return digest_of_stream(stream)
    except (OSError, BadImageError):
        return ""
