"""Several devices and several processes train what one device trains; the devices are virtual, the processes real."""

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

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
    folder: Path,
    *words: str,
    devices: int = 1,
    port: int = 0,
    index: int = 0,
    count: int = 1,
    more: Callable[[int], dict[str, str]] = lambda index: {},
) -> "subprocess.Popen[str]":
    """`imgrec train WORDS…` with this many virtual devices, as one of `count` processes; `more` of the environment."""
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": str(devices), **more(index)}
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


def together(folder: Path, count: int, *words: str, **settings: Any) -> "list[subprocess.Popen[str]]":
    port = free_port()
    return [start(folder, *words, port=port, index=index, count=count, **settings) for index in range(count)]


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
@pytest.mark.parametrize("other", ["config", "images"])
def test_hosts_with_other_configs_or_images_are_refused(tiny_config, tmp_path, other):
    port, parts = free_port(), "distribute.pack_parts=2"
    fewer = shutil.copytree(tiny_config.parent, tmp_path / "fewer")
    (fewer / "shapes" / "cross" / "03.png").unlink()
    there = [str(tiny_config), *settings(parts, "seed=7")]
    if other == "images":
        there = [str(fewer / tiny_config.name), *settings(parts)]
    first = start(tmp_path, str(tiny_config), *settings(parts), port=port, index=0, count=2)
    second = start(tmp_path, *there, port=port, index=1, count=2)
    _, told = finish([first, second], 10, 2)
    a = "another" if other == "config" else "other"
    assert f"process 1 of 2 has {a} {other} than process 0" in told


# Python loads a module of this name by itself at start: what a process opens is written down, in order, and for process
# FULL the disk has no room.
WATCH = """\
import os, shutil, sys

index = os.environ.get("JAX_PROCESS_ID", "0")

def opened(event, arguments):
    if event == "open" and isinstance(arguments[0], str) and ("fashion-mini" in arguments[0] or "best" in arguments[0]):
        os.write(record, (arguments[0] + "\\n").encode())

if "OPENED" in os.environ:
    record = os.open(os.environ["OPENED"] + index, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    sys.addaudithook(opened)
if os.environ.get("FULL") == index:
    shutil.disk_usage = lambda path: shutil._ntuple_diskusage(1, 1, 1)
"""


def watched(folder: Path, *, shared: bool = False, **more: str) -> Callable[[int], dict[str, str]]:
    """The environment of processes that have caches of their own, or one, below `folder`."""
    (folder / "guard").mkdir(parents=True, exist_ok=True)
    (folder / "guard" / "sitecustomize.py").write_text(WATCH, encoding="utf-8")
    path = os.pathsep.join([str(folder / "guard"), *filter(None, [os.environ.get("PYTHONPATH")])])
    return lambda index: {
        "PYTHONPATH": path,
        "IMGREC_CACHE": str(folder / f"cache{0 if shared else index}"),
        **more,
    }


def bytes_of_pixels(cache: Path) -> int:
    return sum(file.stat().st_size for file in cache.glob("packs/*/pixels.bin"))


def in_parts(root: Path, strategy: str, *more: str) -> list[str]:
    """Document-004 as above, its batches dealt from four parts of the pack."""
    spec = f"{{strategy: {strategy}, shards: 8, pack_parts: 4}}"
    return [*long(root, spec), "--set", "image.standardize=auto", *more]


@pytest.fixture(scope="module")
def alone_in_parts(root, tmp_path_factory):
    """The run on one device."""
    folder = tmp_path_factory.mktemp("alone-in-parts")
    finish([start(folder, *in_parts(root, "none"), more=watched(folder))])
    return folder


@needs_cluster
@pytest.mark.slow
def test_hosts_pack_and_read_their_own_parts(root, tmp_path, alone_in_parts):
    from imgrec_cli.config import load_config
    from imgrec_cli.dataset import scan

    environment = watched(tmp_path, OPENED=str(tmp_path / "opened"))
    told = finish(together(tmp_path, 2, *in_parts(root, "data"), more=environment))
    assert "packing 400 images of 28×28×1, parts 1, 2 of 4" in told[0]
    assert_same_bits(alone_in_parts, tmp_path)
    whole = bytes_of_pixels(alone_in_parts / "cache0")
    assert whole == 800 * 28 * 28
    listed = [Path(e.file) for e in scan(load_config(root / "configs" / "document-004.yaml").data).examples]
    for index, own in enumerate(((0, 1), (2, 3))):
        assert bytes_of_pixels(tmp_path / f"cache{index}") == whole // 2
        lines = (tmp_path / f"opened{index}").read_text().splitlines()
        training = lines[: next((at for at, line in enumerate(lines) if "best" in line), len(lines))]
        images = {Path(line) for line in training if line.endswith(".png")}
        expected = {file for place, file in enumerate(listed) if place % 4 in own}
        assert images >= expected
        # the leader draws the first batch of eight images as the network sees them, four of them the other's
        assert len(images - expected) == (4 if index == 0 else 0)


