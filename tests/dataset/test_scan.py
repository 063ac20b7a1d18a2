"""What counts as an image, a class and a split; and the error for every folder that cannot be meant."""

import os
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from imgrec_cli.config.images import Data, Split
from imgrec_cli.dataset import Listing, scan, scan_labelled
from imgrec_cli.errors import DataError


def paths(listing: Listing, split: str = "train") -> list[str]:
    return [example.path for example in listing.examples if example.split == split]


def refused(data: Data) -> DataError:
    with pytest.raises(DataError) as caught:
        scan(data)
    return caught.value


def test_one_folder_per_class(tree: Callable[..., Path]) -> None:
    folder = tree("dog/2.png", "dog/10.PNG", "cat/a b.jpg", "cat/ü.JPeG", "cat/nested/deeper/x.tif")
    listing = scan(Data(folder=str(folder)))
    assert listing.class_names == ("cat", "dog")
    assert paths(listing) == ["cat/a b.jpg", "cat/nested/deeper/x.tif", "cat/ü.JPeG", "dog/10.PNG", "dog/2.png"]
    assert [example.label for example in listing.examples] == [0, 0, 0, 1, 1]
    assert [example.row for example in listing.examples] == [0, 1, 2, 3, 4]
    assert listing.examples[3].file == str(folder / "dog" / "10.PNG")
    assert listing.warnings == ()
    assert listing.given == frozenset()


def test_classes_are_in_natural_order_without_regard_to_case(tree: Callable[..., Path]) -> None:
    names = ["class 10", "class 9", "Zebra", "apple", "9", "10", "2"]
    folder = tree(*(f"{name}/1.png" for name in names))
    assert scan(Data(folder=str(folder))).class_names == ("2", "9", "10", "apple", "class 9", "class 10", "Zebra")


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [("train", "val", "test"), ("Training", "VALID", "Testing"), ("TRAIN", "Validation", "TEST")],
)
def test_given_splits(tree: Callable[..., Path], train: str, validation: str, test: str) -> None:
    folder = tree(*(f"{split}/{name}/1.png" for split in (train, validation, test) for name in ("cat", "dog")))
    listing = scan(Data(folder=str(folder)))
    assert listing.class_names == ("cat", "dog")
    assert [example.split for example in listing.examples] == ["train"] * 2 + ["validation"] * 2 + ["test"] * 2
    assert paths(listing, "test") == ["cat/1.png", "dog/1.png"]
    assert listing.given == {"validation", "test"}


def test_splits_named_one_by_one(tree: Callable[..., Path]) -> None:
    folder = tree("a/cat/1.png", "a/dog/1.png", "b/cat/2.png", "b/dog/2.png")
    listing = scan(Data(train=str(folder / "a"), test=str(folder / "b")))
    assert paths(listing, "test") == ["cat/2.png", "dog/2.png"]
    assert listing.given == {"test"}
    same = scan(Data(folder=str(folder / "a"), test=str(folder / "b")))
    assert same == listing


def test_hidden_files_and_litter_are_ignored_in_silence(tree: Callable[..., Path]) -> None:
    folder = tree(
        "cat/1.png", "dog/1.png", "cat/._1.png", "cat/.DS_Store", "dog/Thumbs.db", "desktop.ini", "__MACOSX/cat/1.png",
        ".git/x.png", "dog/@eaDir/1.png", "cat/.hidden/2.png",
    )  # fmt: skip
    listing = scan(Data(folder=str(folder)))
    assert paths(listing) == ["cat/1.png", "dog/1.png"]
    assert listing.warnings == ()


def test_other_files_are_counted_in_a_warning(tree: Callable[..., Path]) -> None:
    folder = tree("cat/1.png", "dog/1.png", "cat/1.txt", "dog/more/2.TXT", "labels.csv", "dog/README")
    assert scan(Data(folder=str(folder))).warnings == (
        f"{folder}: 4 files are not images and were ignored: 2 .txt, 1 .csv, 1 without suffix",
    )


