"""imgrec opens no connection: train, evaluate and predict do their work in a process whose sockets are refused."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


class Refused:
    """Runs Python processes that cannot connect, and keeps what they tried."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self.environment = folder, environment
        self.attempts = folder / "attempts.txt"

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=300,
        )

    def imgrec(self, *arguments: str) -> None:
        done = self.run("-c", "from imgrec_cli.cli import main; main()", *arguments)
        assert done.returncode == 0, done.stderr


@pytest.fixture
def refused(tmp_path: Path, sockets_refused: Callable[[Path], dict[str, str]]) -> Refused:
    return Refused(tmp_path, sockets_refused(tmp_path))


def test_the_guard_refuses_and_remembers(refused: Refused) -> None:
    done = refused.run("-c", "import socket; socket.create_connection(('127.0.0.1', 9))")
    assert "refused by the test" in done.stderr
    assert refused.attempts.read_text(encoding="utf-8")


@pytest.mark.tf
def test_train_evaluate_and_predict_open_no_connection(refused: Refused, tiny_config: Path) -> None:
    refused.imgrec("train", str(tiny_config))
    refused.imgrec("evaluate")
    refused.imgrec("predict", str(tiny_config.parent / "shapes"))
    assert not refused.attempts.exists(), refused.attempts.read_text(encoding="utf-8")
