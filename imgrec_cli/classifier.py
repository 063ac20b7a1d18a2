"""Bundle → predictions, through LiteRT: no TensorFlow, and fast to start."""

import math
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from imgrec_cli.bundle import LARGEST_GAP, MODEL, SELFTEST, Manifest, check_files, find_bundle
from imgrec_cli.errors import BadImageError, InputError
from imgrec_cli.imaging import load_pixels
from imgrec_cli.machine import available_cores, native_messages_hidden
from imgrec_cli.metrics.calibration import conformal_limit, with_temperature
from imgrec_cli.metrics.decisions import decide

BATCH_SIZE = 16

Pixels = NDArray[np.uint8]
Scores = NDArray[np.float32]


class Scored(NamedTuple):
    """One image's probabilities float32 [classes], and how little it looks like the training images; NaN: not known."""

    scores: Scores
    unfamiliarity: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer for one image.

    `ranking` is every class with its probability, most probable first. `label` is the class answered: the first, but
    where thresholds of single classes say otherwise. `unfamiliarity` is the model's measure of how little the image
    looks like the training images, None where the model has none; `unfamiliar` says whether it is above what 95 % of
    the validation images keep. `abstained`: nothing should be answered, the confidence is below the least one asked
    for. `none_of_these`: the label is a class that stands for everything else. `likely` is the set of classes that
    holds the true one with the coverage asked for, None where none was asked for.
    """

    source: str
    ranking: list[tuple[str, float]]
    label: str
    none_of_these: bool = False
    abstained: bool = False
    unfamiliarity: float | None = None
    unfamiliar: bool = False
    likely: tuple[str, ...] | None = None

    @property
    def confidence(self) -> float:
        """Probability of the answered class."""
        return dict(self.ranking)[self.label]

    @property
    def scores(self) -> dict[str, float]:
        """Probability of every class, most probable first."""
        return dict(self.ranking)

    @property
    def decision(self) -> Literal["class", "none_of_these", "abstained"]:
        """What kind of answer this is."""
        if self.abstained:
            return "abstained"
        return "none_of_these" if self.none_of_these else "class"

    @property
    def answer(self) -> str:
        """The answer for people: the class, "none of these" or "not sure"."""
        return {"class": self.label, "none_of_these": "none of these", "abstained": "not sure"}[self.decision]

    def as_dict(self, top: int | None = None) -> dict[str, Any]:
        """The answer as plain values for JSON, with the `top` most probable classes, all of them by default."""
        return {
            "path": self.source,
            "label": self.label,
            "confidence": self.confidence,
            "decision": self.decision,
            "none_of_these": self.none_of_these,
            "abstained": self.abstained,
            "unfamiliar": self.unfamiliar,
            "unfamiliarity": self.unfamiliarity,
            **({} if self.likely is None else {"likely": list(self.likely)}),
            "top": [{"label": label, "confidence": share} for label, share in self.ranking[:top]],
        }


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An image that could not be read, and why."""

    source: str
    reason: str


