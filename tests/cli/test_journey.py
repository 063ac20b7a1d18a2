"""From a folder of photos to an answer with the commands of the README, in order."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest

pytestmark = pytest.mark.tf


def test_from_photos_to_an_answer(imgrec, tiny_config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_config.parent / "shapes", tmp_path / "my shapes")
    written = imgrec("config", "init", "my shapes", "-o", "shapes.yaml")
    assert written.code == 0
    assert "imgrec train shapes.yaml" in written.out
    checked = imgrec("config", "check", "shapes.yaml")
    assert (checked.code, checked.out.splitlines()[-1]) == (0, "shapes.yaml: ok")
    assert "3 classes: circle, cross, square" in checked.out
    layers = imgrec("config", "show", "shapes.yaml", "--model")
    assert layers.out.splitlines()[0].split() == ["layer", "output", "parameters", "share"]
    trained = imgrec("train", "shapes.yaml", "--set", "train.epochs=1")
    assert trained.code == 0, trained.err
    assert trained.out.startswith("CPU with ")
    assert "epoch 1/1  train: loss " in trained.out
    assert "test: accuracy " in trained.out
    command = trained.out.splitlines()[-1].strip()
    run, image = command.removeprefix("imgrec predict -m ").split(" ", 1)
    assert Path(run).parent == Path("runs")
    answered = imgrec("predict", "-m", run, image.strip("'\""))
    assert answered.code == 0
    assert imgrec("evaluate").out.startswith("test accuracy ")
    listed = imgrec("runs")
    assert "finished" in listed.out
    assert imgrec("runs", "prune", "--keep", "0").out.startswith(f"removed {Path('runs')}")
    assert imgrec("runs").out.startswith("no runs in ./runs yet")


def test_quiet_and_json_speak_to_programs(imgrec, tiny_config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    quiet = imgrec("train", tiny_config, "-q", "--set", "train.epochs=1")
    assert quiet.code == 0
    assert "epoch" not in quiet.out.replace("best epoch", "")
    lines = [json.loads(line) for line in imgrec("train", tiny_config, "--format", "json").out.splitlines()]
    assert [line["event"]["epoch"] for line in lines if "epoch" in line.get("event", {})] == [1, 2]
    assert lines[-1]["command"] == "train"
    assert lines[-1]["result"]["status"] == "finished"


def test_a_stopped_training_is_listed_goes_on_and_can_be_reproduced(imgrec, tiny_config, tmp_path, monkeypatch):
    from imgrec_cli.training.watch import Reporter

    monkeypatch.chdir(tmp_path)
    report = Reporter.on_train_batch_end

    def report_and_stop(self, batch, logs=None):
        report(self, batch, logs)
        if self.epoch == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Reporter, "on_train_batch_end", report_and_stop)
        stopped = imgrec("train", tiny_config, "-q")
    (run,) = Path("runs").iterdir()
    assert stopped.code == 75
    assert stopped.err.splitlines()[-2:] == [
        "stopped by SIGTERM in epoch 2 at step 3 of 3; nothing is lost",
        f"to go on: imgrec train --resume {run}",
    ]
    assert "interrupted, resumable" in imgrec("runs").out
    assert imgrec("train", "--resume", run, "--set", "seed=9").code == 2
    assert imgrec("train", "--resume", run, "-q").code == 0
    again = imgrec("reproduce", run, "-q")
    assert again.code == 0
    assert again.out.splitlines()[:3] == [
        "images: the same",
        "metrics: equal",
        "best weights: equal to the bit; all state at the end: equal to the bit",
    ]


def test_nothing_to_train_is_said(imgrec):
    done = imgrec("train")
    assert done.code == 2
    assert "no config is given" in done.err


def test_a_config_that_cannot_be_used_creates_nothing(imgrec, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.yaml").write_text("model: {type: layers, layers: []}\ntrain: {epoch: 3}\n")
    done = imgrec("train", "bad.yaml")
    assert done.code == 2
    assert "bad.yaml:" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["bad.yaml"]


def test_an_existing_config_is_not_written_over(imgrec, tiny_config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shapes.yaml").write_text("mine")
    done = imgrec("config", "init", tiny_config.parent / "shapes")
    assert done.code == 2
    assert "exists already and is left as it is" in done.err
    assert (tmp_path / "shapes.yaml").read_text() == "mine"


def test_info_tells_versions_and_places(imgrec):
    done = imgrec("info", "--format", "json")
    values = json.loads(done.out)["result"]
    assert done.code == 0
    assert {"imgrec", "python", "system", "cores", "gpus", "training", "cache", "runs", "keras"} <= values.keys()


def test_the_cache_is_listed_and_cleared(imgrec, tiny_run, monkeypatch, tmp_path, tiny_config):
    monkeypatch.setenv("IMGREC_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    imgrec("train", tiny_config, "-q", "--set", "train.epochs=1")
    assert "1 packs" in imgrec("data", "cache").out
    assert imgrec("data", "cache", "--clear").out.startswith("freed ")
    assert "0 packs" in imgrec("data", "cache").out


def test_a_fault_of_ours_is_one_line_and_a_traceback_only_on_request(imgrec, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("deep inside")

    monkeypatch.setattr("imgrec_cli.cli.runs.list_runs", fail)
    done = imgrec("runs")
    assert done.code == 1
    assert done.err.startswith("error: a fault of imgrec: ZeroDivisionError: deep inside\nhint: ")
    monkeypatch.setenv("IMGREC_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        imgrec("runs")
