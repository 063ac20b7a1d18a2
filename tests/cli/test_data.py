"""imgrec data, and the ways from a folder to a config, as a user types them."""

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from imgrec_cli.bundle import Manifest

Run = Callable[..., Any]


@pytest.fixture
def shapes(tiny_config: Path, tmp_path: Path) -> Path:
    """A copy of the tiny data, to plant things in."""
    shutil.copytree(tiny_config.parent / "shapes", tmp_path / "shapes")
    shutil.copyfile(tiny_config, tmp_path / "tiny.yaml")
    return tmp_path / "shapes"


def test_train_with_a_folder_answers_with_two_lines(imgrec: Run, shapes: Path) -> None:
    done = imgrec("train", shapes)
    assert done.code == 2
    assert done.err.endswith(
        f"hint: write one for its images, then train:\n  imgrec config init {shapes}\n  imgrec train shapes.yaml\n"
    )


def test_train_with_an_archive_answers_with_three(imgrec: Run, tmp_path: Path) -> None:
    (tmp_path / "photos.zip").write_bytes(b"PK")
    done = imgrec("train", tmp_path / "photos.zip")
    assert done.err.splitlines()[1:] == [
        "hint: unpack it, write a config, then train:",
        f"  python -m zipfile -e {tmp_path / 'photos.zip'} {tmp_path / 'photos'}",
        f"  imgrec config init {tmp_path / 'photos'}",
        "  imgrec train photos.yaml",
    ]


