"""Stops that lose nothing: the first SIGINT or SIGTERM ends training in good order, a second SIGINT at once."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from imgrec_cli.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Whether somebody asked this process to stop, and `at_once`; `run` is named in what is then said."""

    def __init__(self) -> None:
        self.run: Path | None = None
        self.at_once = False
        self._asked = ""
        self._deferred = False

    @property
    def is_asked(self) -> bool:
        return bool(self._asked)

    def asked(self, number: int) -> None:
        """Take note of a signal. Raises KeyboardInterrupt, because `except Exception` does not catch it, unless the
        stop is deferred; a second SIGINT raises it in any case."""
        self.at_once = bool(self._asked) and number == signal.SIGINT
        self._asked = self._asked or signal.Signals(number).name
        if self.at_once or not self._deferred:
            raise KeyboardInterrupt

    def ask_all(self, asked_somewhere: bool) -> None:
        """Take note that a process of the same job was asked to stop."""
        if asked_somewhere:
            self._asked = self._asked or "a stop of another process"

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Let a signal wait for the next `check`, or for the end of the block, instead of raising anywhere."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False
        if self._asked:
            raise KeyboardInterrupt

    def check(self, save: Callable[[], None], where: str = "") -> None:
        """Where a stop was asked for, call `save` and raise Interrupted, which says `where` training stood."""
        if self._asked:
            save()
            raise self.error(where)

    def error(self, where: str = "") -> Interrupted:
        """The error that says by what the process was stopped, and how to go on."""
        hint = f"to go on: imgrec train --resume {self.run}" if self.run else "the same command starts it again"
        return Interrupted(f"stopped by {self._asked}{f' in {where}' if where else ''}; nothing is lost", hint)


@contextmanager
def stopping() -> Iterator[Stop]:
    """Watch for SIGINT and SIGTERM in the block, where this is the main thread; the former handlers come back after."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(number: int, frame: FrameType | None) -> None:
        stop.asked(number)

    # a signal that this process was started to ignore, as `nohup … &` does, stays ignored
    before = {number: signal.signal(number, handle) for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
