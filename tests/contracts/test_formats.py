"""What lies on disk after a run: other programs read these names."""

import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.tf

RUN = """\
.lock
analysis/audit.json
analysis/augmented.png
analysis/layers.json
analysis/learning-curve.json
bundle/README.md
bundle/manifest.json
bundle/model.tflite
bundle/selftest.npz
checkpoints/best.npz
config.resolved.yaml
config.yaml
evaluation/test/explanations.npz
evaluation/test/metrics.json
evaluation/test/predictions.csv
examples.csv
metrics.csv
metrics.jsonl
report.html
run.json
"""


def test_layout_of_a_run(tiny_run: Path) -> None:
    found = sorted(path.relative_to(tiny_run).as_posix() for path in tiny_run.rglob("*") if path.is_file())
    by_training = [path for path in found if not path.startswith("evaluation/") or path.startswith("evaluation/test/")]
    by_training = [path for path in by_training if not path.endswith("/stress.json")]  # where another test asked for it
    assert "".join(f"{path}\n" for path in by_training) == RUN


def test_manifest_of_a_bundle(tiny_run: Path) -> None:
    manifest = json.loads((tiny_run / "bundle" / "manifest.json").read_text(encoding="utf-8"))
    assert set(manifest) == {
        "class_names",
        "created",
        "decision",
        "files",
        "format",
        "left_out",
        "merged",
        "mirrored",
        "name",
        "other",
        "parity",
        "pixels",
        "scores",
        "target",
        "titles",
        "unfamiliar_above",
        "versions",
    }
    assert manifest["format"] == 1
    assert manifest["class_names"] == ["circle", "cross", "square"]
    assert set(manifest["files"]) == {"model.tflite", "selftest.npz"}


def test_one_line_of_metrics_per_epoch(tiny_run: Path) -> None:
    lines = [json.loads(line) for line in (tiny_run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    names = {"train/loss", "train/accuracy", "val/loss", "val/accuracy", "lr", "images_per_second"}
    assert all(names <= line.keys() for line in lines)
    header = (tiny_run / "metrics.csv").read_text(encoding="utf-8").splitlines()[0].split(",")
    assert header == list(lines[0])


def test_columns_of_examples_and_predictions(tiny_run: Path) -> None:
    examples = (tiny_run / "examples.csv").read_text(encoding="utf-8").splitlines()
    assert examples[0] == "split,label,path,file,digest"
    assert len(examples) == 1 + 3 * 12
    predictions = (tiny_run / "evaluation" / "test" / "predictions.csv").read_text(encoding="utf-8").splitlines()
    assert predictions[0] == "path,label,predicted,score:circle,score:cross,score:square,unfamiliarity"


def test_what_is_shipped_holds_no_path_of_the_user(tiny_run: Path, tiny_config: Path) -> None:
    folder = str(tiny_config.parent).encode()
    for path in (tiny_run / "bundle").iterdir():
        assert folder not in path.read_bytes(), path.name
