"""What the verbs of the library leave behind, without training anything."""

import shutil
from types import SimpleNamespace

import pytest

from imgrec_cli.api import judging, repeating, running
from imgrec_cli.api.judging import _name_of_folder
from imgrec_cli.config import parse_config
from imgrec_cli.errors import InputError
from imgrec_cli.rundir import Run

CONFIG = "data: {folder: /photos}\nmodel: {type: layers, layers: [{type: flatten}]}\n"


def test_two_folders_of_one_name_have_an_evaluation_each(tmp_path):
    run = Run.create(tmp_path, "x")
    first, second = tmp_path / "a" / "photos", tmp_path / "b" / "photos"
    names = [_name_of_folder(run, folder, "test") for folder in (first, second, first, second)]
    assert names[0] == names[2] == "data-photos"
    assert names[1] == names[3] != "data-photos"
    assert names[1].startswith("data-photos-")
    assert _name_of_folder(run, second, "validation") == "data-photos-validation"
    assert str(tmp_path) not in run.judged_folders_file.read_text(encoding="utf-8")


def test_a_run_whose_folder_vanished_is_not_taken_for_one_that_never_began(tmp_path, monkeypatch):
    run, removed = Run.create(tmp_path / "runs", "x"), []

    def vanish(*_: object) -> None:
        run.examples_file.write_text("", encoding="utf-8")
        run.folder.rename(tmp_path / "elsewhere")
        raise FileNotFoundError(2, "No such file or directory", str(run.folder))

    monkeypatch.setattr(
        running, "set_up", lambda config, on_event, **_: (SimpleNamespace(class_names=["a"]), None, config)
    )
    monkeypatch.setattr(running, "machine_facts", lambda machine: {})
    monkeypatch.setattr(running, "_worked", vanish)
    # its disk may be back at that moment
    monkeypatch.setattr(shutil, "rmtree", lambda folder, **_: removed.append(folder))
    config, stop = parse_config(CONFIG, "x.yaml", tmp_path), SimpleNamespace(run=None)
    with pytest.raises(InputError, match="this folder vanished while the run was writing to it"):
        running.begun(config, None, (), lambda: run, stop, lambda event: None)
    assert removed == []


def test_a_finished_run_of_several_gets_the_report_that_it_was_killed_before(tmp_path, monkeypatch):
    run = Run.create(tmp_path, "x")
    run.resolved_config_file.write_text(CONFIG, encoding="utf-8")
    run.update_record(status="finished", repeats={"kind": "seeds", "number": 2})
    written: list[Run] = []
    monkeypatch.setattr(repeating, "write_repeats_report", written.append)
    repeating.resumed_repeats(run, None, (), SimpleNamespace(run=None), lambda event: None)
    assert written == [run]
    run.report_file.write_text("", encoding="utf-8")
    repeating.resumed_repeats(run, None, (), SimpleNamespace(run=None), lambda event: None)
    assert written == [run]


def test_explain_names_a_bad_image_and_explains_the_others(tmp_path, monkeypatch, imgrec):
    from imgrec_cli.classifier import Unreadable
    from imgrec_cli.explanation import Explanation

    done = [
        Unreadable("bad.png", "the file is empty"),
        Explanation(tmp_path / "good.png", tmp_path / "good-explained.png", "cat", 0.9, "occlusion"),
    ]
    monkeypatch.setattr(judging, "explain_files", lambda *_: done)
    monkeypatch.setattr(judging.Classifier, "load", lambda path: SimpleNamespace(class_names=["cat"]))
    found = imgrec("explain", "-m", tmp_path, "bad.png", "good.png")
    assert found.code == 3
    assert found.err == "not read: bad.png: the file is empty\n"
    assert f"{tmp_path / 'good.png'}: cat 90.0 %, occlusion" in found.out
