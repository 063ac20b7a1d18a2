"""Every error imgrec raises on purpose: what went wrong, where, and what to do about it."""

from importlib.util import find_spec
from pathlib import Path


class ImgrecError(Exception):
    """Something the user can act on: `message` says what, where and what was got, `hint` what to do.

    `exit_code` is part of the public contract (docs/exit-codes.md, tests/contracts).
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class InputError(ImgrecError):
    """A path, option or file that the user gave cannot be used."""

    exit_code = 2


class ConfigError(InputError):
    """A configuration with one or more problems, all of them in `message`, one a line."""


class DataError(InputError):
    """A collection of images that cannot be trained or judged on as it is."""


class BadImageError(ImgrecError):
    """One image that cannot be read; `message` is the reason without the file's name."""

    exit_code = 3


class ParityError(ImgrecError):
    """The exported model does not answer as the trained one did; nothing was shipped."""

    exit_code = 4


class ExportError(ParityError):
    """The model cannot be written in the format; nothing was shipped."""


class TrainingError(ImgrecError):
    """Training cannot go on, such as a loss that is no longer a finite number."""

    exit_code = 5


def install_command(extra: str) -> str:
    """What to type for the packages of an extra; imgrec is installed from its own folder, not from an index."""
    return f'in the folder of imgrec: pip install -e ".[{extra}]" -c constraints.txt'


ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".xz", ".bz2", ".7z", ".rar")


def unpack_command(archive: Path) -> tuple[str, Path]:
    """What to type to unpack an archive of images, and the folder that then holds them."""
    target = archive.with_name(archive.name.split(".")[0])
    if archive.suffix.lower() == ".zip":
        return f"python -m zipfile -e {quoted(archive)} {quoted(target)}", target
    return f"tar -xf {quoted(archive)}", target


def quoted(path: Path | str) -> str:
    """A path as it is typed in a command: in quotes where it holds a space."""
    return f'"{path}"' if " " in str(path) else str(path)


class MissingExtraError(ImgrecError):
    """A command needs packages of an extra that is not installed; `hint` is the command that installs it."""

    exit_code = 6


def require_tensorflow(what: str) -> None:
    """Raise MissingExtraError where TensorFlow, which `what` needs, is not installed."""
    if find_spec("tensorflow") is None:
        raise MissingExtraError(f"{what} needs tensorflow, which is not installed", install_command("train"))


class GateError(ImgrecError):
    """A model was judged, and a figure is below what was asked of it."""

    exit_code = 8


class DiskSpaceError(ImgrecError):
    """A disk is too small for what has to be written, or became full."""

    exit_code = 7


class Interrupted(ImgrecError):
    """Training was asked to stop and did, all state saved; `hint` is the command that goes on.

    The code is EX_TEMPFAIL of sysexits.h: try again later.
    """

    exit_code = 75


class ReproductionError(ImgrecError):
    """A run trained again did not end as the first time."""

    exit_code = 9


class PeerLostError(ImgrecError):
    """Another process of a training on several hosts died or hangs; the run goes on from its last checkpoint."""

    exit_code = 10


class UnreachableError(ImgrecError):
    """A server that holds images does not answer, or stopped answering midway; nothing half read is kept."""

    exit_code = 11
