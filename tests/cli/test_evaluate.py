"""imgrec evaluate: figures with their split, classes matched by name."""

import csv
import json
import shutil

import pytest
from sklearn.metrics import accuracy_score, f1_score

pytestmark = pytest.mark.tf


@pytest.fixture
def labelled(tiny_config, tmp_path):
    folder = tmp_path / "labelled"
    shutil.copytree(tiny_config.parent / "shapes", folder)
    return folder


def test_the_kept_predictions_give_the_kept_figures(tiny_run):
    folder = tiny_run / "evaluation" / "test"
    with (folder / "predictions.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    figures = json.loads((folder / "metrics.json").read_text())
    labels, predicted = [row["label"] for row in rows], [row["predicted"] for row in rows]
    assert figures["split"] == "test"
    assert figures["accuracy"] == pytest.approx(accuracy_score(labels, predicted))
    assert figures["macro"]["f1"] == pytest.approx(f1_score(labels, predicted, average="macro", zero_division=0))
    for row in rows:
        scores = {key: float(value) for key, value in row.items() if key.startswith("score:")}
        assert max(scores, key=lambda key: scores[key]) == f"score:{row['predicted']}"


def test_every_figure_names_its_split(imgrec, tiny_run):
    done = imgrec("evaluate", "-m", tiny_run)
    assert done.code == 0
    assert done.out.startswith("test accuracy ")
    for line in done.out.splitlines():
        if any(word in line for word in ("accuracy", "precision", "confusion")):
            assert line.startswith("test "), line


def test_validation_figures_come_with_their_caveat(imgrec, tiny_run):
    done = imgrec("evaluate", "-m", tiny_run, "--split", "validation", "-q")
    assert "validation: measured on the images that chose the model" in done.out
    as_json = json.loads(imgrec("evaluate", "-m", tiny_run, "--split", "validation", "--format", "json").out)
    assert as_json["result"]["caveat"] == "measured on the images that chose the model"


def test_evaluating_the_run_again_gives_the_same_figures(imgrec, tiny_run, tmp_path):
    before = json.loads((tiny_run / "evaluation" / "test" / "metrics.json").read_text())
    again = json.loads(imgrec("evaluate", "-m", tiny_run, "--format", "json").out)["result"]
    assert again == before


def test_class_folders_are_matched_by_name_not_by_order(imgrec, tiny_run, labelled, tmp_path):
    straight = json.loads(imgrec("evaluate", "-m", tiny_run, "--data", labelled, "--format", "json").out)["result"]
    # what is called circle now holds the squares, and the other way round: a match by order would not notice
    shuffled = tmp_path / "shuffled"
    for name, other in [("circle", "square"), ("square", "circle"), ("cross", "cross")]:
        shutil.copytree(labelled / name, shuffled / other)
    turned = json.loads(imgrec("evaluate", "-m", tiny_run, "--data", shuffled, "--format", "json").out)["result"]
    counts = straight["confusion"]["counts"]
    assert turned["class_names"] == straight["class_names"] == ["circle", "cross", "square"]
    assert turned["confusion"]["counts"] == [counts[2], counts[1], counts[0]]


def test_missing_and_extra_classes_are_printed_and_stop(imgrec, tiny_run, labelled):
    (labelled / "circle").rename(labelled / "round")
    done = imgrec("evaluate", "-m", tiny_run, "--data", labelled)
    assert done.code == 2
    assert "  missing: circle\n  not in the model: round\n" in done.err
    assert done.out == ""


def test_an_empty_folder_stands_for_a_class_without_images(imgrec, tiny_run, labelled):
    shutil.rmtree(labelled / "cross")
    (labelled / "cross").mkdir()
    done = imgrec("evaluate", "-m", tiny_run, "--data", labelled, "--format", "json")
    assert done.code == 0
    assert json.loads(done.out)["result"]["classes"]["cross"]["support"] == 0


def test_an_unreadable_image_is_named_and_left_out(imgrec, tiny_run, labelled):
    (labelled / "circle" / "00.png").write_bytes(b"no image")
    done = imgrec("evaluate", "-m", tiny_run, "--data", labelled, "--format", "json")
    assert done.code == 3
    assert "not read: circle/00.png: " in done.err
    assert json.loads(done.out)["result"]["images"] == 35


def test_a_bundle_alone_needs_a_folder(imgrec, tiny_run, tmp_path):
    shutil.copytree(tiny_run / "bundle", tmp_path / "shipped")
    done = imgrec("evaluate", "-m", tmp_path / "shipped")
    assert done.code == 2
    assert "hint: name a folder of class folders: --data DIR" in done.err


def test_judging_on_a_folder_leaves_a_bundle_as_it_was(imgrec, tiny_run, labelled, tmp_path):
    shutil.copytree(tiny_run / "bundle", tmp_path / "shipped")
    before = sorted(path.name for path in (tmp_path / "shipped").iterdir())
    assert imgrec("evaluate", "-m", tmp_path / "shipped", "--data", labelled, "-q").code == 0
    assert sorted(path.name for path in (tmp_path / "shipped").iterdir()) == before


def test_a_figure_that_does_not_exist_is_told_before_anything_is_judged(imgrec, tiny_run, monkeypatch):
    from imgrec_cli import api

    monkeypatch.setattr(api, "evaluate", lambda *_, **__: pytest.fail("judged"))
    done = imgrec("evaluate", "-m", tiny_run, "--fail-under", "f1.circel=0.9")
    assert done.code == 2
    assert "f1.circel: no such figure" in done.err
