"""What the library reports while it works: values handed to one listener; only cli/output.py prints them."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Note:
    """One sentence worth knowing, such as the device and precision in use."""

    text: str


@dataclass(frozen=True, slots=True)
class Warn:
    """One sentence about something that may be wrong with the user's data or machine."""

    text: str


@dataclass(frozen=True, slots=True)
class Advance:
    """`done` of `total` images of a named stage, such as packing or evaluating."""

    stage: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Step:
    """Position and running averages inside an epoch; `epoch` and `step` count from 1."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    accuracy: float
    images_per_second: float


@dataclass(frozen=True, slots=True)
class EpochEnd:
    """Metrics of a finished epoch, by their path names such as `val/accuracy`."""

    epoch: int
    epochs: int
    metrics: dict[str, float]
    is_best: bool


Event = Note | Warn | Advance | Step | EpochEnd
Listener = Callable[[Event], None]


def ignore(event: Event) -> None:
    """The listener that listens to nothing."""


def readable_size(size_bytes: float) -> str:
    """Bytes as a short text in powers of 1000, such as `1.2 GB`."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} {unit}" if unit == "bytes" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} TB"
