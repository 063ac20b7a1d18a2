"""The starter config fits the images it was written for, and loads as it is."""

from pathlib import Path

import pytest
from PIL import Image

from imgrec_cli.config import BackboneModel, Config, LayersModel, load_config
from imgrec_cli.dataset.load import plan
from imgrec_cli.dataset.scan import scan
from imgrec_cli.dataset.starter import starter_config
from imgrec_cli.errors import DataError, InputError


def draw(folder: Path, classes: dict[str, int], mode: str, size: tuple[int, int]) -> None:
    for name, count in classes.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            Image.new(mode, size, 90).save(folder / name / f"{number}.png")


@pytest.fixture(autouse=True)
def a_machine(monkeypatch, tmp_path_factory):
    """One speed on every machine, no GPU, and no weights that Keras has downloaded."""
    for module in ("starter", "sizing"):
        monkeypatch.setattr(f"imgrec_cli.dataset.{module}.matrix_gflops", lambda: 200.0)
        monkeypatch.setattr(f"imgrec_cli.dataset.{module}.nvidia_cards", list)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path_factory.mktemp("keras")))


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
    assert config.data.group is None


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


def written(folder: Path, **options) -> tuple[str, Config]:
    file = folder.parent / "starter.yaml"
    text = starter_config(folder, file.parent, **options)
    file.write_text(text, encoding="utf-8")
    return text, load_config(file)


def test_no_mirror_image_of_digits_and_letters(tmp_path: Path) -> None:
    draw(tmp_path / "signs", {"0": 3, "1": 3, "x": 3}, "RGB", (100, 100))
    text, config = written(tmp_path / "signs")
    assert not any(step.type == "flip" for step in config.augment)
    assert "no mirror image: classes that are digits or letters would become others, or none" in text


def test_size_and_network_shrink_with_the_minutes(tmp_path: Path) -> None:
    draw(tmp_path / "photos", {"ant": 60, "bee": 60}, "RGB", (200, 200))
    found = [written(tmp_path / "photos", minutes=minutes) for minutes in (20, 0.5, 0.01)]
    sides = [config.image.size[0] for _, config in found]
    assert sides[0] == 160
    assert sides == sorted(sides, reverse=True)
    assert [config.train.epochs for _, config in found][-1] < 80
    assert "what 20 minutes allow" in found[0][0]


def test_few_images_get_more_epochs(tmp_path: Path) -> None:
    draw(tmp_path / "few", {"ant": 20, "bee": 20}, "L", (12, 12))
    draw(tmp_path / "more", {"ant": 1000, "bee": 1000}, "L", (12, 12))
    few, more = (written(tmp_path / name)[1].train for name in ("few", "more"))
    assert (few.epochs, few.batch_size) == (80, 8)
    assert few.early_stopping is not None
    assert few.early_stopping.metric == "val/loss"
    assert (more.epochs, more.batch_size) == (57, 32)


def test_an_imbalance_and_deep_images_are_said(tmp_path: Path) -> None:
    draw(tmp_path / "scans", {"ant": 30, "bee": 3}, "I;16", (20, 20))
    text, _ = written(tmp_path / "scans")
    assert "# ant has 10 times as many images as bee: look at the recall of each class, not at accuracy alone" in text
    assert "range: auto                   # some have more than 8 bits" in text
    assert "features learnt on photographs say little of gray images such as these" in text


def test_long_pictures_are_cropped(tmp_path: Path) -> None:
    draw(tmp_path / "wide", {"ant": 4, "bee": 4}, "RGB", (400, 100))
    assert written(tmp_path / "wide")[1].image.fit == "crop"


def grouped(folder: Path, patients: int) -> None:
    for name in ("ill", "well"):
        (folder / name).mkdir(parents=True)
        for number in range(patients * 4):
            Image.new("L", (9, 9), number).save(folder / name / f"{name[0]}{number // 4:02d}_{number % 4}.png")


def test_groups_in_names_stay_together(tmp_path: Path) -> None:
    grouped(tmp_path / "photos", 7)
    text, config = written(tmp_path / "photos")
    assert "14 groups. Images of one" in text
    assert config.data.group is not None
    examples, _ = plan(scan(config.data), config.data, 0)
    sides: dict[str, set[str]] = {}
    for example in examples:
        sides.setdefault(example.path.split("_")[0], set()).add(example.split)
    assert all(len(found) == 1 for found in sides.values())


def test_too_few_groups_are_told_and_not_used(tmp_path: Path) -> None:
    grouped(tmp_path / "photos", 3)
    text, config = written(tmp_path / "photos")
    assert "# group: " in text
    assert "If they belong together, take the # away" in text
    assert config.data.group is None


@pytest.mark.parametrize("names", [["IMG_1118", "IMG_1119"], ["cat.1", "cat.2"], ["cardboard1", "cardboard2"]])
def test_a_number_behind_one_word_is_no_group(tmp_path: Path, names: list[str]) -> None:
    for class_name in ("ant", "bee"):
        (tmp_path / "photos" / class_name).mkdir(parents=True)
        for number, name in enumerate(names):
            Image.new("L", (9, 9), number).save(tmp_path / "photos" / class_name / f"{name}.png")
    assert "group" not in written(tmp_path / "photos")[0]


def test_weights_make_it_a_frozen_backbone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw(tmp_path / "photos", {"ant": 4, "bee": 4}, "RGB", (300, 300))
    draw(tmp_path / "icons", {"ant": 4, "bee": 4}, "RGB", (32, 32))
    keras = tmp_path / "keras" / "models"
    keras.mkdir(parents=True)
    file = keras / "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_224_no_top.h5"
    file.write_bytes(b"weights")
    text, config = written(tmp_path / "photos", weights=file)
    assert isinstance(config.model, BackboneModel)
    assert (config.model.name, config.model.width, config.model.freeze) == ("mobilenet_v2", 0.35, True)
    assert config.model.weights == str(file)
    assert config.augment == ()
    assert config.image.size == (224, 224)
    assert "From scratch" not in text
    assert isinstance(written(tmp_path / "photos")[1].model, LayersModel)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))  # what Keras has is found
    assert written(tmp_path / "photos")[0] == text
    assert isinstance(written(tmp_path / "icons")[1].model, LayersModel)
    for name, told in (("other.h5", "not named as keras.applications names"), (file.name, "no such file")):
        with pytest.raises(InputError, match=told):
            starter_config(tmp_path / "photos", weights=tmp_path / name)


def test_a_line_break_in_the_name_of_a_class_stays_in_its_comment(tmp_path: Path) -> None:
    draw(tmp_path / "photos", {"a\nseed: 7": 40, "b\u2028bee: x": 4}, "L", (9, 9))
    text = starter_config(tmp_path / "photos", tmp_path)
    assert "the smallest class is b bee: x with 4" in text
    (tmp_path / "f.yaml").write_text(text, encoding="utf-8")
    assert load_config(tmp_path / "f.yaml").seed == 0
