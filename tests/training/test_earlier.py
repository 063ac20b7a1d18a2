"""What an earlier run gives to a new network: what is taken, what stays as it was drawn, what is told."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from imgrec_cli.config import check_earlier_runs, load_config
from imgrec_cli.errors import ConfigError, InputError, Interrupted
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


def test_a_run_that_is_resumed_does_without_the_earlier_one(tiny_config, tiny_run, tmp_path):
    import os
    import signal

    from imgrec_cli.api import train

    earlier = tmp_path / "earlier"
    shutil.copytree(tiny_run, earlier)
    settings = [f"model.start_from={earlier}", "train.epochs=3"]
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


def test_no_run_is_told(tiny_config, tmp_path):
    with pytest.raises(ConfigError, match=r"model\.start_from: .* no run"):
        check_earlier_runs(load_config(tiny_config, [f"model.start_from={tmp_path}"]))


def test_a_run_of_several_has_no_network(tiny_config, tiny_run, dataset, tmp_path):
    shutil.copytree(tiny_run, tmp_path / "several")
    shutil.rmtree(tmp_path / "several" / "checkpoints")
    config = load_config(tiny_config, ["train.precision=float32"])
    with pytest.raises(InputError, match=r"model\.start_from: .* has no network of its own"):
        begun(config, tmp_path / "several", dataset, [])


def test_doubtful_labels_are_not_looked_for_with_a_run_that_may_know_them(tiny_config, tiny_run, dataset):
    from imgrec_cli.training.out_of_fold import out_of_fold_probabilities

    with pytest.raises(ConfigError, match="may have learnt the very labels") as caught:
        out_of_fold_probabilities(load_config(tiny_config, [f"model.start_from={tiny_run}"]), dataset, 3, print)
    assert load_config(tiny_config, [caught.value.hint.split("--set ")[1]]).model.start_from is None


def test_a_backbone_takes_its_weights_from_one_place(tiny_config, tmp_path):
    model = f"model={{type: backbone, name: resnet50, weights: w.h5, start_from: {tmp_path}}}"
    with pytest.raises(ConfigError, match="cannot stand beside"):
        load_config(tiny_config, [model, "image={size: [32, 32]}"])
