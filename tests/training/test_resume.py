"""Runs that stop and go on: to the bit, whatever stopped them, and refused where they would be another experiment."""

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

from imgrec_cli.errors import ConfigError, DataError, DiskSpaceError, InputError, Interrupted, TrainingError
from imgrec_cli.progress import EpochEnd, Step, Warn
from imgrec_cli.rundir import Run, list_runs

pytestmark = pytest.mark.tf

EVERYTHING = [
    "augment=[{type: rotate, degrees: 20}, {type: flip}, {type: brightness, range: [0.8, 1.2]}, {type: randaugment}, "
    "{type: erase}, {type: mixup}, {type: cutmix}]",
    "loss={type: focal, label_smoothing: 0.1, class_weights: {circle: 2}}",
    "model.layers=[{type: conv, filters: 4}, {type: batch_norm, activation: relu}, {type: pool}, {type: flatten}, "
    "{type: dropout, rate: 0.3}]",
    "optimizer={type: adamw, learning_rate: {type: cosine, peak: 0.01, warmup: 20%}}",
    "train={batch_size: 2, epochs: 3, ema: 0.9, sampling: balanced, precision: float32, early_stopping: {patience: 3}}",
]


@pytest.fixture(autouse=True)
def few_steps_per_execution(monkeypatch):
    """Twelve steps an epoch, three to a call, so that an epoch has a middle."""
    monkeypatch.setattr("imgrec_cli.training.fit.MOST_STEPS_PER_EXECUTION", 3)
    monkeypatch.setattr("imgrec_cli.training.watch.SECONDS_BETWEEN_STEP_EVENTS", 0.0)


