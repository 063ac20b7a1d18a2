"""Trained model → bundle: rebuilt in float32, written in a format, compared with Keras, shipped only if it agrees."""

import shutil
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from imgrec_cli import __version__
from imgrec_cli.atomic import replacing
from imgrec_cli.bundle import (
    SELFTEST,
    TARGETS,
    Decision,
    Manifest,
    Parity,
    records_below,
    write_zip,
)
from imgrec_cli.classifier import Classifier
from imgrec_cli.config import Config, Flip, load_config
from imgrec_cli.dataset import Dataset, load_dataset
from imgrec_cli.engines import Engine, open_engine
from imgrec_cli.errors import DataError, InputError
from imgrec_cli.machine import available_cores
from imgrec_cli.metrics.calibration import conformal_limits, fit_temperature, with_temperature, without_zeros
from imgrec_cli.metrics.decisions import decide, find_thresholds
from imgrec_cli.metrics.summary import summarize
from imgrec_cli.progress import Listener, Warn
from imgrec_cli.rundir import Run
from imgrec_cli.training.formats import add_metadata, open_runtime, write_model
from imgrec_cli.training.micro import open_judge, write_sources
from imgrec_cli.training.model import shipped_model
from imgrec_cli.training.parity import Answers, answers_of, check_parity, compare, labels_as_trained
from imgrec_cli.training.restored import restored

FEWEST_FOR_TEMPERATURE = 50  # validation images; fewer say too little about how sure is too sure
KEPT_AS_FAMILIAR = 0.95  # share of the validation images
REPRESENTATIVE_IMAGES = 200  # of training, for the ranges of 8-bit numbers; more did not change the scores
MAX_DROP = 0.01  # of the accuracy, in reduced precision
TIMED_CALLS = 15
TIMED_SECONDS = 3.0  # after which no further call is timed


def selftest_inputs(height: int, width: int, channels: int) -> NDArray[np.uint8]:
    """Four synthetic images uint8 [4, H, W, C]: black, white, a ramp, noise. None comes from the user's data."""
    shape = (height, width, channels)
    ramp = np.broadcast_to(np.linspace(0, 255, height * width).reshape(height, width, 1), shape)
    noise = np.random.Generator(np.random.Philox(key=[0, 0])).integers(0, 256, shape)
    return np.stack([np.zeros(shape), np.full(shape, 255), ramp, noise]).astype(np.uint8)


def rebuilt(config: Config, dataset: Dataset, trained: keras.Model) -> keras.Model:
    """The model to ship, in float32 with the trained weights; its unfamiliarity knows no images yet."""
    shipped = shipped_model(config, len(dataset.class_names), unfamiliarity=True)
    weights = trained.get_weights()
    shipped.set_weights([*weights, *shipped.get_weights()[len(weights) :]])
    return shipped


@dataclass(frozen=True)
class Trained:
    """A trained network with all that an export needs: its config, its images, its float32 rebuild, and the rebuild's
    answers for the validation images, to which every export is compared."""

    config: Config
    dataset: Dataset
    model: keras.Model
    answers: Answers

    @classmethod
    def of(cls, config: Config, dataset: Dataset, model: keras.Model, on_event: Listener) -> "Trained":
        return cls(config, dataset, model, answers_of(model, dataset, "scoring by Keras", on_event))

    @classmethod
    def of_run(cls, run: Run, on_event: Listener) -> "Trained":
        """Of a finished run, from its best weights. Raises DataError where its images are not what they were."""
        from imgrec_cli.training.analysis import learn_familiar

        record = run.record
        if record.get("status") != "finished":
            raise InputError(f"{run.folder}: did not finish, its status is {record.get('status')}", "train to the end")
        config = load_config(run.resolved_config_file)
        dataset = load_dataset(config.data, config.image, config.seed, on_event)
        if dataset.fingerprint != record["data"]["fingerprint"]:
            raise DataError(
                f"{run.folder}: the images or their split are not those of the run",
                "put the images back: validation images judge an export, training images set ranges of 8-bit numbers",
            )
        shipped = restored(config, len(dataset.class_names), run, unfamiliarity=True)
        learn_familiar(config, dataset, shipped, on_event)
        return cls.of(config, dataset, shipped, on_event)

    def representative(self) -> NDArray[np.uint8]:
        """Training images uint8 [N, H, W, C], which ones follows from the seed."""
        rows = self.dataset.rows("train")
        random = np.random.Generator(np.random.Philox(key=[self.config.seed, 1]))
        return self.dataset.pixels[np.sort(random.permutation(rows)[:REPRESENTATIVE_IMAGES])]


