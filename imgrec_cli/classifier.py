"""Bundle → predictions, through a light runtime: no TensorFlow, and fast to start."""

import io
import math
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, count, islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from imgrec_cli.bundle import (
    COPY_AGAIN,
    LARGEST_GAP,
    LARGEST_ROUNDING_GAP,
    SELFTEST,
    TARGETS,
    Manifest,
    check_files,
    find_bundle,
    read_file,
)
from imgrec_cli.engines import Engines, Pixels, Scores, open_engine
from imgrec_cli.errors import BadImageError, InputError
from imgrec_cli.imaging import load_pixels
from imgrec_cli.machine import available_cores
from imgrec_cli.metrics.calibration import conformal_limit, with_temperature, without_zeros
from imgrec_cli.metrics.decisions import decide
from imgrec_cli.storage import File

BATCH_SIZE = 8  # one core's cache holds the maps of so many; larger ones were not faster
# Every engine holds its weights by itself: so much for all engines together, however many cores there are.
ENGINES_BYTES = 1_000_000_000


class Scored(NamedTuple):
    """One image's probabilities float32 [classes], and how little it looks like the training images; NaN: not known."""

    scores: Scores
    unfamiliarity: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer for one image.

    `ranking` is every class with its probability, most probable first. `label` is the class answered: the first, but
    where thresholds of single classes say otherwise. `unfamiliarity` is the model's measure of how little the image
    looks like the training images, None where the model has none; `unfamiliar` says whether it is above the limit
    that 95 % of the validation images stay below. `abstained`: nothing should be answered, the confidence is below the
    least one asked for. `none_of_these`: the label is a class that stands for everything else. `likely` is the set of
    classes that holds the true one with the coverage asked for, None where none was asked for.
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
    of the image. Threads may share a classifier: each call takes an engine for itself.
    """

    def __init__(
        self,
        bundle: Path,
        manifest: Manifest,
        *,
        min_confidence: float = 0.0,
        coverage: float | None = None,
        tta: bool = False,
        threads: int | None = None,
    ) -> None:
        self.bundle = bundle
        self.manifest = manifest
        self.min_confidence = min_confidence
        self.tta = tta
        self._likely_from = None if coverage is None else _likely_from(bundle, manifest, coverage)
        self._thresholds = np.array([manifest.decision.thresholds.get(name, np.nan) for name in manifest.class_names])
        cores = threads or available_cores()
        # for one call: all cores on one image; for many images: an engine for every core, on images of its own
        self._cores, most = cores, max(1, min(cores, ENGINES_BYTES // (2 * manifest.model_bytes + 1)))
        self._wide = Engines(lambda: open_engine(bundle, manifest, cores), most)
        self._narrow = Engines(lambda: open_engine(bundle, manifest, cores // most), most) if most > 1 else self._wide
        with self._wide.one():  # a damaged model is said now
            pass

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
        """The classifier in a bundle's folder or zip or a run's folder, computing on `threads` cores, all by default.

        Raises InputError where there is none, it is damaged, or it does not know a set for `coverage`.
        """
        bundle = find_bundle(Path(path))
        manifest = Manifest.read(bundle)
        check_files(bundle, manifest)
        return cls(bundle, manifest, min_confidence=min_confidence, coverage=coverage, tta=tta, threads=threads)

    def verify(self) -> float:
        """Check every file's hash, and that the model answers its self-test as it did where it was made.

        Returns the largest difference of a probability. Raises InputError where it is too large, or a file is damaged.
        """
        check_files(self.bundle, self.manifest)
        pixels, expected = self._selftest()
        gap = float(np.abs(self.outputs(pixels)[0] - expected).max())
        if not gap < (LARGEST_GAP if TARGETS[self.manifest.target].exact else LARGEST_ROUNDING_GAP):
            raise InputError(f"{self.bundle}: answers its self-test with a difference of {gap:.2g} in a probability")
        return gap

    def _selftest(self) -> tuple[Pixels, Scores]:
        """Images and scores of the self-test. Raises InputError where they are not what they should be, unread where
        they claim to be larger: a few compressed bytes could fill the memory."""
        import zipfile  # here: a predict does without
        import zlib

        shape = (4, *self.manifest.pixels.size, self.manifest.pixels.channels)
        wanted = {"pixels.npy": math.prod(shape), "scores.npy": 4 * len(self.class_names) * 4}
        path = self.bundle / SELFTEST
        try:
            content = io.BytesIO(read_file(self.bundle, SELFTEST, self.manifest.files[SELFTEST].bytes))
            with zipfile.ZipFile(content) as parts:
                sizes = {part.filename: part.file_size for part in parts.infolist()}
            if any(sizes[name] > size + 4096 for name, size in wanted.items()):  # a header before the values
                raise ValueError(f"holds arrays of {sizes} bytes")
            with np.load(content, allow_pickle=False) as stored:
                pixels, scores = stored["pixels"], stored["scores"]
            if pixels.shape != shape or pixels.dtype != np.uint8 or scores.shape != (4, len(self.class_names)):
                raise ValueError(f"holds images {pixels.shape} and scores {scores.shape}")
        except (OSError, ValueError, KeyError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
            raise InputError(f"{path}: damaged: {error}", COPY_AGAIN) from error
        return pixels, scores

    @property
    def class_names(self) -> list[str]:
        return self.manifest.class_names

    def outputs(self, pixels: Pixels) -> tuple[Scores, Scores]:
        """What the model itself gives for images uint8 [N, height, width, channels], 0 to 255.

        Probabilities float32 [N, classes] before temperature, and float32 [N] how little an image looks like the
        training images; NaN where the model does not say.
        """
        return self._outputs(pixels, self._wide)

    def _outputs(self, pixels: Pixels, engines: Engines) -> tuple[Scores, Scores]:
        scores = np.empty((len(pixels), len(self.class_names)), np.float32)
        unfamiliarity = np.full(len(pixels), np.nan, np.float32)
        with engines.one() as engine:
            for start in range(0, len(pixels), BATCH_SIZE):
                batch = slice(start, start + BATCH_SIZE)
                scores[batch], second = engine.outputs(pixels[batch])
                if second is not None:
                    unfamiliarity[batch] = second
        return scores, unfamiliarity

    def calibrated(self, pixels: Pixels) -> tuple[Scores, Scores]:
        """Probabilities float32 [N, classes] at the bundle's temperature, and the unfamiliarity float32 [N]."""
        return self._calibrated(pixels, self._wide)

    def _calibrated(self, pixels: Pixels, engines: Engines) -> tuple[Scores, Scores]:
        temperature = self.manifest.decision.temperature
        step = TARGETS[self.manifest.target].step

        def outputs(pixels: Pixels) -> tuple[Scores, Scores]:
            scores, unfamiliarity = self._outputs(pixels, engines)
            return scores if step is None else without_zeros(scores, step), unfamiliarity

        scores, unfamiliarity = outputs(pixels)
        if not self.tta:
            return with_temperature(scores, temperature), unfamiliarity
        views = [scores, *(outputs(view)[0] for view in _views(pixels, self.manifest.mirrored))]
        mean: Scores = np.stack([with_temperature(view, temperature) for view in views]).mean(axis=0)
        return mean, unfamiliarity

    def scores(self, pixels: Pixels) -> Scores:
        """Probabilities float32 [N, classes] for images uint8 [N, height, width, channels], 0 to 255."""
        return self.calibrated(pixels)[0]

    def decided(self, scores: Scores) -> NDArray[np.int64]:
        """The answered classes int64 [N] of probabilities float32 [N, classes], thresholds of classes included."""
        return decide(scores, self._thresholds)

    def score_files(self, sources: Iterable[File | bytes]) -> Iterator[Scored | BadImageError]:
        """For each image in turn what the model says of it, or the error it could not be read with.

        Every core decodes and computes a few images at a time; memory is bounded whatever the number of images.
        """

        def work(batch: list[File | bytes]) -> list[Scored | BadImageError]:
            found: list[Pixels | BadImageError] = []
            for source in batch:
                try:
                    found.append(load_pixels(source, self.manifest.pixels))
                except BadImageError as error:
                    found.append(error)
            readable = [pixels for pixels in found if isinstance(pixels, np.ndarray)]
            scored = iter(self._scored(np.stack(readable), engines) if readable else ())
            return [result if isinstance(result, BadImageError) else next(scored) for result in found]

        remaining = iter(sources)
        batch = list(islice(remaining, 2))
        if len(batch) < 2:
            engines = self._wide
            yield from work(batch)
            return
        engines = self._narrow
        remaining = chain(batch, remaining)
        with ThreadPoolExecutor(self._cores) as pool:
            ahead: deque[Future[list[Scored | BadImageError]]] = deque()
            try:
                for number in count():
                    # from one image on: a handful are shared among the cores
                    if not (batch := list(islice(remaining, min(BATCH_SIZE, 1 + number // self._cores)))):
                        break
                    ahead.append(pool.submit(work, batch))
                    if len(ahead) >= 3 * self._cores:
                        yield from ahead.popleft().result()
                while ahead:
                    yield from ahead.popleft().result()
            finally:  # of a caller that wants no more
                pool.shutdown(cancel_futures=True)

    def scored(self, pixels: Pixels) -> list[Scored]:
        """What the model says of each of the images uint8 [N, height, width, channels], 0 to 255."""
        return self._scored(pixels, self._wide)

    def _scored(self, pixels: Pixels, engines: Engines) -> list[Scored]:
        scores, unfamiliarity = self._calibrated(pixels, engines)
        return [Scored(row, float(value)) for row, value in zip(scores, unfamiliarity, strict=True)]

    def predict(self, image: Path | str | bytes) -> Prediction:
        """The answer for one image: a path, or the bytes of an encoded image. Raises BadImageError."""
        source = image if isinstance(image, bytes) else Path(image)
        pixels = load_pixels(source, self.manifest.pixels)
        return self.ranked("bytes" if isinstance(image, bytes) else os.fspath(image), self.scored(pixels[None])[0])

    def predict_many(self, images: Iterable[tuple[str, File | bytes]]) -> Iterator[Prediction | Unreadable]:
        """Answers for (name, image) pairs in their order; an image that cannot be read is answered as Unreadable."""
        names: deque[str] = deque()

        def sources() -> Iterator[File | bytes]:
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


def _likely_from(bundle: Path, manifest: Manifest, coverage: float) -> float:
    """The probability from which on a class is in the set that holds the true one as often as `coverage`."""
    limits = manifest.decision.conformal
    if not 0.5 <= coverage <= 0.99:
        raise InputError(f"a coverage of {coverage:g} cannot be asked for", "ask for 0.5 to 0.99")
    if not limits:
        raise InputError(f"{bundle}: this bundle knows no sets of classes", "train again with this imgrec")
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