def test_images_outside_of_the_class_folders_are_counted_in_a_warning(tree: Callable[..., Path]) -> None:
    folder = tree("cat/1.png", "dog/1.png", "stray.png", "another.png")
    listing = scan(Data(folder=str(folder)))
    assert paths(listing) == ["cat/1.png", "dog/1.png"]
    assert listing.warnings == (f"{folder}: 2 images outside of the class folders ignored, such as another.png",)


@pytest.mark.skipif(os.name == "nt", reason="symbolic links need a privilege on Windows")
def test_links_are_followed_and_loops_end(tree: Callable[..., Path]) -> None:
    folder = tree("data/cat/1.png", "data/dog/1.png", "elsewhere/2.png")
    (folder / "data/cat/linked").symlink_to(folder / "elsewhere")
    (folder / "data/cat/loop").symlink_to(folder / "data/cat")
    (folder / "data/dog/up").symlink_to(folder / "data/dog/..")
    (folder / "data/cat/3.png").symlink_to(folder / "elsewhere/2.png")
    (folder / "data/cat/dangling.png").symlink_to(folder / "gone.png")
    listing = scan(Data(folder=str(folder / "data")))
    cats = [path for path in paths(listing) if path.startswith("cat/")]
    assert cats == ["cat/1.png", "cat/3.png", "cat/dangling.png", "cat/linked/2.png"]


def test_composed_and_decomposed_names_are_one_class(tree: Callable[..., Path]) -> None:
    composed, decomposed = (unicodedata.normalize(form, "Käse") for form in ("NFC", "NFD"))
    folder = tree(f"{composed}/1.png", f"{decomposed}/2.png", "Brot/1.png")
    listing = scan(Data(folder=str(folder)))
    assert listing.class_names == ("Brot", composed)
    assert paths(listing) == ["Brot/1.png", f"{composed}/1.png", f"{composed}/2.png"]
    assert all(Path(example.file).is_file() for example in listing.examples)


def test_no_folder(tree: Callable[..., Path]) -> None:
    folder = tree("flowers/rose/1.png")
    error = refused(Data(folder=str(folder / "flower")))
    assert error.message == f"data.folder: {folder / 'flower'}: no such folder"
    assert error.hint == f"did you mean --set data.folder={folder / 'flowers'}"
    error = refused(Data(train=str(folder / "flowers"), test=str(folder / "nothing alike")))
    assert error.message == f"data.test: {folder / 'nothing alike'}: no such folder"
    assert refused(Data()).message == "no training images are named: neither data.folder nor data.train is set"
    both = Data(folder=str(folder), train=str(folder))
    assert refused(both).message == "data.folder and data.train both name the training images"


def test_a_file_or_an_archive_is_no_folder(tree: Callable[..., Path]) -> None:
    folder = tree("my data/cats.zip", "cats.tar.gz", "list.csv")
    error = refused(Data(folder=str(folder / "my data/cats.zip")))
    assert error.message == f"data.folder: {folder / 'my data/cats.zip'}: an archive, not a folder"
    assert error.hint == (
        f'unpack it first:\n  python -m zipfile -e "{folder / "my data/cats.zip"}" "{folder / "my data/cats"}"\n'
        f'  --set "data.folder={folder / "my data/cats"}"'
    )
    assert refused(Data(folder=str(folder / "cats.tar.gz"))).hint == (
        f"unpack it first:\n  tar -xf {folder / 'cats.tar.gz'}\n  --set data.folder={folder / 'cats'}"
    )
    error = refused(Data(train=str(folder / "list.csv")))
    assert error.message == f"data.train: {folder / 'list.csv'}: a file, not a folder"
    assert error.hint == f"name its folder: --set data.train={folder}"


