"""`imgrec config check` finds what a training run would stumble over, without TensorFlow."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def config(tiny_config: Path, tmp_path: Path) -> Path:
    """A copy of the tiny config and its three classes of twelve pictures."""
    shutil.copytree(tiny_config.parent / "shapes", tmp_path / "shapes")
    return Path(shutil.copy(tiny_config, tmp_path))


def test_check_tells_the_sizes_of_the_splits_that_training_makes(imgrec, config):
    done = imgrec("config", "check", config)
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[:3] == [
        "train: 24 images",
        "validation: 6 images, cut from the training images",
        "test: 6 images, cut from the training images",
    ]
    assert done.out.splitlines()[-1] == f"{config}: ok"


def test_check_tries_the_group_expression(imgrec, config):
    done = imgrec("config", "check", config, "--set", "data.group='^(x)'")
    assert done.code == 2
    assert "data.group: ^(x) does not match 36 of 36 paths, such as circle/00.png" in done.err


def test_check_names_classes_too_small_to_be_divided(imgrec, config):
    def keep_two(shape: str) -> None:
        for file in sorted((config.parent / "shapes" / shape).iterdir())[2:]:
            file.unlink()

    keep_two("cross")
    done = imgrec("config", "check", config)
    assert done.code == 0
    assert "warning: no validation images of cross: a class needs three images that differ" in done.err
    keep_two("circle")
    keep_two("square")
    done = imgrec("config", "check", config)
    assert done.code == 2
    assert "no validation images: no class could be divided" in done.err


def test_check_looks_for_the_weights_of_a_backbone(imgrec, config):
    text = config.read_text(encoding="utf-8")
    head, _ = text.split("model:")
    model = "model: {type: backbone, name: mobilenet_v2, weights: gone.h5}\nimage: {size: [32, 32]}\n"
    config.write_text(head.replace("image: {size: [16, 16], color: gray}\n", "") + model, encoding="utf-8")
    done = imgrec("config", "check", config)
    assert done.code == 2
    assert f"model.weights: {config.parent / 'gone.h5'}: no such file" in done.err
    (config.parent / "gone.h5").touch()
    assert imgrec("config", "check", config).code == 0


def test_what_init_gives_to_type_can_be_typed_where_names_hold_spaces(imgrec, config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shapes").rename(tmp_path / "my shapes")
    done = imgrec("config", "init", "my shapes")
    assert done.out.splitlines()[-2:] == ['  imgrec config check "my shapes.yaml"', '  imgrec train "my shapes.yaml"']


def test_the_line_for_a_config_is_yaml_whatever_the_name(imgrec, config, tmp_path, monkeypatch):
    from imgrec_cli.config import load_config

    monkeypatch.chdir(tmp_path)
    line = imgrec("data", "split", "shapes", "-o", "a, #1: x.csv", "-q").out.splitlines()[-1].partition(":  ")[2]
    text = config.read_text(encoding="utf-8").replace("data: {folder: shapes}", line)
    config.write_text(text, encoding="utf-8")
    assert load_config(config).data.manifest == str(tmp_path / "a, #1: x.csv")
