"""What an earlier run gives to a new network: what is taken, what stays as it was drawn, what is told."""

import os
import shutil
import signal
from dataclasses import replace

import numpy as np
import pytest

from imgrec_cli.config import load_config
from imgrec_cli.errors import ConfigError, InputError, Interrupted
from imgrec_cli.origin import check_earlier_runs
from imgrec_cli.progress import EpochEnd, Note, Warn

pytestmark = pytest.mark.tf

CLASSES = ("cross", "square", "star")  # the run knows circle, cross, square


@pytest.fixture(scope="module")
def dataset(tiny_run):
    """The images of the tiny run, their classes by other names."""
    from imgrec_cli.dataset import load_dataset

    config = load_config(tiny_run / "config.resolved.yaml")
    return replace(load_dataset(config.data, config.image, config.seed), class_names=CLASSES)


def begun(config, run, dataset, events):
    """Weights by layer before and after, and those of the run."""
    from imgrec_cli.rundir import Run
    from imgrec_cli.training.earlier import take_over
    from imgrec_cli.training.model import training_model
    from imgrec_cli.training.restored import restored

    model = training_model(config, len(CLASSES))
    before = {layer.name: layer.get_weights() for layer in model.layers}
    take_over(model, Run(run), dataset, events.append)
    theirs = restored(load_config(Run(run).resolved_config_file), 3, Run(run))
    return before, {layer.name: layer.get_weights() for layer in model.layers}, theirs


def told(events):
    return [event.text for event in events if isinstance(event, Note)]


def test_layers_by_name_and_shape_and_the_last_one_by_class(tiny_config, tiny_run, dataset):
    events = []
    config = load_config(tiny_config, ["train.precision=float32"])
    before, after, theirs = begun(config, tiny_run, dataset, events)
    for ours, his in zip(after["conv_1"], theirs.get_layer("conv_1").get_weights(), strict=True):
        np.testing.assert_array_equal(ours, his)
    kernel, bias = theirs.get_layer("logits").get_weights()
    np.testing.assert_array_equal(after["logits"][0][:, :2], kernel[:, 1:])
    np.testing.assert_array_equal(after["logits"][1][:2], bias[1:])
    np.testing.assert_array_equal(after["logits"][0][:, 2], before["logits"][0][:, 2])
    assert told(events) == [
        f"layers from {tiny_run.name}: conv_1; fresh: none",
        f"classes from {tiny_run.name}: cross, square; fresh: star",
    ]


def test_what_has_another_shape_is_fresh(tiny_config, tiny_run, dataset):
    events = []
    layers = "[{type: conv, filters: 4}, {type: pool}, {type: conv, filters: 5}, {type: flatten}]"
    config = load_config(tiny_config, ["train.precision=float32", f"model.layers={layers}"])
    before, after, _ = begun(config, tiny_run, dataset, events)
    assert (after["conv_1"][0] != before["conv_1"][0]).any()
    for name in ("conv_3", "logits"):
        np.testing.assert_array_equal(after[name][0], before[name][0])
    assert told(events) == [
        f"layers from {tiny_run.name}: conv_1; fresh: conv_3",
        f"classes from {tiny_run.name}: none; fresh: cross, square, star",
    ]


def test_a_run_of_which_nothing_fits_is_refused(tiny_config, tiny_run, dataset):
    config = load_config(tiny_config, ["train.precision=float32", "model.layers=[{type: pool}, {type: flatten}]"])
    with pytest.raises(InputError, match="no layer and no class of it has the name and shape of one here"):
        begun(config, tiny_run, dataset, [])


def test_a_run_that_begins_with_a_run_is_better_from_the_first_epoch_on(tiny_config, tiny_run, tmp_path):
    from imgrec_cli.api import train
    from imgrec_cli.rundir import Run

    run = train(tiny_config, [f"model.start_from={tiny_run}", "train.epochs=1"], runs=tmp_path)
    assert run.read_metrics()[0]["val/loss"] < Run.open(tiny_run).read_metrics()[0]["val/loss"]
    assert load_config(run.resolved_config_file).model.start_from == str(tiny_run)