def test_no_images(tree: Callable[..., Path]) -> None:
    folder = tree("a/cat/1.svg", "a/cat/2.svg", "a/dog/notes.txt", "b/.DS_Store")
    error = refused(Data(folder=str(folder / "a")))
    assert error.message == f"{folder / 'a'}: no images, only 2 .svg, 1 .txt"
    assert ".jpg" in error.hint
    assert refused(Data(folder=str(folder / "b"))).message == f"{folder / 'b'}: no images"


def test_images_without_class_folders(tree: Callable[..., Path]) -> None:
    folder = tree("cat1.png", "dog1.png")
    error = refused(Data(folder=str(folder)))
    assert error.message == f"{folder}: 2 images in it, but no class folders"
    assert str(folder / "CLASS_NAME" / "cat1.png") in error.hint


def test_one_class(tree: Callable[..., Path]) -> None:
    error = refused(Data(folder=str(tree("cat/1.png", "cat/2.png", "cat/more/3.png"))))
    assert error.message.endswith(": only one class, cat")
    assert "two or more" in error.hint


@pytest.mark.parametrize("level", ["flower photos", "downloads/flower photos"])
def test_a_level_too_high(tree: Callable[..., Path], level: str) -> None:
    folder = tree(f"data/{level}/rose/1.png", f"data/{level}/tulip/1.png", f"data/{level}/tulip/new/2.png") / "data"
    error = refused(Data(folder=str(folder)))
    outer = level.split("/")[0]
    assert error.message == (f"{folder}: its only folder is {outer}; the class folders seem to lie deeper: rose, tulip")
    assert error.hint == f'name the folder that holds them: --set "data.folder={folder / level}"'
    assert scan(Data(folder=str(folder / level))).class_names == ("rose", "tulip")


def test_an_empty_class_folder(tree: Callable[..., Path]) -> None:
    folder = tree("cat/1.png", "dog/1.png", "bird/notes.txt")
    (folder / "cow").mkdir()
    error = refused(Data(folder=str(folder)))
    assert error.message == f"{folder}: no image in 2 class folders: bird, cow"


def test_train_beside_other_folders_with_images(tree: Callable[..., Path]) -> None:
    folder = tree("train/1.png", "boat/1.png", "plane/1.png", "docs/readme.txt")
    error = refused(Data(folder=str(folder)))
    assert error.message == f"{folder}: train stands beside other folders with images: boat, plane"
    assert f"--set data.folder={folder / 'train'}" in error.hint
    (folder / "docs/readme.txt").rename(folder / "docs/scan.png")
    assert scan(Data(train=str(folder))).class_names == ("boat", "docs", "plane", "train")


@pytest.mark.parametrize("layout", [("test/cat/1.png", "cat/1.png", "dog/1.png"), ("val/a/1.png", "test/a/1.png")])
def test_splits_without_training_images(tree: Callable[..., Path], layout: tuple[str, ...]) -> None:
    error = refused(Data(folder=str(tree(*layout))))
    assert "but no train folder" in error.message
    assert "into one named train" in error.hint


def test_without_validation_images_nothing_chooses_the_model(tree: Callable[..., Path]) -> None:
    folder = tree("cat/1.png", "dog/1.png")
    none_cut = Split.model_validate({"validation": "0%"})
    error = refused(Data(folder=str(folder), split=none_cut))
    assert error.message == "no validation images: data.split.validation is 0%, and there is no folder of them"
    assert "--set data.split.validation=15%" in error.hint
    given = tree("x/train/cat/1.png", "x/train/dog/1.png", "x/val/cat/.DS_Store") / "x"
    error = refused(Data(folder=str(given)))
    assert error.message == f"{given / 'val'}: no images, and those of validation choose the best weights"
    tree("x/val/cat/1.png")
    assert scan(Data(folder=str(given), split=none_cut)).given == {"validation"}


def test_valid_and_invalid_are_classes(tree: Callable[..., Path]) -> None:
    assert scan(Data(folder=str(tree("valid/1.png", "invalid/1.png")))).class_names == ("invalid", "valid")


