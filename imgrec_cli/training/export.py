"""Trained model → bundle: rebuilt in float32, exported to LiteRT, compared with Keras, shipped only if it agrees."""

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from imgrec_cli import __version__
from imgrec_cli.bundle import LARGEST_GAP, MODEL, SELFTEST, Decision, FileRecord, Manifest, Parity
from imgrec_cli.classifier import Classifier
from imgrec_cli.config import Config, Flip, load_config, resolved_yaml
from imgrec_cli.dataset import Dataset
from imgrec_cli.errors import DiskSpaceError, MissingExtraError, ParityError, install_command
from imgrec_cli.machine import native_messages_hidden
from imgrec_cli.metrics.calibration import conformal_limits, fit_temperature, with_temperature
from imgrec_cli.metrics.decisions import decide, find_thresholds
from imgrec_cli.metrics.summary import summarize
from imgrec_cli.progress import Advance, Listener, Warn
from imgrec_cli.rundir import Run, full_disk_said, replacing
from imgrec_cli.training import checkpoint
from imgrec_cli.training.input import padded_blocks
from imgrec_cli.training.model import shipped_model

BATCH_SIZE = 32  # of the comparison; does not change its result
FEWEST_FOR_TEMPERATURE = 50  # validation images; fewer say too little about how sure is too sure
KEPT_AS_FAMILIAR = 0.95  # share of the validation images


def selftest_inputs(height: int, width: int, channels: int) -> NDArray[np.uint8]:
    """Four synthetic images uint8 [4, H, W, C]: black, white, a ramp, noise. None comes from the user's data."""
    shape = (height, width, channels)
    ramp = np.broadcast_to(np.linspace(0, 255, height * width).reshape(height, width, 1), shape)
    noise = np.random.Generator(np.random.Philox(key=[0, 0])).integers(0, 256, shape)
    return np.stack([np.zeros(shape), np.full(shape, 255), ramp, noise]).astype(np.uint8)


def convert(config: Config, classes: int, model: keras.Model, path: Path) -> None:
    """Write the shipped model as a LiteRT file of built-in operators only, float32.

    The converter belongs to TensorFlow: on another backend it runs in a process of its own. Raises MissingExtraError
    where TensorFlow is not installed.
    """
    if keras.backend.backend() == "tensorflow":
        _write_litert(model, path)
        return
    if importlib.util.find_spec("tensorflow") is None:
        raise MissingExtraError(
            "the export to LiteRT needs tensorflow, which is not installed", install_command("train")
        )
    with tempfile.TemporaryDirectory() as folder:
        asked, weights = Path(folder) / "config.yaml", Path(folder) / "weights.npz"
        asked.write_text(resolved_yaml(config, asked.parent), encoding="utf-8")
        checkpoint.write(weights, {"weights": model.weights}, {})
        second = str(int(len(model.outputs) > 1))
        words = [sys.executable, "-m", __name__, str(asked), str(classes), second, str(weights), str(path)]
        # without the GPU, whose memory the training process holds
        environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": "-1"}
        done = subprocess.run(words, env=environment, capture_output=True, encoding="utf-8", errors="replace")
    if done.returncode:
        raise ParityError(f"the export to LiteRT failed with {done.returncode}: {done.stderr[-500:].strip()}")


def _write_litert(model: keras.Model, path: Path) -> None:
    """Keras's exporter would also allow TensorFlow's own operators, which no light runtime has."""
    import tensorflow as tf

    operators, temporary = [tf.lite.OpsSet.TFLITE_BUILTINS], Path(tempfile.gettempdir())
    try:
        with native_messages_hidden(), full_disk_said(temporary):
            model.export(path, format="litert", verbose=False, target_spec={"supported_ops": operators})
    except tf.errors.OpError as error:  # TensorFlow writes a copy of the model on the way, in its own words
        if "No space left on device" not in str(error):
            raise
        raise DiskSpaceError(
            f"{temporary}: the disk became full while the model was exported",
            "make room, or name a folder on a larger disk by the environment variable TMPDIR",
        ) from error


def rebuilt(config: Config, dataset: Dataset, trained: keras.Model) -> keras.Model:
    """The model to ship, in float32 with the trained weights; its unfamiliarity knows no images yet."""
    shipped = shipped_model(config, len(dataset.class_names), unfamiliarity=True)
    weights = trained.get_weights()
    shipped.set_weights([*weights, *shipped.get_weights()[len(weights) :]])
    return shipped


@dataclass(frozen=True)
class Comparison:
    """What the bundle answers for the validation images, float32 [N, classes] and [N], and how that compares.

    `disagreeing` are the paths of the images whose label differs from that of the trained weights.
    """

    parity: Parity
    disagreeing: list[str]
    scores: NDArray[np.float32]
    unfamiliarity: NDArray[np.float32]


