"""One bundle in service: its interpreters, its limits, and whether it takes requests."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from imgrec_cli.bundle import Manifest
from imgrec_cli.classifier import Classifier, Prediction, Unreadable
from imgrec_cli.engines import Pixels
from imgrec_cli.errors import BadImageError
from imgrec_cli.explanation import Map, occlusion
from imgrec_cli.imaging import load_pixels
from imgrec_cli.serving.batching import Batcher
from imgrec_cli.serving.telemetry import Metrics


@dataclass(frozen=True, slots=True)
class Limits:
    """What one client may ask for: bytes of a body, pixels of an image, seconds of a request, images that wait."""

    body_bytes: int = 32 * 1024 * 1024
    pixels: int = 50_000_000
    seconds: float = 30
    queue_images: int = 128

    @property
    def bodies_bytes(self) -> int:
        """Of all bodies in memory at one time."""
        return 8 * self.body_bytes


class OverloadedError(Exception):
    """Nothing is wrong with the request; it should be sent again a little later."""


class Service:
    """What the web application asks. Used from one event loop; the network runs in the threads of `batcher`."""

    def __init__(
        self,
        path: Path,
        *,
        name: str = "",
        workers: int = 1,
        limits: Limits | None = None,
        min_confidence: float = 0.0,
        coverage: float | None = None,
    ) -> None:
        """Load and verify the bundle of `path`; every worker has an interpreter of its own.

        `min_confidence` and `coverage` are those of `Classifier`. Raises InputError.
        """
        self.limits = limits or Limits()
        classifiers = [
            Classifier.load(path, min_confidence=min_confidence, coverage=coverage, threads=1) for _ in range(workers)
        ]
        classifiers[0].verify()
        self._classifier = classifiers[0]  # for the manifest and for deciding; its interpreter is a worker's
        self.manifest: Manifest = self._classifier.manifest
        self.name = name or self.manifest.name
        self.metrics = Metrics(self.name)
        self.batcher = Batcher(
            classifiers,
            queue_images=self.limits.queue_images,
            max_pixels=self.limits.pixels,
            on_batch=self.metrics.count_batch,
        )
        self.metrics.waiting.set_function(lambda: self.batcher.waiting)
        self.draining = False
        self._held_bytes = 0
        self._explaining = asyncio.Lock()

    @property
    def ready(self) -> bool:
        """Whether new requests should come here."""
        return self.batcher.alive and not self.draining

    def hold(self, size: int) -> None:
        """Count `size` bytes of a body as in memory. Raises OverloadedError where all bodies together are too large."""
        if self._held_bytes + size > self.limits.bodies_bytes:
            raise OverloadedError("too many large requests at once")
        self._held_bytes += size

    def release(self, size: int) -> None:
        self._held_bytes -= size

    async def predict(self, images: Sequence[tuple[str, bytes | Pixels]]) -> list[Prediction | Unreadable]:
        """An answer for each (name, image). Raises QueueFullError, and TimeoutError of a surrounding timeout passes."""
        futures = self.batcher.scored([image for _, image in images])
        try:
            for future in futures:
                with suppress(Exception):  # looked at below
                    await future
        except asyncio.CancelledError:
            for future in futures:
                future.cancel()
            raise
        answers: list[Prediction | Unreadable] = []
        errors = [future.exception() for future in futures]
        for (name, _), future, error in zip(images, futures, errors, strict=True):
            if isinstance(error, BadImageError):
                answers.append(Unreadable(name, error.message))
            elif isinstance(error, MemoryError):
                raise OverloadedError("too large for the memory that is left")
            elif error is not None:
                raise error
            else:
                answer = self._classifier.ranked(name, future.result())
                self.metrics.count_prediction(answer)
                answers.append(answer)
        return answers

    async def explain(self, name: str, image: bytes) -> tuple[Prediction, Map]:
        """The answer for one image, and which parts of it speak for it. Raises BadImageError and OverloadedError.

        One at a time: it costs fifty times an answer, and the other workers have their own work.
        """
        if self._explaining.locked():
            raise OverloadedError("another image is being explained")
        async with self._explaining:
            pixels = await self.batcher.run(lambda _: load_pixels(image, self.manifest.pixels, self.limits.pixels))
            (scored,) = await asyncio.gather(*self.batcher.scored([pixels]))
            prediction = self._classifier.ranked(name, scored)
            label = self.manifest.class_names.index(prediction.label)
            return prediction, await self.batcher.run(lambda classifier: occlusion(classifier, pixels, label))

    def close(self) -> None:
        with suppress(RuntimeError):
            self.batcher.close()
