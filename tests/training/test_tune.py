"""A search from its config to a winner that predicts."""

import csv
import json

import pytest

from imgrec_cli.api import tune
from imgrec_cli.config import load_config
from imgrec_cli.errors import InputError
from imgrec_cli.rundir import list_runs

pytestmark = pytest.mark.tf
pytest.importorskip("optuna", reason="searching needs the `tune` extra")

SEARCH = """
search:
  optimizer.learning_rate: {low: 1e-4, high: 1e-2, log: true}
  model.layers.0.kernel: {choices: [3, 40]}
"""


@pytest.fixture(scope="module")
def searched(tiny_config, tmp_path_factory):
    """Four trials, the second process with one more; a kernel of 40 does not fit an image of 16."""
    folder = tmp_path_factory.mktemp("search")
    config = folder / "c.yaml"
    config.write_text(
        tiny_config.read_text(encoding="utf-8").replace("folder: shapes", f"folder: {tiny_config.parent / 'shapes'}")
        + SEARCH.replace("[3, 40]", "[3, 5]"),
        encoding="utf-8",
    )
    tune(config, study=folder / "runs" / "search", trials=3)
    return tune(study=folder / "runs" / "search", trials=4)


def test_the_winner_alone_is_judged_on_test_images(searched):
    record = searched.record
    best = record["search"]["best"]
    judged = [path.parts[-4] for path in searched.folder.glob("trials/*/evaluation/*/metrics.json")]
    assert str(best) in judged
    assert set(judged) <= {str(n) for n in range(4)}
    assert all(path.parent.name == "test" for path in searched.folder.glob("trials/*/evaluation/*/metrics.json"))
    assert record["status"] == "finished"
    with (searched.folder / "trials.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["trial"] for row in rows] == ["0", "1", "2", "3"]
    values = {row["trial"]: float(row["val/accuracy"]) for row in rows if row["state"] == "tried"}
    assert values[str(best)] == max(values.values()) == record["search"]["value"]
    weights = {path.parts[-3] for path in searched.folder.glob("trials/*/checkpoints/best.npz")}
    assert weights == {str(best)}


def test_the_best_config_is_one_that_train_reads(searched):
    config = load_config(searched.folder / "best.yaml")
    settings = searched.record["search"]["settings"]
    assert config.optimizer.learning_rate == settings["optimizer.learning_rate"]
    assert config.model.layers[0].kernel == settings["model.layers.0.kernel"]
    assert config.search == {}


def test_other_commands_know_what_a_search_is(searched, imgrec, monkeypatch, tiny_config):
    monkeypatch.chdir(searched.folder.parents[1])
    ((run, record),) = list_runs(searched.folder.parent)
    assert (run.folder, record["status"]) == (searched.folder, "finished")
    done = imgrec("predict", "-m", searched.folder, tiny_config.parent / "shapes" / "circle" / "00.png")
    assert done.code == 2
    best = searched.folder / "trials" / str(record["search"]["best"])
    assert f"name the best: {best}" in done.err
    assert imgrec("predict", "-m", best, tiny_config.parent / "shapes" / "circle" / "00.png").code == 0
    done = imgrec("train", "--resume", searched.folder)
    assert f"to go on: imgrec tune --study {searched.folder}" in done.err.replace("hint: ", "")
    page = searched.report_file.read_text(encoding="utf-8")
    assert page.count("<svg") == 4
    assert "images that no trial saw" in page
    done = imgrec("tune", "--study", searched.folder, "--format", "json", "-q")
    assert json.loads(done.out.splitlines()[-1])["result"]["search"]["trials"] == 4
    done = imgrec("tune", "--study", searched.folder, "-q")
    assert "best: trial" in done.out


def test_what_cannot_be_searched_leaves_nothing(tiny_config, tmp_path, imgrec, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = tmp_path / "c.yaml"
    config.write_text(tiny_config.read_text(encoding="utf-8") + SEARCH, encoding="utf-8")
    done = imgrec("tune", config)
    assert done.code == 2
    assert "search.model.layers.0.kernel.choices[1]" in done.err
    done = imgrec("tune", tiny_config)
    assert "has no search section" in done.err
    config.write_text(config.read_text(encoding="utf-8").replace("40", "5"), encoding="utf-8")
    done = imgrec("tune", config)  # its images are not beside it
    assert (done.code, "no such folder" in done.err) == (2, True), done.err
    assert not list((tmp_path / "runs").iterdir())
    with pytest.raises(InputError, match="holds no search"):
        tune(study=tmp_path / "nowhere")
