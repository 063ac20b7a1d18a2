"""The body of a request → images, within bounds of bytes, time and memory. Nothing is written to a disk."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from imgrec_cli.serving.protocol import from_base64, parsed_json
from imgrec_cli.serving.service import Service

# A smaller body is parsed faster than it is handed to another thread.
_INLINE_BYTES = 64 * 1024
_LONGEST_NAME = 200
# One thread: large JSON is parsed one body at a time, which bounds its memory
_PARSER = ThreadPoolExecutor(1, "parser")

Result = TypeVar("Result")


class PredictBody(BaseModel):
    """Images as JSON: each an encoded image (JPEG, PNG, …) in base64."""

    model_config = ConfigDict(strict=True, extra="forbid")

    images: list[str] = Field(min_length=1)


class _InMemory(MultiPartParser):
    """Starlette's parser without its temporary files: the bound on the body is the bound on memory."""

    spool_max_size = 1 << 62


class Body:
    """The body of one request, counted while it is in memory: `with Body(request, service) as body`."""

    def __init__(self, request: Request, service: Service) -> None:
        self._request = request
        self._service = service
        self._size = 0

    def __enter__(self) -> "Body":
        return self

    def __exit__(self, *exception: object) -> None:
        self._service.release(self._size)

    async def _chunks(self) -> AsyncGenerator[bytes, None]:
        limit = self._service.limits.body_bytes
        too_large = HTTPException(413, f"the body is larger than {limit:,} bytes")
        headers = self._request.headers
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise HTTPException(415, "compressed bodies are not read; images are compressed already")
        declared = headers.get("content-length", "")
        if declared.isdecimal() and int(declared[:20]) > limit:
            raise too_large
        try:
            async for chunk in self._request.stream():
                if self._size + len(chunk) > limit:
                    raise too_large
                self._service.hold(len(chunk))
                self._size += len(chunk)
                yield chunk
                if self._size > _INLINE_BYTES:
                    await asyncio.sleep(0)  # others have their turn between the pieces of a large body
        except ClientDisconnect as error:
            raise HTTPException(400, "the body ended early") from error

    async def read(self) -> bytes:
        return b"".join([chunk async for chunk in self._chunks()])

    async def images(self) -> list[tuple[str, bytes]]:
        """The images with their names: files of a form, base64 in JSON, or the body itself.

        Raises HTTPException, MalformedError, UnusableError and OverloadedError.
        """
        content_type = self._request.headers.get("content-type", "application/octet-stream")
        kind = content_type.partition(";")[0].strip().lower()
        if kind == "multipart/form-data":
            return await self._form()
        if kind == "application/json":
            body = await self.read()
            return await parsed(_json_images, body)
        if kind == "application/octet-stream" or kind.startswith("image/"):
            return [("image", await self.read())]
        raise HTTPException(
            415,
            f"content type {kind[:80]}: send a form with the field file (curl -F file=@photo.jpg), JSON, "
            "or the image itself as application/octet-stream (curl -H Content-Type:image/jpeg --data-binary @FILE)",
        )

    async def _form(self) -> list[tuple[str, bytes]]:
        parser = _InMemory(
            self._request.headers, self._chunks(), max_files=self._service.limits.queue_images, max_fields=0
        )
        try:
            form = await parser.parse()
        except MultiPartException as error:
            raise HTTPException(400, f"not a form of files: {error.message}") from error
        images = []
        try:
            for field, file in form.multi_items():
                if field != "file" or not isinstance(file, UploadFile):
                    raise HTTPException(
                        400, f"unknown field {field[:80]!r}: the images are the files of the field file"
                    )
                name = PurePosixPath((file.filename or "image").replace("\\", "/")).name[:_LONGEST_NAME]
                images.append((name, await file.read()))
        finally:
            await form.close()
        if not images:
            raise HTTPException(400, "the form has no file in the field file")
        return images


async def parsed(parse: Callable[..., Result], body: bytes, *others: Any) -> Result:
    """`parse(body, *others)`, on another thread where the body is large."""
    if len(body) <= _INLINE_BYTES:
        return parse(body, *others)
    return await asyncio.get_running_loop().run_in_executor(_PARSER, parse, body, *others)


def _json_images(body: bytes) -> list[tuple[str, bytes]]:
    texts = parsed_json(PredictBody, body).images
    return [(str(index), from_base64(text, f"images.{index}")) for index, text in enumerate(texts)]
