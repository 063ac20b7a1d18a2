"""Run folders: new each time, written atomically, read back."""

import errno
import json

import pytest

from imgrec_cli.atomic import replacing, write_json
from imgrec_cli.errors import DiskSpaceError, InputError
from imgrec_cli.rundir import RecordedExample, Run, list_runs, newest_finished_run


def test_a_run_folder_is_never_used_twice(tmp_path):
    first, second = Run.create(tmp_path, "flowers"), Run.create(tmp_path, "flowers")
    assert first.folder != second.folder
    assert first.name.endswith("-flowers") or first.name.endswith("-flowers-2")


def test_odd_config_names_make_plain_folder_names(tmp_path):
    assert Run.create(tmp_path, "my flowers: 2/3").name.endswith("-my-flowers-2-3")


def test_a_place_that_cannot_hold_runs_is_said(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(InputError, match="cannot make a run folder here"):
        Run.create(file / "runs", "flowers")


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "value.json"
    write_json(path, {"a": 1})

    def write_half() -> None:
        with replacing(path) as stream:
            stream.write(b"half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_half()
    assert json.loads(path.read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["value.json"]


def test_metrics_table_gains_columns_later(tmp_path):
    run = Run.create(tmp_path, "x")
    run.append_metrics({"epoch": 1, "train/loss": 2.0})
    run.append_metrics({"epoch": 2, "train/loss": 1.0, "val/f1": 0.5})
    assert run.read_metrics()[1]["val/f1"] == 0.5
    assert run.metrics_table.read_text().splitlines() == ["epoch,train/loss,val/f1", "1,2.0,", "2,1.0,0.5"]


def test_examples_read_back_by_split(tmp_path):
    run = Run.create(tmp_path, "x")
    odd = RecordedExample("test", "späte, Blüte", 'a/"b",c.png', "/data/ü.png", "00ff")
    run.write_examples([odd, RecordedExample("train", "b", "b/1.png", "/data/b/1.png", "11")])
    assert run.read_examples("test") == [odd]


def test_newest_finished_run_wins(tmp_path):
    for name, started, status in [
        ("old", "2026-01-01T00:00:00Z", "finished"),
        ("new", "2026-01-02T00:00:00Z", "finished"),
        ("broken", "2026-01-03T00:00:00Z", "failed"),
    ]:
        Run.create(tmp_path, name).update_record(started=started, status=status)
    assert newest_finished_run(tmp_path)[0].name.endswith("-new")
    assert [run.name.rpartition("-")[2] for run, _ in list_runs(tmp_path)] == ["broken", "new", "old"]


def test_a_damaged_record_hides_no_other_run(tmp_path):
    good, damaged = Run.create(tmp_path, "good"), Run.create(tmp_path, "damaged")
    good.update_record(started="2026-01-01T00:00:00Z", status="finished")
    damaged.record_file.write_text("{")
    assert newest_finished_run(tmp_path)[0] == good
    assert [record["status"] for _, record in list_runs(tmp_path)] == ["finished", "damaged"]


def test_a_run_whose_process_has_gone_was_killed(tmp_path):
    run = Run.create(tmp_path, "x")
    run.update_record(started="2026-01-01T00:00:00Z", status="running")
    with run.held():
        assert list_runs(tmp_path)[0][1]["status"] == "running"
    assert list_runs(tmp_path)[0][1]["status"] == "killed"


def test_a_full_disk_is_said_and_leaves_the_old_file(tmp_path):
    path = tmp_path / "value.json"
    write_json(path, {"a": 1})

    def write_too_much() -> None:
        with replacing(path):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(DiskSpaceError, match=r"value.json: the disk became full"):
        write_too_much()
    assert json.loads(path.read_text()) == {"a": 1}


def test_no_finished_run_says_what_to_do(tmp_path):
    with pytest.raises(InputError, match="no finished run") as caught:
        newest_finished_run(tmp_path)
    assert caught.value.hint == "train one: imgrec train CONFIG, or name a run or bundle with -m PATH"


def test_a_record_of_another_format_is_refused(tmp_path):
    run = Run.create(tmp_path, "x")
    write_json(run.record_file, {"format": 99})
    with pytest.raises(InputError, match="not a run record of format 1"):
        run.record  # noqa: B018


def test_the_lock_of_a_run_outlives_its_holder_so_that_no_two_processes_lock_different_files(tmp_path):
    run = Run.create(tmp_path, "x")
    with run.held():
        before = (run.folder / ".lock").stat().st_ino
    assert (run.folder / ".lock").stat().st_ino == before
    with run.held(), pytest.raises(InputError, match="another process works on this run"), run.held():
        pass


def test_a_folder_that_is_not_there_is_named_and_not_the_temporary_file(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        write_json(tmp_path / "missing" / "value.json", {})
    assert caught.value.filename == str(tmp_path / "missing" / "value.json")
    assert caught.value.strerror == f"there is no folder {tmp_path / 'missing'}"