class Classifier:
    """A shipped model that answers for images.

    Answers below `min_confidence` are marked as abstained; with `coverage`, 0.5 to 0.99, every answer names the set of
    classes that holds the true one that often; with `tta` the probabilities are the mean over slightly changed copies
    of the image. One classifier belongs to one thread at a time: the LiteRT interpreter inside keeps its buffers
    between calls.
    """

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        *,
        min_confidence: float = 0.0,
        coverage: float | None = None,
        tta: bool = False,
        threads: int | None = None,
    ) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self.folder = folder
        self.manifest = manifest
        self.min_confidence = min_confidence
        self.tta = tta
        self._likely_from = None if coverage is None else _likely_from(folder, manifest, coverage)
        self._thresholds = np.array([manifest.decision.thresholds.get(name, np.nan) for name in manifest.class_names])
        try:
            with native_messages_hidden():
                self._interpreter: Any = Interpreter(str(folder / MODEL), num_threads=threads or available_cores())
        except ValueError as error:
            raise InputError(
                f"{folder / MODEL}: not a LiteRT model: {error}", "copy the bundle again, or train again"
            ) from error
        takes = self._interpreter.get_input_details()[0]
        # by rank: exporters do not keep the order of outputs
        gives = {len(output["shape"]): output for output in self._interpreter.get_output_details()}
        shape = gives[2]["shape"][1:].tolist() if 2 in gives else None
        found = f"{takes['dtype'].__name__} {takes['shape'][1:].tolist()} and gives {shape}"
        size, classes = [*manifest.pixels.size, manifest.pixels.channels], len(manifest.class_names)
        if found != f"uint8 {size} and gives {[classes]}":
            raise InputError(
                f"{folder / MODEL}: takes {found}; the manifest says uint8 {size} and {classes} classes",
                "copy the bundle again, or train again",
            )
        self._input, self._output = takes["index"], gives[2]["index"]
        self._unfamiliarity = gives[1]["index"] if 1 in gives else None
        self._batch = 0

    @classmethod
    def load(
        cls,
        path: Path | str,
        *,
        min_confidence: float = 0.0,
        coverage: float | None = None,
        tta: bool = False,
        threads: int | None = None,
    ) -> "Classifier":
        """The classifier in a bundle's or a run's folder, computing on `threads` cores, all of them by default.

        Raises InputError where there is none, it is damaged, or it does not know a set for `coverage`.
        """
        folder = find_bundle(Path(path))
        manifest = Manifest.read(folder)
        check_files(folder, manifest)
        return cls(folder, manifest, min_confidence=min_confidence, coverage=coverage, tta=tta, threads=threads)

    def verify(self) -> None:
        """Check every file's hash, and that the model answers its self-test as it did where it was made.

        Raises InputError where it does not, naming the file or the largest difference of a probability.
        """
        check_files(self.folder, self.manifest)
        pixels, expected = self._selftest()
        gap = float(np.abs(self.outputs(pixels)[0] - expected).max())
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

    def outputs(self, pixels: Pixels) -> tuple[Scores, Scores]:
        """What the model itself gives for images uint8 [N, height, width, channels], 0 to 255.

        Probabilities float32 [N, classes] before temperature, and float32 [N] how little an image looks like the
        training images; NaN where the model does not say.
        """
        scores = np.empty((len(pixels), len(self.class_names)), np.float32)
        unfamiliarity = np.full(len(pixels), np.nan, np.float32)
        for start in range(0, len(pixels), BATCH_SIZE):
            batch = pixels[start : start + BATCH_SIZE]
            if len(batch) != self._batch:
                self._interpreter.resize_tensor_input(self._input, batch.shape)
                # LiteRT greets at the first allocation only; later ones may come while other threads print
                with nullcontext() if self._batch else native_messages_hidden():
                    self._interpreter.allocate_tensors()
                self._batch = len(batch)
            self._interpreter.set_tensor(self._input, np.ascontiguousarray(batch))
            self._interpreter.invoke()
            scores[start : start + len(batch)] = self._interpreter.get_tensor(self._output)
            if self._unfamiliarity is not None:
                unfamiliarity[start : start + len(batch)] = self._interpreter.get_tensor(self._unfamiliarity)
        return scores, unfamiliarity

    def calibrated(self, pixels: Pixels) -> tuple[Scores, Scores]:
        """Probabilities float32 [N, classes] at the bundle's temperature, and the unfamiliarity float32 [N]."""
        temperature = self.manifest.decision.temperature
        scores, unfamiliarity = self.outputs(pixels)
        if not self.tta:
            return with_temperature(scores, temperature), unfamiliarity
        views = [scores, *(self.outputs(view)[0] for view in _views(pixels, self.manifest.mirrored))]
        mean: Scores = np.stack([with_temperature(view, temperature) for view in views]).mean(axis=0)
        return mean, unfamiliarity

    def scores(self, pixels: Pixels) -> Scores:
        """Probabilities float32 [N, classes] for images uint8 [N, height, width, channels], 0 to 255."""
        return self.calibrated(pixels)[0]

    def decided(self, scores: Scores) -> NDArray[np.int64]:
        """The answered classes int64 [N] of probabilities float32 [N, classes], thresholds of classes included."""
        return decide(scores, self._thresholds)

    def score_files(self, sources: Iterable[Path | bytes]) -> Iterator[Scored | BadImageError]:
        """For each image in turn what the model says of it, or the error it could not be read with.

        Decoding runs ahead on other threads; memory is bounded whatever the number of images.
        """
        spec = self.manifest.pixels

        def read(source: Path | bytes) -> Pixels | BadImageError:
            try:
                return load_pixels(source, spec)
            except BadImageError as error:
                return error

        def answer(results: list[Pixels | BadImageError]) -> Iterator[Scored | BadImageError]:
            readable = [pixels for pixels in results if isinstance(pixels, np.ndarray)]
            scored = iter(self.scored(np.stack(readable)) if readable else ())
            for result in results:
                yield result if isinstance(result, BadImageError) else next(scored)

        with ThreadPoolExecutor(available_cores()) as pool:
            ahead: deque[Future[Pixels | BadImageError]] = deque()
            for source in sources:
                ahead.append(pool.submit(read, source))
                if len(ahead) >= 3 * BATCH_SIZE:
                    yield from answer([ahead.popleft().result() for _ in range(BATCH_SIZE)])
            while ahead:
                yield from answer([ahead.popleft().result() for _ in range(min(BATCH_SIZE, len(ahead)))])

    def scored(self, pixels: Pixels) -> list[Scored]:
        """What the model says of each of the images uint8 [N, height, width, channels], 0 to 255."""
        scores, unfamiliarity = self.calibrated(pixels)
        return [Scored(row, float(value)) for row, value in zip(scores, unfamiliarity, strict=True)]

    def predict(self, image: Path | str | bytes) -> Prediction:
        """The answer for one image: a path, or the bytes of an encoded image. Raises BadImageError."""
        source = image if isinstance(image, bytes) else Path(image)
        pixels = load_pixels(source, self.manifest.pixels)
        return self.ranked("bytes" if isinstance(image, bytes) else os.fspath(image), self.scored(pixels[None])[0])

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

    def ranked(self, source: str, scored: Scored) -> Prediction:
        """What the model says of one image as a Prediction; equal probabilities keep the order of the classes."""
        scores, unfamiliarity = scored
        names, above = self.class_names, self.manifest.unfamiliar_above
        order = np.argsort(-scores, kind="stable")
        answer = int(self.decided(scores[None])[0])
        known = above is not None and not np.isnan(unfamiliarity)
        likely = None if self._likely_from is None else tuple(names[i] for i in order if scores[i] >= self._likely_from)
        return Prediction(
            source,
            [(names[i], float(scores[i])) for i in order],
            names[answer],
            none_of_these=names[answer] in self.manifest.other,
            abstained=float(scores[answer]) < self.min_confidence,
            unfamiliarity=unfamiliarity if known else None,
            unfamiliar=above is not None and known and unfamiliarity > above,
            likely=likely,
        )


