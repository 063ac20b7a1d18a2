"""From a config to pixels, splits and digests, and the cache between runs."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from imgrec_cli.config.images import Data, Image, Split
from imgrec_cli.dataset import Dataset, list_packs, load_dataset, plan, scan
from imgrec_cli.errors import DataError
from imgrec_cli.imaging import PixelSpec, load_pixels
from imgrec_cli.progress import Advance, Event, Note, Warn

MakeImage = Callable[..., Path]
Load = Callable[..., tuple[Dataset, list[Event]]]
PackedAnew = Callable[[list[Event]], bool]
SMALL = Image(size=(6, 5))
LITTLE_CUT = Split.model_validate({"validation": "5%", "test": "0%"})


def texts(events: list[Event], kind: type[Note] | type[Warn]) -> list[str]:
    return [event.text for event in events if isinstance(event, kind)]


# --- what comes out ---------------------------------------------------------------------------------


def test_pixels_labels_and_digests_belong_together(folder: Path, decoded: list[PixelSpec], load: Load) -> None:
    dataset, events = load(folder)
    assert dataset.class_names == ("cat", "dog")
    assert len(decoded) == 40
    assert dataset.pixels.shape == (40, 6, 5, 3)
    assert dataset.pixels.dtype == np.uint8
    with pytest.raises(ValueError, match="read-only"):
        dataset.pixels[0] = 0
    for example in dataset.examples:
        np.testing.assert_array_equal(dataset.pixels[example.row], load_pixels(Path(example.file), dataset.spec))
        content = Path(example.file).read_bytes()
        assert dataset.digest(example) == hashlib.blake2b(content, digest_size=16).hexdigest()
        assert example.path.startswith(dataset.class_names[example.label] + "/")
    for split, number in (("train", 28), ("validation", 6), ("test", 6)):
        chosen = [example for example in dataset.examples if example.split == split]
        assert dataset.rows(split).tolist() == [example.row for example in chosen]
        assert dataset.labels(split).tolist() == [example.label for example in chosen]
        assert len(chosen) == number
    assert dataset.rows("train").dtype == dataset.labels("train").dtype == np.int64
    assert texts(events, Note)[-1] == "40 images in 2 classes: 28 train, 6 validation, 6 test"
    advances = [event for event in events if isinstance(event, Advance)]
    assert advances[-1] == Advance("packing", 40, 40)


def test_given_splits_are_kept_and_the_others_cut_from_training(
    make_image: MakeImage, tmp_path: Path, load: Load
) -> None:
    for name in ("cat", "dog"):
        for index in range(20):
            make_image(f"data/train/{name}/{index}.png")
        for index in range(5):
            make_image(f"data/test/{name}/{index}.png")
    dataset, _ = load(tmp_path / "data")
    assert [len(dataset.rows(split)) for split in ("train", "validation", "test")] == [34, 6, 10]
    for example in dataset.examples:
        assert (example.split == "test") == ("/test/" in Path(example.file).as_posix())


def test_pixel_statistics_are_those_of_the_training_images(folder: Path, load: Load) -> None:
    dataset, _ = load(folder)
    training = dataset.pixels[dataset.rows("train")] / 255
    mean, deviation = dataset.pixel_statistics()
    np.testing.assert_allclose(mean, training.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(deviation, training.std((0, 1, 2)), rtol=1e-12)


def test_flat_pictures_have_a_deviation_to_divide_by(tmp_path: Path, load: Load) -> None:
    for name in ("train/cat", "train/dog", "validation/cat"):
        (tmp_path / name).mkdir(parents=True)
        Pillow.new("RGB", (4, 4), (10, 20, 30)).save(tmp_path / name / "1.png")
    dataset, _ = load(tmp_path, on_leak="keep")
    mean, deviation = dataset.pixel_statistics()
    np.testing.assert_allclose(mean, np.array([10, 20, 30]) / 255)
    assert min(deviation) > 0


def test_equal_pictures_in_other_formats_stay_together(make_image: MakeImage, tmp_path: Path, load: Load) -> None:
    for name in ("cat", "dog"):
        for index in range(30):
            picture = make_image(f"data/{name}/{index}.png")
            Pillow.open(picture).save(picture.with_suffix(".bmp"))
    dataset, _ = load(tmp_path / "data")
    splits = {example.path: example.split for example in dataset.examples}
    assert all(splits[path] == splits[path.replace(".png", ".bmp")] for path in splits)
    assert set(splits.values()) == {"train", "validation", "test"}


def test_ten_shifted_variants_of_each_picture_stay_together_by_group(tmp_path: Path, load: Load) -> None:
    for label, name in enumerate(("cat", "dog")):
        (tmp_path / name).mkdir()
        for picture in range(20):
            wide = np.random.default_rng([label, picture]).integers(0, 256, (8, 18, 3), np.uint8)
            for shift in range(10):
                Pillow.fromarray(wide[:, shift : shift + 8]).save(tmp_path / name / f"{picture:02}_{shift}.png")

    def pictures_on_two_sides(dataset: Dataset) -> int:
        sides: dict[str, set[str]] = {}
        for example in dataset.examples:
            sides.setdefault(example.path.split("_")[0], set()).add(example.split)
        return sum(len(splits) > 1 for splits in sides.values())

    grouped, _ = load(tmp_path, group=r"(\w+/\d+)_")
    assert pictures_on_two_sides(grouped) == 0
    assert [len(grouped.rows(split)) for split in ("train", "validation", "test")] == [280, 60, 60]
    assert pictures_on_two_sides(load(tmp_path)[0]) > 20


def test_a_wrong_group_expression_is_told_before_anything_is_decoded(
    folder: Path, decoded: list[PixelSpec], load: Load
) -> None:
    with pytest.raises(DataError, match=r"data\.group: \^\(x\) does not match 40 of 40 paths, such as cat/0\.png"):
        load(folder, group="^(x)")
    assert decoded == []


def test_the_fingerprint_follows_splits_names_and_contents(
    folder: Path, make_image: MakeImage, tmp_path: Path, load: Load
) -> None:
    first = load(folder)[0].fingerprint
    shutil.copytree(folder, tmp_path / "copy")
    assert load(tmp_path / "copy")[0].fingerprint == first
    assert load(folder, image=Image(size=(3, 3), color="gray"))[0].fingerprint == first
    assert load(folder, seed=1)[0].fingerprint != first
    make_image("data/cat/0.png", seed=99)
    changed = load(folder)[0].fingerprint
    assert changed != first
    (folder / "cat/0.png").rename(folder / "cat/00.png")
    assert load(folder)[0].fingerprint not in (first, changed)


# --- what is left out -------------------------------------------------------------------------------


def test_damaged_images_are_left_out_by_name(folder: Path, load: Load, packed_anew: PackedAnew) -> None:
    (folder / "cat/3.png").write_bytes(b"no picture")
    (folder / "dog/7.png").write_bytes(b"")
    dataset, events = load(folder)
    assert [(image.path, image.reason) for image in dataset.skipped] == [
        ("cat/3.png", "not a JPEG, PNG, WebP, BMP, GIF or TIFF image, or its header is damaged"),
        ("dog/7.png", "the file is empty"),
    ]
    (warning,) = texts(events, Warn)
    assert warning.startswith("2 images cannot be read and were left out: ")
    assert f"{folder / 'dog' / '7.png'} (the file is empty)" in warning
    assert dataset.pixels.shape[0] == len(dataset.examples) == len(dataset.digests) == 38
    for example in dataset.examples:
        np.testing.assert_array_equal(dataset.pixels[example.row], load_pixels(Path(example.file), dataset.spec))
    again, events = load(folder)
    assert not packed_anew(events)
    assert again.skipped == dataset.skipped


def test_at_most_ten_damaged_images_are_named(folder: Path, load: Load) -> None:
    for index in range(13):
        (folder / f"cat/{index}.png").write_bytes(b"")
    (warning,) = texts(load(folder)[1], Warn)
    assert warning.count("the file is empty") == 10
    assert warning.endswith(" and 3 more")


def test_a_class_that_damage_leaves_without_training_images(folder: Path, load: Load) -> None:
    for file in (folder / "dog").iterdir():
        file.write_bytes(b"")
    with pytest.raises(DataError, match=r"no training image of dog can be read, such as .*0\.png: the file is empty"):
        load(folder)
    for file in (folder / "cat").iterdir():
        file.write_bytes(b"")
    with pytest.raises(DataError, match=r"none of the 40 images can be read: .*: the file is empty"):
        load(folder)
    assert len(list_packs()) == 1  # the one with the readable cats


def test_classes_too_small_to_be_divided_are_a_warning(tmp_path: Path, make_image: MakeImage, load: Load) -> None:
    for index in range(6):
        make_image(f"data/cat/{index}.png")
    make_image("data/dog/1.png")
    make_image("data/owl/1.png")
    dataset, events = load(tmp_path / "data")
    assert texts(events, Warn) == [
        f"no {split} images of dog, owl: a class needs three images that differ to be divided"
        for split in ("validation", "test")
    ]
    assert sorted(set(dataset.labels("train").tolist())) == [0, 1, 2]
    assert len(texts(load(tmp_path / "data", split=LITTLE_CUT)[1], Warn)) == 1
    listing = scan(Data(folder=str(tmp_path / "data")))
    planned, warnings = plan(listing, Data(folder=str(tmp_path / "data")), 0)
    assert planned == dataset.examples
    assert warnings == texts(events, Warn)


def test_no_class_large_enough_to_be_divided(folder: Path, decoded: list[PixelSpec], load: Load) -> None:
    data = Data(folder=str(folder), group=r"(cat|dog)/")
    told = "no validation images: no class could be divided, which takes three "
    with pytest.raises(DataError, match=told + "groups$"):
        plan(scan(data), data, 0)
    with pytest.raises(DataError, match=told + "groups$"):
        load(folder, group=r"(cat|dog)/")
    for file in (*folder.glob("*/1*.png"), *folder.glob("*/[3-9].png")):  # 0 and 2 are left of each
        file.unlink()
    with pytest.raises(DataError, match=told + "images that differ$") as caught:
        load(folder)
    assert "data.validation" in caught.value.hint
    for name in ("cat", "dog"):
        shutil.copy(folder / name / "0.png", folder / name / "same.png")
    with pytest.raises(DataError, match=told + "images that differ$"):
        load(folder)


def test_a_validation_folder_of_damaged_images(make_image: MakeImage, tmp_path: Path, load: Load) -> None:
    for name in ("cat", "dog"):
        make_image(f"data/train/{name}/1.png")
        make_image(f"data/val/{name}/1.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"no validation image can be read, such as .*1\.png: the file is empty"):
        load(tmp_path / "data")


def test_a_listing_that_is_known_is_not_made_again(folder: Path, monkeypatch: pytest.MonkeyPatch, load: Load) -> None:
    data = Data(folder=str(folder))
    expected, _ = load(folder)
    listing = scan(data)
    monkeypatch.setattr("imgrec_cli.dataset.load.scan", None)
    assert load_dataset(data, SMALL, 0, listing=listing).fingerprint == expected.fingerprint


# --- deep images ------------------------------------------------------------------------------------


@pytest.fixture
def deep_folder(tmp_path: Path, make_image: MakeImage) -> Path:
    """Twelve-bit values in sixteen-bit files."""
    for name in ("cat", "dog"):
        for index in range(10):
            make_image(f"deep/{name}/{index}.tif", deep=3000 + index)
    return tmp_path / "deep"


def test_auto_is_the_smallest_number_of_bits_that_holds_the_training_values(
    deep_folder: Path, load: Load, packed_anew: PackedAnew
) -> None:
    image = Image(size=(9, 7), color="gray")
    dataset, events = load(deep_folder, image)
    assert dataset.spec.range == (0.0, 4095.0)
    assert "image.range: auto is [0, 4095], from the largest training value" in texts(events, Note)
    for example in dataset.examples:
        raw = np.asarray(Pillow.open(example.file)).astype(float)
        np.testing.assert_array_equal(dataset.pixels[example.row][..., 0], np.rint(raw / 4095 * 255))
    again, events = load(deep_folder, image)
    assert again.spec == dataset.spec
    assert not packed_anew(events)
    assert not any("surveying" in text for text in texts(events, Note))


@pytest.mark.parametrize(
    ("largest", "high"),
    [(200, 255), (255, 255), (256, 1023), (4095, 4095), (4096, 16383), (16384, 65535), (65535, 65535)],
)
def test_bits(tmp_path: Path, make_image: MakeImage, largest: int, high: int, load: Load) -> None:
    for name in ("cat", "dog"):
        for index in range(3):
            make_image(f"data/{name}/{index}.png", deep=largest)
    assert load(tmp_path / "data")[0].spec.range == (0.0, float(high))


def test_only_training_images_choose_the_range(
    deep_folder: Path, make_image: MakeImage, tmp_path: Path, load: Load
) -> None:
    for name in ("cat", "dog"):
        make_image(f"test/{name}/bright.tif", deep=60_000)
    dataset, events = load(deep_folder, test=str(tmp_path / "test"))
    assert dataset.spec.range == (0.0, 4095.0)
    assert texts(events, Warn) == ["2 images outside of training hold values above 4095, which are shown as white"]


def test_a_deep_image_among_many_others_changes_the_range_for_deep_ones_only(
    folder: Path, make_image: MakeImage, load: Load
) -> None:
    plain, _ = load(folder)
    make_image("data/dog/zz.png", deep=1000)
    mixed, _ = load(folder, split=LITTLE_CUT)
    assert mixed.spec.range == (0.0, 1023.0)
    np.testing.assert_array_equal(mixed.pixels[:40], plain.pixels)


def test_a_given_range_needs_no_survey(deep_folder: Path, load: Load) -> None:
    dataset, events = load(deep_folder, Image(size=(9, 7), range=(1000.0, 2000.0)))
    assert dataset.spec.range == (1000.0, 2000.0)
    assert not any("surveying" in text for text in texts(events, Note))
    auto, _ = load(deep_folder, Image(size=(9, 7)))
    assert auto.spec.range == (0.0, 4095.0)


def test_a_pack_made_for_8_bits_is_not_taken_for_deep_images(deep_folder: Path, load: Load) -> None:
    load(deep_folder, Image(size=(9, 7), range=(0.0, 255.0)))
    assert load(deep_folder, Image(size=(9, 7)))[0].spec.range == (0.0, 4095.0)


def test_auto_has_no_rule_for_floating_point_and_more_than_sixteen_bits(tmp_path: Path, load: Load) -> None:
    classes = ("train/cat", "train/dog", "validation/cat")
    for name in classes:
        (tmp_path / name).mkdir(parents=True)
        Pillow.fromarray(np.full((4, 4), 0.5, np.float32)).save(tmp_path / name / "1.tif")
    with pytest.raises(DataError, match="auto has no rule for floating-point values") as caught:
        load(tmp_path)
    assert "image.range=[0, 1]" in caught.value.hint
    assert (load(tmp_path, Image(size=(4, 4), range=(0.0, 1.0)), on_leak="keep")[0].pixels == 128).all()
    for name in classes:
        Pillow.fromarray(np.full((4, 4), 70_000, np.int32)).save(tmp_path / name / "1.tif")
    with pytest.raises(DataError, match="auto ends at 16 bits, and the largest training value is 70,000"):
        load(tmp_path)


def test_copies_that_are_left_out_may_not_leave_nothing_to_choose_or_train_by(
    make_image: MakeImage, tmp_path: Path, load: Load
) -> None:
    for index in range(3):
        for name in ("cat", "dog"):
            make_image(f"data/train/{name}/{index}.png")
            shutil.copytree(tmp_path / "data" / "train" / name, tmp_path / "data" / "test" / name, dirs_exist_ok=True)
    with pytest.raises(DataError, match="no training image of cat is left: all are copies of images of a later split"):
        load(tmp_path / "data", on_leak="skip")
    for index in range(3, 6):
        for name in ("cat", "dog"):
            make_image(f"data/train/{name}/{index}.png")
    for name in ("cat", "dog"):
        shutil.copytree(tmp_path / "data" / "test" / name, tmp_path / "data" / "validation" / name)
    with pytest.raises(DataError, match="no validation image is left: all are copies of images of a later split"):
        load(tmp_path / "data", on_leak="skip")
