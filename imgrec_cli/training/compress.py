"""A search for the cheapest model within a budget of bytes and accuracy: precision first, then smaller networks."""

import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from imgrec_cli.atomic import write_json
from imgrec_cli.bundle import Manifest
from imgrec_cli.errors import ParityError
from imgrec_cli.progress import Listener, Note
from imgrec_cli.rundir import Run
from imgrec_cli.training.export import Trained, write_bundle
from imgrec_cli.training.smaller import distilled, split_dense, students

PRECISIONS = ("litert", "litert-float16", "litert-dynamic", "litert-int8")
OVERHEAD_BYTES = 20_000  # of a file beside its 8-bit weights, about
MOST_STUDENTS = 3


@dataclass(frozen=True, slots=True)
class Candidate:
    """One model of the search: what was done to it, its size in bytes, the milliseconds of one image, its validation
    accuracy and what that is below the trained model's (0 to 1), and whether it is within the budget."""

    name: str
    target: str
    bytes: int
    milliseconds: float
    accuracy: float
    drop: float
    fits: bool


@dataclass(frozen=True, slots=True)
class Search:
    """All candidates that were tried, and the one that was written to `place`: None where none fits."""

    candidates: list[Candidate]
    chosen: Candidate | None
    place: Path
    reference_accuracy: float
    max_bytes: int
    max_drop: float

    def frontier(self) -> list[Candidate]:
        """The candidates that no other beats in both size and accuracy, smallest first."""
        return [
            one
            for one in sorted(self.candidates, key=lambda c: (c.bytes, -c.accuracy))
            if not any(
                (c.bytes <= one.bytes and c.accuracy >= one.accuracy)
                and (c.bytes, c.accuracy) != (one.bytes, one.accuracy)
                for c in self.candidates
            )
        ]


def compress(run: Run, trained: Trained, place: Path, max_bytes: int, max_drop: float, on_event: Listener) -> Search:
    """Search for the smallest bundle of at most `max_bytes` for the model that loses at most `max_drop` (0 to 1) of the
    validation accuracy, and write it to `place`.

    One kind of change is tried after the other, from those that cost seconds to those that train; the search ends with
    the first kind that has a model within the budget.
    """
    labels = trained.dataset.labels("validation")
    reference = float((trained.answers.labels == labels).mean())
    work = place.with_name(f".{place.name}.search")
    shutil.rmtree(work, ignore_errors=True)
    tried: list[tuple[Candidate, Path]] = []
    try:
        for stage in (_precisions, _split, _students):
            for name, target, network in stage(trained, max_bytes, max_drop, tried, on_event):
                folder = work / str(len(tried))
                try:
                    # its loss of accuracy is judged here, against the trained model
                    manifest, _ = write_bundle(network, target, run.name, folder, on_event, max_drop=1.0)
                except ParityError as error:
                    on_event(Note(f"{name}: {error.message}"))
                    continue
                tried.append((_candidate(name, manifest, reference, max_bytes, max_drop), folder))
                on_event(Note(_told(tried[-1][0])))
            if any(candidate.fits for candidate, _ in tried):
                break
        fitting = [pair for pair in tried if pair[0].fits]
        chosen = min(fitting, key=lambda pair: (pair[0].bytes, pair[0].milliseconds)) if fitting else None
        if chosen is not None:
            shutil.rmtree(place, ignore_errors=True)
            chosen[1].replace(place)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    search = Search([c for c, _ in tried], chosen and chosen[0], place, reference, max_bytes, max_drop)
    values = asdict(search)
    write_json(place.with_name("frontier.json"), {**values, "place": place.name})
    return search


def _candidate(name: str, manifest: Manifest, reference: float, max_bytes: int, max_drop: float) -> Candidate:
    parity = manifest.parity
    accuracy = parity.accuracy or 0.0
    drop = reference - accuracy
    # 1e-9: a loss equal to the budget is within it
    fits = manifest.model_bytes <= max_bytes and drop <= max_drop + 1e-9
    milliseconds = parity.milliseconds or 0.0
    return Candidate(name, manifest.target, manifest.model_bytes, milliseconds, accuracy, drop, fits)


def _told(one: Candidate) -> str:
    return (
        f"{one.name}: {one.bytes / 1e6:.2f} MB, validation accuracy {100 * one.accuracy:.1f} % "
        f"({-100 * one.drop:+.1f} points)" + (", within the budget" if one.fits else "")
    )


Stage = Iterator[tuple[str, str, Trained]]
Tried = list[tuple[Candidate, Path]]


def _precisions(trained: Trained, max_bytes: int, max_drop: float, tried: Tried, on_event: Listener) -> Stage:
    names = {"litert": "float32", "litert-float16": "float16", "litert-dynamic": "dynamic", "litert-int8": "int8"}
    for target in PRECISIONS:
        yield names[target], target, trained


def _split(trained: Trained, max_bytes: int, max_drop: float, tried: Tried, on_event: Listener) -> Stage:
    """Of every rank the split as it is and, where that loses too much, after a short training."""
    for rank, network in split_dense(trained, max_bytes - OVERHEAD_BYTES, on_event):
        name = f"dense layer of rank {rank}, int8"
        yield name, "litert-int8", network
        if not (tried and tried[-1][0].name == name and tried[-1][0].drop <= max_drop):
            tuned = distilled(trained, network.config, on_event, start=network)
            yield f"dense layer of rank {rank}, tuned, int8", "litert-int8", tuned


def _students(trained: Trained, max_bytes: int, max_drop: float, tried: Tried, on_event: Listener) -> Stage:
    classes = len(trained.dataset.class_names)
    found = students(trained.config, classes, max_bytes - OVERHEAD_BYTES)
    for name, config in found[:MOST_STUDENTS]:
        yield f"student with {name}, int8", "litert-int8", distilled(trained, config, on_event)
        if tried and tried[-1][0].fits:
            return


def with_scores(place: Path, scores: dict[str, object]) -> None:
    """Add the test scores to a bundle's manifest."""
    replace(Manifest.read(place), scores=scores).write(place)
