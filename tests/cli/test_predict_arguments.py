"""Which images the arguments of imgrec predict mean, and what they may not say."""

import pytest

from imgrec_cli.cli.predict import _check, _images
from imgrec_cli.errors import InputError


@pytest.fixture
def folder(tmp_path):
    """Two images, litter, a folder with an image and an empty one."""
    for name in ("a.png", "b.jpg", "Thumbs.db", "notes.txt", "deep/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "z-empty").mkdir()
    return tmp_path


def test_a_pattern_takes_images_and_passes_over_what_else_it_matches(folder):
    pattern = str(folder / "*")
    _check([pattern])
    found = [str(path.relative_to(folder)).replace("\\", "/") for _, path in _images([pattern])]
    assert found == ["a.png", "b.jpg", "deep/c.png"]


def test_a_pattern_without_images_is_said_before_anything_is_answered(folder):
    for pattern, message in (("*.txt", "no image is among what matches"), ("*.gif", "no file matches")):
        with pytest.raises(InputError, match=f"{message} this pattern"):
            _check([str(folder / pattern)])


def test_out_and_format_do_not_go_together(imgrec, folder):
    done = imgrec("predict", folder / "a.png", "--out", folder / "answers.csv", "--format", "json")
    assert done.code == 2
    assert "--out writes what its name ends in, .csv or .jsonl" in done.err
