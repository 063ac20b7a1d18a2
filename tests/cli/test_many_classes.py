"""Twelve hundred classes: everything from training to the bundle stays quick, small and readable."""

import json

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.tf

CLASSES = 1200
CONFIG = """\
data: {folder: images, split: {validation: 25%, test: 25%}}
image: {size: [8, 8]}
model: {type: layers, layers: [{type: conv, filters: 8, activation: relu}, {type: flatten}]}
train: {batch_size: 64, epochs: 1, precision: float32}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on four 8×8 pictures of each class, told by color."""
    from imgrec_cli.api import train

    folder = tmp_path_factory.mktemp("many")
    random = np.random.default_rng(0)
    for number in range(CLASSES):
        place = folder / "images" / f"species {number:04d}"
        place.mkdir(parents=True)
        color = np.array([number % 11 * 24, number // 11 % 11 * 24, number // 121 * 24])
        for image in range(4):
            pixels = np.clip(color + random.integers(0, 12, (8, 8, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(place / f"{image}.bmp")
    (folder / "many.yaml").write_text(CONFIG, encoding="utf-8")
    return train(folder / "many.yaml", runs=folder / "runs")


def test_training_ends_with_a_run_of_ordinary_size(run):
    metrics = run.folder / "evaluation" / "test" / "metrics.json"
    figures = json.loads(metrics.read_text(encoding="utf-8"))
    assert figures["images"] == len(figures["confusion"]["counts"]) == len(figures["classes"]) == CLASSES
    assert metrics.stat().st_size < 6e6  # 1.44 million numbers stand in it
    assert run.report_file.stat().st_size < 4e6
    assert figures["top_k"].keys() == {"3", "5"}


def test_evaluate_shows_the_weakest_and_says_where_all_are(imgrec, run):
    done = imgrec("evaluate", "-m", run.folder)
    assert done.code == 0, done.err
    assert "test: the 20 weakest of 1,200 classes by F1; all are in metrics.json" in done.out
    assert "test: the confusion matrix is in metrics.json" in done.out
    assert len(done.out.splitlines()) < 50
    whole = json.loads(imgrec("evaluate", "-m", run.folder, "--format", "json").out)["result"]
    assert len(whole["classes"]) == CLASSES


def test_the_report_opens_with_the_weakest_and_folds_the_rest(imgrec, run, tmp_path):
    done = imgrec("report", run.folder, "-o", tmp_path / "page.html", "--no-images")
    assert done.code == 0, done.err
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    weakest, _, folded = page.partition("<summary>All 1,200 classes</summary>")
    assert "The 20 weakest of 1,200 classes, by recall" in weakest
    assert weakest.count('<th scope="row">species ') == 20
    assert 'id="cell-' not in page
    assert "<details><summary>Images by class and split" in folded


def test_predict_and_the_bundle_know_every_class_and_the_card_names_some(imgrec, run):
    image = run.read_examples("test")[0].file
    done = imgrec("predict", "-m", run.folder, image)
    assert done.code == 0, done.err
    assert len(done.out.splitlines()) == 1
    assert imgrec("bundle", "verify", run.bundle_folder).code == 0
    manifest = json.loads((run.bundle_folder / "manifest.json").read_text(encoding="utf-8"))
    assert len(manifest["class_names"]) == CLASSES
    card = (run.bundle_folder / "README.md").read_text(encoding="utf-8")
    assert "species 0059 and 1,140 more, all in `manifest.json`" in card
    assert card.count("| species ") == 20


def test_config_check_names_some_and_counts_all(imgrec, run):
    done = imgrec("config", "check", run.folder.parents[1] / "many.yaml")
    assert done.code == 0, done.err
    assert "1,200 classes: species 0000, species 0001," in done.out
    assert "species 0049 and 1,150 more" in done.out
    assert max(map(len, done.out.splitlines())) < 1000
