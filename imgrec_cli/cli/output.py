"""The only place that prints: for people, for programs (JSON), or quietly."""

import json
import sys
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from imgrec_cli.errors import ImgrecError
from imgrec_cli.progress import Advance, EpochEnd, Event, Note, Step, Warn, readable_size

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

JSON_VERSION = 1


class Format(StrEnum):
    """How results are printed."""

    human = "human"
    json = "json"


def line(text: str = "") -> None:
    """One line of a result, on standard output."""
    print(text, flush=True)


def note(text: str) -> None:
    """One line beside a result, on standard error."""
    print(text, file=sys.stderr, flush=True)


def result(command: str, value: Any) -> None:
    """A command's result as JSON in its versioned envelope, on standard output."""
    line(json.dumps({"imgrec": JSON_VERSION, "command": command, "result": value}, ensure_ascii=False))


def failure(error: ImgrecError, kind: str = "error: ") -> None:
    """An error for people, on standard error: what happened, then what to do."""
    note(f"{kind}{error.message}")
    if error.hint:
        note(f"hint: {error.hint}" if kind else error.hint)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Aligned columns on standard output: the first to the left, the others to the right."""
    cells = [list(header), *(list(row) for row in rows)]
    widths = [max(_width(row[column]) for row in cells) for column in range(len(header))]
    for row in cells:
        padded = [
            cell + " " * (width - _width(cell)) if column == 0 else " " * (width - _width(cell)) + cell
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        line("  ".join(padded).rstrip())


def _width(text: str) -> int:
    """Columns that a text takes on a terminal: Chinese characters take two."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def percent(share: float) -> str:
    """A share as a percentage with one decimal."""
    return f"{100 * share:.1f} %"


size = readable_size


class ProgressPrinter:
    """A listener that shows events: live bars on a terminal, plain lines elsewhere, JSON lines, or nothing."""

    def __init__(self, output_format: Format, quiet: bool) -> None:
        self._json = output_format is Format.json
        self._quiet = quiet
        self._live = sys.stdout.isatty() and not quiet and not self._json
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._stage = ""

    def __enter__(self) -> "ProgressPrinter":
        return self

    def __exit__(self, *exception: object) -> None:
        self._end_bar()

    def __call__(self, event: Event) -> None:
        if self._quiet:
            if isinstance(event, Warn):
                note(f"warning: {event.text}")
        elif self._json:
            if not isinstance(event, (Advance, Step)):
                self._as_json(event)
        else:
            self._for_people(event)

    def _as_json(self, event: Note | Warn | EpochEnd) -> None:
        match event:
            case Note(text):
                values: dict[str, Any] = {"note": text}
            case Warn(text):
                values = {"warning": text}
            case EpochEnd():
                values = {"epoch": event.epoch, "epochs": event.epochs, "best": event.is_best, **event.metrics}
        line(json.dumps({"imgrec": JSON_VERSION, "event": values}, ensure_ascii=False))

    def _for_people(self, event: Event) -> None:
        match event:
            case Note(text):
                self._end_bar()
                line(text)
            case Warn(text):
                self._end_bar()
                note(f"warning: {text}")
            case Advance(stage, done, total):
                self._bar(stage, done, total, "")
            case Step():
                live = (
                    f"loss {event.loss:.4f}  accuracy {percent(event.accuracy)}  {event.images_per_second:.0f} images/s"
                )
                self._bar(f"epoch {event.epoch}/{event.epochs}", event.step, event.steps, live)
            case EpochEnd():
                self._end_bar()
                values = event.metrics
                line(
                    f"epoch {event.epoch}/{event.epochs}  "
                    f"train: loss {values['train/loss']:.4f} accuracy {percent(values['train/accuracy'])}  "
                    f"validation: loss {values['val/loss']:.4f} accuracy {percent(values['val/accuracy'])}  "
                    f"{values['images_per_second']:.0f} images/s  {values['seconds']:.1f} s"
                    + ("  best" if event.is_best else "")
                )

    def _bar(self, stage: str, done: int, total: int, live: str) -> None:
        if not self._live:
            return
        if self._progress is None or stage != self._stage:
            self._end_bar()
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[live]}"),
                transient=True,
            )
            self._progress.start()
            self._task = self._progress.add_task(stage, total=total, live=live)
            self._stage = stage
        if self._task is not None:
            self._progress.update(self._task, completed=done, live=live)

    def _end_bar(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
