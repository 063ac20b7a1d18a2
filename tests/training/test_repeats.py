"""Several trainings in one run: by folds and by seeds, stopped and gone on with, and what other commands make of it."""

import json
from collections import Counter

import pytest
from scipy import stats

from imgrec_cli.api import train
from imgrec_cli.errors import InputError
from imgrec_cli.progress import Note
from imgrec_cli.rundir import Run, list_runs, newest_finished_run

pytestmark = pytest.mark.tf


@pytest.fixture(scope="module")
def folds(tiny_config, tmp_path_factory):
    """Three folds, stopped as the second began and gone on with; when the first ended, and what was said at the end."""
    runs = tmp_path_factory.mktemp("folds") / "runs"

    def stop(event):
        if event == Note("fold 2 of 3"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tiny_config, ["data.group=^(.*)\\.png"], runs=runs, folds=3, on_event=stop)
    ((run, record),) = list_runs(runs)
    assert (record["status"], record["resumable"]) == ("interrupted", True)
    first = run.part("folds", 1).record_file.read_text()
    train(resume=run.folder)
    assert run.part("folds", 1).record_file.read_text() == first  # not trained again
    return run


@pytest.fixture(scope="module")
def seeds(tiny_config, tmp_path_factory):
    return train(tiny_config, ["train.epochs=1"], runs=tmp_path_factory.mktemp("seeds") / "runs", seeds=2)


def test_every_image_is_judged_in_one_fold(folds):
    parts = [folds.part("folds", number) for number in (1, 2, 3)]
    judged = Counter(example.file for part in parts for example in part.read_examples("test"))
    assert len(judged) == 36
    assert set(judged.values()) == {1}
    assert [example.file for example in folds.read_examples("test")] == list(judged)
    for part in parts:
        splits = {example.file: example.split for example in part.read_all_examples()}
        assert len(splits) == 36


def test_mean_spread_and_interval_are_those_of_the_folds(folds):
    record = folds.record
    values = [folds.part("folds", number).record["scores"]["accuracy"] for number in (1, 2, 3)]
    found = record["repeats"]["figures"]["accuracy"]
    assert record["status"] == "finished"
    assert found["values"] == values
    assert found["interval"] == pytest.approx(stats.t.interval(0.95, 2, found["mean"], stats.sem(values)))
    metrics = json.loads((folds.folder / "evaluation" / "test" / "metrics.json").read_text())
    assert record["scores"]["images"] == metrics["images"] == 36
    assert metrics["accuracy"] == pytest.approx(found["mean"])  # parts of one size


def test_other_commands_know_what_it_is(folds, imgrec, monkeypatch):
    monkeypatch.chdir(folds.folder.parents[1])
    assert "finished, 3 folds" in imgrec("runs").out
    done = imgrec("evaluate", "-m", folds.folder)
    assert done.code == 2
    assert "these are 3 trainings, each with a model of its own" in done.err
    with pytest.raises(InputError, match="no finished run"):
        newest_finished_run(folds.folder.parent)
    page = folds.report_file.read_text(encoding="utf-8")
    assert 'href="folds/2/report.html"' in page
    assert "All 36 images, each judged once" in page
    assert imgrec("report", folds.folder, "-o", folds.folder / "again.html").code == 0
    assert (folds.folder / "again.html").read_text(encoding="utf-8") == page
    done = imgrec("compare", folds.folder, folds.part("folds", 1).folder)
    assert done.code == 0
    assert "no real difference in accuracy" in done.out
    assert "data.split.fold" in done.out
    done = imgrec("train", "--resume", folds.folder, "-q")
    assert done.code == 0
    assert "all 36 images, each judged once by the model that was not trained on it" in done.out


def test_seeds_share_their_test_images_and_nothing_else(seeds):
    one, other = (seeds.part("seeds", number) for number in (1, 2))
    assert one.read_all_examples() == other.read_all_examples()
    assert one.record["sha256"] != other.record["sha256"]
    assert [one.record["seed"], other.record["seed"]] == [0, 1]


def test_seeds_are_compared_with_seeds(seeds, imgrec):
    done = imgrec("compare", seeds.folder, seeds.folder)
    assert done.code == 0
    assert "means over 2, 2 trainings: the tests speak of other seeds, on these images" in done.out
    assert "no real difference in accuracy at this size (+0.0 points, p = 1.000)\n" in done.out
    done = imgrec("compare", seeds.folder, seeds.part("seeds", 1).folder)
    assert done.code == 2
    assert f"{seeds.name} is 2 trainings, 1 is one" in done.err


def test_what_cannot_be_repeated_leaves_nothing(tiny_config, tmp_path, imgrec, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words, told in (
        (["--folds", "13"], "nothing is left for part 13 of 13"),
        (["--folds", "2", "--seeds", "2"], "folds and seeds are both given"),
        (["--folds", "2", "--set", "data.split.fold={number: 3, of: 2}"], "must be at most the 2 of `of`, got 3"),
    ):
        done = imgrec("train", tiny_config, *words)
        assert (done.code, told in done.err) == (2, True), done.err
    assert not (tmp_path / "runs").exists() or not list_runs(tmp_path / "runs")
    assert Run(tmp_path).part("folds", 2).folder == tmp_path / "folds" / "2"
