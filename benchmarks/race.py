"""Processes that train in turns: A B C A B C …, one at a time, so that a slow minute of the machine hits all alike."""

import json
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

HERE = Path(__file__).parent
CAN_STOP = hasattr(signal, "SIGSTOP")  # not on Windows, where waiting processes are only idle


@dataclass(frozen=True, slots=True)
class Contestant:
    """A script of this folder with its arguments; `ours` runs in imgrec's environment, others in the peers'."""

    name: str
    script: str
    arguments: Sequence[str]
    ours: bool = False


@dataclass(slots=True)
class Result:
    """Images per second of each counted round, or why there is none."""

    name: str
    speeds: list[float] = field(default_factory=list)
    versions: Mapping[str, str] = field(default_factory=dict)
    note: str = ""

    @property
    def median(self) -> float:
        """Median of the rounds in images per second."""
        return statistics.median(self.speeds)


class Failed(Exception):
    """A contestant that ended, with what it said last."""


class Process:
    """A contestant's process, which answers in JSON lines."""

    def __init__(self, contestant: Contestant, python: str, environment: Mapping[str, str], log: Path) -> None:
        self._log = log
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                [python, str(HERE / contestant.script), *contestant.arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environment,
                # its own group for the signals; in this session, so that the kernel ends it where the runner is killed
                process_group=0 if CAN_STOP else None,
            )
        self._orders, self._answers = cast(IO[str], self._process.stdin), cast(IO[str], self._process.stdout)

    def answer(self) -> dict[str, Any]:
        """The next answer. Raises Failed where the process has ended."""
        line = self._answers.readline()
        if not line:
            raise Failed("\n".join(self._log.read_text(errors="replace").splitlines()[-15:]) or "it said nothing")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def go(self, steps: int) -> dict[str, Any]:
        """Wake it up, let it train, put it to sleep with its workers and threads."""
        self._signal("SIGCONT")
        self._orders.write(f"go {steps}\n")
        self._orders.flush()
        answer = self.answer()
        self.pause()
        return answer

    def pause(self) -> None:
        """Stop it and everything it started until the next `go`."""
        self._signal("SIGSTOP")

    def end(self) -> None:
        """End it and everything it started."""
        if CAN_STOP:
            self._signal("SIGKILL")
        else:
            self._process.kill()
        self._process.wait()

    def _signal(self, name: str) -> None:
        if CAN_STOP and self._process.poll() is None:
            os.killpg(self._process.pid, getattr(signal, name))


def run(
    contestants: Sequence[Contestant], rounds: int, steps: int, peers: str, environment: Mapping[str, str], logs: Path
) -> list[Result]:
    """Start all, one after the other, then `rounds` rounds of `steps` steps each; the first round is not counted."""
    results = [Result(contestant.name) for contestant in contestants]
    processes: dict[int, Process] = {}
    try:
        for number, (contestant, result) in enumerate(zip(contestants, results, strict=True)):
            _tell(f"starting {contestant.name}")
            python = sys.executable if contestant.ours else peers
            process = processes[number] = Process(contestant, python, environment, logs / f"{number}.log")
            try:
                answer = process.answer()
            except Failed as failure:
                answer = {"skip": f"failed: {failure}"}
            if "skip" in answer:
                result.note = answer["skip"].splitlines()[0]
                _tell(f"  left out: {answer['skip']}")
                processes.pop(number).end()
                continue
            process.pause()
            result.versions, result.note = answer["versions"], answer["note"]
        for count in range(rounds):
            for number in list(processes):
                try:
                    answer = processes[number].go(steps)
                except Failed as failure:
                    results[number].note = f"failed in round {count + 1}"
                    _tell(f"{results[number].name} failed: {failure}")
                    processes.pop(number).end()
                    continue
                speed = answer["images"] / answer["seconds"]
                _tell(f"round {count + 1} of {rounds}: {results[number].name}: {speed:.1f} images/s")
                if count:
                    results[number].speeds.append(speed)
    finally:
        for process in processes.values():
            process.end()
    return results


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