def test_images_that_judge_and_were_trained_on_before_are_told(tiny_config, tiny_run, dataset):
    from imgrec_cli.dataset import load_dataset

    config = load_config(tiny_config, ["train.precision=float32"])
    events = []
    begun(config, tiny_run, dataset, events)
    assert not [event for event in events if isinstance(event, Warn)]
    other = load_dataset(config.data, config.image, 7)
    begun(config, tiny_run, replace(other, class_names=CLASSES), events)
    warnings = [event.text for event in events if isinstance(event, Warn)]
    assert any(f"{tiny_run.name} was trained on " in text and "test images" in text for text in warnings)


@pytest.mark.parametrize("key", ["model.start_from", "teacher.run"])
def test_a_run_that_is_resumed_does_without_the_earlier_one(tiny_config, tiny_run, tmp_path, key):
    from imgrec_cli.api import train

    earlier = tmp_path / "earlier"
    shutil.copytree(tiny_run, earlier)
    settings = [f"{key}={earlier}", "train.epochs=3"]
    whole = train(tiny_config, settings, runs=tmp_path / "whole")

    def stop_after_the_first(event):
        if isinstance(event, EpochEnd) and event.epoch == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        train(tiny_config, settings, runs=tmp_path / "stopped", on_event=stop_after_the_first)
    shutil.rmtree(earlier)
    stopped = next((tmp_path / "stopped").iterdir())
    resumed = train(resume=stopped, runs=tmp_path)
    assert resumed.record["sha256"] == whole.record["sha256"]
    assert sorted(file.name for file in (resumed.folder / "checkpoints").iterdir()) == ["best.npz"]


