"""What lies behind a URL, through fsspec: listed once, read file by file; nothing is ever written there.

Who may read is settled by the environment, as fsspec and the packages behind it do: no password is part of a URL here.
"""

import hashlib
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

from imgrec_cli.errors import DataError, ImgrecError, MissingExtraError, UnreachableError, install_command

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

    from imgrec_cli.storage.opening import Stamp

# Requests at once: a server takes its time for each, and they wait side by side.
REQUESTS = 32
_BLOCK_BYTES = 1 << 22  # read ahead in a file that is read through
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
# What servers call the version of a file; the first that is there counts.
_VERSION_KEYS = ("ETag", "etag", "generation", "mtime", "LastModified", "last_modified", "updated", "created")

_stamps: dict[str, "Stamp | None"] = {}


def is_url(name: str) -> bool:
    """Whether a name is a URL, such as s3://bucket/photos; a Windows path is none."""
    return _URL.match(name) is not None


def list_files(url: str) -> list[str]:
    """Paths of all files below a URL, relative to it; asks the server once, and keeps the stamp of every file.

    Raises DataError where there is nothing, or no access, MissingExtraError, UnreachableError.
    """
    with _errors_of(url):
        system, root = _file_system(url)
        found: dict[str, dict[str, Any]] = system.find(root, detail=True, **_complete(system))
        base = root.rstrip("/") + "/"
        files = {name.removeprefix(base): facts for name, facts in found.items() if name.startswith(base)}
        if not files and not system.exists(root):
            raise FileNotFoundError
        unknown = [name for name, facts in files.items() if facts.get("size") is None]
        with ThreadPoolExecutor(REQUESTS) as pool:  # a list that a web server makes for people says names only
            for name, facts in zip(unknown, pool.map(system.info, [base + name for name in unknown]), strict=True):
                files[name] = facts
    url = url.rstrip("/")
    for name, facts in files.items():
        _stamps[f"{url}/{name}"] = _stamp(facts)
    return sorted(files)


def stamp_of(url: str) -> "Stamp | None":
    """The stamp of a file as it was listed, else as the server says now; None where the server tells no version."""
    if url not in _stamps:
        renew_stamp(url)
    return _stamps[url]


def renew_stamp(url: str) -> None:
    """Ask the server what a file is like now. Raises as `list_files` does."""
    with _errors_of(url):
        system, path = _file_system(url)
        system.invalidate_cache()
        _stamps[url] = _stamp(system.info(path))


def read(url: str) -> bytes:
    """All bytes of a file. Raises FileNotFoundError, and else as `list_files` does."""
    with _errors_of(url, missing=True):
        system, path = _file_system(url)
        content: bytes = system.cat_file(path)
        return content


def read_part(url: str, begin: int, size: int) -> bytes:
    """`size` bytes of a file from `begin` on. Raises as `read` does."""
    with _errors_of(url, missing=True):
        system, path = _file_system(url)
        content: bytes = system.cat_file(path, start=begin, end=begin + size)
    # plain web servers answer with the whole file
    return content if len(content) <= size else content[begin : begin + size]


@contextmanager
def opened(url: str) -> Iterator[BinaryIO]:
    """A file to be read from begin to end, with seeks forwards. Raises as `list_files` does."""
    with _errors_of(url):
        system, path = _file_system(url)
        with system.open(path, "rb", block_size=_BLOCK_BYTES, cache_type="readahead") as stream:
            yield stream


def _file_system(url: str) -> "tuple[AbstractFileSystem, str]":
    kind = url.partition("://")[0]
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise MissingExtraError(f"{url}: images behind a URL need fsspec", install_command("remote")) from None
    try:
        system, path = url_to_fs(url)
    except ImportError as error:
        extra = install_command("remote") if kind in ("s3", "http", "https") else f"pip install what reads {kind}://"
        raise MissingExtraError(f"{url}: {error}", extra) from None
    except ValueError as error:
        raise DataError(f"{url}: {error}", "fsspec knows s3://, gs://, https:// and others") from None
    return system, path


def _complete(system: "AbstractFileSystem") -> dict[str, str]:
    """What makes `find` complete or fail: where it goes from folder to folder it passes over those that fail."""
    from fsspec import AbstractFileSystem
    from fsspec.asyn import AsyncFileSystem

    kind = type(system)
    walks = kind._find is AsyncFileSystem._find if system.async_impl else kind.find is AbstractFileSystem.find
    return {"on_error": "raise"} if walks else {}


@contextmanager
def _errors_of(url: str, missing: bool = False) -> Iterator[None]:
    """Everything that can go wrong on the way to a server, as an error that says what to do.

    With `missing` a file that is not there stays a FileNotFoundError.
    """
    try:
        yield
    except ImgrecError:
        raise
    except FileNotFoundError as error:
        if missing:
            raise FileNotFoundError(2, "no such file behind the URL") from error
        reason = f": {_told(error)}" if error.args and str(error) != url else ""
        raise DataError(f"{url}: there is nothing{reason}", "see that all of it is spelled right") from error
    except PermissionError as error:
        raise _no_access(url, error) from error
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except Exception as error:  # aiohttp, botocore and others have errors of their own, most without a common base
        if type(error).__name__ in ("NoCredentialsError", "PartialCredentialsError") or _status_of(error) in (401, 403):
            raise _no_access(url, error) from error
        raise UnreachableError(
            f"{url}: cannot be read: {_told(error)}",
            "see that the server can be reached from here, then start again; nothing half read is kept",
        ) from error


def _no_access(url: str, error: Exception) -> DataError:
    return DataError(
        f"{url}: no access: {_told(error)}",
        "who may read is settled by the environment, such as AWS_PROFILE, or AWS_ACCESS_KEY_ID and its secret key",
    )


def _status_of(error: Exception) -> int | None:
    status = getattr(error, "status", None)
    return status if isinstance(status, int) else None


def _told(error: Exception) -> str:
    """What an error says, on one line, and without what follows a question mark in a URL: signed addresses carry what
    opens them there."""
    text = re.sub(r"\s+", " ", str(error)).strip() or type(error).__name__
    return re.sub(r"\?[^\s'\")]+", "?…", text)


def _stamp(facts: dict[str, Any]) -> "Stamp | None":
    version = next((facts[key] for key in _VERSION_KEYS if facts.get(key)), None)
    if facts.get("size") is None or version is None:
        return None
    return int(facts["size"]), number_of(str(version)), 0, 0


def number_of(text: str) -> int:
    """A text as an integer of 63 bits, by BLAKE2b."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 1