def compare(
    reference: keras.Model, trained: keras.Model, classifier: Classifier, dataset: Dataset, on_event: Listener
) -> Comparison:
    """Score every validation image by the float32 Keras model, the trained model and the bundle, and compare."""
    rows = dataset.rows("validation")
    paths = [example.path for example in dataset.examples if example.split == "validation"]
    largest_gap, disagreements, precision_changes, done = 0.0, [], 0, 0
    outputs = []
    for pixels, count in padded_blocks(dataset.pixels, rows, BATCH_SIZE):
        answers = reference.predict_on_batch(pixels)
        expected, *second = [np.asarray(a)[:count] for a in (answers if isinstance(answers, list) else [answers])]
        answered, unfamiliarity = classifier.outputs(pixels[:count])
        outputs.append((answered, unfamiliarity))
        in_training = np.asarray(trained.predict_on_batch(pixels))[:count]
        gaps = [np.abs(answered - expected).max()]
        # unfamiliarity has no largest value: its gap is relative where it is large
        gaps += [(np.abs(unfamiliarity - values) / np.maximum(np.abs(values), 1)).max() for values in second]
        largest_gap = float(np.max([largest_gap, *gaps]))  # NaN stays NaN
        differing = np.flatnonzero(answered.argmax(axis=1) != expected.argmax(axis=1))
        disagreements += [paths[done + int(i)] for i in differing]
        precision_changes += int((in_training.argmax(axis=1) != expected.argmax(axis=1)).sum())
        done += count
        on_event(Advance("comparing", done, len(rows)))
    scores, unfamiliarities = (np.concatenate(column) for column in zip(*outputs, strict=True))
    return Comparison(
        Parity(done, largest_gap, len(disagreements), precision_changes), disagreements, scores, unfamiliarities
    )


def fit_decision(config: Config, dataset: Dataset, scores: NDArray[np.float32], on_event: Listener) -> Decision:
    """Temperature, sets and thresholds from the bundle's own answers, float32 [N, classes], for the validation images.

    The temperature stays 1 below 50 images. A target that no threshold reaches is told as a warning.
    """
    labels, names = dataset.labels("validation"), dataset.class_names
    temperature = fit_temperature(scores, labels) if len(labels) >= FEWEST_FOR_TEMPERATURE else 1.0
    calibrated = with_temperature(scores, temperature)
    given = np.array([config.decision.thresholds.get(name, np.nan) for name in names])
    targets = [(kind, names.index(name), share) for kind, name, share in config.decision.targets]
    found = find_thresholds(calibrated, labels, given, targets) if targets else given
    summary = summarize(calibrated, labels, decide(calibrated, found))
    for kind, label, share in targets:
        reached = getattr(summary.classes[label], kind)
        if reached < share:
            on_event(
                Warn(f"decision.target: {kind}.{names[label]}: {100 * reached:.1f} % is the most that was reached")
            )
    thresholds = {name: float(value) for name, value in zip(names, found, strict=True) if not np.isnan(value)}
    return Decision(temperature, thresholds, conformal_limits(calibrated, labels))


def export(
    config: Config, dataset: Dataset, run: Run, trained: keras.Model, shipped: keras.Model, on_event: Listener
) -> Manifest:
    """Write the run's bundle from the trained model's float32 rebuild, `shipped`, and return its manifest.

    The rebuild is scored beside the bundle on every validation image. Raises ParityError, and leaves no bundle behind,
    where a probability differs by 1e-3 or more. What turns probabilities into answers is found on the same images.
    """
    unfinished = run.folder / ".bundle.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    try:
        convert(config, len(dataset.class_names), shipped, unfinished / MODEL)
        manifest = Manifest(
            name=run.name,
            created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            class_names=list(dataset.class_names),
            pixels=dataset.spec,
            files={MODEL: FileRecord.of(unfinished / MODEL)},
            parity=Parity(0, 0.0, 0, 0),
            versions={"imgrec": __version__, "keras": keras.version()},
            titles=dict(config.data.classes.titles),
            other=list(config.data.classes.other),
            merged={name: list(members) for name, members in config.data.classes.merge.items()},
            left_out=list(dataset.left_out),
        )
        compared = compare(shipped, trained, Classifier(unfinished, manifest), dataset, on_event)
        parity, disagreements = compared.parity, compared.disagreeing
        # `not <` so that NaN fails too
        if not parity.largest_gap < LARGEST_GAP:
            raise ParityError(
                f"the exported model differs from the trained one by {parity.largest_gap:.2g} in a probability on "
                f"{parity.images} validation images, allowed is less than {LARGEST_GAP:g}; "
                f"{parity.disagreements} labels differ. Nothing was shipped",
                "this is a fault of the exporter or of imgrec: please report it with the output of imgrec info",
            )
        pixels = selftest_inputs(*config.image.size, config.image.channels)
        with replacing(unfinished / SELFTEST) as stream:
            answers = shipped.predict_on_batch(pixels)
            np.savez_compressed(stream, pixels=pixels, scores=answers[0] if isinstance(answers, list) else answers)
        measured = compared.unfamiliarity[~np.isnan(compared.unfamiliarity)]
        manifest = replace(
            manifest,
            files={name: FileRecord.of(unfinished / name) for name in (MODEL, SELFTEST)},
            parity=parity,
            decision=fit_decision(config, dataset, compared.scores, on_event),
            unfamiliar_above=float(np.quantile(measured, KEPT_AS_FAMILIAR)) if len(measured) else None,
            mirrored=any(isinstance(step, Flip) and step.axis == "horizontal" for step in config.augment),
        )
        manifest.write(unfinished)
        Classifier(unfinished, manifest).verify()
        if disagreements:
            named = ", ".join(disagreements[:10])
            on_event(Warn(f"the exported model labels {len(disagreements)} validation images differently: {named}"))
        run.update_record(parity={**asdict(parity), "disagreeing": disagreements})
        shutil.rmtree(run.bundle_folder, ignore_errors=True)
        unfinished.replace(run.bundle_folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return manifest


def _main(config_file: str, classes: str, unfamiliarity: str, weights: str, path: str) -> None:
    """What the process of its own does: the same model in TensorFlow, with the same weights, as LiteRT."""
    model = shipped_model(load_config(config_file), int(classes), unfamiliarity=unfamiliarity == "1")
    groups, _ = checkpoint.read(Path(weights))
    checkpoint.restore(model.weights, groups["weights"], Path(weights))
    _write_litert(model, Path(path))


if __name__ == "__main__":
    _main(*sys.argv[1:])