def test_a_frozen_backbone_of_an_earlier_run_stays_as_it_was_and_lies_in_the_new_run(tiny_config, dataset, tmp_path):
    import keras

    from imgrec_cli.config import resolved_yaml
    from imgrec_cli.dataset import load_dataset
    from imgrec_cli.rundir import Run
    from imgrec_cli.training import checkpoint
    from imgrec_cli.training.fit import fit
    from imgrec_cli.training.model import training_model
    from imgrec_cli.training.restored import restored
    from imgrec_cli.training.stop import Stop

    settings = ["image={size: [32, 32]}", "train={batch_size: 8, precision: float32, epochs: 1}"]
    name = "type: backbone, name: mobilenet_v2, width: 0.35"
    earlier, run = Run.create(tmp_path, "earlier"), Run.create(tmp_path, "new")
    config = load_config(tiny_config, [*settings, f"model={{{name}}}"])
    earlier.resolved_config_file.write_text(resolved_yaml(config, earlier.folder), encoding="utf-8")
    earlier.update_record(status="finished", data={"class_names": ["circle", "cross", "square"]})
    earlier.write_examples([])
    keras.utils.set_random_seed(1)
    checkpoint.write(earlier.best_checkpoint, {"weights": training_model(config, 3).weights}, {})
    model = f"{{{name}, freeze: true, start_from: {earlier.folder}, unfreeze: {{from_layer: 5%, epochs: 1}}}}"
    frozen = load_config(tiny_config, [*settings, f"model={model}"])
    images = load_dataset(frozen.data, frozen.image, 0)
    trained = fit(frozen, images, run, Stop(), lambda event: None)
    before = restored(config, 3, earlier).get_layer("mobilenet_v2").layers
    (tmp_path / earlier.name / "run.json").unlink()
    after = restored(frozen, 3, run)
    for one, other in zip(trained.model.get_weights(), after.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    pairs = zip(before, after.get_layer("mobilenet_v2").layers, strict=True)
    same = [
        all(np.array_equal(*arrays) for arrays in zip(one.get_weights(), other.get_weights(), strict=True))
        for one, other in pairs
    ]
    assert all(same[: len(same) * 9 // 10])
    assert len(run.read_metrics()) == 2


def test_a_teacher_answers_for_the_classes_and_images_of_the_new_run(tiny_config, tiny_run, tmp_path):
    from scipy.special import softmax

    from imgrec_cli.classifier import Classifier
    from imgrec_cli.dataset import load_dataset
    from imgrec_cli.rundir import Run
    from imgrec_cli.training.earlier import taught

    config = load_config(tiny_config, [f"teacher.run={tiny_run}", "image={size: [20, 24], color: rgb}"])
    images = load_dataset(config.data, config.image, config.seed)
    names = ("square", "circle", "cross")  # the order of the columns is that of the run that learns
    images = replace(images, class_names=names)
    events = []
    teaching = taught(config, Run(tmp_path / "new").made(), images, events.append)
    shipped = Classifier.load(tiny_run)
    files = [example.file for example in images.examples if example.split == "train"]
    scores = [dict(shipped.predict(file).ranking) for file in files]
    logits = np.log([[found[name] for name in names] for found in scores])
    # the bundle's probabilities are sharpened or softened by one temperature: the order of the classes stays
    np.testing.assert_array_equal(teaching.softened.argmax(axis=1), softmax(logits, axis=1).argmax(axis=1))
    assert any("teaches: it answers" in text for text in told(events))


def test_a_run_learns_from_its_teacher_and_keeps_nothing_of_it(tiny_config, tiny_run, tmp_path):
    from imgrec_cli.api import train

    settings = [f"teacher={{run: {tiny_run}, temperature: 2}}", "train.epochs=6", "train.sampling=balanced"]
    lines = train(tiny_config, [*settings, "augment=[{type: flip}]"], runs=tmp_path).read_metrics()
    assert lines[-1]["val/loss"] < lines[0]["val/loss"]
    assert 0 <= lines[-1]["train/accuracy"] <= 1


def test_no_mixed_pictures_before_a_teacher(tiny_config):
    with pytest.raises(ConfigError, match=r"augment\[1\]: mixup cannot stand beside teacher"):
        load_config(tiny_config, ["teacher.run=runs/x", "augment=[{type: flip}, {type: mixup}]"])


@pytest.mark.parametrize("key", ["model.start_from", "teacher.run"])
def test_what_is_no_finished_run_with_a_network_is_told(tiny_config, tiny_run, tmp_path, key):
    config = load_config(tiny_config, [f"{key}={tmp_path / 'run'}"])
    names = ("circle", "cross", "square")
    with pytest.raises(ConfigError, match=f"{key}: .* not a run folder"):
        check_earlier_runs(config, names)
    shutil.copytree(tiny_run, tmp_path / "run")
    check_earlier_runs(config, names)
    (tmp_path / "run" / "checkpoints" / "best.npz").unlink()
    with pytest.raises(ConfigError, match=f"{key}: .* has no network of its own"):
        check_earlier_runs(config, names)
    record = tmp_path / "run" / "run.json"
    record.write_text(record.read_text(encoding="utf-8").replace('"finished"', '"killed"'), encoding="utf-8")
    with pytest.raises(ConfigError, match=f"{key}: .* did not finish, its status is killed"):
        check_earlier_runs(config, names)


def test_a_teacher_of_other_classes_is_refused_by_name(tiny_config, tiny_run):
    config = load_config(tiny_config, [f"teacher.run={tiny_run}"])
    check_earlier_runs(config, ("square", "cross", "circle"))
    with pytest.raises(ConfigError, match="classes are not those of these images") as caught:
        check_earlier_runs(config, CLASSES)
    assert caught.value.message.splitlines()[1:] == ["  not known to it: star", "  only there: circle"]


def test_doubtful_labels_are_not_looked_for_with_a_run_that_may_know_them(tiny_config, tiny_run, dataset):
    from imgrec_cli.training.out_of_fold import out_of_fold_probabilities

    with pytest.raises(ConfigError, match="may have learnt the very labels") as caught:
        out_of_fold_probabilities(load_config(tiny_config, [f"model.start_from={tiny_run}"]), dataset, 3, print)
    assert load_config(tiny_config, [caught.value.hint.split("--set ")[1]]).model.start_from is None


def test_a_backbone_takes_its_weights_from_one_place(tiny_config, tmp_path):
    model = f"model={{type: backbone, name: resnet50, weights: w.h5, start_from: {tmp_path}}}"
    with pytest.raises(ConfigError, match="cannot stand beside"):
        load_config(tiny_config, [model, "image={size: [32, 32]}"])