def test_init_with_a_rule_writes_it(imgrec: Run, shapes: Path, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for file in shapes.rglob("*.png"):
        shutil.copyfile(file, flat / f"{file.parent.name}_{file.name}")
    done = imgrec("config", "init", flat, "-o", tmp_path / "flat.yaml")
    assert done.code == 2
    command = done.err.split("\n  imgrec ")[1].split("\n")[0]
    words = [word.strip('"') for word in command.split(" --label-from ")]
    done = imgrec(*words[0].split(), "--label-from", words[1], "-o", tmp_path / "flat.yaml")
    assert done.code == 0, done.err
    assert "label_from: " in (tmp_path / "flat.yaml").read_text()
    done = imgrec("config", "check", tmp_path / "flat.yaml")
    assert "3 classes: circle, cross, square" in done.out
    done = imgrec("config", "init", flat, "--label-from", "^cat", "-o", tmp_path / "x.yaml")
    assert done.err.startswith("error: --label-from: needs exactly one capture")


def test_check_tells_what_is_wrong_and_what_to_do(imgrec: Run, shapes: Path) -> None:
    shutil.copyfile(shapes / "circle" / "00.png", shapes / "cross" / "round.png")
    done = imgrec("data", "check", shapes, "-q", "-o", shapes.parent / "sheet.html")
    assert done.code == 0
    assert done.out.splitlines()[:3] == [
        "warning: 1 picture stands under two labels",
        "  such as circle/00.png, cross/round.png",
        "  decide on the sheet which label is right, and exclude or relabel the other copy",
    ]
    # the drawings are few and simple, so that some are alike
    assert done.out.splitlines()[-2] == "37 images in 3 classes looked at: 3 warnings"
    assert done.out.splitlines()[-1].startswith(f"wrote {shapes.parent / 'sheet.html'} with ")
    assert (shapes.parent / "sheet.html").is_file()
    value = json.loads(imgrec("data", "check", shapes, "--format", "json").out)["result"]
    assert value["findings"][0]["groups"] == [["circle/00.png", "cross/round.png"]]
    assert value["splits"].keys() == {"train", "validation", "test"}


def test_check_ends_with_2_where_a_run_would_stop(imgrec: Run, shapes: Path) -> None:
    (shapes / "empty").mkdir()
    done = imgrec("data", "check", shapes, "-q")
    assert done.code == 2
    assert "error: " in done.out
    assert "no image in 1 class folder: empty" in done.out


def test_stats(imgrec: Run, shapes: Path) -> None:
    done = imgrec("data", "stats", shapes, "-q")
    assert done.out.splitlines()[-1].split()[:7] == ["all", "all", "36", "16", "16", "L", "PNG"]
    value = json.loads(imgrec("data", "stats", shapes, "--format", "json").out)["result"]
    assert value[-1]["images"] == 36
    assert value[-1]["bytes"] == sum(file.stat().st_size for file in shapes.rglob("*.png"))
    assert sum(entry["images"] for entry in value if entry["class"] == "circle") == 12


def test_split_is_frozen_and_read_back(imgrec: Run, shapes: Path) -> None:
    out = shapes.parent / "split.csv"
    done = imgrec("data", "split", shapes, "-o", out, "-q")
    assert done.out.splitlines()[0] == f"wrote {out}: 24 train, 6 validation, 6 test"
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert rows[0]["path"].startswith("shapes/circle/")
    done = imgrec(
        "config", "check", shapes.parent / "tiny.yaml", "--set", "data.folder=null", "--set", f"data.manifest={out}"
    )
    assert "train: 24 images\nvalidation: 6 images\ntest: 6 images\n" in done.out
    assert imgrec("data", "split", shapes, "-o", out).err.startswith(f"error: {out}: exists already")


def test_a_heic_photo_names_the_extra_where_it_is_missing(
    imgrec: Run, shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (shapes / "circle" / "phone.heic").write_bytes(b"\x00\x00\x00\x1cftypheic" + bytes(64))
    done = imgrec("data", "check", shapes, "-q", "--format", "json")
    (finding,) = (f for f in json.loads(done.out)["result"]["findings"] if f["kind"] == "undecodable")
    assert finding["reasons"] == {
        "circle/phone.heic": "a HEIC photo, and pillow-heif is not installed (in the folder of imgrec: "
        'pip install -e ".[heic]" -c constraints.txt)'
    }


def test_a_heic_photo_is_read_where_the_extra_is_there(shapes: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif", reason="needs the extra heic")
    from imgrec_cli.imaging import PixelSpec, decode, load_pixels

    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[:, 32:] = (200, 40, 20)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: a quarter to the right
    pillow_heif.register_heif_opener()
    Image.fromarray(pixels).save(shapes / "circle" / "phone.heic", quality=95, exif=exif.tobytes())
    decoded = decode(shapes / "circle" / "phone.heic", PixelSpec((64, 48), "rgb", "stretch"))
    assert decoded.form.format == "HEIF"
    assert decoded.pixels.shape == (64, 48, 3)
    upright = np.rot90(pixels, -1).astype(int)
    assert np.abs(decoded.pixels.astype(int) - upright).mean() < 6
    whole = load_pixels(shapes / "circle" / "phone.heic", PixelSpec((64, 48), "rgb", "stretch"))
    np.testing.assert_array_equal(whole, decoded.pixels)


@pytest.mark.tf
def test_merge_exclude_and_titles_by_name_through_evaluate_and_the_bundle(
    imgrec: Run, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(shapes / "circle", shapes / "unsorted")
    shutil.copytree(shapes / "circle", shapes / "ring")
    for file in (shapes / "ring").iterdir():
        Image.open(file).rotate(90).save(file)
    config = tmp_path / "tiny.yaml"
    classes = "{merge: {round: [circle, ring]}, exclude: [unsorted], titles: {round: Круг}, other: [cross]}"
    config.write_text(config.read_text().replace("folder: shapes", f"folder: shapes, classes: {classes}"))
    done = imgrec("train", config, "-q")
    assert done.code == 0, done.err
    (run,) = (tmp_path / "runs").iterdir()
    manifest = Manifest.read(run / "bundle")
    assert manifest.class_names == ["cross", "round", "square"]
    assert (manifest.titles, manifest.other) == ({"round": "Круг"}, ["cross"])
    assert (manifest.merged, manifest.left_out) == ({"round": ["circle", "ring"]}, ["unsorted"])
    by_run = json.loads(imgrec("evaluate", "--format", "json").out)["result"]
    assert by_run["class_names"] == ["cross", "round", "square"]
    # the same folders as they are named on disk
    done = imgrec("evaluate", "-m", run / "bundle", "--data", shapes, "--format", "json")
    assert done.code == 0, done.err
    value = json.loads(done.out)["result"]
    assert value["classes"]["round"]["support"] == 24
    assert value["images"] == 48
    human = imgrec("evaluate", "-m", run / "bundle", "--data", shapes).out
    assert "left out, as in training: unsorted" in human
    assert "Круг" in human
    predicted = imgrec("predict", "-m", run, shapes / "circle" / "00.png").out
    assert "Круг" in predicted
    assert "round" not in predicted.split(": ")[1]
    answer = json.loads(imgrec("predict", "-m", run, shapes / "circle" / "00.png", "--format", "json").out)
    assert {entry["label"] for entry in answer["result"][0]["top"]} == {"cross", "round", "square"}


@pytest.mark.tf
def test_unsure_images_first_on_a_sheet(imgrec: Run, tiny_run: Path, tiny_config: Path, tmp_path: Path) -> None:
    shapes = tiny_config.parent / "shapes"
    every = json.loads(imgrec("predict", "-m", tiny_run, shapes, "--format", "json").out)["result"]
    gaps = {a["path"]: a["top"][0]["confidence"] - a["top"][1]["confidence"] for a in every}
    sheet = tmp_path / "next.html"
    words = ("--order", "unsure", "--limit", 5, "--sheet", sheet, "--format", "json")
    done = imgrec("predict", "-m", tiny_run, shapes, *words)
    chosen = [answer["path"] for answer in json.loads(done.out)["result"]]
    assert chosen == sorted(gaps, key=lambda path: gaps[path])[:5]
    assert sheet.read_text().count('<article class="card"') == 5
    assert "5 pictures embedded" in done.err
    limited = json.loads(imgrec("predict", "-m", tiny_run, shapes, "--limit", 2, "--format", "json").out)["result"]
    assert [answer["path"] for answer in limited] == [answer["path"] for answer in every[:2]]


@pytest.mark.tf
def test_label_issues_names_what_was_changed(imgrec: Run, tiny_config: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for name, level in (("dark", 60), ("light", 190)):
        (tmp_path / "shapes" / name).mkdir(parents=True)
        for number in range(20):
            pixels = random.integers(level - 50, level + 50, (16, 16)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "shapes" / name / f"{number:02}.png")
    (tmp_path / "shapes/dark/03.png").rename(tmp_path / "shapes/light/moved.png")
    (tmp_path / "shapes/light/07.png").rename(tmp_path / "shapes/dark/also moved.png")
    shutil.copyfile(tiny_config, tmp_path / "tiny.yaml")
    out = tmp_path / "issues.html"
    settings = ("--set", "train.epochs=10", "--set", "train.precision=float32", "-q", "--format", "json")
    words = ("data", "label-issues", tmp_path / "tiny.yaml", "--folds", 2, *settings)
    done = imgrec(*words, "-o", out)
    assert done.code == 0, done.err
    ranked = json.loads(done.out)["result"]
    assert len(ranked) == 40
    assert {issue["path"] for issue in ranked[:2]} == {"light/moved.png", "dark/also moved.png"}
    assert [issue["doubted"] for issue in ranked[:3]] == [True, True, False]
    assert {issue["suggested"] for issue in ranked if issue["label"] == "light"} == {"dark"}
    assert out.read_text(encoding="utf-8").count('<article class="card"') == 40
    # what somebody has looked at is not asked again
    (tmp_path / "c.csv").write_text("path,action,label\nlight/moved.png,relabel,dark\n")
    again = json.loads(imgrec(*words, "--set", f"data.corrections={tmp_path / 'c.csv'}").out)["result"]
    assert [issue["path"] for issue in again if "moved" in issue["path"]] == ["dark/also moved.png"]


def test_looking_at_data_needs_no_tensorflow(shapes: Path) -> None:
    code = (
        "import atexit, sys\n"
        "atexit.register(lambda: print('tensorflow' in sys.modules))\n"
        "from imgrec_cli.cli import main\n"
        "sys.argv = ['imgrec', 'data', 'check', sys.argv[1], '-q']\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code, str(shapes)], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_a_cleared_cache_is_told_to_programs_too(imgrec: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("IMGREC_CACHE", str(tmp_path / "cache"))
    done = imgrec("data", "cache", "--clear", "--format", "json")
    assert json.loads(done.out)["result"] == {"freed": 0, "folder": str(tmp_path / "cache")}