@pytest.fixture(scope="module")
def bereaved_in_parts(root, tmp_path_factory):
    """A run of two processes that share a cache, killed inside its second epoch."""
    folder = tmp_path_factory.mktemp("bereaved-in-parts")
    processes = together(folder, 2, *in_parts(root, "model, mesh: [2, 1]"), more=watched(folder, shared=True))
    try:
        wait_for_state(folder, 2, processes[0])
    finally:
        leave_none(processes)
    assert len(list(folder.glob("cache0/packs/*/pixels.bin"))) == 4
    assert bytes_of_pixels(folder / "cache0") == 800 * 28 * 28
    return folder


@needs_cluster
@pytest.mark.slow
@pytest.mark.parametrize(
    ("processes", "strategy", "packed"),
    # alone, and where both hold the same images, the pack is whole; the others find their parts
    [(1, "none", True), (2, "model, mesh: [1, 2]", True), (2, "data", False), (4, "data", False)],
)
def test_parts_of_a_killed_run_go_on_to_the_same_bits(
    root, tmp_path, processes, strategy, packed, bereaved_in_parts, alone_in_parts
):
    folder = tmp_path / "again"
    shutil.copytree(bereaved_in_parts, folder)
    words = in_parts(root, strategy, "--resume", "auto")
    told = finish(together(folder, processes, *words, more=watched(folder, shared=True)))
    assert "going on from epoch 2 at step" in told[0]
    assert len(list(folder.glob("cache0/packs/*/pixels.bin"))) == 4 + packed
    assert_same_bits(alone_in_parts, folder)


@needs_cluster
@pytest.mark.slow
def test_a_host_without_room_for_its_parts_ends_the_others(tiny_config, tmp_path):
    words = settings("distribute={strategy: data, pack_parts: 2, heartbeat: 5}")
    processes = together(tmp_path, 2, str(tiny_config), *words, more=watched(tmp_path, FULL="1"))
    first, second = finish(processes, 10, 7)
    assert "another process of this training was lost" in first
    assert "packing 18 images of 16×16×1, part 2 of 2 needs 4.6 kB, and 1 bytes are free" in second


def test_processes_have_to_divide_the_parts(tiny_config, monkeypatch):
    from imgrec_cli.config import load_config
    from imgrec_cli.training import distribute
    from imgrec_cli.training.job import Job

    config = load_config(tiny_config, ["runtime.backend=jax", "distribute={strategy: data, pack_parts: 4}"])
    monkeypatch.setattr(distribute, "_grid", lambda config: (["cpu:0", "cpu:1", "cpu:2"], (3, 1)))
    with pytest.raises(InputError, match="4 parts cannot be divided among 3 processes"):
        distribute.shared_parts(config, Job(1, 3))
    monkeypatch.setattr(distribute, "_grid", lambda config: (["cpu:0", "cpu:1", "cpu:2", "cpu:3"], (4, 1)))
    found = distribute.shared_parts(config, Job(1, 2))
    assert (found.count, found.own) == (4, range(2, 4))
    # two processes that hold one copy of the weights take the same images
    monkeypatch.setattr(distribute, "_grid", lambda config: (["cpu:0", "cpu:1"], (1, 2)))
    assert distribute.shared_parts(config, Job(1, 2)) is None
    assert distribute.shared_parts(config, Job()) is None


def test_images_that_cannot_be_dealt_are_refused(tiny_config):
    from imgrec_cli.config import load_config
    from imgrec_cli.dataset import load_dataset
    from imgrec_cli.errors import DataError
    from imgrec_cli.training.input import require_parts

    config = load_config(tiny_config, ["distribute.pack_parts=4"])
    dataset = load_dataset(config.data, config.image, config.seed)
    require_parts(config, dataset)
    fewer = config.model_copy(update={"train": config.train.model_copy(update={"batch_size": 30})})
    with pytest.raises(InputError, match="30 images of a batch cannot be divided into 4 parts") as caught:
        require_parts(fewer, dataset)
    assert caught.value.hint == "use train.batch_size=28, or fewer parts"
    by_class = {example.row: example.label for example in dataset.examples}
    uneven = replace(dataset, places=np.array([by_class[row] for row in range(len(by_class))]))
    with pytest.raises(DataError, match="part 4 of 4 has no training image"):
        require_parts(config, uneven)
    balanced = load_config(tiny_config, ["distribute.pack_parts=2", "train.sampling=balanced"])
    require_parts(balanced, dataset)
    with pytest.raises(DataError, match="part 1 of 2 has no training image of cross, and balanced sampling needs"):
        require_parts(balanced, uneven)


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
        ("distribute={pack_parts: 16};train.batch_size=24", "must divide the batch, which has 24 images"),
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
