"""The starter config fits the images it was written for, and loads as it is."""

from pathlib import Path

import pytest
from PIL import Image

from imgrec_cli.config import load_config
from imgrec_cli.dataset.starter import starter_config
from imgrec_cli.errors import DataError


def draw(folder: Path, classes: dict[str, int], mode: str, size: tuple[int, int]) -> None:
    for name, count in classes.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            Image.new(mode, size, 90).save(folder / name / f"{number}.png")


@pytest.mark.parametrize(
    ("mode", "size", "expected"),
    [
        ("L", (28, 28), ((28, 28), "gray")),
        ("RGB", (300, 220), ((160, 160), "rgb")),
        ("P", (100, 130), ((96, 96), "rgb")),
        ("I;16", (64, 64), ((64, 64), "gray")),
        ("L", (5, 5), ((8, 8), "gray")),
    ],
)
def test_size_and_color_follow_the_images(
    mode: str, size: tuple[int, int], expected: tuple[tuple[int, int], str], tmp_path: Path
) -> None:
    draw(tmp_path / "photos", {"ant": 4, "bee": 3}, mode, size)
    (tmp_path / "f.yaml").write_text(starter_config(tmp_path / "photos", tmp_path), encoding="utf-8")
    config = load_config(tmp_path / "f.yaml")
    assert (config.image.size, config.image.color) == expected
    assert any(step.type == "flip" for step in config.augment) == (config.image.color == "rgb")


def test_it_names_the_folder_from_where_it_will_be_saved_and_counts(tmp_path: Path) -> None:
    draw(tmp_path / "my #1 photos", {"ant": 5, "bee": 2}, "L", (9, 9))
    (tmp_path / "my #1 photos" / ".hidden").mkdir()
    (tmp_path / "my #1 photos" / "ant" / "notes.txt").write_text("")
    (tmp_path / "my #1 photos" / "bee" / "broken.png").write_text("")
    (tmp_path / "configs").mkdir()
    text = starter_config(tmp_path / "my #1 photos", tmp_path / "configs")
    assert text.startswith("# 8 images in 2 classes; the smallest class is bee with 3\n")
    assert "  folder: '../my #1 photos'\n" in text
    (tmp_path / "configs" / "f.yaml").write_text(text, encoding="utf-8")
    assert load_config(tmp_path / "configs" / "f.yaml").data.folder == str(tmp_path / "my #1 photos")


@pytest.mark.parametrize("name", ["Train", "training"])
def test_it_looks_into_train_where_the_folder_is_split_already(tmp_path: Path, name: str) -> None:
    draw(tmp_path / name, {"ant": 2, "bee": 3, "wasp": 4}, "L", (9, 9))
    draw(tmp_path / "valid", {"ant": 9}, "L", (9, 9))
    assert starter_config(tmp_path).startswith(
        "# 9 images in 3 classes; the smallest class is ant with 2  (too few to set some aside: that takes 3)\n"
    )


def test_it_counts_what_training_reads(tmp_path: Path) -> None:
    draw(tmp_path, {"ant": 4, "bee": 4, "@eaDir": 4, "lost+found": 4}, "L", (9, 9))
    (tmp_path / "ant" / "0.png").rename(tmp_path / "ant" / "0.APNG")
    assert starter_config(tmp_path).startswith("# 8 images in 2 classes; the smallest class is ant with 4\n")


def test_folders_that_cannot_be_trained_on_are_refused_with_a_command_to_type(tmp_path: Path) -> None:
    def told(folder: Path) -> tuple[str, str]:
        with pytest.raises(DataError) as caught:
            starter_config(folder)
        return caught.value.message.replace(str(tmp_path), "F"), caught.value.hint.replace(str(tmp_path), "F")

    (tmp_path / "photos").mkdir()
    assert told(tmp_path / "photo") == (
        "imgrec config init: F/photo: no such folder",
        "did you mean imgrec config init F/photos",
    )
    assert told(tmp_path / "photos")[0] == "F/photos: no images"
    draw(tmp_path / "photos", {"ant": 1}, "L", (9, 9))
    assert told(tmp_path / "photos")[0] == "F/photos: only one class, ant"
    draw(tmp_path / "photos", {"bee": 1}, "L", (9, 9))
    for name in ("ant", "bee"):
        (tmp_path / "photos" / name / "0.png").write_text("no picture")
    assert told(tmp_path / "photos")[0] == (
        "F/photos: none of the images looked at can be read, such as F/photos/ant/0.png: "
        "not a JPEG, PNG, WebP, BMP, GIF or TIFF image, or its header is damaged"
    )
