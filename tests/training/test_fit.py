"""The training story: losses against scikit-learn, what counts as best, when it stops, and that it learns."""

import json

import numpy as np
import pytest
from sklearn.metrics import log_loss, precision_recall_fscore_support

from imgrec_cli.config import EarlyStopping, load_config
from imgrec_cli.errors import TrainingError

pytestmark = pytest.mark.tf


def test_validation_metrics_agree_with_scikit_learn():
    from imgrec_cli.training.fit import validation_metrics

    generator = np.random.default_rng(0)
    logits, labels = generator.normal(scale=5, size=(100, 4)).astype("float32"), generator.integers(0, 4, 100)
    exponentials = np.exp(logits.astype("float64"))
    labels[labels == 3] = 0  # a class without examples that is predicted all the same
    expected = log_loss(labels, exponentials / exponentials.sum(axis=1, keepdims=True), labels=range(4))
    found = validation_metrics(logits, labels)
    assert found["val/loss"] == pytest.approx(expected, rel=1e-9)
    assert found["val/accuracy"] == (logits.argmax(axis=1) == labels).mean()
    precision, recall, f1, _ = precision_recall_fscore_support(
        labels, logits.argmax(axis=1), average="macro", zero_division=0
    )
    assert [found["val/precision"], found["val/recall"], found["val/f1"]] == pytest.approx([precision, recall, f1])


def test_huge_logits_have_a_finite_loss():
    from imgrec_cli.training.fit import validation_metrics

    assert validation_metrics(np.array([[1e4, 0.0]], "float32"), np.array([1]))["val/loss"] == pytest.approx(1e4)


def epochs_until_stop(metric, values, *, patience, min_delta=0.0):
    from imgrec_cli.training.place import Best, out_of_patience

    best = Best(metric, min_delta)
    for epoch, value in enumerate(values, start=1):
        other = "val/loss" if metric == "val/accuracy" else "val/accuracy"
        best.update(epoch, {metric: value, other: 1.0})
        if out_of_patience(best, EarlyStopping(metric=metric, patience=patience, min_delta=min_delta)):
            return epoch, best.epoch
    return None, best.epoch


def test_early_stopping_waits_for_its_patience_and_keeps_the_best():
    assert epochs_until_stop("val/loss", [1.0, 0.5, 0.6, 0.7, 0.1], patience=2) == (4, 2)
    assert epochs_until_stop("val/loss", [1.0, 0.5, 0.6, 0.4, 0.5], patience=2) == (None, 4)
    assert epochs_until_stop("val/accuracy", [0.5, 0.6, 0.6, 0.6], patience=2) == (4, 2)


def test_an_improvement_below_min_delta_does_not_count():
    assert epochs_until_stop("val/loss", [1.0, 0.99, 0.98], patience=2, min_delta=0.1) == (3, 1)


def test_of_equal_accuracies_the_lower_loss_is_best():
    from imgrec_cli.training.place import Best

    best = Best("val/accuracy", 0.0)
    assert best.update(1, {"val/accuracy": 0.9, "val/loss": 0.5})
    assert best.update(2, {"val/accuracy": 0.9, "val/loss": 0.4})
    assert not best.update(3, {"val/accuracy": 0.9, "val/loss": 0.45})
    assert best.epoch == 2


def test_the_run_keeps_metrics_checkpoints_and_both_configs(tiny_run):
    epochs = [json.loads(line) for line in (tiny_run / "metrics.jsonl").read_text().splitlines()]
    assert [epoch["epoch"] for epoch in epochs] == [1, 2]
    for name in ("train/loss", "train/accuracy", "val/loss", "val/accuracy", "lr", "images_per_second"):
        assert all(np.isfinite(epoch[name]) for epoch in epochs), name
    assert sorted(path.name for path in (tiny_run / "checkpoints").iterdir()) == ["best.npz"]
    assert (tiny_run / "config.yaml").read_text().startswith("version: 1")
    resolved = load_config(tiny_run / "config.resolved.yaml")
    assert "auto" not in (
        resolved.train.precision,
        resolved.image.range,
        resolved.runtime.device,
        resolved.runtime.threads,
    )


def test_a_small_network_learns_its_training_images(tiny_config, tmp_path):
    from imgrec_cli.api import train

    changes = ["train.epochs=60", "model.layers.0.filters=16", "optimizer={type: adam, learning_rate: 0.01}"]
    run = train(tiny_config, changes, runs=tmp_path)
    assert run.read_metrics()[-1]["train/accuracy"] == 1.0


def test_two_runs_of_one_config_end_with_the_same_bits(tiny_config, tmp_path):
    from imgrec_cli.api import train

    change = "augment=[{type: rotate, degrees: 20}, {type: flip}, {type: brightness, range: [0.8, 1.2]}]"
    first, second = (train(tiny_config, [change], runs=tmp_path).record["sha256"] for _ in range(2))
    assert first == second


def test_the_last_state_is_kept_where_that_is_asked_for(tiny_config, tmp_path):
    from imgrec_cli.api import train
    from imgrec_cli.training import checkpoint

    run = train(tiny_config, ["train.keep_optimizer=true"], runs=tmp_path)
    groups, _ = checkpoint.read(run.last_checkpoint)
    assert checkpoint.digest(groups["state"]) == run.record["sha256"]["last_state"]
    assert checkpoint.digest(groups["best"]) == run.record["sha256"]["best"]


def test_a_loss_that_is_not_finite_stops_with_the_place_and_a_way_out(tiny_config, tmp_path):
    from imgrec_cli.api import train
    from imgrec_cli.rundir import list_runs

    with pytest.raises(
        TrainingError, match=r"the loss is (nan|inf) in epoch \d+ at step \d+ of \d+: training diverged"
    ) as caught:
        train(
            tiny_config,
            ["optimizer={type: sgd, learning_rate: 100}", "train.epochs=50", "model.layers.0.activation=linear"],
            runs=tmp_path,
        )
    assert caught.value.hint.startswith("lower optimizer.learning_rate")
    record = list_runs(tmp_path)[0][1]
    assert record["status"] == "failed"
    assert "training diverged" in record["error"]


def test_a_metric_of_all_classes_chooses_stops_and_shrinks_the_step(tiny_config, tmp_path):
    from imgrec_cli.api import train

    run = train(
        tiny_config,
        [
            "train={batch_size: 8, epochs: 4, early_stopping: {metric: val/f1, patience: 2}}",
            "optimizer={type: sgd, clip_norm: 1.0, learning_rate: {type: plateau, start: 1e-8, metric: val/recall, "
            "patience: 1, min_delta: 0.5}}",
        ],
        runs=tmp_path,
    )
    lines = run.read_metrics()
    best = max(lines, key=lambda line: (line["val/f1"], -line["val/loss"]))
    assert run.record["best_epoch"] == best["epoch"]
    assert lines[-1]["lr"] < lines[0]["lr"]
