"""Each way to lay out a collection: read, or answered with what to do and the exact lines to type."""

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from imgrec_cli.config.images import Data
from imgrec_cli.dataset import Listing, plan, scan
from imgrec_cli.errors import DataError


def answer(folder: Path, key: str = "data.folder") -> tuple[str, str]:
    """What is said of a folder, with T for the test's own."""
    with pytest.raises(DataError) as caught:
        scan(Data(folder=str(folder)), key)
    return caught.value.message.replace(str(folder), "T"), caught.value.hint.replace(str(folder), "T")


def labelled(listing: Listing) -> dict[str, str]:
    return {example.path: listing.class_names[example.label] for example in listing.examples}


def test_boxes_in_text_files(tree: Callable[..., Path]) -> None:
    folder = tree("images/a.jpg", "images/b.jpg", "labels/a.txt", "labels/b.txt", "data.yaml")
    expected = (
        "T: a detection set, its boxes are in labels/*.txt; imgrec gives one class to a whole picture",
        "where every picture shows one thing, list them in a file labels.csv in that folder:\n"
        "  path,label\n  images/a.jpg,CLASS_NAME\n"
        "and name it in the config in place of the folder:\n  data: {manifest: T/labels.csv}\n"
        "where pictures show several, cut the boxes out first and save each into a folder of its class",
    )
    assert answer(folder) == expected
    (folder / "labels.csv").write_text("path,label\nimages/a.jpg,cat\nimages/b.jpg,dog\n")
    assert labelled(scan(Data(manifest=str(folder / "labels.csv")))) == {"images/a.jpg": "cat", "images/b.jpg": "dog"}


def test_boxes_by_split(tree: Callable[..., Path]) -> None:
    folder = tree("train/images/a.jpg", "train/labels/a.txt", "valid/images/b.jpg", "valid/labels/b.txt")
    assert answer(folder)[0].startswith("T/train: a detection set, its boxes are in labels/*.txt")
    folder = tree("x/images/train/a.jpg", "x/labels/train/a.txt") / "x"
    assert "  images/train/a.jpg,CLASS_NAME\n" in answer(folder)[1]


def test_boxes_in_json(tree: Callable[..., Path]) -> None:
    folder = tree("train/a.jpg", "val/b.jpg", "annotations/instances.json")
    content = {"images": [], "annotations": [{"bbox": [0, 0, 1, 1]}], "categories": []}
    (folder / "annotations/instances.json").write_text(json.dumps(content))
    folder = tree("y/a.jpg", "y/b.jpg", "y/_annotations.coco.json") / "y"
    (folder / "_annotations.coco.json").write_text(json.dumps(content))
    message, hint = answer(folder)
    assert message == (
        "T: a detection set, its boxes are in _annotations.coco.json; imgrec gives one class to a whole picture"
    )
    assert "  path,label\n  a.jpg,CLASS_NAME\n" in hint


def test_classes_named_images_and_labels_are_classes(tree: Callable[..., Path]) -> None:
    assert scan(Data(folder=str(tree("images/a.jpg", "labels/b.jpg")))).class_names == ("images", "labels")


def test_one_flat_folder_with_the_class_in_the_name(tree: Callable[..., Path]) -> None:
    folder = tree("cat_01.jpg", "cat_02.jpg", "dog_01.jpg", "dog_02.jpg")
    message, hint = answer(folder)
    assert message == "T: 4 images in it, but no class folders"
    assert hint == (
        "their names seem to begin with or hold the class (cat, dog); if so:\n"
        r'  --set "data.label_from=^([^\W\d_]+)[ _.-]*\d"'
        "\nelse make one folder per class and move the images there, such as T/CLASS_NAME/cat_01.jpg"
    )
    listing = scan(Data(folder=str(folder), label_from=r"^([^\W\d_]+)[ _.-]*\d"))
    assert labelled(listing) == {"cat_01.jpg": "cat", "cat_02.jpg": "cat", "dog_01.jpg": "dog", "dog_02.jpg": "dog"}
    _, hint = answer(folder, "imgrec config init")
    assert "\n" + r'  imgrec config init T --label-from "^([^\W\d_]+)[ _.-]*\d"' + "\n" in hint


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        (("ankle_boot_1.png", "ankle_boot_2.png", "bag_1.png", "bag_2.png"), ("ankle_boot", "bag")),
        (("rose_a.png", "rose_b.png", "tulip_a.png", "tulip_b.png"), ("rose", "tulip")),
        (("001_rose.png", "002_rose.png", "003_tulip.png", "004_tulip.png"), ("rose", "tulip")),
    ],
)
def test_the_rule_that_is_offered_works(tree: Callable[..., Path], names: tuple[str, ...], classes: tuple[str]) -> None:
    folder = tree(*names)
    hint = answer(folder)[1]
    rule = hint.split("data.label_from=")[1].split('"\n')[0]
    assert scan(Data(folder=str(folder), label_from=rule)).class_names == classes


