"""Several processes train what one device trains, each of its own parts, and what becomes of them when one is lost."""

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.tf
needs_cluster = pytest.mark.skipif(
    sys.platform != "linux" or any(importlib.util.find_spec(name) is None for name in ("jax", "orbax")),
    reason="several hosts need the `cluster` extra, and Linux",
)


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
    every = ["train={batch_size: 8, epochs: 3, precision: float32}", "runtime={backend: jax, device: cpu}", *more]
    return [word for setting in every for word in ("--set", setting)]


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
    for line, other_line in zip(metrics, other_metrics, strict=True):
        expected = {key: value for key, value in line.items() if "second" not in key}
        assert {key: other_line[key] for key in expected} == pytest.approx(expected, rel=1e-5)


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
