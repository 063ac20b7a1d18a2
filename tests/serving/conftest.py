"""A service on the run that is trained once a session, asked without a socket."""

import base64
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
