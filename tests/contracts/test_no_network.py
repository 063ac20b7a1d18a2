"""imgrec opens no connection: train, evaluate and predict do their work in a process whose sockets are refused."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

# Python loads a module of this name by itself at start; an audit hook sees every socket of Python code in the process,
# and also writes down attempts whose error somebody swallows.
GUARD = """\
import os, sys

def refuse(event, arguments):
    if event in {"socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.gethostbyname"}:
        with open(os.environ["REFUSED"], "a") as record:
            record.write(f"{event} {arguments[-1:]!r}\\n")
        raise OSError(f"refused by the test: {event}")

sys.addaudithook(refuse)
"""


class Refused:
    """Runs Python processes that cannot connect, and keeps what they tried."""

    def __init__(self, folder: Path) -> None:
        self.attempts = folder / "attempts.txt"
        (folder / "guard").mkdir()
        (folder / "guard" / "sitecustomize.py").write_text(GUARD, encoding="utf-8")
        paths = [str(folder / "guard"), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "REFUSED": str(self.attempts)}
        self.folder = folder

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
def refused(tmp_path: Path) -> Refused:
    return Refused(tmp_path)


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
