"""Disk and memory are estimated before a training begins, and too little is said with what would fit."""

import pytest

from imgrec_cli.config import load_config
from imgrec_cli.errors import DiskSpaceError, InputError
from imgrec_cli.progress import Warn

pytestmark = pytest.mark.tf


@pytest.fixture
def config(root):
    return load_config(root / "configs" / "document-001.yaml", ["train.precision=float32"])


def test_a_checkpoint_is_as_large_as_it_was_said(tiny_config, tmp_path):
    from imgrec_cli.api import train
    from imgrec_cli.training.needs import disk_bytes

    run = train(tiny_config, ["train.keep_optimizer=true", "train.ema=0.9"], runs=tmp_path)
    config = load_config(run.resolved_config_file)
    checkpoint, best, bundle = disk_bytes(config, 3)
    # headers and digests of every array come on top
    assert checkpoint < run.last_checkpoint.stat().st_size < checkpoint + 20_000
    assert best < run.best_checkpoint.stat().st_size < best + 10_000
    assert bundle == best


def test_too_little_disk_is_said_before_anything_is_trained(config, tmp_path, monkeypatch):
    import shutil

    from imgrec_cli.training.needs import check_disk

    told: list = []
    check_disk(config, 10, 100_000, tmp_path, told.append)
    assert told[0].text.startswith("disk: 2.1 GB for the run, 1.8 GB of it for checkpoints while it trains; ")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1_000_000_000})())
    with pytest.raises(DiskSpaceError, match=r"the run needs 2\.1 GB, .* and 1\.0 GB are free"):
        check_disk(config, 10, 100_000, tmp_path, told.append)


def test_what_a_teacher_answers_is_counted(config, tmp_path):
    from imgrec_cli.config import Teacher
    from imgrec_cli.training.needs import check_disk

    told: list = []
    taught = config.model_copy(update={"teacher": Teacher(run="runs/large")})
    check_disk(taught, 1000, 1_000_000, tmp_path, told.append)  # a probability is four bytes
    check_disk(config, 1000, 1_000_000, tmp_path, told.append)
    with_it, without = (float(note.text.split()[1]) for note in told)
    assert with_it - without == pytest.approx(4.0, abs=0.11)


def test_too_little_memory_is_an_error_or_a_warning(config, monkeypatch):
    from imgrec_cli.training import needs

    large = config.model_copy(update={"train": config.train.model_copy(update={"batch_size": 1024})})
    needed = needs.memory_bytes(large, 10)
    told: list = []
    monkeypatch.setattr(needs, "available_memory_bytes", lambda: 2 * needed)
    needs.check_memory(large, 10, told.append)
    assert not told
    monkeypatch.setattr(needs, "available_memory_bytes", lambda: needed)
    needs.check_memory(large, 10, told.append)
    assert isinstance(told[0], Warn)
    monkeypatch.setattr(needs, "available_memory_bytes", lambda: needed // 2)
    with pytest.raises(InputError, match=r"training needs about .* of memory, and .* are available") as caught:
        needs.check_memory(large, 10, told.append)
    assert caught.value.hint == "train.batch_size=256 would fit"
    monkeypatch.setattr(needs, "available_memory_bytes", lambda: None)
    needs.check_memory(large, 10, told.append)


def test_an_automatic_batch_size_is_measured_and_written_down(tiny_config, tmp_path, monkeypatch):
    from imgrec_cli.training import speed

    seconds = {8: 1.0, 16: 1.1, 32: 1.9, 64: 9.0}
    monkeypatch.setattr(speed, "step_seconds", lambda config, classes, _: seconds[config.train.images_per_step])
    told: list = []
    config = load_config(tiny_config, ["train.batch_size=auto", "train.precision=float32"])
    # of 1300 images a batch of 128 would leave ten steps
    chosen = speed.choose_batch_size(config, 3, 1300, told.append)
    assert chosen.train.batch_size == 32
    assert told[0].text == "train.batch_size: auto is 32 (images/s by batch size: 8: 8, 16: 15, 32: 17, 64: 7)"
