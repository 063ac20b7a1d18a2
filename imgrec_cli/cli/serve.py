"""imgrec serve"""

import json
import os
import threading
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imgrec_cli.cli import output
from imgrec_cli.cli.newest import chosen_model
from imgrec_cli.cli.options import CoverageOption, MinConfidenceOption, QuietOption
from imgrec_cli.errors import InputError, MissingExtraError, install_command

if TYPE_CHECKING:
    from imgrec_cli.serving.telemetry import Access

TOKEN_VARIABLE = "IMGREC_SERVE_TOKEN"
_MEBIBYTE = 1024 * 1024
_LONGEST_LOG = 10_000  # lines that wait to be printed
_LAST_LINES_SECONDS = 2
_LOG_SECONDS = 0.1


def serve(
    model: Annotated[
        Path | None,
        typer.Argument(metavar="[RUN|BUNDLE]", help="Run or bundle; the newest finished run by default."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for every IPv4 one.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for any free one.")] = 8000,
    name: Annotated[str, typer.Option(help="Name of the model in /v2/models/NAME; the bundle's by default.")] = "",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Interpreters, each on a core of its own; one per core by default.")
    ] = None,
    queue_images: Annotated[
        int, typer.Option(min=1, help="Images that may wait; one more is answered with 503.")
    ] = 128,
    max_body_mib: Annotated[float, typer.Option(min=0.001, help="Largest body of a request, in MiB.")] = 32,
    max_megapixels: Annotated[float, typer.Option(min=0.001, help="Largest image, in millions of pixels.")] = 50,
    timeout_seconds: Annotated[float, typer.Option(min=0.1, help="Time that a request may take.")] = 30,
    drain_seconds: Annotated[
        float, typer.Option(min=0, help="After SIGTERM: time to be not ready and answer still.")
    ] = 3,
    token_file: Annotated[
        Path | None,
        typer.Option(help=f"File with the bearer token that requests must show; or the variable {TOKEN_VARIABLE}."),
    ] = None,
    min_confidence: MinConfidenceOption = 0.0,
    coverage: CoverageOption = None,
    quiet: QuietOption = False,
) -> None:
    """Answer over HTTP: a page to try, /predict, and the Open Inference Protocol.

    Example: imgrec serve runs/RUN --port 8000
    """
    try:
        from imgrec_cli.serving.app import create_app
        from imgrec_cli.serving.server import listen, run
        from imgrec_cli.serving.service import Limits, Service
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"serving needs {error.name}, which is not installed", install_command("serve")
        ) from error
    from imgrec_cli.machine import available_cores

    token = _token(token_file)
    listening = listen(host, port)
    service = Service(
        chosen_model(model),
        name=name,
        workers=workers or available_cores(),
        min_confidence=min_confidence,
        coverage=coverage,
        limits=Limits(
            body_bytes=int(max_body_mib * _MEBIBYTE),
            pixels=int(max_megapixels * 1e6),
            seconds=timeout_seconds,
            queue_images=queue_images,
        ),
    )

    def started() -> None:
        address, actual_port = listening.getsockname()[:2]
        url = f"http://{f'[{address}]' if ':' in address else address}:{actual_port}"
        output.note(f"serving {service.name} with {service.batcher.workers} workers on {url} (Ctrl-C stops)")
        if not token and address not in ("127.0.0.1", "::1"):
            output.note(
                f"warning: anyone who reaches {url} may ask; set {TOKEN_VARIABLE} or --token-file to change that"
            )

    log = None if quiet else _AccessLog()
    app = create_app(service, token=token, on_request=log.add if log else lambda access: None)
    run(app, service, listening, drain_seconds=drain_seconds, on_started=started)
    if log:
        log.close()


class _AccessLog:
    """One JSON line per request on standard output, printed by a thread of its own, several at once.

    A thread that wakes for each would take Python's lock from those that answer. Whoever reads the lines may be slow or
    gone: then some are left out, and requests are answered as before.
    """

    def __init__(self) -> None:
        self._accesses: deque[Access] = deque()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._print, name="access-log", daemon=True)
        self._thread.start()

    def add(self, access: "Access") -> None:
        if len(self._accesses) < _LONGEST_LOG:
            self._accesses.append(access)

    def close(self) -> None:
        """Wait a moment for the lines that are left."""
        self._closed.set()
        self._thread.join(_LAST_LINES_SECONDS)

    def _print(self) -> None:
        last = False
        while not last:
            last = self._closed.wait(_LOG_SECONDS)
            lines = [json.dumps(self._accesses.popleft().as_dict()) for _ in range(len(self._accesses))]
            if lines:
                with suppress(OSError):
                    output.line("\n".join(lines))


def _token(file: Path | None) -> str:
    """The token of the file, or of the environment; empty where there is none. Raises InputError."""
    if file is None:
        return os.environ.get(TOKEN_VARIABLE, "")
    try:
        token = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read as a token: {error}") from error
    if not token:
        raise InputError(f"{file}: holds no token")
    return token
