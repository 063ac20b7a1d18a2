"""A service on the run that is trained once a session, asked without a socket."""

import base64
import contextlib
import http.client
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette", reason="serving needs the `serve` extra")
pytest.importorskip("uvicorn", reason="serving needs the `serve` extra")


@pytest.fixture(scope="session")
def images(tiny_config: Path) -> list[bytes]:
    """A circle, a cross and a square, as PNG files' bytes."""
    folder = tiny_config.parent / "shapes"
    return [(folder / shape / "00.png").read_bytes() for shape in ("circle", "cross", "square")]


@pytest.fixture
def make_client(tiny_run: Path) -> Iterator[Callable[..., Any]]:
    """`make_client(limits=…, token=…, …)` → a client of a new service; `.service` and `.log` lie on it."""
    from starlette.testclient import TestClient

    from imgrec_cli.serving.app import create_app
    from imgrec_cli.serving.service import Limits, Service

    services = []

    def make(*, token: str = "", workers: int = 2, name: str = "shapes", **limits: Any) -> TestClient:
        service = Service(tiny_run, name=name, workers=workers, limits=Limits(**limits))
        services.append(service)
        log: list[Any] = []
        client: Any = TestClient(create_app(service, token=token, on_request=log.append))
        client.service, client.log = service, log
        return client  # type: ignore[no-any-return]

    yield make
    for service in services:
        service.close()


@pytest.fixture
def client(make_client: Callable[..., Any]) -> Any:
    return make_client()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


class Served:
    """A process of `imgrec serve` on a free port."""

    def __init__(self, run, *options, **environment):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "imgrec_cli", "serve", str(run), "--port", "0", "--name", "shapes", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        self.said = self.process.stderr.readline()
        self.port = int(re.search(r"http://127\.0\.0\.1:(\d+) ", self.said).group(1))

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)

    def ask(self, method="GET", path="/v2/health/ready", body=None, headers=None):
        with contextlib.closing(self.connect()) as connection:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response.status, response.read()

    def end(self):
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err


@pytest.fixture
def serve(tiny_run):
    started = []

    def start(*options, **environment):
        started.append(Served(tiny_run, *options, **environment))
        return started[-1]

    yield start
    for served in started:
        if served.process.poll() is None:
            served.process.kill()
        served.process.communicate()
