"""The command line as a user meets it: words in, text and an exit code out."""

import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


@pytest.fixture
def imgrec(monkeypatch, capsys) -> Callable[..., Outcome]:
    """Run `imgrec WORDS…` in this process."""
    from imgrec_cli.cli import main

    def run(*words: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["imgrec", *map(str, words)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run