def fit_decision(
    config: Config,
    dataset: Dataset,
    reference: NDArray[np.float32],
    scores: NDArray[np.float32],
    on_event: Listener,
) -> Decision:
    """What turns probabilities into answers, from those for the validation images, float32 [N, classes].

    The temperature is found on the `reference`, Keras's in float32: 8-bit probabilities are too coarse near 0 to say
    how sure is too sure. Sets and thresholds are found on the export's own `scores` at that temperature, which stays 1
    below 50 images. A target that no threshold reaches is told as a warning.
    """
    labels, names = dataset.labels("validation"), dataset.class_names
    temperature = fit_temperature(reference, labels) if len(labels) >= FEWEST_FOR_TEMPERATURE else 1.0
    calibrated = with_temperature(scores, temperature)
    given = np.array([config.decision.thresholds.get(name, np.nan) for name in names])
    targets = [(kind, names.index(name), share) for kind, name, share in config.decision.targets]
    found = find_thresholds(calibrated, labels, given, targets) if targets else given
    summary = summarize(calibrated, labels, decide(calibrated, found))
    for kind, label, share in targets:
        if not (labels == label).any():
            on_event(
                Warn(f"decision.target: {kind}.{names[label]}: no validation image is of it, so it has no threshold")
            )
            continue
        reached = getattr(summary.classes[label], kind)
        if reached < share:
            on_event(
                Warn(f"decision.target: {kind}.{names[label]}: {100 * reached:.1f} % is the most that was reached")
            )
    thresholds = {name: float(value) for name, value in zip(names, found, strict=True) if not np.isnan(value)}
    return Decision(temperature, thresholds, conformal_limits(calibrated, labels))


