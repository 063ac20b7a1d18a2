"""Answers that are written down, and images that are sorted by them."""

import errno
import os
import shutil

import pytest

from imgrec_cli.answers import AnswerFile, SortedFolder
from imgrec_cli.bundle import FileRecord, Manifest, Parity
from imgrec_cli.classifier import Prediction
from imgrec_cli.errors import DiskSpaceError
from imgrec_cli.imaging import PixelSpec

MANIFEST = Manifest(
    name="x",
    created="2026-01-01T00:00:00Z",
    class_names=["cat", "dog"],
    pixels=PixelSpec((8, 8), "gray", "stretch"),
    files={"model.tflite": FileRecord(3, "ab"), "selftest.npz": FileRecord(1, "cd")},
    parity=Parity(1, 0.0, 0, 0),
    versions={},
)
CAT = Prediction("a.png", [("cat", 0.9), ("dog", 0.1)], "cat")


def test_two_images_of_one_name_size_and_second_are_both_sorted(tmp_path):
    images = [tmp_path / folder / "IMG_1.jpg" for folder in ("a", "b")]
    for image, content in zip(images, (b"one", b"two"), strict=True):
        image.parent.mkdir()
        image.write_bytes(content)
        os.utime(image, (1_700_000_000, 1_700_000_000))
    folder = SortedFolder(tmp_path / "sorted", ["cat", "dog"], link=False)
    places = [folder.add(image, CAT) for image in images]
    assert [place.read_bytes() for place in places] == [b"one", b"two"]
    assert [folder.add(image, CAT) for image in images] == places  # a second time changes nothing
    assert len(list((tmp_path / "sorted" / "cat").iterdir())) == 2


def test_a_full_disk_is_said_where_images_are_sorted(tmp_path, monkeypatch):
    def refuse(source, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "a.png").write_bytes(b"one")
    monkeypatch.setattr(shutil, "copy2", refuse)
    with pytest.raises(DiskSpaceError, match="cat: the disk became full"):
        SortedFolder(tmp_path / "sorted", ["cat", "dog"], link=False).add(tmp_path / "a.png", CAT)
    assert list((tmp_path / "sorted" / "cat").iterdir()) == []


def test_a_full_disk_is_said_where_answers_are_written_and_the_file_goes_on_later(tmp_path, monkeypatch):
    file, options = tmp_path / "answers.csv", {"shard": None}

    def refuse(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    answers = AnswerFile(file, MANIFEST, options, None)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        with pytest.raises(DiskSpaceError, match=r"answers\.csv: the disk became full"), answers.adding() as writer:
            writer.add(CAT)
    again = AnswerFile(file, MANIFEST, options, None)
    assert "a.png" in again.answered
