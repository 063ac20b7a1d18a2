"""What the report says first, for runs whose trouble is known."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from imgrec_cli.bundle import Manifest, Parity
from imgrec_cli.imaging import PixelSpec
from imgrec_cli.metrics.intervals import wilson
from imgrec_cli.reporting.facts import Answer, Facts
from imgrec_cli.reporting.findings import findings, next_photographs
from imgrec_cli.rundir import RecordedExample, Run

MANIFEST = Manifest("x", "", ["cat", "dog"], PixelSpec((8, 8), "rgb", "stretch"), {}, Parity(0, 0.0, 0, 0), {})


def example(label: str, number: int, split: str = "train", digest: str = "") -> RecordedExample:
    return RecordedExample(
        split, label, f"{label}/{number}.png", f"/data/{label}/{number}.png", digest or f"{label}{number}"
    )


def facts(**changes) -> Facts:
    """40 cats all found, 20 dogs half of which are taken for cats, one of them surely."""
    answers = [Answer(f"cat/{n}.png", "cat", "cat", 0.8, 0.8, 0.0) for n in range(40)]
    answers += [Answer(f"dog/{n}.png", "dog", "dog" if n % 2 else "cat", 0.7, 0.7, 0.0) for n in range(20)]
    answers[40] = replace(answers[40], confidence=0.97, largest=0.97)
    classes = {
        "cat": {"recall": 1.0, "support": 40, "recall_interval": wilson(40, 40)},
        "dog": {"recall": 0.5, "support": 20, "recall_interval": wilson(10, 20)},
    }
    calibration = {"ece": 0.01, "bins": []}
    given = {
        "run": Run(Path("x")),
        "record": {"best_epoch": 2},
        "manifest": MANIFEST,
        "split": "test",
        "figures": {"classes": classes, "calibration": calibration},
        "answers": answers,
        "scores": np.zeros((60, 2), np.float32),
        "epochs": [{"epoch": n, "val/loss": loss} for n, loss in enumerate((1.0, 0.5, 0.6), 1)],
        "examples": {"train": [example("cat", n) for n in range(90)] + [example("dog", n) for n in range(30)]},
        "skipped": [],
        "audit": None,
        "layers": [],
        "learning_curve": None,
        "stress": None,
        "maps": {},
        "config": "",
    }
    return Facts(**{**given, **changes})


def test_the_weak_class_the_confusion_and_the_label_to_check_come_first():
    said = findings(facts())
    assert said[0].startswith("The weakest class is dog: 50.0 % of its 20 images were found (29.9 % to 70.1 %).")
    assert "few images to judge by" in said[0]
    assert said[1] == "Most often dog is taken for cat: 10 of all 10 mistakes."
    assert said[2].startswith("1 answer is wrong though its probability is 90.0 % or more.")


def test_uneven_classes_and_learning_by_heart_are_said():
    said = "\n".join(findings(facts()))
    assert "uneven: 90 training images of cat, 30 of dog" in said
    assert "loss on validation rose from 0.500 to 0.600" in said


def test_what_is_well_is_not_said():
    right = [Answer("cat/1.png", "cat", "cat", 0.9, 0.9, 0.0)]
    classes = {name: {"recall": 1.0, "support": 5, "recall_interval": (0.5, 1.0)} for name in ("cat", "dog")}
    figures = {"classes": classes, "calibration": {"ece": 0.01, "bins": []}}
    even = {"train": [example(name, n) for name in ("cat", "dog") for n in range(5)]}
    assert findings(facts(answers=right, figures=figures, examples=even, epochs=[])) == []


def test_the_class_with_most_to_find_is_photographed_next():
    grown = {
        "gain_from_doubling": 0.02,
        "classes": {"cat": {"half": 1.0, "all": 1.0}, "dog": {"half": 0.4, "all": 0.5}},
    }
    found = facts(learning_curve=grown)
    assert [row["class"] for row in next_photographs(found)] == ["dog", "cat"]
    assert next_photographs(found)[0] | {} == {"class": "dog", "images": 30, "recall": 0.5, "rise": 0.5 - 0.4}
    assert any("add about 2.0 points of accuracy (an estimate); begin with dog" in text for text in findings(found))


def test_the_same_file_in_two_places_is_found():
    twice = {
        "train": [example("cat", 1, digest="a"), example("dog", 2, digest="a"), example("dog", 3, digest="b")],
        "test": [example("dog", 9, "test", digest="b")],
    }
    assert facts(examples=twice).identical_files() == [
        ("two labels", ["train: cat/1.png", "train: dog/2.png"]),
        ("two splits", ["train: dog/3.png", "test: dog/9.png"]),
    ]


def test_absolute_paths_are_cut():
    found = facts()
    assert found.without_paths("folder: /data/x y/photos # mine") == "folder: …/photos # mine"
    assert (
        found.without_paths("data: {folder: '/a/b', weights: C:\\x\\w.h5}") == "data: {folder: '…/b', weights: …/w.h5}"
    )
    for harmless in ("rate: 1/2 images/s", "folder: ../photos/x", "train/ and test/", "# a / b", "https…"):
        assert found.without_paths(harmless) == harmless
