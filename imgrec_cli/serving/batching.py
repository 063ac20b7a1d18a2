"""Images → what the model says of them, on a pool of interpreters: one thread each, fed from one bounded queue.

A worker takes what is waiting, decodes it and runs it as one batch. Nobody waits for a batch to fill: under light load
a batch is one image, under heavy load it grows by itself. Pillow and LiteRT release Python's lock while they work, so
the event loop keeps its breath.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np

from imgrec_cli.classifier import Classifier, Scored
from imgrec_cli.engines import Pixels
from imgrec_cli.errors import BadImageError
from imgrec_cli.imaging import load_pixels

# Larger batches gain nothing on one core (MobileNetV2 at 160 px: 2.6 ms per image from 1 to 16) and delay all in them
BATCH_IMAGES = 8


class QueueFullError(Exception):
    """More images are waiting than the queue may hold; try again a little later."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What one batch took: images, and seconds of decoding and of the network."""

    images: int
    decode_seconds: float
    network_seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    work: bytes | Pixels | Callable[[Classifier], Any]
    answer: "asyncio.Future[Any]"


class Batcher:
    """Answers for images, in worker threads; asked from one event loop.

    `classifiers` are as many as there shall be workers, each with one thread: two interpreters of one thread answer
    more images per second than one of two, and an interpreter must not be shared between threads.
    """

    def __init__(
        self,
        classifiers: Sequence[Classifier],
        *,
        queue_images: int,
        max_pixels: int,
        on_batch: Callable[[Batch], None],
    ) -> None:
        self.queue_images = queue_images
        self._spec = classifiers[0].manifest.pixels
        self._max_pixels = max_pixels
        self._on_batch = on_batch
        self._waiting: deque[_Job] = deque()
        self._closed = False
        self._changed = threading.Condition()
        for classifier in classifiers:  # buffers for the largest batch are there before the first request
            for images in (BATCH_IMAGES, 1):
                classifier.scores(np.zeros((images, *self._spec.size, self._spec.channels), np.uint8))
        self._threads = [
            threading.Thread(target=self._work, args=(classifier,), name=f"worker-{index}", daemon=True)
            for index, classifier in enumerate(classifiers)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Number of images (and other jobs) that no worker has taken yet."""
        return len(self._waiting)

    @property
    def workers(self) -> int:
        return len(self._threads)

    @property
    def alive(self) -> bool:
        return all(thread.is_alive() for thread in self._threads)

    def scored(self, images: Sequence[bytes | Pixels]) -> "list[asyncio.Future[Scored]]":
        """For each image (encoded, or pixels uint8 [height, width, channels]) a future of what the model says of it.

        A future may raise BadImageError; one that is cancelled is not worked on. Raises QueueFullError, and queues
        nothing, where not all of the images have room.
        """
        return self._submit(images)

    def run(self, work: Callable[[Classifier], Any]) -> "asyncio.Future[Any]":
        """The result of `work` on one worker's classifier. Raises QueueFullError."""
        return self._submit([work])[0]

    def _submit(self, works: Sequence[Any]) -> "list[asyncio.Future[Any]]":
        loop = asyncio.get_running_loop()
        with self._changed:
            if self._closed or len(self._waiting) + len(works) > self.queue_images:
                raise QueueFullError
            jobs = [_Job(work, loop.create_future()) for work in works]
            self._waiting.extend(jobs)
            self._changed.notify(len(jobs))
        return [job.answer for job in jobs]

    def close(self, seconds: float = 5.0) -> None:
        """Let the workers finish what they do, for at most `seconds`; what still waits is never answered."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(seconds)

    def _next(self) -> list[_Job]:
        """What a worker does next: some of the waiting images, or one other job; empty when the pool is closed."""
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            # While few wait each is taken alone: in a batch of two, both would be answered when the second is done.
            share = min(max(1, len(self._waiting) // (2 * self.workers)), BATCH_IMAGES)
            jobs: list[_Job] = []
            while self._waiting and len(jobs) < share:
                if callable(self._waiting[0].work):
                    return jobs or [self._waiting.popleft()]
                jobs.append(self._waiting.popleft())
            return jobs

    def _work(self, classifier: Classifier) -> None:
        while jobs := self._next():
            wanted = [job for job in jobs if not job.answer.cancelled()]
            try:
                results = self._results(wanted, classifier) if wanted else []
            except Exception as error:  # whatever it is, the worker lives on and the askers are told
                results = [error] * len(wanted)
            if wanted:
                loop = wanted[0].answer.get_loop()
                try:
                    loop.call_soon_threadsafe(_settle, [job.answer for job in wanted], results)
                except RuntimeError:
                    return  # the loop is closed: nobody is left to answer

    def _results(self, jobs: list[_Job], classifier: Classifier) -> list[Any]:
        if callable(jobs[0].work):
            return [jobs[0].work(classifier)]
        started = perf_counter()
        decoded = [self._pixels(job.work) for job in jobs]
        readable = [pixels for pixels in decoded if isinstance(pixels, np.ndarray)]
        between = perf_counter()
        scored = iter(classifier.scored(np.stack(readable)) if readable else ())
        self._on_batch(Batch(len(jobs), between - started, perf_counter() - between))
        return [error if isinstance(error, BadImageError) else next(scored) for error in decoded]

    def _pixels(self, image: Any) -> Pixels | BadImageError:
        try:
            return image if isinstance(image, np.ndarray) else load_pixels(image, self._spec, self._max_pixels)
        except BadImageError as error:
            return error


def _settle(answers: "list[asyncio.Future[Any]]", results: list[Any]) -> None:
    for answer, result in zip(answers, results, strict=True):
        if answer.done():  # the asker has given up
            continue
        if isinstance(result, Exception):
            answer.set_exception(result)
        else:
            answer.set_result(result)
