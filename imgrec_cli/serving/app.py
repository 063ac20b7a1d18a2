"""The web application: what each address answers. It knows HTTP and the service, and neither sockets nor processes."""

import asyncio
import hmac
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from time import perf_counter
from typing import Any, TypeVar

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from imgrec_cli.classifier import Prediction, Unreadable
from imgrec_cli.errors import BadImageError
from imgrec_cli.serving import protocol
from imgrec_cli.serving.batching import QueueFullError
from imgrec_cli.serving.bodies import Body, parsed
from imgrec_cli.serving.openapi import document
from imgrec_cli.serving.pages import page_response
from imgrec_cli.serving.protocol import MalformedError, UnusableError
from imgrec_cli.serving.service import OverloadedError, Service
from imgrec_cli.serving.telemetry import Access

# Probes have no token, and the page asks the person for it; what else is open says nothing of the model.
_OPEN_PATHS = {"/", "/docs", "/openapi.json", "/v2/health/live", "/v2/health/ready"}
_RETRY = {"Retry-After": "1"}
_DEFAULT_TOP = 5

Result = TypeVar("Result")


def create_app(
    service: Service, *, token: str = "", on_request: Callable[[Access], None] = lambda access: None
) -> ASGIApp:
    """The application that serves `service`, with a `token` to its bearers only; `on_request` hears of every answer."""
    endpoints = _Endpoints(service, bool(token))
    model = "/v2/models/{name}"
    routes = [
        Route("/", endpoints.page, methods=["GET"]),
        Route("/docs", endpoints.docs, methods=["GET"]),
        Route("/openapi.json", endpoints.openapi, methods=["GET"]),
        Route("/metrics", endpoints.metrics, methods=["GET"]),
        Route("/predict", endpoints.predict, methods=["POST"]),
        Route("/explain", endpoints.explain, methods=["POST"]),
        Route("/v2", endpoints.server, methods=["GET"]),
        Route("/v2/health/live", endpoints.live, methods=["GET"]),
        Route("/v2/health/ready", endpoints.ready, methods=["GET"]),
    ]
    for prefix in (model, model + "/versions/{version}"):
        routes += [
            Route(prefix, endpoints.model, methods=["GET"]),
            Route(prefix + "/ready", endpoints.model_ready, methods=["GET"]),
            Route(prefix + "/infer", endpoints.infer, methods=["POST"]),
        ]
    handlers: dict[Any, Any] = {
        HTTPException: lambda _, error: _error(error.status_code, error.detail, error.headers),
        MalformedError: lambda _, error: _error(400, str(error)),
        BadImageError: lambda _, error: _error(422, error.message),
        UnusableError: lambda _, error: _error(422, str(error)),
        QueueFullError: lambda _, error: _error(503, "too many images are waiting", _RETRY),
        OverloadedError: lambda _, error: _error(503, str(error), _RETRY),
        Exception: lambda _, error: _error(500, "a fault of imgrec; its log says more"),
    }
    app = Starlette(routes=routes, exception_handlers=handlers)
    app.router.redirect_slashes = False  # a redirect would repeat the Host header that a client made up
    return _Gate(app, service, token, on_request)


def _error(status: int, message: str, headers: Any = None) -> JSONResponse:
    return JSONResponse({"error": message}, status, headers)


class _Gate:
    """Around the application: who may pass, what is written down, and the end of connections while draining."""

    def __init__(self, app: ASGIApp, service: Service, token: str, on_request: Callable[[Access], None]) -> None:
        self._app = app
        self._service = service
        self._token = token.encode()
        self._on_request = on_request

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        started, status = perf_counter(), 0

        async def marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Content-Type-Options"] = "nosniff"
                if self._service.draining:
                    headers["Connection"] = "close"
            await send(message)

        try:
            if self._may_pass(scope):
                await self._app(scope, receive, marked)
            else:
                refusal = _error(
                    401, "a bearer token is needed: Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"}
                )
                await refusal(scope, receive, marked)
        except Exception:
            logging.getLogger(__name__).exception("while answering %s", scope["path"])
        finally:
            self._write_down(scope, status, started)

    def _may_pass(self, scope: Scope) -> bool:
        path: str = scope["path"]
        if not self._token or path in _OPEN_PATHS or (path.startswith("/v2/models/") and path.endswith("/ready")):
            return True
        kind, _, given = Headers(scope=scope).get("authorization", "").partition(" ")
        # Headers are read as latin-1: encoded so, the bytes that were sent come back. Both are compared, at a speed
        # that does not depend on where they differ.
        return hmac.compare_digest(given.encode("latin-1").strip(), self._token) and kind.lower() == "bearer"

    def _write_down(self, scope: Scope, status: int, started: float) -> None:
        endpoint = scope.get("endpoint")
        access = Access(
            time=datetime.now(UTC),
            client=(scope.get("client") or ("",))[0],
            method=scope["method"],
            path=scope["path"][:200],
            endpoint=getattr(endpoint, "__name__", "none"),
            status=status,
            milliseconds=round(1000 * (perf_counter() - started), 2),
            images=scope.get("imgrec.images", 0),
        )
        self._service.metrics.count_request(access)
        self._on_request(access)