def test_two_folders_for_one_split(tree: Callable[..., Path]) -> None:
    folder = tree("train/cat/1.png", "val/cat/1.png", "valid/cat/1.png")
    assert refused(Data(folder=str(folder))).message == f"{folder}: two folders for validation: val and valid"
    folder = tree("other/test/cat/1.png")
    error = refused(Data(folder=str(tree("x/train/cat/1.png", "x/test/cat/1.png") / "x"), test=str(folder / "other")))
    assert error.message.startswith("data.test is given, but data.folder has its own: ")


@pytest.mark.parametrize("test", ["data", "data/held out"])
def test_a_split_inside_another(tree: Callable[..., Path], test: str) -> None:
    folder = tree("data/cat/1.png", "data/dog/1.png", "data/held out/cat/1.png")
    error = refused(Data(train=str(folder / "data"), test=str(folder / test)))
    assert "must not be trained on" in error.hint


def test_classes_that_training_lacks(tree: Callable[..., Path]) -> None:
    folder = tree("train/cat/1.png", "train/dog/1.png", "test/cat/1.png", "test/dogs/1.png")
    error = refused(Data(folder=str(folder)))
    assert error.message == (
        f"{folder / 'test'}: test has classes that training lacks: dogs\n  and lacks of training's: dog"
    )
    assert error.hint.startswith("is dogs the class dog?")


def test_classes_that_test_lacks_are_a_warning(tree: Callable[..., Path]) -> None:
    folder = tree("train/cat/1.png", "train/dog/1.png", "train/owl/1.png", "test/cat/1.png")
    (folder / "test/owl").mkdir()
    assert scan(Data(folder=str(folder))).warnings == (f"{folder / 'test'}: no test images of dog, owl",)


@pytest.mark.skipif(os.name == "nt" or not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_may_not_be_read(tree: Callable[..., Path]) -> None:
    folder = tree("cat/1.png", "dog/1.png")
    (folder / "dog").chmod(0)
    try:
        assert refused(Data(folder=str(folder))).message == f"{folder / 'dog'}: cannot be read: Permission denied"
    finally:
        (folder / "dog").chmod(0o700)


@pytest.mark.skipif(os.name == "nt" or os.uname().sysname == "Darwin", reason="this system has no such names")
def test_a_name_that_is_no_text(tree: Callable[..., Path]) -> None:
    folder = tree("cat/1.png", "dog/1.png")
    Path(os.fsdecode(os.fsencode(folder) + b"/cat/\xff.png")).touch()
    error = refused(Data(folder=str(folder)))
    assert error.message == f"{folder / 'cat'}: a name in it is not valid UTF-8: b'\\xff.png'"


def test_labelled_folders_to_judge_on(tree: Callable[..., Path]) -> None:
    folder = tree("test/cat/2.png", "test/dog 10/1.png", "train/cat/1.png", "train/dog 10/3.png")
    (folder / "test" / "dog 9").mkdir()
    found = scan_labelled(folder)
    assert found == {"cat": [("cat/2.png", folder / "test/cat/2.png")], "dog 9": [],
                     "dog 10": [("dog 10/1.png", folder / "test/dog 10/1.png")]}  # fmt: skip
    assert list(found) == ["cat", "dog 9", "dog 10"]
    assert scan_labelled(folder / "test") == found
    assert list(scan_labelled(folder, "train")) == ["cat", "dog 10"]
    with pytest.raises(DataError, match="no single folder for validation among test, train"):
        scan_labelled(folder, "validation")
    with pytest.raises(DataError, match=r"--data: .*: no such folder"):
        scan_labelled(folder / "nowhere")
    with pytest.raises(DataError, match="no images"):
        scan_labelled(folder / "test" / "dog 9")


def test_scanning_needs_no_pydantic() -> None:
    code = "import sys, imgrec_cli.dataset; print(sorted({'pydantic', 'yaml'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
