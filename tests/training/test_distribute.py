"""Several devices, which are virtual here, train what one device trains; what cannot be distributed is refused."""

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace
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