class _Endpoints:
    """One method per address."""

    def __init__(self, service: Service, needs_token: bool) -> None:
        self._service, self._needs_token = service, needs_token
        self._openapi = document(service, needs_token)

    async def page(self, request: Request) -> Response:
        return page_response("page.html")

    async def docs(self, request: Request) -> Response:
        return page_response("docs.html")

    async def openapi(self, request: Request) -> Response:
        return JSONResponse(self._openapi)

    async def metrics(self, request: Request) -> Response:
        return Response(self._service.metrics.page(), media_type=CONTENT_TYPE_LATEST)

    async def predict(self, request: Request) -> Response:
        top = _top(request)
        async with _Within(self._service) as within:
            with Body(request, self._service) as body:
                images = await body.images()
                answers = await within.answered(request, images)
        answered = [_as_dict(answer, top) for answer in answers]
        readable = any(isinstance(answer, Prediction) for answer in answers)
        result: dict[str, Any] = {"model": self._service.name, "predictions": answered}
        if not readable:
            result["error"] = f"{answered[0]['path']}: {answered[0]['error']}"
        return JSONResponse(result, 200 if readable else 422)

    async def explain(self, request: Request) -> Response:
        async with _Within(self._service) as within:
            with Body(request, self._service) as body:
                images = await body.images()
                if len(images) != 1:
                    raise UnusableError(f"one image at a time is explained, got {len(images)}")
                name, image = images[0]
                prediction, strength = await within.measured(request, 1, self._service.explain(name, image))
        pixels = self._service.manifest.pixels
        explanation = {"size": pixels.size, "fit": pixels.fit, "map": strength.astype(float).round(4).tolist()}
        return JSONResponse({"model": self._service.name, "prediction": prediction.as_dict(), **explanation})

    async def server(self, request: Request) -> Response:
        return JSONResponse(protocol.server_metadata())

    async def live(self, request: Request) -> Response:
        alive = self._service.batcher.alive
        return JSONResponse({"live": alive}, 200 if alive else 503)

    async def ready(self, request: Request) -> Response:
        ready = self._service.ready
        return JSONResponse({"ready": ready}, 200 if ready else 503)

    async def model(self, request: Request) -> Response:
        self._check_name(request)
        return JSONResponse(protocol.model_metadata(self._service.name, self._service.manifest))

    async def model_ready(self, request: Request) -> Response:
        self._check_name(request)
        ready = self._service.ready
        return JSONResponse({"name": self._service.name, "ready": ready}, 200 if ready else 503)

    async def infer(self, request: Request) -> Response:
        self._check_name(request)
        length = request.headers.get(protocol.HEADER_LENGTH)
        if length is not None and not (length.isdecimal() and len(length) < 12):
            raise MalformedError(f"{protocol.HEADER_LENGTH}: not a number of bytes")
        kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
        if kind not in ("application/json", "application/octet-stream"):
            raise HTTPException(415, f"content type {kind[:80]}: send application/json, or it with binary tensors")
        manifest = self._service.manifest
        async with _Within(self._service) as within:
            with Body(request, self._service) as body:
                content = await body.read()
                json_length = None if length is None else int(length)
                infer = await parsed(protocol.parse_infer, content, json_length, manifest)
                answers = await within.answered(request, [(str(n), image) for n, image in enumerate(infer.images)])
        good = [answer for answer in answers if isinstance(answer, Prediction)]
        for index, answer in enumerate(answers):
            if isinstance(answer, Unreadable):
                raise UnusableError(f"image {index}: {answer.reason}")
        content, json_length = protocol.infer_response(infer, good, self._service.name, manifest.class_names)
        if json_length == len(content):
            return Response(content, media_type="application/json")
        headers = {protocol.HEADER_LENGTH: str(json_length)}
        return Response(content, media_type="application/octet-stream", headers=headers)

    def _check_name(self, request: Request) -> None:
        name, version = request.path_params["name"], request.path_params.get("version", protocol.VERSION)
        if name != self._service.name or version != protocol.VERSION:
            known = "" if self._needs_token else f"; there is {self._service.name}, version {protocol.VERSION}"
            raise HTTPException(404, f"no such model{known}")


class _Within:
    """One request's time: 408 where the body is not there when it has run out, 503 where the answer is not."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._read = False

    async def __aenter__(self) -> "_Within":
        self._timeout = asyncio.timeout(self._service.limits.seconds)
        await self._timeout.__aenter__()
        return self

    async def measured(self, request: Request, images: int, work: Awaitable[Result]) -> Result:
        """The result of `work` on a body that is there now, with its number of images written down."""
        self._read = True
        request.scope["imgrec.images"] = images
        return await work

    async def answered(self, request: Request, images: Any) -> list[Prediction | Unreadable]:
        if len(images) > self._service.limits.queue_images:
            raise HTTPException(413, f"{len(images)} images; at most {self._service.limits.queue_images} at once")
        return await self.measured(request, len(images), self._service.predict(images))

    async def __aexit__(self, *exception: Any) -> None:
        try:
            await self._timeout.__aexit__(*exception)
        except TimeoutError as error:
            seconds = self._service.limits.seconds
            if self._read:
                raise OverloadedError(f"no answer within {seconds:g} seconds") from error
            raise HTTPException(
                408, f"the body was not there within {seconds:g} seconds", {"Connection": "close"}
            ) from error


def _top(request: Request) -> int:
    text = request.query_params.get("top", str(_DEFAULT_TOP))
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text)):
        raise MalformedError("top: a whole number from 1")
    return int(text)


def _as_dict(answer: Prediction | Unreadable, top: int) -> dict[str, Any]:
    return {"path": answer.source, "error": answer.reason} if isinstance(answer, Unreadable) else answer.as_dict(top)
