"""Corrections follow the picture that was looked at: by path and hash, in the split that they lead to."""

from pathlib import Path

import pytest

from imgrec_cli.config.images import Data
from imgrec_cli.config.images import Image as ImageSection
from imgrec_cli.dataset import Dataset, load_dataset, plan, scan
from imgrec_cli.dataset.corrections import read_corrections
from imgrec_cli.dataset.digests import digest_of_file
from imgrec_cli.errors import DataError
from imgrec_cli.progress import Event, Note, Warn

SMALL = ImageSection(size=(4, 4), color="gray")


@pytest.fixture
def folder(tmp_path: Path, make_image: object) -> Path:
    for name in ("cat", "dog"):
        for number in range(8):
            make_image(f"photos/{name}/{number}.png")  # type: ignore[operator]
    return tmp_path


def load(folder: Path, lines: list[str], photos: str = "photos") -> tuple[Dataset, list[Event]]:
    (folder / "corrections.csv").write_text("\n".join(["path,action,label,note,hash", *lines]), encoding="utf-8")
    events: list[Event] = []
    data = Data(folder=str(folder / photos), corrections=str(folder / "corrections.csv"))
    return load_dataset(data, SMALL, 0, events.append), events


def digest(folder: Path, name: str) -> str:
    return digest_of_file(str(folder / "photos" / name))


def labels(dataset: Dataset) -> dict[str, str]:
    return {example.path: dataset.class_names[example.label] for example in dataset.examples}


def test_images_are_left_out_and_relabelled_before_splitting(folder: Path) -> None:
    dataset, events = load(
        folder, [f"cat/1.png,exclude,,blurred,{digest(folder, 'cat/1.png')}", "dog/2.png,relabel,cat,,"]
    )
    assert "cat/1.png" not in labels(dataset)
    assert labels(dataset)["dog/2.png"] == "cat"
    assert len(dataset.examples) == 15
    assert [(skipped.path, skipped.reason) for skipped in dataset.skipped] == [
        ("cat/1.png", "left out by a correction")
    ]
    told = [event.text for event in events if isinstance(event, Note)]
    assert f"corrections: 1 image left out and 1 relabelled by {folder / 'corrections.csv'}" in told
    assert sorted(dataset.digest(example) for example in dataset.examples) == sorted(
        digest_of_file(example.file) for example in dataset.examples
    )
    planned, _ = plan(
        scan(Data(folder=str(folder / "photos"))),
        Data(folder=str(folder / "photos"), corrections=str(folder / "corrections.csv")),
        0,
    )
    assert [(e.path, e.label, e.split) for e in planned] == [(e.path, e.label, e.split) for e in dataset.examples]


def test_no_file_is_touched(folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (folder / "photos").rglob("*")}
    load(folder, ["cat/1.png,exclude,,,", "dog/2.png,relabel,cat,,"])
    assert {path: path.stat().st_mtime_ns for path in (folder / "photos").rglob("*")} == before


def test_a_correction_whose_picture_changed_is_reported_and_not_applied(folder: Path, make_image: object) -> None:
    line = f"cat/1.png,exclude,,,{digest(folder, 'cat/1.png')}"
    make_image("photos/cat/1.png", seed=99)  # type: ignore[operator]
    dataset, events = load(folder, [line, "cat/99.png,exclude,,,"])
    assert "cat/1.png" in labels(dataset)
    warnings = [event.text for event in events if isinstance(event, Warn)]
    file = folder / "corrections.csv"
    assert f"{file}: the picture is another one since: not applied, look at it again: cat/1.png" in warnings
    assert f"{file}: there is no such image among those used: cat/99.png" in warnings


def test_a_correction_follows_its_picture_when_it_is_moved(folder: Path) -> None:
    line = f"cat/1.png,exclude,,,{digest(folder, 'cat/1.png')}"
    (folder / "photos/cat/1.png").rename(folder / "photos/cat/renamed.png")
    dataset, _ = load(folder, [line])
    assert "cat/renamed.png" not in labels(dataset)
    (folder / "photos").rename(folder / "moved")
    assert len(load(folder, [line], "moved")[0].examples) == 15


def test_of_two_equal_pictures_the_path_tells_which(folder: Path) -> None:
    (folder / "photos/dog/same.png").write_bytes((folder / "photos/cat/1.png").read_bytes())
    dataset, _ = load(folder, [f"dog/same.png,exclude,,,{digest(folder, 'cat/1.png')}"])
    assert "cat/1.png" in labels(dataset)
    assert "dog/same.png" not in labels(dataset)


@pytest.mark.parametrize(
    ("line", "told", "hint"),
    [
        ("cat/1.png,remove,,,", "T:2: action is 'remove'", "write exclude or relabel"),
        ("cat/1.png,relabel,,,", "T:2: relabel with label ''", "relabel needs one, exclude none"),
        ("cat/1.png,exclude,dog,,", "T:2: exclude with label 'dog'", "relabel needs one, exclude none"),
        ("cat/1.png,relabel,dgo,,", "T:2: no class is named dgo", "did you mean dog?"),
        ("1.png,exclude,,,", "T:2: 1.png fits 2 images, such as ", "write more of the path, or the picture's hash"),
        (",exclude,,,", "T:2: path is empty", "it is the end of the image's path, such as cat/1.png"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(folder: Path, line: str, told: str, hint: str) -> None:
    with pytest.raises(DataError) as caught:
        load(folder, [line])
    assert caught.value.message.replace(str(folder / "corrections.csv"), "T").startswith(told)
    assert caught.value.hint == hint


def test_lines_that_contradict_each_other(folder: Path) -> None:
    with pytest.raises(DataError, match=r":3: line 2 says otherwise of the same picture, photos/cat/1.png"):
        load(folder, ["cat/1.png,exclude,,,", "photos/cat/1.png,relabel,dog,,"])
    with pytest.raises(DataError, match=r":3: cat/1.png stands on line 2 already"):
        load(folder, ["cat/1.png,exclude,,,", "cat/1.png,exclude,,,"])


def test_a_label_that_was_merged_is_the_class_it_became(folder: Path) -> None:
    (folder / "c.csv").write_text("path,action,label\ncat/1.png,relabel,dog\n")
    data = Data.model_validate(
        {
            "folder": str(folder / "photos"),
            "corrections": str(folder / "c.csv"),
            "classes": {"merge": {"hound": ["dog"]}},
        }
    )
    assert labels(load_dataset(data, SMALL, 0))["cat/1.png"] == "hound"


def test_the_columns_are_named(folder: Path) -> None:
    (folder / "c.csv").write_text("file,what\ncat/1.png,exclude\n")
    with pytest.raises(DataError) as caught:
        read_corrections(folder / "c.csv")
    assert caught.value.message == f"{folder / 'c.csv'}:1: its columns are file, what"
    assert caught.value.hint == "those of corrections are path, action, label, note, hash"
