"""imgrec runs: what is listed, and what prune takes away."""

import json

import pytest

from imgrec_cli.rundir import RUNS_FOLDER, Run, list_runs


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Three finished runs, the last one of a newer imgrec."""
    monkeypatch.chdir(tmp_path)
    made = []
    for day, name in enumerate(("old", "new", "newer"), 1):
        run = Run.create(tmp_path / RUNS_FOLDER, name)
        run.update_record(status="finished", started=f"2026-01-0{day}T00:00:00Z")
        made.append(run)
    record = json.loads(made[-1].record_file.read_text(encoding="utf-8"))
    made[-1].record_file.write_text(json.dumps({**record, "format": 2}), encoding="utf-8")
    return made


def test_prune_leaves_runs_alone_that_it_cannot_read(imgrec, runs):
    _, new, newer = runs
    done = imgrec("runs", "prune", "--keep", "1")
    assert done.code == 0
    assert f"left: {RUNS_FOLDER}/{newer.name}/run.json cannot be read" in done.err.replace("\\", "/")
    assert [run.folder.is_dir() for run in runs] == [False, True, True]
    imgrec("runs", "prune", "--keep", "0")
    assert [run.folder.is_dir() for run in (new, newer)] == [False, True]


def test_prune_leaves_a_search_alone_between_two_trials(imgrec, runs):
    old = runs[0]
    old.update_record(status="running")
    with old.searched(), old.searched():  # two processes share the work, and one has just ended its trial
        assert dict((run.name, record["status"]) for run, record in list_runs(old.folder.parent))[old.name] == "running"
        assert f"{old.name} is running" in imgrec("runs", "prune", "--keep", "0").err
    assert old.folder.is_dir()
    assert list_runs(old.folder.parent)[0][1]["status"] == "killed"
