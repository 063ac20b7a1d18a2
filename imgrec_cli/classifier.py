"""Bundle → predictions, through LiteRT: no TensorFlow, and fast to start."""

import math
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgrec_cli.bundle import LARGEST_GAP, MODEL, SELFTEST, Manifest, check_files, find_bundle
from imgrec_cli.errors import BadImageError, InputError
from imgrec_cli.imaging import load_pixels
from imgrec_cli.machine import available_cores, native_messages_hidden

BATCH_SIZE = 16

Pixels = NDArray[np.uint8]
Scores = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer for one image: every class with its probability, most probable first."""

    source: str
    ranking: list[tuple[str, float]]

    @property
    def label(self) -> str:
        return self.ranking[0][0]

    @property
    def confidence(self) -> float:
        return self.ranking[0][1]


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An image that could not be read, and why."""

    source: str
    reason: str


class Classifier:
    """A shipped model that answers for images.

    One classifier belongs to one thread at a time: the LiteRT interpreter inside keeps its buffers between calls.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self.folder = folder
        self.manifest = manifest
        try:
            with native_messages_hidden():
                self._interpreter: Any = Interpreter(str(folder / MODEL), num_threads=available_cores())
        except ValueError as error:
            raise InputError(
                f"{folder / MODEL}: not a LiteRT model: {error}", "copy the bundle again, or train again"
            ) from error
        takes, gives = self._interpreter.get_input_details()[0], self._interpreter.get_output_details()[0]
        found = f"{takes['dtype'].__name__} {takes['shape'][1:].tolist()} and gives {gives['shape'][1:].tolist()}"
        size, classes = [*manifest.pixels.size, manifest.pixels.channels], len(manifest.class_names)
        if found != f"uint8 {size} and gives {[classes]}":
            raise InputError(
                f"{folder / MODEL}: takes {found}; the manifest says uint8 {size} and {classes} classes",
                "copy the bundle again, or train again",
            )
        self._input, self._output = takes["index"], gives["index"]
        self._batch = 0

    @classmethod
    def load(cls, path: Path | str) -> "Classifier":
        """The classifier in a bundle's or a run's folder. Raises InputError where there is none or it is damaged."""
        folder = find_bundle(Path(path))
        manifest = Manifest.read(folder)
        check_files(folder, manifest)
        return cls(folder, manifest)

    def verify(self) -> None:
        """Check every file's hash, and that the model answers its self-test as it did where it was made.

        Raises InputError where it does not, naming the file or the largest difference of a probability.
        """
        check_files(self.folder, self.manifest)
        pixels, expected = self._selftest()
        gap = float(np.abs(self.scores(pixels) - expected).max())
        if not gap < LARGEST_GAP:
            raise InputError(f"{self.folder}: answers its self-test with a difference of {gap:.2g} in a probability")

    def _selftest(self) -> tuple[Pixels, Scores]:
        """Images and scores of the self-test. Raises InputError where they are not what they should be, unread where
        they claim to be larger: a few compressed bytes could fill the memory."""
        import zipfile  # here: a predict does without
        import zlib

        shape = (4, *self.manifest.pixels.size, self.manifest.pixels.channels)
        wanted = {"pixels.npy": math.prod(shape), "scores.npy": 4 * len(self.class_names) * 4}
        path = self.folder / SELFTEST
        try:
            with zipfile.ZipFile(path) as parts:
                sizes = {part.filename: part.file_size for part in parts.infolist()}
            if any(sizes[name] > size + 4096 for name, size in wanted.items()):  # a header before the values
                raise ValueError(f"holds arrays of {sizes} bytes")
            with np.load(path, allow_pickle=False) as stored:
                pixels, scores = stored["pixels"], stored["scores"]
            if pixels.shape != shape or pixels.dtype != np.uint8 or scores.shape != (4, len(self.class_names)):
                raise ValueError(f"holds images {pixels.shape} and scores {scores.shape}")
        except (OSError, ValueError, KeyError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
            raise InputError(f"{path}: damaged: {error}", "copy the bundle again, or train again") from error
        return pixels, scores

    @property
    def class_names(self) -> list[str]:
        return self.manifest.class_names

    def scores(self, pixels: Pixels) -> Scores:
        """Probabilities float32 [N, classes] for images uint8 [N, height, width, channels], 0 to 255."""
        scores = np.empty((len(pixels), len(self.class_names)), np.float32)
        for start in range(0, len(pixels), BATCH_SIZE):
            batch = pixels[start : start + BATCH_SIZE]
            if len(batch) != self._batch:
                self._interpreter.resize_tensor_input(self._input, batch.shape)
                with native_messages_hidden():
                    self._interpreter.allocate_tensors()
                self._batch = len(batch)
            self._interpreter.set_tensor(self._input, np.ascontiguousarray(batch))
            self._interpreter.invoke()
            scores[start : start + len(batch)] = self._interpreter.get_tensor(self._output)
        return scores

    def score_files(self, sources: Iterable[Path | bytes]) -> Iterator[Scores | BadImageError]:
        """For each image in turn its probabilities float32 [classes], or the error it could not be read with.

        Decoding runs ahead on other threads; memory is bounded whatever the number of images.
        """
        spec = self.manifest.pixels

        def read(source: Path | bytes) -> Pixels | BadImageError:
            try:
                return load_pixels(source, spec)
            except BadImageError as error:
                return error

        def answer(results: list[Pixels | BadImageError]) -> Iterator[Scores | BadImageError]:
            readable = [pixels for pixels in results if isinstance(pixels, np.ndarray)]
            scores = iter(self.scores(np.stack(readable)) if readable else ())
            for result in results:
                yield result if isinstance(result, BadImageError) else next(scores)

        with ThreadPoolExecutor(available_cores()) as pool:
            ahead: deque[Future[Pixels | BadImageError]] = deque()
            for source in sources:
                ahead.append(pool.submit(read, source))
                if len(ahead) >= 3 * BATCH_SIZE:
                    yield from answer([ahead.popleft().result() for _ in range(BATCH_SIZE)])
            while ahead:
                yield from answer([ahead.popleft().result() for _ in range(min(BATCH_SIZE, len(ahead)))])

    def predict(self, image: Path | str | bytes) -> Prediction:
        """The answer for one image: a path, or the bytes of an encoded image. Raises BadImageError."""
        source = image if isinstance(image, bytes) else Path(image)
        pixels = load_pixels(source, self.manifest.pixels)
        return self.ranked("bytes" if isinstance(image, bytes) else os.fspath(image), self.scores(pixels[None])[0])

    def predict_many(self, images: Iterable[tuple[str, Path | bytes]]) -> Iterator[Prediction | Unreadable]:
        """Answers for (name, image) pairs in their order; an image that cannot be read is answered as Unreadable."""
        names: deque[str] = deque()

        def sources() -> Iterator[Path | bytes]:
            for name, source in images:
                names.append(name)
                yield source

        for result in self.score_files(sources()):
            name = names.popleft()
            yield Unreadable(name, result.message) if isinstance(result, BadImageError) else self.ranked(name, result)

    def ranked(self, source: str, scores: Scores) -> Prediction:
        """One image's probabilities float32 [classes] as a Prediction; equal ones keep the order of the classes."""
        order = np.argsort(-scores, kind="stable")
        return Prediction(source, [(self.class_names[i], float(scores[i])) for i in order])


def least_sure_first(answers: Sequence[Prediction]) -> list[Prediction]:
    """Answers by the gap between the two most probable classes, the smallest first: margin sampling.

    Scheffer, Decomain and Wrobel 2001, Active Hidden Markov Models for Information Extraction, section 4.
    """
    return sorted(answers, key=lambda answer: answer.ranking[0][1] - answer.ranking[1][1])