@pytest.fixture(autouse=True)
def plain_signals():
    """The handlers of a program in the foreground, also where the tests run in the background."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def whole(tiny_config, tmp_path_factory):
    """The run that nobody stopped."""
    from imgrec_cli.api import train

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("imgrec_cli.training.fit.MOST_STEPS_PER_EXECUTION", 3)
        return train(tiny_config, EVERYTHING, runs=tmp_path_factory.mktemp("whole"))


def stopped(config: Path, settings: list[str], runs: Path, when, how=signal.SIGTERM, resume=None) -> Run:
    """Train until `when(event)` is true, then be sent a signal."""
    from imgrec_cli.api import train

    def listen(event):
        if when(event):
            os.kill(os.getpid(), how)

    with pytest.raises(Interrupted) as caught:
        train(None if resume else config, [] if resume else settings, runs=runs, resume=resume, on_event=listen)
    run, record = list_runs(runs)[0]
    assert (record["status"], record["resumable"]) == ("interrupted", True)
    assert caught.value.hint == f"to go on: imgrec train --resume {run.folder}"
    return run


def resumed(run: Run, *settings: str, events: list | None = None) -> Run:
    from imgrec_cli.api import train

    return train(None, settings, resume=run.folder, on_event=(events if events is not None else []).append)


def what_was_learned(run: Run) -> dict:
    record = run.record
    assert record["status"] == "finished"
    metrics = [{k: v for k, v in line.items() if "second" not in k} for line in run.read_metrics()]
    return {
        "sha256": record["sha256"],
        "metrics": metrics,
        "scores": record["scores"],
        "model": (run.bundle_folder / "model.tflite").read_bytes(),
    }


def in_epoch(epoch: int, step: int):
    return lambda event: isinstance(event, Step) and (event.epoch, event.step) == (epoch, step)


@pytest.mark.parametrize(
    "when",
    [
        in_epoch(2, 6),
        in_epoch(2, 12),  # the last step: the stop comes before the validation
        lambda event: isinstance(event, EpochEnd) and event.epoch == 3,  # before the export
    ],
    ids=["mid-epoch", "before validation", "before the export"],
)
def test_a_resumed_run_ends_with_the_same_bits(whole, tiny_config, tmp_path, when):
    run = stopped(tiny_config, EVERYTHING, tmp_path, when)
    assert what_was_learned(resumed(run)) == what_was_learned(whole)
    assert [path.name for path in sorted((run.folder / "checkpoints").iterdir())] == ["best.npz"]


def test_a_run_stopped_twice_ends_with_the_same_bits(whole, tiny_config, tmp_path):
    run = stopped(tiny_config, EVERYTHING, tmp_path, in_epoch(1, 6))
    stopped(tiny_config, [], tmp_path, in_epoch(2, 9), signal.SIGINT, resume=run.folder)
    assert what_was_learned(resumed(run)) == what_was_learned(whole)
    assert len(run.record["resumed"]) == 2


def test_a_stop_says_where_and_a_second_ctrl_c_does_not_wait(tiny_config, tmp_path):
    from imgrec_cli.api import train

    before = signal.getsignal(signal.SIGINT)  # ignored where the tests run in the background of a shell

    def listen(event):
        if in_epoch(1, 3)(event):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match=r"stopped by SIGINT in epoch 1 at step 3 of 12; nothing is lost"):
        train(tiny_config, EVERYTHING, runs=tmp_path, on_event=listen)

    def listen_twice(event):
        if in_epoch(1, 3)(event):
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(tiny_config, EVERYTHING, runs=tmp_path, on_event=listen_twice)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_signal_that_is_ignored_stays_ignored():
    from imgrec_cli.training.stop import stopping

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with stopping() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert not stop.is_asked
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_a_stop_while_packing_leaves_a_run_to_go_on_with(whole, tiny_config, tmp_path, monkeypatch):
    monkeypatch.setenv("IMGREC_CACHE", str(tmp_path / "cache"))

    def packing(event):
        return getattr(event, "text", "").startswith("packing")

    run = stopped(tiny_config, EVERYTHING, tmp_path / "runs", packing)
    assert not run.examples_file.exists()
    assert what_was_learned(resumed(run)) == what_was_learned(whole)


def test_a_plateau_schedule_goes_on(tiny_config, tmp_path):
    from imgrec_cli.api import train

    rate = "{type: plateau, start: 0.1, patience: 1, min_delta: 9}"  # nothing improves by that much
    settings = [f"optimizer={{type: sgd, momentum: 0.9, learning_rate: {rate}}}", "train={batch_size: 2, epochs: 4}"]
    first = train(tiny_config, settings, runs=tmp_path / "whole")
    assert [line["lr"] for line in first.read_metrics()] == pytest.approx([0.1, 0.1, 0.01, 0.001])
    run = stopped(tiny_config, settings, tmp_path / "stopped", in_epoch(3, 6))
    assert what_was_learned(resumed(run)) == what_was_learned(first)


def test_the_last_layer_of_a_frozen_backbone_goes_on(tiny_config, tmp_path, backbone_weights):
    from imgrec_cli.config import load_config
    from imgrec_cli.dataset import load_dataset
    from imgrec_cli.training.fit import fit
    from imgrec_cli.training.stop import Stop

    settings = [
        "image={size: [32, 32], range: [0, 255]}",
        f"model={{type: backbone, name: mobilenet_v2, weights: '{backbone_weights}', freeze: true, dropout: 0.2}}",
        "train={batch_size: 2, epochs: 3, precision: float32, ema: 0.9}",
    ]
    config = load_config(tiny_config, settings)
    dataset = load_dataset(config.data, config.image, config.seed)
    whole = fit(config, dataset, Run.create(tmp_path, "whole"), Stop(), lambda event: None)
    run, stop = Run.create(tmp_path, "stopped"), Stop()
    with pytest.raises(Interrupted):
        fit(config, dataset, run, stop, lambda event: stop.asked(signal.SIGTERM) if in_epoch(2, 6)(event) else None)
    again = fit(config, dataset, run, Stop(), lambda event: None)
    assert (again.last_state_sha256, again.best_weights_sha256) == (whole.last_state_sha256, whole.best_weights_sha256)


@pytest.mark.parametrize("place", [(2, 12), (3, 6)], ids=str)
def test_two_phases_go_on(tiny_config, tmp_path, backbone_weights, two_phases, place):
    run = stopped(tiny_config, two_phase_settings(backbone_weights), tmp_path, in_epoch(*place))
    assert what_was_learned(resumed(run)) == what_was_learned(two_phases)
    with pytest.raises(ConfigError, match="a run in two phases keeps their lengths"):
        resumed(run, "train.epochs=9")


def two_phase_settings(weights):
    return [
        "image={size: [32, 32], color: rgb}",
        "augment=[{type: flip}, {type: mixup}]",
        f"model={{type: backbone, name: mobilenet_v2, weights: '{weights}', freeze: true, dropout: 0.2, "
        "head: {units: 6}, "
        "unfreeze: {from_layer: block_16, epochs: 2, learning_rate: {type: cosine, peak: 1e-3, warmup: 10%}}}",
        "train={batch_size: 2, epochs: 2, precision: float32, ema: 0.9}",
    ]


@pytest.fixture(scope="module")
def two_phases(tiny_config, backbone_weights, tmp_path_factory):
    from imgrec_cli.api import train

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("imgrec_cli.training.fit.MOST_STEPS_PER_EXECUTION", 3)
        return train(tiny_config, two_phase_settings(backbone_weights), runs=tmp_path_factory.mktemp("phases"))


def test_the_second_phase_trains_from_its_layer_on_and_keeps_the_statistics(two_phases, backbone_weights):
    import keras

    from imgrec_cli.config import load_config
    from imgrec_cli.training.restored import restored

    lines = two_phases.read_metrics()
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    assert [line["lr"] for line in lines[:2]] == pytest.approx([1e-3, 1e-3])
    # the cosine begins anew with the second phase: half way and at the end of 24 steps, 2 of them to warm up
    assert lines[2]["lr"] == pytest.approx(1e-3 * (1 + np.cos(np.pi * 10 / 22)) / 2, rel=1e-4)
    assert lines[3]["lr"] == pytest.approx(0, abs=1e-8)
    # a phase ends with its best weights: the backbone is the file's before block_16
    plain = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(32, 32, 3), pooling="avg")
    plain.load_weights(backbone_weights)
    trained = restored(load_config(two_phases.resolved_config_file), 3, two_phases).get_layer("mobilenet_v2")
    changed = {
        layer.name
        for layer in trained.layers
        if layer.weights
        and any(
            (a != b).any() for a, b in zip(layer.get_weights(), plain.get_layer(layer.name).get_weights(), strict=True)
        )
    }
    if two_phases.record["best_epoch"] > 2:
        assert changed == {"block_16_expand", "block_16_depthwise", "block_16_project", "Conv_1"}
    else:
        assert not changed


@pytest.fixture(scope="session")
def backbone_weights(tmp_path_factory):
    import keras

    path = tmp_path_factory.mktemp("weights") / "mobilenet_v2_no_top.weights.h5"
    keras.utils.set_random_seed(0)
    model = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(32, 32, 3), pooling="avg")
    model.save_weights(path)
    return path


def damaged(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_damaged_checkpoint_falls_back_to_the_one_before_and_says_so(whole, tiny_config, tmp_path):
    run = stopped(tiny_config, EVERYTHING, tmp_path, in_epoch(2, 6))
    assert run.previous_checkpoint.exists()
    damaged(run.last_checkpoint)
    events: list = []
    finished = resumed(run, events=events)
    (warning,) = [event.text for event in events if isinstance(event, Warn) and "checkpoint" in event.text]
    assert f"{run.last_checkpoint}: not a readable checkpoint" in warning
    assert warning.endswith("going on from previous.npz, the state before it")
    assert what_was_learned(finished) == what_was_learned(whole)


def test_a_checkpoint_whose_values_were_exchanged_is_noticed(tmp_path):
    from imgrec_cli.training import checkpoint

    path = tmp_path / "last.npz"
    checkpoint.write(path, {"state": [np.zeros(3, np.float32)]}, {"epoch": 1})
    with np.load(path) as stored:
        arrays = dict(stored)
    arrays["state/00000"] = np.ones(3, np.float32)
    np.savez(path, **arrays)
    with pytest.raises(TrainingError, match="array state/00000 was changed"):
        checkpoint.read(path)


def test_nothing_left_to_go_on_from_is_said(tiny_config, tmp_path):
    run = stopped(tiny_config, EVERYTHING, tmp_path, in_epoch(2, 6))
    damaged(run.last_checkpoint)
    damaged(run.previous_checkpoint)
    with pytest.raises(TrainingError, match=r"last\.npz: .*previous\.npz: ") as caught:
        resumed(run)
    assert caught.value.hint == "no state is left to go on from: train again"


def test_another_config_is_refused_with_its_keys(tiny_config, tmp_path):
    from imgrec_cli.api import train

    run = stopped(tiny_config, EVERYTHING, tmp_path, in_epoch(1, 6))
    before = {path: path.read_bytes() for path in run.folder.rglob("*.npz")}
    with pytest.raises(ConfigError) as caught:
        resumed(run, "seed=1", "train.batch_size=4", "train.epochs=2", "distribute.pack_parts=2")
    assert caught.value.message.splitlines() == [
        f"{run.folder}: cannot go on with another config",
        "  seed: the run has 0, asked for is 1",
        "  train.batch_size: the run has 2, asked for is 4",
        "  train.epochs: the run has 3, asked for is 2; it can only grow",
        "  distribute.pack_parts: the run has None, asked for is 2",
    ]
    with pytest.raises(ConfigError, match=r"optimizer\.type: the run has adamw, asked for is adam"):
        train(tiny_config, resume=run.folder)
    assert {path: path.read_bytes() for path in before} == before
    # the same config with its words `auto` is the same experiment
    assert train(tiny_config, EVERYTHING, resume=run.folder).record["status"] == "finished"


def test_a_run_can_be_given_more_epochs(tiny_config, tmp_path):
    from imgrec_cli.api import train

    constant = [*EVERYTHING[:2], "optimizer={type: adam, learning_rate: 0.01}"]
    length = "train={{batch_size: 2, epochs: {}, ema: 0.9, precision: float32, keep_optimizer: true}}"
    longer = train(tiny_config, [*constant, length.format(4)], runs=tmp_path / "longer")
    run = train(tiny_config, [*constant, length.format(2)], runs=tmp_path / "shorter")
    assert run.last_checkpoint.exists()
    extended = resumed(run, "train.epochs=4")
    assert extended.record["extended"] == [{"from_epochs": 2, "to_epochs": 4}]
    assert what_was_learned(extended) == what_was_learned(longer)


def test_a_finished_run_is_left_alone(whole):
    before = {path: path.read_bytes() for path in whole.folder.rglob("*") if path.is_file()}
    events: list = []
    assert resumed(whole, events=events) == whole
    assert [event.text for event in events] == [f"{whole.folder} is finished: nothing is left to do"]
    (whole.folder / "report.html").unlink()
    resumed(whole)  # as if it had been killed before its report was written
    with pytest.raises(InputError, match="finished, and kept no state to go on from"):
        resumed(whole, "train.epochs=9")
    assert {path for path in whole.folder.rglob("*") if path.is_file()} == before.keys()


def test_images_that_changed_are_named_and_the_run_goes_on_once_they_are_back(whole, tiny_config, tmp_path):
    import shutil

    shutil.copytree(tiny_config.parent, tmp_path / "data")
    run = stopped(tmp_path / "data" / "tiny.yaml", EVERYTHING, tmp_path / "runs", in_epoch(2, 6))
    image = tmp_path / "data" / "shapes" / "circle" / "03.png"
    kept = image.read_bytes()
    image.unlink()
    (image.parent / "99.png").write_bytes(kept)
    with pytest.raises(DataError) as caught:
        resumed(run)
    lines = caught.value.message.splitlines()
    assert lines[0] == f"{run.folder}: its images are not those it began with"
    assert any(line.startswith("  gone: circle/03.png (") for line in lines)
    assert any(line.startswith("  new: circle/99.png (") for line in lines)
    (image.parent / "99.png").unlink()
    image.write_bytes(kept)
    assert what_was_learned(resumed(run)) == what_was_learned(whole)


def test_a_run_in_use_is_refused(tiny_config, tmp_path):
    run = stopped(tiny_config, EVERYTHING, tmp_path, in_epoch(1, 6))
    with run.held(), pytest.raises(InputError, match="another process works on this run"):
        resumed(run)


def test_another_machine_is_said_and_the_run_goes_on(tiny_config, tmp_path):
    run = stopped(tiny_config, EVERYTHING, tmp_path, in_epoch(1, 6))
    run.update_record(cpu="another CPU", versions={**run.record["versions"], "keras": "3.0.0"})
    events: list = []
    finished = resumed(run, events=events)
    (warning,) = [event.text for event in events if isinstance(event, Warn) and "bit-exact" in event.text]
    assert warning.startswith("the run continues, not bit-exact: cpu: another CPU → ")
    assert "keras: 3.0.0 → " in warning
    assert finished.record["resumed"][0]["differing"]


def test_a_full_disk_leaves_the_last_good_state(whole, tiny_config, tmp_path, monkeypatch):
    """A limit on the size of files stands for a disk that becomes full while the second checkpoint is written."""
    resource = pytest.importorskip("resource", reason="needs limits of POSIX systems")
    from imgrec_cli.api import train
    from imgrec_cli.training import checkpoint

    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    written = checkpoint.write_last

    def write_and_fill(run, groups, meta):
        written(run, groups, meta)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))

    monkeypatch.setattr(checkpoint, "write_last", write_and_fill)
    try:
        with pytest.raises(DiskSpaceError):
            train(tiny_config, EVERYTHING, runs=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    monkeypatch.setattr(checkpoint, "write_last", written)
    run, record = list_runs(tmp_path)[0]
    assert record["resumable"] is not False
    assert what_was_learned(resumed(run)) == what_was_learned(whole)


def test_a_vanished_folder_is_said_and_goes_on_once_it_is_back(whole, tiny_config, tmp_path):
    from imgrec_cli.api import train

    def take_away(event):
        if isinstance(event, EpochEnd) and event.epoch == 2:
            (tmp_path / "runs").rename(tmp_path / "elsewhere")

    with pytest.raises(InputError, match="this folder vanished while the run was writing to it"):
        train(tiny_config, EVERYTHING, runs=tmp_path / "runs", on_event=take_away)
    (tmp_path / "elsewhere").rename(tmp_path / "runs")
    ((run, record),) = list_runs(tmp_path / "runs")
    assert (record["status"], record["resumable"]) == ("killed", True)
    assert what_was_learned(resumed(run)) == what_was_learned(whole)


def test_reproduce_says_equal_and_what_differs(whole, tmp_path):
    from imgrec_cli.api import reproduce

    found = reproduce(whole.folder, runs=tmp_path)
    assert (found.exact, found.images, found.metrics, found.machine) == (True, [], 0.0, [])
    assert found.second.name.endswith(f"-again-{whole.name}")
    run = Run.open(found.second)
    run.update_record(sha256={"best": "0", "last_state": "0"})
    from imgrec_cli.origin import compared

    other = compared(whole, run)
    assert (other.exact, other.good, other.weights) == (False, False, False)


def test_too_little_memory_names_a_batch_that_fits(tiny_config, tmp_path, monkeypatch):
    import tensorflow as tf

    from imgrec_cli.api import train

    def exhausted(*_: object) -> None:
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating")

    monkeypatch.setattr("imgrec_cli.training.fit.train_epochs", exhausted)
    with pytest.raises(TrainingError, match="a batch of 8 images does not fit into the memory") as caught:
        train(tiny_config, runs=tmp_path)
    assert caught.value.hint == "train.batch_size=4 fits"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX's")
def test_a_killed_run_ends_with_the_same_bits(root, tmp_path):
    """One run of tests/campaigns/kill.py, killed at a file operation in the middle."""
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location("kill", root / "tests" / "campaigns" / "kill.py")
    kill = module_from_spec(spec)
    sys.modules["kill"] = kill
    spec.loader.exec_module(kill)
    config = kill.CONFIG.replace("FOLDER", str(root / "data" / "fashion-mini")).replace("epochs: 5", "epochs: 2")
    (tmp_path / "whole").mkdir()
    (tmp_path / "whole" / "campaign.yaml").write_text(config)
    end = kill.imgrec(tmp_path / "whole", "train", "campaign.yaml")
    assert end.code == 0, end.out
    operations = int((tmp_path / "whole" / "operations.txt").read_text())
    result = kill.trial(0, "float32", tmp_path, config, end, operations, seed=0)
    assert result["stages"], "it was not killed"
    (run,) = (tmp_path / "whole" / "runs").iterdir()
    assert result["found"] == kill.fingerprint(run)
    assert json.loads((run / "run.json").read_text())["precision"] == "float32"
