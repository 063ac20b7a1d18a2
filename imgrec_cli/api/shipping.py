"""The verbs that ship a run: export in other formats, compress into a budget."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from imgrec_cli.api.judging import images_of_run
from imgrec_cli.bundle import TARGETS, Manifest
from imgrec_cli.classifier import Classifier
from imgrec_cli.errors import ImgrecError, InputError, MissingExtraError, ParityError, require_tensorflow
from imgrec_cli.evaluation import evaluate_files
from imgrec_cli.progress import Listener, ignore
from imgrec_cli.rundir import RUNS_FOLDER, Run, newest_finished_run

if TYPE_CHECKING:
    from imgrec_cli.training.compress import Search


@dataclass(frozen=True, slots=True)
class Exported:
    """One export: its bundle's place and manifest, or the error that kept it from being written."""

    target: str
    place: Path
    manifest: Manifest | None
    error: ImgrecError | None


def export(
    run: Path | str | None,
    targets: Sequence[str],
    place: Path | str | None = None,
    *,
    max_drop: float = 0.01,
    on_event: Listener = ignore,
) -> list[Exported]:
    """Write bundles of a finished run, the newest by default, for each of `targets`, the keys of `bundle.TARGETS`.

    Each lies in `exports/<target>` of the run, or a single one at `place`, a folder or a `.zip`. A target that does not
    pass the comparison with Keras has an error in place of a bundle. Formats of reduced precision may lose `max_drop`,
    0 to 1, of the validation accuracy. Needs TensorFlow.
    """
    found = Run.open(Path(run)) if run is not None else newest_finished_run(Path(RUNS_FOLDER))[0]
    unknown = [target for target in targets if target not in TARGETS]
    if unknown or not targets:
        raise InputError(f"{', '.join(unknown) or 'nothing'}: cannot be exported to", f"one of {', '.join(TARGETS)}")
    if place is not None:
        place = Path(place)
        if len(targets) > 1:
            raise InputError("one place is named for several exports", "export them one by one, or leave the place out")
        _check_replaceable(place)
    _start_tensorflow("exporting")
    from imgrec_cli.training.export import Trained, write_bundle

    trained = Trained.of_run(found, on_event)
    results = []
    for target in dict.fromkeys(targets):
        where = place or found.exports_folder / target
        try:
            manifest, _ = write_bundle(trained, target, found.name, where, on_event, max_drop=max_drop)
        except (ParityError, MissingExtraError) as error:
            results.append(Exported(target, where, None, error))
        else:
            results.append(Exported(target, where, manifest, None))
    return results


def _check_replaceable(place: Path) -> None:
    """Raise InputError where something other than a bundle of the same kind, a folder or a zip, lies at `place`."""
    if not place.exists():
        return
    try:
        Manifest.read(place)  # a manifest.json alone proves nothing: every second website has one
    except InputError as error:
        raise InputError(f"{place}: exists and is no bundle", "name another place, or remove it") from error
    if place.is_dir() == (place.suffix == ".zip"):
        kind = "a folder" if place.is_dir() else "a file"
        raise InputError(f"{place}: is {kind}, which this export cannot replace", "name another place, or remove it")


def compress(
    run: Path | str | None, max_bytes: int, max_drop: float, *, on_event: Listener = ignore
) -> "tuple[Search, dict[str, float]]":
    """Search for the smallest model of a finished run within a budget: `max_bytes`, and `max_drop` (0 to 1) of the
    validation accuracy.

    What meets it is written to `compressed/bundle` of the run, the frontier beside it as `frontier.json` and
    `frontier.png`. Returns the search, and the accuracies before and after on the test split, which chose nothing.
    """
    found = Run.open(Path(run)) if run is not None else newest_finished_run(Path(RUNS_FOLDER))[0]
    _start_tensorflow("compressing")
    from imgrec_cli.reporting.frontier import draw_frontier
    from imgrec_cli.training.compress import compress as search_smallest
    from imgrec_cli.training.compress import with_scores
    from imgrec_cli.training.export import Trained

    place = found.compressed_folder / "bundle"
    trained = Trained.of_run(found, on_event)
    search = search_smallest(found, trained, place, max_bytes, max_drop, on_event)
    frontier = search.frontier()
    points = [(one.name, one.bytes, one.accuracy, one in frontier) for one in search.candidates]
    chosen = search.chosen.name if search.chosen else None
    least = search.reference_accuracy - max_drop
    draw_frontier(points, chosen, max_bytes, least, place.with_name("frontier.png"))
    scores: dict[str, float] = {}
    if search.chosen is not None and len(trained.dataset.rows("test")):
        images = images_of_run(found, "test", Manifest.read(place), on_event)
        evaluation = evaluate_files(Classifier.load(place), images, "test", on_event)
        scores = {"before": found.record["scores"]["accuracy"], "after": evaluation.summary.accuracy}
        told = {"split": "test", "images": evaluation.summary.images, "accuracy": scores["after"]}
        with_scores(place, {**told, "macro_f1": evaluation.summary.macro.f1})
    return search, scores


def _start_tensorflow(what: str) -> None:
    """Start TensorFlow on the CPU, whatever the run was trained on: its exporters are the ones that are used."""
    require_tensorflow(what)
    from imgrec_cli.config import Runtime
    from imgrec_cli.training import runtime

    runtime.start(Runtime(device="cpu", backend="tensorflow"))