def write_bundle(
    trained: Trained,
    target: str,
    name: str,
    place: Path,
    on_event: Listener,
    *,
    precision_changes: int = 0,
    max_drop: float = MAX_DROP,
) -> tuple[Manifest, list[str]]:
    """Write a bundle for `target` to `place`, a folder or a `.zip`, and return its manifest and the images whose label
    differs from the trained model's.

    Thresholds and sets are found on the export's own answers. What stood at `place` is replaced when all
    has gone well; otherwise it stays as it was, and nothing is left of the new one. Raises ParityError.
    """
    config, dataset = trained.config, trained.dataset
    place.parent.mkdir(parents=True, exist_ok=True)
    unfinished = place.with_name(f".{place.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    try:
        write_model(target, config, trained.model, unfinished, trained.representative())
        manifest = Manifest(
            name=name,
            created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            class_names=list(dataset.class_names),
            pixels=dataset.spec,
            files=records_below(unfinished),
            parity=Parity(0, 0.0, 0, 0),
            versions={"imgrec": __version__, "keras": keras.version()},
            titles=dict(config.data.classes.titles),
            other=list(config.data.classes.other),
            merged={name: list(members) for name, members in config.data.classes.merge.items()},
            left_out=list(dataset.left_out),
            target=target,
            mirrored=any(isinstance(step, Flip) and step.axis == "horizontal" for step in config.augment),
        )
        judge = open_judge(unfinished, manifest) if target == "tflite-micro" else None
        engine = judge.engine if judge else _engine(unfinished, manifest)
        found = answers_of(judge or engine, dataset, f"scoring {target}", on_event)
        parity = replace(
            compare(trained.answers, found, dataset.labels("validation"), exact=TARGETS[target].exact),
            precision_changes=precision_changes,
            milliseconds=_milliseconds(engine, dataset.pixels[dataset.rows("validation")[:1]]),
        )
        check_parity(target, parity, max_drop)
        pixels = selftest_inputs(*config.image.size, config.image.channels)
        with replacing(unfinished / SELFTEST) as stream:
            answers = trained.model.predict_on_batch(pixels) if TARGETS[target].exact else engine.outputs(pixels)
            np.savez_compressed(
                stream, pixels=pixels, scores=answers[0] if isinstance(answers, list | tuple) else answers
            )
        step = TARGETS[target].step
        scores = found.scores if step is None else without_zeros(found.scores, step)
        known = found.unfamiliarity[~np.isnan(found.unfamiliarity)]
        manifest = replace(
            manifest,
            parity=parity,
            decision=fit_decision(config, dataset, trained.answers.scores, scores, on_event),
            unfamiliar_above=float(np.quantile(known, KEPT_AS_FAMILIAR)) if len(known) else None,
        )
        add_metadata(unfinished, manifest)
        if judge:
            write_sources(unfinished, manifest, judge)
        manifest = replace(manifest, files=records_below(unfinished))
        manifest.write(unfinished)
        if TARGETS[target].runtime in ("litert", "onnx"):
            Classifier(unfinished, manifest).verify()
        _put(unfinished, place)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    paths = [example.path for example in dataset.examples if example.split == "validation"]
    return manifest, [paths[int(i)] for i in np.flatnonzero(found.labels != trained.answers.labels)]


def _engine(folder: Path, manifest: Manifest) -> Engine:
    """The runtime that the export is for."""
    if TARGETS[manifest.target].runtime in ("litert", "onnx"):
        return open_engine(folder, manifest, available_cores())
    return open_runtime(manifest.target, folder)


def _milliseconds(engine: Engine, image: NDArray[np.uint8]) -> float:
    """Median time of one image uint8 [1, H, W, C]; the first call, which sets up, is not counted."""
    engine.outputs(image)
    times: list[float] = []
    while len(times) < TIMED_CALLS and sum(times) < TIMED_SECONDS:
        began = time.perf_counter()
        engine.outputs(image)
        times.append(time.perf_counter() - began)
    return 1000 * float(np.median(times))


def _put(unfinished: Path, place: Path) -> None:
    if place.suffix == ".zip":
        write_zip(unfinished, place)
        return
    old = place.with_name(f".{place.name}.replaced")
    shutil.rmtree(old, ignore_errors=True)
    if place.exists():
        place.replace(old)  # a folder cannot take the place of another one that holds files
    try:
        unfinished.replace(place)
    except OSError:
        if old.exists():
            old.replace(place)
        raise
    shutil.rmtree(old, ignore_errors=True)


def export(
    config: Config,
    dataset: Dataset,
    run: Run,
    trained: keras.Model,
    shipped: keras.Model,
    on_event: Listener,
    features: NDArray[np.float32] | None = None,
) -> Manifest:
    """Write the run's bundle from the trained model's float32 rebuild, `shipped`, and return its manifest; `features`
    as `labels_as_trained` takes them.

    The rebuild is scored beside the bundle on every validation image. Raises ParityError, and leaves no bundle behind,
    where a probability differs by 1e-3 or more.
    """
    rebuild = Trained.of(config, dataset, shipped, on_event)
    in_training = labels_as_trained(trained, dataset, features, on_event)
    changes = int((in_training != rebuild.answers.labels).sum())
    manifest, differing = write_bundle(
        rebuild, "litert", run.name, run.bundle_folder, on_event, precision_changes=changes
    )
    if differing:
        named = ", ".join(differing[:10])
        on_event(Warn(f"the exported model labels {len(differing)} validation images differently: {named}"))
    run.update_record(parity={**asdict(manifest.parity), "disagreeing": differing})
    return manifest
