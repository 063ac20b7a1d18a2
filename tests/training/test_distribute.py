"""Several devices and several processes train what one device trains; the devices are virtual, the processes real."""

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from imgrec_cli.errors import ConfigError, InputError

pytestmark = pytest.mark.tf


def missing(*packages: str) -> bool:
    return any(importlib.util.find_spec(name) is None for name in packages)


needs_jax = pytest.mark.skipif(missing("jax"), reason="training on several devices needs the `jax` extra")
needs_cluster = pytest.mark.skipif(
    sys.platform != "linux" or missing("jax", "orbax"), reason="several hosts need the `cluster` extra, and Linux"
)

# smooth functions, and no bias before a batch norm, whose gradient would be nothing but rounding: docs/clusters.md
SMOOTH = (
    "model.layers=[{type: conv, filters: 8, bias: false, activation: linear}, {type: batch_norm, activation: tanh}, "
    "{type: pool, kind: average}, {type: flatten}, {type: dense, units: 1024, activation: tanh}, "
    "{type: dropout, rate: 0.2}]"
)
SETTINGS = [
    SMOOTH,
    "augment=[{type: rotate, degrees: 20}, {type: brightness, range: [0.8, 1.2]}]",
    "optimizer={type: sgd, learning_rate: 0.01, momentum: 0.9}",
    "train={batch_size: 8, epochs: 3, precision: float32, ema: 0.9}",
    "runtime={backend: jax, device: cpu}",
]
# document-004, ReLU, largest values and Adam, and augmentation: 217 steps
DOCUMENT = [
    "augment=[{type: rotate, degrees: 20}]",
    "train={batch_size: 16, epochs: 7, precision: float32}",
    "runtime={backend: jax, device: cpu}",
]
STEADY = [
    "optimizer={type: sgd, learning_rate: 0.01}",
    "train={batch_size: 8, epochs: 1, precision: float32}",
    "runtime={backend: jax, device: cpu}",
]
IN_PARTS = {
    "plain": (1, STEADY, "{strategy: none}"),
    "in-parts": (1, STEADY, "{strategy: none, shards: 4}"),
    "document-1": (1, DOCUMENT, "{strategy: none, shards: 8}"),
    "document-2": (2, DOCUMENT, "{strategy: data, shards: 8}"),
    "document-4": (4, DOCUMENT, "{strategy: data, shards: 8}"),
    "document-model-2": (2, DOCUMENT, "{strategy: model, shards: 8}"),
    "document-model-2x2": (4, DOCUMENT, "{strategy: model, mesh: [2, 2], shards: 8}"),
}
TRAININGS = {
    "one": (1, "{strategy: none}"),
    "data-2": (2, "{strategy: data}"),
    "data-4": (4, "{strategy: data}"),
    "model-2": (2, "{strategy: model}"),
    "model-4": (4, "{strategy: model, mesh: [1, 4]}"),
    "model-2x2": (4, "{strategy: model, mesh: [2, 2]}"),
}


