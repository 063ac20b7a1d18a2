"""The process: uvicorn on a socket, with what it lacks against slow and endless clients, and an orderly end."""

import asyncio
import json
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator
from time import monotonic
from types import FrameType
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from imgrec_cli.errors import InputError
from imgrec_cli.machine import return_large_memory
from imgrec_cli.serving.service import Service

MAX_CONNECTIONS = 512  # half of the open files that most systems allow a process
_HEAD_SECONDS = 10  # for the head of a request, for the rest of a body already answered, and for reading an answer
_HEAD_BYTES = 64 * 1024
_KEEP_ALIVE_SECONDS = 30
# After the last moment for new connections, for requests that are on their way on open ones
_GRACE_SECONDS = 0.5


class _Connection(HttpToolsProtocol):
    """One connection, with a deadline whenever it waits for its client outside of a body that is being read.

    Bodies have their deadline in the application. Names as in uvicorn 0.54 (uvicorn/protocols/http/httptools_impl.py).
    """

    _deadline: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _in_head = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            self._refuse(503, "too many connections", "retry-after: 1\r\n")
        else:
            self._expect_within(_HEAD_SECONDS)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > _HEAD_BYTES:
                self._refuse(431, "the head of the request is too large")
        elif self._deadline is None and self.timeout_keep_alive_task is None and self._idle:
            self._expect_within(_HEAD_SECONDS)  # empty lines between requests, which begin none

    @property
    def _idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._head_bytes = True, 0
        self._expect_within(_HEAD_SECONDS)

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._in_head = False
        self._expect_within(None)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._expect_within(None)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if (
            self._idle and self.cycle.more_body
        ):  # answered before the body was there, such as 413: the rest is passed over
            self._expect_within(_HEAD_SECONDS)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._expect_within(_HEAD_SECONDS)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._expect_within(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect_within(None)
        super().connection_lost(exc)

    def shutdown(self) -> None:
        if self._idle:
            self.loop.call_later(_GRACE_SECONDS, super().shutdown)
        else:
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "not an HTTP request")

    def _expect_within(self, seconds: float | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None if seconds is None else self.loop.call_later(seconds, self._too_slow)

    def _too_slow(self) -> None:
        if self._in_head:
            self._refuse(408, f"the head of the request was not there within {_HEAD_SECONDS} seconds")
        else:
            self.transport.abort()

    def _refuse(self, status: int, message: str, headers: str = "") -> None:
        body = json.dumps({"error": message})
        self.transport.write(
            f"HTTP/1.1 {status} \r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
            f"{headers}connection: close\r\n\r\n{body}".encode()
        )
        self.transport.close()
        self._expect_within(None)


class _Server(uvicorn.Server):
    """Ends in three steps: not ready, but answering; no new connections; gone when the last request is answered."""

    def __init__(
        self, config: uvicorn.Config, service: Service, drain_seconds: float, on_started: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._service = service
        self._drain_seconds = drain_seconds
        self._on_started = on_started
        self._stop_at: float | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_started()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._service.draining:  # asked twice
            self.should_exit = self.force_exit = True
            return
        self._service.draining = True
        # a person at the keyboard does not wait for a balancer to look elsewhere
        self._stop_at = monotonic() + (0 if sig == signal.SIGINT else self._drain_seconds)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # The system has connections ready that asyncio has not fetched yet; closing the socket would reset them.
        waiting = [connection for listening in sockets or () for connection in _ready_connections(listening)]
        for server in self.servers:
            server.close()
        loop = asyncio.get_running_loop()
        for connection in waiting:
            await loop.connect_accepted_socket(self._protocol, connection)
        await super().shutdown(sockets)

    def _protocol(self) -> _Connection:
        return _Connection(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

    async def on_tick(self, counter: int) -> bool:
        if self._stop_at is not None and monotonic() >= self._stop_at:
            return True
        return await super().on_tick(counter)


def _ready_connections(listening: socket.socket) -> Iterator[socket.socket]:
    while True:
        try:
            connection, _ = listening.accept()
        except OSError:  # there are no more, or the socket is closed
            return
        connection.setblocking(False)
        yield connection


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 is any free one. Raises InputError where the address cannot be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # asyncio switches Nagle's delay of 40 ms off only where the protocol is named, which create_server() does not
        listening = socket.socket(family, kind, protocol)
        if os.name == "posix":  # on Windows this would let two processes share the port
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(2048)
        return listening
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{host}:{port}: {reason}", "choose another with --host and --port") from error


def run(
    app: ASGIApp, service: Service, listening: socket.socket, *, drain_seconds: float, on_started: Callable[[], None]
) -> None:
    """Serve until SIGTERM or Ctrl-C, then answer what was accepted and return.

    After SIGTERM `service` is not ready, and new requests are still answered, for `drain_seconds`. After that the
    listening socket is closed; what is in work has as long as a request may take. A second signal ends at once.
    """
    return_large_memory()
    for name in ("uvicorn.error", "python_multipart.multipart"):  # what clients do wrong is theirs to hear, not ours
        logging.getLogger(name).setLevel(logging.ERROR)
    config: Any = uvicorn.Config(
        app,
        http=_Connection,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=int(service.limits.seconds + 5),
    )
    try:
        _Server(config, service, drain_seconds, on_started).run(sockets=[listening])
    finally:
        service.close()