def _likely_from(folder: Path, manifest: Manifest, coverage: float) -> float:
    """The probability from which on a class is in the set that holds the true one as often as `coverage`."""
    limits = manifest.decision.conformal
    if not 0.5 <= coverage <= 0.99:
        raise InputError(f"a coverage of {coverage:g} cannot be asked for", "ask for 0.5 to 0.99")
    if not limits:
        raise InputError(f"{folder}: this bundle knows no sets of classes", "train again with this imgrec")
    return conformal_limit(limits, coverage)


def _views(pixels: Pixels, mirrored: bool) -> Iterator[Pixels]:
    """Copies of images [N, H, W, C] moved by a sixteenth of the side in four directions, edges repeated, and where
    training showed mirrored images, mirrored ones of all five."""
    down, right = (max(1, side // 16) for side in pixels.shape[1:3])
    padded = np.pad(pixels, ((0, 0), (down, down), (right, right), (0, 0)), mode="edge")
    height, width = pixels.shape[1:3]
    corners = [(0, right), (2 * down, right), (down, 0), (down, 2 * right)]
    views = [padded[:, top : top + height, left : left + width] for top, left in corners]
    yield from views
    if mirrored:
        yield from (view[:, :, ::-1] for view in (pixels, *views))


def least_sure_first(answers: Sequence[Prediction]) -> list[Prediction]:
    """Answers by the gap between the two most probable classes, the smallest first: margin sampling.

    Scheffer, Decomain and Wrobel 2001, Active Hidden Markov Models for Information Extraction, section 4.
    """
    return sorted(answers, key=lambda answer: answer.ranking[0][1] - answer.ranking[1][1])