def test_a_flat_folder_without_a_rule(tree: Callable[..., Path]) -> None:
    folder = tree("IMG_1.jpg", "IMG_2.jpg", "IMG_3.jpg")
    assert answer(folder)[1] == (
        "make one folder per class and move the images there, such as T/CLASS_NAME/IMG_1.jpg\n"
        'or, where the class begins names such as cat_01.jpg:\n  --set "data.label_from=^([a-z]+)_"'
    )
    with pytest.raises(DataError) as caught:
        scan(Data(folder=str(folder), label_from="^([a-z]+)_"))
    assert caught.value.message == (
        f"data.label_from: ^([a-z]+)_ finds no class in 3 of 3 paths below {folder}, such as IMG_1.jpg"
    )


def test_one_folder_per_subject(tree: Callable[..., Path]) -> None:
    folder = tree(*(f"patient{n:02}/{name}/{i}.png" for n in (1, 2, 10) for name in ("ill", "well") for i in (1, 2)))
    assert answer(folder) == (
        "T: one folder per subject, it seems: patient01, patient02, patient10; the classes inside: ill, well",
        "take the class from inside, and keep a subject's images on one side of the split:\n"
        '  --set "data.label_from=^[^/]+/([^/]+)/" --set "data.group=^([^/]+)/"\n'
        'where the outer folders are the classes: --set "data.label_from=^([^/]+)/"',
    )
    inside = Data(folder=str(folder), label_from="^[^/]+/([^/]+)/", group="^([^/]+)/")
    assert scan(inside).class_names == ("ill", "well")
    splits = {}
    for example in plan(scan(inside), inside, 0)[0]:
        splits.setdefault(example.path.split("/")[0], set()).add(example.split)
    assert sorted(map(tuple, splits.values())) == [("test",), ("train",), ("validation",)]
    outer = Data(folder=str(folder), label_from="^([^/]+)/")
    assert scan(outer).class_names == ("patient01", "patient02", "patient10")


def test_one_folder_per_subject_with_the_class_in_the_name(tree: Callable[..., Path]) -> None:
    folder = tree(*(f"s{n}/{name}_{i}.png" for n in (1, 2) for name in ("happy", "sad") for i in (1, 2)))
    message, hint = answer(folder)
    assert message == "T: one folder per subject, it seems: s1, s2; the classes inside: happy, sad"
    rule = hint.split("data.label_from=")[1].split('" --set')[0]
    assert scan(Data(folder=str(folder), label_from=rule)).class_names == ("happy", "sad")


def test_equal_folders_in_every_class_are_only_a_warning(tree: Callable[..., Path]) -> None:
    folder = tree(*(f"{name}/{year}/1.png" for name in ("rose", "tulip") for year in (2024, 2025)))
    listing = scan(Data(folder=str(folder)))
    assert listing.class_names == ("rose", "tulip")
    assert listing.warnings == (
        f"{folder}: every class folder holds the same folders, 2024, 2025; if those are the classes: "
        '--set "data.label_from=^[^/]+/([^/]+)/" --set "data.group=^([^/]+)/"',
    )


def test_numbers_as_classes_are_no_subjects(tree: Callable[..., Path]) -> None:
    folder = tree(*(f"{n}/IMG_{n}{i}.png" for n in range(3) for i in range(4)))
    assert scan(Data(folder=str(folder))).warnings == ()


def test_one_class(tree: Callable[..., Path]) -> None:
    assert answer(tree("cat/1.png", "cat/2.png")) == (
        "T: only one class, cat",
        "a classifier needs two or more: make a folder for each, with its images, such as T/other with pictures of "
        "anything else",
    )


def test_several_folders_are_put_together_by_name(tree: Callable[..., Path]) -> None:
    folder = tree("may/cat/1.png", "june/cat/1.png", "june/dog/2.png", "july/train/dog/3.png", "july/test/cat/4.png")
    listing = scan(Data(folder=tuple(str(folder / month) for month in ("may", "june", "july"))))
    assert labelled(listing) == {
        "june/cat/1.png": "cat",
        "may/cat/1.png": "cat",
        "july/train/dog/3.png": "dog",
        "june/dog/2.png": "dog",
        "july/test/cat/4.png": "cat",
    }
    assert listing.given == {"test"}
    assert [example.split for example in listing.examples][-1] == "test"
    with pytest.raises(DataError, match=r"may/cat lies in .*may"):
        scan(Data(folder=(str(folder / "may"), str(folder / "may/cat"))))


def test_composed_and_decomposed_names_are_one_class_everywhere(tree: Callable[..., Path]) -> None:
    composed, decomposed = (unicodedata.normalize(form, "Käse") for form in ("NFC", "NFD"))
    folder = tree(f"a/{composed}/1.png", f"b/{decomposed}/2.png", "b/Brot/3.png", "c/4.png")
    (folder / "m.csv").write_text(f"path,label\nc/4.png,{decomposed}\n", encoding="utf-8")
    data = Data.model_validate(
        {
            "folder": [str(folder / "a"), str(folder / "b")],
            "manifest": str(folder / "m.csv"),
            "classes": {"titles": {decomposed: "Cheese"}},
        }
    )
    assert data.classes.titles == {composed: "Cheese"}
    listing = scan(data)
    assert listing.class_names == ("Brot", composed)
    assert sum(example.label == 1 for example in listing.examples) == 3
