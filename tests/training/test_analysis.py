"""What training leaves for the report: explanations that depend on the weights, and images as the network saw them."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from imgrec_cli.config import load_config
from imgrec_cli.dataset import load_dataset

pytestmark = pytest.mark.tf


@pytest.fixture
def shapes(tiny_config):
    config = load_config(tiny_config, ["train.precision=float32"])
    return config, load_dataset(config.data, config.image, config.seed)


def test_random_weights_change_the_map(tiny_run, shapes):
    """The sanity check of Adebayo et al. 2018: a map that does not depend on the model explains nothing."""
    from scipy.stats import spearmanr

    from imgrec_cli.rundir import Run
    from imgrec_cli.training.gradcam import GradCam, grad_cam_of_run
    from imgrec_cli.training.model import shipped_model

    config, dataset = shapes
    pixels, labels = dataset.pixels[:12], np.array([example.label for example in dataset.examples[:12]])
    trained = grad_cam_of_run(Run.open(tiny_run)).maps(pixels, labels)
    again = grad_cam_of_run(Run.open(tiny_run)).maps(pixels, labels)
    np.testing.assert_array_equal(trained, again)
    correlations = []
    for _ in range(3):
        random = GradCam.of(config, shipped_model(config, 3)).maps(pixels, labels)
        correlations += [
            abs(spearmanr(a.ravel(), b.ravel()).statistic)
            for a, b in zip(trained, random, strict=True)
            if np.ptp(a) and np.ptp(b)  # where nothing speaks for a class the map is empty
        ]
    assert len(correlations) > 6
    assert np.mean(correlations) < 0.7


def test_maps_of_a_linear_head_are_its_class_activation_maps():
    """Behind global average pooling and one layer, Grad-CAM is CAM (Selvaraju et al. 2017, section 3.1)."""
    from imgrec_cli.config import parse_config
    from imgrec_cli.training.gradcam import GradCam
    from imgrec_cli.training.model import shipped_model

    text = (
        "data: {folder: x}\nimage: {size: [12, 10]}\ntrain: {precision: float32}\nmodel:\n  type: layers\n  layers:\n"
        "    - {type: conv, filters: 5, activation: relu}\n    - {type: global_pool}\n"
    )
    model = shipped_model(parse_config(text, "test", Path()), 3, unfamiliarity=True)
    cam = GradCam.of(parse_config(text, "test", Path()), model)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 12, 10, 3)).astype(np.uint8)
    labels = np.array([0, 1, 2, 0])
    last = np.asarray(cam.to_map(pixels))
    weights = model.get_layer("logits").get_weights()[0][:, labels].T
    expected = np.maximum((last * weights[:, None, None, :]).sum(axis=-1), 0)
    expected /= np.maximum(expected.max(axis=(1, 2), keepdims=True), 1e-12)
    np.testing.assert_allclose(cam.maps(pixels, labels), expected, atol=1e-5)


def test_a_backbone_is_explained_at_its_last_map():

    from imgrec_cli.config import parse_config
    from imgrec_cli.training.gradcam import GradCam
    from imgrec_cli.training.model import shipped_model

    text = "data: {folder: x}\nimage: {size: [64, 96]}\nmodel: {type: backbone, name: mobilenet_v2}\n"
    config = parse_config(text, "test", Path())
    model = shipped_model(config, 3)
    cam = GradCam.of(config, model)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3)).astype(np.uint8)
    assert cam.maps(pixels, np.array([0, 2])).shape == (2, 2, 3)
    logits = np.asarray(cam.to_logits(cam.to_map(pixels)))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probabilities, model.predict_on_batch(pixels), atol=1e-5)


def test_shown_images_are_those_of_the_first_training_step(shapes):
    import keras

    from imgrec_cli.config import Flip, Rotate
    from imgrec_cli.training.analysis import first_batch
    from imgrec_cli.training.input import Source
    from imgrec_cli.training.model import training_model

    config, dataset = shapes
    augment = (Rotate(type="rotate", degrees=40), Flip(type="flip"))
    config = config.model_copy(update={"augment": augment})
    before, after = first_batch(config, dataset)
    keras.utils.set_random_seed(config.seed)
    layer = training_model(config, 3).get_layer("augment")
    source = Source(dataset.pixels, dataset.rows("train"), dataset.labels("train"), 8, config.seed)
    pixels, _ = next(source.blocks(1, 0, 1))
    np.testing.assert_array_equal(before, pixels[0])
    np.testing.assert_array_equal(after, np.rint(np.asarray(layer(pixels[0], training=True))).astype(np.uint8))
    assert (after != before).any()


def scalars(folder: Path) -> list[tuple[int, str, float]]:
    """What TensorBoard would read: (step, name, value)."""
    import tensorflow as tf
    from tensorflow.core.util import event_pb2

    (file,) = folder.iterdir()
    events = [event_pb2.Event.FromString(record.numpy()) for record in tf.data.TFRecordDataset(str(file))]
    return [
        (event.step, value.tag, float(tf.make_ndarray(value.tensor)))
        for event in events
        for value in event.summary.value
    ]


def test_tensorboard_gets_the_figures_of_every_epoch(tmp_path):
    pytest.importorskip("tensorboard", reason="needs the `tensorboard` extra")
    from imgrec_cli.progress import EpochEnd
    from imgrec_cli.training.tensorboard import with_scalars

    handed_on: list[object] = []
    listen = with_scalars(tmp_path / "t", handed_on.append)
    events = [EpochEnd(epoch, 2, {"val/loss": 1 / epoch, "lr": 0.5}, True) for epoch in (1, 2)]
    for event in events:
        listen(event)
    assert handed_on == events
    assert scalars(tmp_path / "t") == [*((1, "val/loss", 1.0), (1, "lr", 0.5), (2, "val/loss", 0.5), (2, "lr", 0.5))]


def test_a_missing_tensorboard_is_said_before_training(tiny_config, tmp_path, monkeypatch):
    from imgrec_cli.api import train
    from imgrec_cli.errors import MissingExtraError
    from imgrec_cli.training import tensorboard

    monkeypatch.setattr(tensorboard, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="needs tensorboard, which is not installed") as caught:
        train(tiny_config, runs=tmp_path / "runs", tensorboard=True)
    assert ".[tensorboard]" in caught.value.hint
    assert not (tmp_path / "runs").exists()


def test_a_target_is_sought_on_validation_and_shipped(tiny_config, tmp_path):
    from imgrec_cli.api import train

    run = train(tiny_config, ["train.epochs=1", "decision.target={recall.cross: 0.9}"], runs=tmp_path)
    manifest = json.loads((run.bundle_folder / "manifest.json").read_text())
    assert set(manifest["decision"]["thresholds"]) == {"cross"}
    assert len(manifest["decision"]["conformal"]) == 50
    figures = json.loads((run.evaluation_folder("test") / "metrics.json").read_text())
    assert set(figures["thresholds"]["cross"]) == {
        *("threshold", "recall", "recall_without", "precision", "precision_without")
    }
    with (run.evaluation_folder("test") / "predictions.csv").open(encoding="utf-8", newline="") as stream:
        crosses = [row for row in csv.DictReader(stream) if row["label"] == "cross"]
    found = [row["predicted"] == "cross" for row in crosses]
    plain = [
        max(("circle", "cross", "square"), key=lambda name: float(row[f"score:{name}"])) == "cross" for row in crosses
    ]
    recalls = [figures["thresholds"]["cross"][key] for key in ("recall", "recall_without")]
    assert recalls == [sum(found) / len(crosses), sum(plain) / len(crosses)]


def test_thresholds_of_unknown_classes_stop_before_any_work(tiny_config, tmp_path):
    from imgrec_cli.api import train
    from imgrec_cli.errors import ConfigError

    with pytest.raises(ConfigError, match=r"decision.thresholds: no class cros") as caught:
        train(tiny_config, ["decision.thresholds={cros: 0.3}"], runs=tmp_path / "runs")
    assert caught.value.hint == "did you mean cross?"
    assert not (tmp_path / "runs").exists()