@pytest.fixture(scope="module")
def on_devices(root, tiny_config, tmp_path_factory):
    """The weights and the story of all trainings above, by one process with four virtual devices."""
    out = tmp_path_factory.mktemp("devices")
    asked = {
        name: {"config": str(tiny_config), "settings": [*SETTINGS, f"distribute={spec}"], "devices": devices}
        for name, (devices, spec) in TRAININGS.items()
        if name == "one" or "model" not in name or not missing("orbax")
    }
    document = root / "configs" / "document-004.yaml"
    asked |= {
        name: {"config": str(document), "settings": [*more, f"distribute={spec}"], "devices": devices}
        for name, (devices, more, spec) in IN_PARTS.items()
        if "model" not in spec or not missing("orbax")
    }
    (out / "trainings.json").write_text(json.dumps(asked))
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("on_devices.py")), str(out), str(out / "trainings.json")],
        env={**os.environ, "JAX_NUM_CPU_DEVICES": "4", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return out


def story(folder: Path, name: str) -> tuple[list[np.ndarray], list[dict[str, float]], dict[str, int]]:
    with np.load(folder / f"{name}.npz") as stored:
        weights = [stored[key] for key in stored.files]
    told = json.loads((folder / f"{name}.json").read_text())
    return weights, told["metrics"], told["bytes"]


def assert_same(
    one: tuple[list[np.ndarray], list[dict[str, float]]],
    other: tuple[list[np.ndarray], list[dict[str, float]]],
    tolerance: float = 1e-5,
) -> None:
    (weights, metrics), (others, other_metrics) = one, other
    assert len(metrics) == len(other_metrics)
    for line, other_line in zip(metrics, other_metrics, strict=True):
        expected = {key: value for key, value in line.items() if "second" not in key}
        assert {key: other_line[key] for key in expected} == pytest.approx(expected, rel=tolerance)
    whole, other_whole = (np.concatenate([array.ravel() for array in arrays]) for arrays in (weights, others))
    assert np.linalg.norm(whole - other_whole) <= tolerance * np.linalg.norm(whole)


@needs_jax
@pytest.mark.parametrize("name", [name for name in TRAININGS if name != "one"])
def test_several_devices_train_what_one_trains(on_devices, name):
    if "model" in name and missing("orbax"):
        pytest.skip("strategy: model needs the `cluster` extra")
    assert_same(story(on_devices, "one")[:2], story(on_devices, name)[:2])


@needs_jax
def test_a_batch_in_parts_trains_what_a_whole_one_does(on_devices):
    assert_same(story(on_devices, "plain")[:2], story(on_devices, "in-parts")[:2])


@needs_jax
@pytest.mark.parametrize("name", ["document-2", "document-4", "document-model-2", "document-model-2x2"])
def test_in_the_same_parts_several_devices_train_the_same_bits(on_devices, name):
    if "model" in name and missing("orbax"):
        pytest.skip("strategy: model needs the `cluster` extra")
    (weights, metrics, _), (others, other_metrics, _) = story(on_devices, "document-1"), story(on_devices, name)
    for array, other in zip(weights, others, strict=True):
        np.testing.assert_array_equal(array, other)
    assert [line["train/loss"] for line in metrics] == [line["train/loss"] for line in other_metrics]
    assert len(metrics) == 7


@needs_cluster
@pytest.mark.parametrize(("name", "parts"), [("model-2", 2), ("model-4", 4), ("model-2x2", 2)])
def test_a_device_holds_its_part_of_the_split_weights(on_devices, name, parts):
    weights, _, whole = story(on_devices, "one")
    split = next(array for array in weights if array.shape[-1:] == (1024,) and array.ndim == 2).nbytes
    held = story(on_devices, name)[2]
    # the kernel of the dense layer lies in parts, all others are small and whole; the optimizer keeps momentum and mean
    assert held["weights"] == whole["weights"] - split + split // parts
    assert held["optimizer"] == whole["optimizer"] - 2 * (split - split // parts)


def start(
    folder: Path, *words: str, devices: int = 1, port: int = 0, index: int = 0, count: int = 1
) -> "subprocess.Popen[str]":
    """`imgrec train WORDS…` with this many virtual devices, as one of `count` processes."""
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": str(devices)}
    if count > 1:
        environment |= {
            "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
            "JAX_NUM_PROCESSES": str(count),
            "JAX_PROCESS_ID": str(index),
        }
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", "imgrec_cli", "train", *words],
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def together(folder: Path, count: int, *words: str, devices: int = 1) -> "list[subprocess.Popen[str]]":
    port = free_port()
    return [start(folder, *words, devices=devices, port=port, index=index, count=count) for index in range(count)]


def finish(processes: "list[subprocess.Popen[str]]", *codes: int) -> list[str]:
    """What the processes print until all have ended, with these exit codes; none is left behind."""
    try:
        told = [process.communicate(timeout=240)[0] for process in processes]
    finally:
        leave_none(processes)
    assert [process.returncode for process in processes] == list(codes or (0,) * len(processes)), told
    return told


def leave_none(processes: "list[subprocess.Popen[str]]") -> None:
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()


def settings(*more: str) -> list[str]:
    return [word for setting in [*SETTINGS, *more] for word in ("--set", setting)]


def learned(folder: Path) -> tuple[list[np.ndarray], list[dict[str, float]]]:
    (run,) = (folder / "runs").iterdir()
    assert json.loads((run / "run.json").read_text())["status"] == "finished"
    with np.load(run / "checkpoints" / "best.npz") as stored:
        weights = [stored[name] for name in sorted(stored.files) if name.startswith("weights")]
    return weights, [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


# document-004: 63 steps an epoch, of which 32 are one call; the state is kept after each
LONG = [
    "augment=[{type: rotate, degrees: 20}]",
    "train={batch_size: 8, epochs: 3, precision: float32, ema: 0.9, checkpoint_every: 1 step}",
    "runtime={backend: jax, device: cpu}",
]


def long(root: Path, spec: str) -> list[str]:
    words = (word for setting in [*LONG, f"distribute={spec}"] for word in ("--set", setting))
    return [str(root / "configs" / "document-004.yaml"), *words]


@pytest.fixture(scope="module")
def bereaved(root, tmp_path_factory):
    """A run of two processes with split weights, one of which was killed inside an epoch; and what the other said."""
    folder = tmp_path_factory.mktemp("bereaved") / "first"
    first, second = together(folder, 2, *long(root, "{strategy: model, mesh: [1, 2], shards: 8, heartbeat: 10}"))
    try:
        wait_for_state(folder, 2, first)
        second.kill()
        killed = time.monotonic()
        out, _ = first.communicate(timeout=60)
        seconds = time.monotonic() - killed
    finally:
        leave_none([first, second])
    return folder, first.returncode, out, seconds


def wait_for_state(folder: Path, epoch: int, process: "subprocess.Popen[str]") -> None:
    """Until the run of the process has saved its state inside this epoch."""
    for _ in range(2400):
        assert process.poll() is None, process.communicate()[0]
        if any(folder.glob(f"runs/*/checkpoints/state-{epoch:05d}-00000032")):
            return
        time.sleep(0.05)
    raise AssertionError(f"no state of epoch {epoch} in two minutes")


@needs_cluster
@pytest.mark.slow
def test_a_killed_peer_ends_the_others_with_a_word(bereaved):
    _, code, out, seconds = bereaved
    assert code == 10, out
    assert "another process of this training was lost" in out
    assert "--resume" in out
    assert seconds < 60


@needs_cluster
@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_what_a_killed_peer_left_goes_on_to_the_same_bits(bereaved, root, tmp_path, processes, uninterrupted):
    shutil.copytree(bereaved[0], tmp_path / "again")
    spec = "{strategy: none, shards: 8}" if processes == 1 else "{strategy: model, mesh: [1, 2], shards: 8}"
    told = finish(together(tmp_path / "again", processes, *long(root, spec), "--resume", "auto"))
    assert "going on from epoch 2 at step" in told[0]
    assert_same_bits(uninterrupted, tmp_path / "again")


@needs_cluster
@pytest.mark.slow
@pytest.mark.parametrize(("processes", "strategy"), [(2, "data"), (4, "model")])
def test_in_the_same_parts_several_processes_train_the_same_bits(root, tmp_path, processes, strategy, uninterrupted):
    finish(together(tmp_path / "several", processes, *long(root, f"{{strategy: {strategy}, shards: 8}}")))
    assert_same_bits(uninterrupted, tmp_path / "several")


def assert_same_bits(folder: Path, other: Path) -> None:
    """Weights and losses of two trainings, which figures on validation images follow but for their own rounding."""
    (weights, metrics), (others, other_metrics) = learned(folder), learned(other)
    for array, other_array in zip(weights, others, strict=True):
        np.testing.assert_array_equal(array, other_array)
    assert [line["train/loss"] for line in metrics] == [line["train/loss"] for line in other_metrics]
    assert_same((weights, metrics), (others, other_metrics))


@pytest.fixture(scope="module")
def uninterrupted(root, tmp_path_factory):
    """The run of document-004 on one device."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    finish([start(folder, *long(root, "{strategy: none, shards: 8}"))])
    return folder


@needs_cluster
@pytest.mark.slow
def test_hosts_with_other_configs_are_refused(tiny_config, tmp_path):
    port = free_port()
    first = start(tmp_path, str(tiny_config), *settings(), port=port, index=0, count=2)
    second = start(tmp_path, str(tiny_config), *settings("seed=7"), port=port, index=1, count=2)
    _, told = finish([first, second], 10, 2)
    assert "process 1 of 2 has another config than process 0" in told


ON_JAX = "runtime.backend=jax;"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("distribute={strategy: data}", "data needs runtime.backend: jax"),
        ("distribute={mesh: [1, 2]}", "has a use with strategy: model alone"),
        ("distribute={shards: 4}", "has a use with runtime.backend: jax"),
        (ON_JAX + "distribute={strategy: model, layout: {'dense(': [null, model]}}", "no regular expression"),
        (ON_JAX + "distribute={strategy: model, shards: 4};optimizer.clip_norm=1", "clip_norm adds over whole weights"),
        (ON_JAX + "distribute={shards: 16};train.batch_size=24", "must divide the batch, which has 24 images"),
    ],
)
def test_what_cannot_be_distributed_is_refused(tiny_config, setting, message):
    from imgrec_cli.config import load_config

    with pytest.raises(ConfigError, match=message):
        load_config(tiny_config, setting.split(";"))


def test_a_layout_that_fits_no_weight_is_refused():
    from types import SimpleNamespace

    from imgrec_cli.training.distribute import SplitWeights, require_named

    kernel = SimpleNamespace(path="dense_8/kernel", shape=(36992, 1023))
    with pytest.raises(InputError, match="desne is in the path of no weight"):
        require_named(["desne"], [kernel])
    require_named(["dense_8"], [kernel])
    split = SplitWeights.__new__(SplitWeights)
    for axes, message in (((None, "model"), "cannot be divided into 4 parts"), (("model",), "has 1 axes")):
        split.parts, split.named = 4, {"dense": axes}
        with pytest.raises(InputError, match=message):
            split.get_variable_layout(kernel)


@pytest.mark.parametrize("variable", ["JAX_COORDINATOR_ADDRESS", "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"])
def test_several_processes_do_not_train_alone_beside_each_other(tiny_config, monkeypatch, variable):
    from imgrec_cli.config import load_config
    from imgrec_cli.training.job import join

    monkeypatch.setenv(variable, "2")
    with pytest.raises(InputError, match="only the backend jax trains with others"):
        join(load_config(tiny_config))
    assert join(load_config(tiny_config, ["distribute={strategy: none}"])).count == 1


def test_the_automatic_layout_splits_large_kernels_along_their_outputs():
    from imgrec_cli.training.distribute import split_axes

    assert split_axes("dense_8/kernel", (36992, 1024), 4) == (None, "model")
    assert split_axes("conv_2/kernel", (3, 3, 64, 128), 4) == (None, None, None, "model")
    assert split_axes("logits/kernel", (4096, 10), 4) == ("model", None)  # ten outputs are not divided by four
    assert split_axes("dense_8/bias", (1024,), 4) == (None,)
    assert split_axes("conv_1/kernel", (3, 3, 3, 32), 4) == (None, None, None, None)  # too small to be worth it
    assert split_axes("adam/dense_8_kernel_momentum", (36992, 1024), 4) == (None, "model")
