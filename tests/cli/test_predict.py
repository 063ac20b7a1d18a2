"""imgrec predict: what is answered, in which form, and what is said of images that cannot be read."""

import csv
import io
import json
import re
import shutil

import pytest

pytestmark = pytest.mark.tf


@pytest.fixture
def photos(tiny_config, tmp_path):
    """Three readable images and a broken one, in a folder of their own."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    shapes = tiny_config.parent / "shapes"
    for source, name in [("circle/00", "2.png"), ("cross/01", "10.png"), ("square/02", "more/späte Blüte.png")]:
        shutil.copy(shapes / f"{source}.png", folder / name)
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (folder / "notes.txt").write_text("not an image")
    return folder


def test_one_image_is_answered_with_its_ranked_classes(imgrec, tiny_run, photos):
    done = imgrec("predict", "-m", tiny_run, photos / "2.png")
    assert done.code == 0
    name, _, ranked = done.out.strip().rpartition(": ")
    assert name == str(photos / "2.png")
    found = re.findall(r"(\w+) ([\d.]+) %", ranked)
    assert {label for label, _ in found} == {"circle", "cross", "square"}
    shares = [float(share) for _, share in found]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(100, abs=0.2)


def test_a_folder_is_answered_in_natural_order_and_the_broken_image_by_name(imgrec, tiny_run, photos):
    done = imgrec("predict", "-m", tiny_run, photos, "--format", "jsonl")
    assert done.code == 3
    names = [json.loads(line)["path"] for line in done.out.splitlines()]
    assert names == [str(photos / name) for name in ("2.png", "10.png", "more/späte Blüte.png")]
    assert done.err.startswith(f"not read: {photos / 'broken.png'}: ")


def test_every_form_gives_the_same_answers(imgrec, tiny_run, photos):
    path = photos / "10.png"
    as_json = json.loads(imgrec("predict", "-m", tiny_run, path, "--format", "json").out)
    assert (as_json["imgrec"], as_json["command"]) == (1, "predict")
    answer = as_json["result"][0]
    row = next(csv.DictReader(io.StringIO(imgrec("predict", "-m", tiny_run, path, "--format", "csv").out)))
    assert row["label"] == answer["label"] == answer["top"][0]["label"]
    scores = {key.removeprefix("score:"): float(value) for key, value in row.items() if key.startswith("score:")}
    assert scores == pytest.approx({entry["label"]: entry["confidence"] for entry in answer["top"]}, abs=1e-5)
    assert sum(scores.values()) == pytest.approx(1, abs=1e-4)


def test_patterns_are_expanded_for_shells_that_do_not(imgrec, tiny_run, photos):
    done = imgrec("predict", "-m", tiny_run, photos / "*0.png", "--format", "jsonl")
    assert [json.loads(line)["path"] for line in done.out.splitlines()] == [str(photos / "10.png")]
    nothing = imgrec("predict", "-m", tiny_run, photos / "*.gif")
    assert nothing.code == 2
    assert "no file matches this pattern" in nothing.err


def test_standard_input_is_one_image(imgrec, tiny_run, photos, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO((photos / "2.png").read_bytes())))
    piped = imgrec("predict", "-m", tiny_run, "-", "--format", "json")
    named = imgrec("predict", "-m", tiny_run, photos / "2.png", "--format", "json")
    assert json.loads(piped.out)["result"][0]["top"] == json.loads(named.out)["result"][0]["top"]


def test_a_missing_image_is_named_and_has_an_exit_code_of_its_own(imgrec, tiny_run, photos):
    done = imgrec("predict", "-m", tiny_run, photos / "2.png", photos / "missing.png")
    assert done.code == 3
    assert f"not read: {photos / 'missing.png'}: " in done.err
    assert str(photos / "2.png") in done.out


def test_without_a_model_the_newest_finished_run_is_used_and_named(imgrec, tiny_run, photos, tmp_path, monkeypatch):
    shutil.copytree(tiny_run, tmp_path / "runs" / tiny_run.name)
    monkeypatch.chdir(tmp_path)
    done = imgrec("predict", photos / "2.png")
    assert done.code == 0
    assert "using runs" in done.err
    assert "test accuracy" in done.err
    assert " old, " in done.err


def test_without_any_run_the_way_to_one_is_said(imgrec, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = imgrec("predict", photos / "2.png")
    assert done.code == 2
    assert "hint: train one: imgrec train CONFIG" in done.err


def test_the_python_classifier_gives_the_same_answer(imgrec, tiny_run, photos):
    import imgrec_cli

    expected = json.loads(imgrec("predict", "-m", tiny_run, photos / "2.png", "--format", "json").out)["result"][0]
    prediction = imgrec_cli.Classifier.load(tiny_run).predict(photos / "2.png")
    assert (prediction.label, prediction.confidence) == (expected["label"], pytest.approx(expected["confidence"]))
