"""The sample in tar shards and on a server of S3 trains to the weights of the folder, to the bit, and goes on so."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="training needs the `train` extra")

from imgrec_cli.api import train
from imgrec_cli.rundir import Run

pytestmark = pytest.mark.tf
SETTINGS = ("train.epochs=2", "runtime.threads=1", "data.classes.include=[bag,coat,sandal]")


def trained(folder: Path, root: Path, *places: str) -> Run:
    places = tuple(f"data.{place}" for place in places) or (f"data.folder={root / 'data' / 'fashion-mini'}",)
    config = folder / "config.yaml"
    lines = (root / "configs" / "quickstart.yaml").read_text(encoding="utf-8").splitlines()
    config.write_text("\n".join(line for line in lines if "folder:" not in line), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IMGREC_CACHE", str(folder / "cache"))  # else the pack of the folder would be found
        return train(config, [*SETTINGS, *places], runs=folder / "runs")


@pytest.fixture(scope="module")
def from_folder(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Run:
    return trained(tmp_path_factory.mktemp("folder"), root)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    """A folder with train-{0..2}.tar and test-{0..2}.tar, written by the package webdataset in an order of its own."""
    webdataset = pytest.importorskip("webdataset", reason="the writer of such shards")
    folder, random = tmp_path_factory.mktemp("shards"), np.random.default_rng(0)
    for split in ("train", "test"):
        below = root / "data" / "fashion-mini" / split
        files = random.permutation(sorted(below.rglob("*.png")))
        for number in range(3):
            with webdataset.TarWriter(str(folder / f"{split}-{number}.tar")) as writer:
                for file in files[number::3]:
                    key = file.relative_to(below).with_suffix("").as_posix()
                    writer.write({"__key__": key, "png": file.read_bytes(), "cls": file.parent.name})
    return folder


@pytest.fixture(scope="module")
def bucket(root: Path, shards: Path) -> Iterator[str]:
    """s3://photos on a server on loopback, with the sample's folders and the shards."""
    moto = pytest.importorskip("moto.server", reason="the server")
    s3fs = pytest.importorskip("s3fs", reason="the `remote` extra")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for every request
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        host, port = server.get_host_and_port()
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "anybody")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "hidden-key")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        s3fs.S3FileSystem.clear_instance_cache()
        system = s3fs.S3FileSystem()
        system.mkdir("photos")
        for name in ("bag", "coat", "sandal"):
            for split in ("train", "test"):
                system.put(str(root / "data" / "fashion-mini" / split / name), f"photos/{split}/", recursive=True)
        system.put(str(shards) + "/", "photos/shards/", recursive=True)
        yield "s3://photos"
        s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


def assert_same(run: Run, other: Run) -> None:
    """Weights, the split and every loss are equal to the bit."""
    one, two = (np.load(each.folder / "checkpoints" / "best.npz") for each in (run, other))
    weights = [name for name in one.files if one[name].dtype.kind == "f"]
    assert len(weights) >= 8
    assert one.files == two.files
    for name in weights:
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)
    assert run.record["data"]["fingerprint"] == other.record["data"]["fingerprint"]
    assert [m["train/loss"] for m in run.read_metrics()] == [m["train/loss"] for m in other.read_metrics()]
    assert (run.bundle_folder / "model.tflite").read_bytes() == (other.bundle_folder / "model.tflite").read_bytes()
    assert run.record["scores"] == other.record["scores"]


def test_shards_train_to_the_weights_of_the_folder(tmp_path: Path, root: Path, shards: Path, from_folder: Run) -> None:
    run = trained(tmp_path, root, f"train={shards}/train-{{0..2}}.tar", f"test={shards}/test-{{0..2}}.tar")
    assert_same(run, from_folder)
    assert ".tar/" in run.read_examples("test")[0].file
    # a run that was stopped lists the shards again, finds its pack, and ends with the same weights
    shorter = train(
        run.folder / "config.yaml",
        [
            *SETTINGS,
            "train.epochs=1",
            "train.keep_optimizer=true",
            f"data.train={shards}/train-{{0..2}}.tar",
            f"data.test={shards}/test-{{0..2}}.tar",
        ],
        runs=tmp_path / "runs",
    )
    longer = train(resume=shorter.folder, overrides=["train.epochs=2"])
    assert_same(longer, from_folder)


def test_s3_trains_to_the_weights_of_the_folder(
    tmp_path: Path, root: Path, bucket: str, from_folder: Run, imgrec
) -> None:
    run = trained(tmp_path, root, f"folder={bucket}")
    assert_same(run, from_folder)
    assert run.read_examples("test")[0].file.startswith("s3://photos/test/bag/")
    told = "".join(
        file.read_text(encoding="utf-8", errors="replace") for file in run.folder.rglob("*.*") if file.is_file()
    )
    assert "hidden-key" not in told
    done = imgrec("predict", "-m", run.folder, run.read_examples("test")[0].file)
    assert done.code == 0, done.err
    done = imgrec("evaluate", "-m", run.folder)
    assert done.code == 0, done.err


def test_what_s3_says_is_told(bucket: str, tmp_path: Path, imgrec) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        f"version: 1\ndata: {{folder: {bucket}-of-nobody/a}}\nimage: {{size: [28, 28], color: gray}}\n"
        "model: {type: layers, layers: [{type: flatten}]}\n",
        encoding="utf-8",
    )
    done = imgrec("train", config)
    assert (done.code, list(tmp_path.iterdir())) == (2, [config])
    assert "s3://photos-of-nobody/a: there is nothing" in done.err
    assert "hidden" not in done.err
    assert os.environ["AWS_ENDPOINT_URL"].startswith("http://127.0.0.1:")
    done = imgrec("data", "check", config, "--set", f"data.folder={bucket}/shards/test-{{0..2}}.tar")
    assert done.code == 0, done.err
    assert "200 images in 10 classes looked at" in done.out
