"""Everything that may be wrong is planted in a copy of the sample and found; in the sample itself nothing is."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imgrec_cli.config.images import Data
from imgrec_cli.config.images import Image as ImageSection
from imgrec_cli.dataset import load_dataset
from imgrec_cli.dataset.audit import Finding
from imgrec_cli.dataset.look import Look, look_at
from imgrec_cli.errors import DataError
from imgrec_cli.progress import Warn


@pytest.fixture
def sample(root: Path, tmp_path: Path) -> Path:
    """A copy of the images that come with imgrec."""
    shutil.copytree(root / "data" / "fashion-mini", tmp_path / "sample", ignore=shutil.ignore_patterns("LICENSE"))
    return tmp_path / "sample"


def found(look: Look, kind: str) -> Finding:
    findings = [finding for finding in look.findings if finding.kind == kind]
    assert len(findings) == 1, [(finding.kind, finding.message) for finding in look.findings]
    return findings[0]


def names(look: Look, kind: str) -> set[str]:
    return {look.found.shown[place] for place in found(look, kind).places}


def test_the_sample_is_clean(root: Path) -> None:
    look = look_at(root / "data" / "fashion-mini")
    assert look.findings == []
    assert len(look.splits) == 800


def picture(sample: Path, name: str, number: int = 0) -> Image.Image:
    return Image.open(sorted((sample / name).iterdir())[number]).copy()


def plant_zero(sample: Path) -> set[str]:
    (sample / "train/bag/zero.png").write_bytes(b"")
    return {"train/bag/zero.png"}


def plant_text(sample: Path) -> set[str]:
    (sample / "train/bag/text.png").write_text("this is no picture")
    return {"train/bag/text.png"}


def plant_cut(sample: Path) -> set[str]:
    whole = sorted((sample / "train/bag").iterdir())[0].read_bytes()
    (sample / "train/bag/cut.png").write_bytes(whole[: len(whole) // 2])
    return {"train/bag/cut.png"}


def plant_extension(sample: Path) -> set[str]:
    picture(sample, "train/bag").rotate(90).save(sample / "train/bag/other.png", "JPEG")
    return {"train/bag/other.png"}


def plant_large(sample: Path) -> set[str]:
    random = np.random.default_rng(0)
    Image.fromarray(random.integers(0, 256, (400, 400), np.uint8)).save(sample / "train/bag/large.png")
    return {"train/bag/large.png"}


def plant_tiny(sample: Path) -> set[str]:
    picture(sample, "train/bag").resize((4, 4)).save(sample / "train/bag/tiny.png")
    return {"train/bag/tiny.png"}


def plant_long(sample: Path) -> set[str]:
    random = np.random.default_rng(0)
    Image.fromarray(random.integers(0, 256, (12, 80), np.uint8)).save(sample / "train/bag/long.png")
    return {"train/bag/long.png"}


def plant_copy(sample: Path) -> set[str]:
    first = sorted((sample / "train/bag").iterdir())[0]
    Image.open(first).save(sample / "train/bag/copy.bmp")  # another file, the same picture
    return {f"train/bag/{first.name}", "train/bag/copy.bmp"}


def plant_near(sample: Path) -> set[str]:
    # both in the test split, so that no cut can part them
    first = sorted((sample / "test/bag").iterdir())[0]
    Image.open(first).point(lambda value: value * 0.95).save(sample / "test/bag/near.png")
    return {f"test/bag/{first.name}", "test/bag/near.png"}


def plant_near_leak(sample: Path) -> set[str]:
    first = sorted((sample / "train/coat").iterdir())[3]
    stream = io.BytesIO()
    Image.open(first).save(stream, "JPEG", quality=90)
    (sample / "test/coat/again.jpg").write_bytes(stream.getvalue())
    return {f"train/coat/{first.name}", "test/coat/again.jpg"}


def plant_leak(sample: Path) -> set[str]:
    first = sorted((sample / "train/coat").iterdir())[0]
    shutil.copyfile(first, sample / "test/coat/leaked.png")
    return {f"train/coat/{first.name}", "test/coat/leaked.png"}


def plant_contradiction(sample: Path) -> set[str]:
    first = sorted((sample / "train/coat").iterdir())[0]
    shutil.copyfile(first, sample / "train/dress/both.png")
    return {f"train/coat/{first.name}", "train/dress/both.png"}


def plant_series(sample: Path) -> set[str]:
    planted = set()
    for split in ("train", "test"):
        for number, file in enumerate(sorted((sample / split / "bag").iterdir())[:4]):
            file.rename(
                file.with_name(f"clip07_{split}{number:03}.png".replace(split, "1" if split == "test" else "0"))
            )
            planted.add(f"{split}/bag/clip07_{'1' if split == 'test' else '0'}{number:03}.png")
    return planted


def plant_mode(sample: Path) -> set[str]:
    files = sorted((sample / "train/bag").iterdir())
    for file in files:
        image = Image.open(file).convert("RGB")
        image.save(file)
    return {f"train/bag/{file.name}" for file in files}


def plant_depth(sample: Path) -> set[str]:
    file = sorted((sample / "train/bag").iterdir())[0]
    Image.fromarray(np.asarray(Image.open(file)).astype(np.uint16) * 257).save(file)
    return {f"train/bag/{file.name}"}


PLANTED: dict[str, Callable[[Path], set[str]]] = {
    "empty_file": plant_zero,
    "undecodable": plant_text,
    "truncated": plant_cut,
    "wrong_extension": plant_extension,
    "large": plant_large,
    "tiny": plant_tiny,
    "aspect": plant_long,
    "duplicate": plant_copy,
    "near_duplicate": plant_near,
    "near_leak": plant_near_leak,
    "leak": plant_leak,
    "contradiction": plant_contradiction,
    "series": plant_series,
}


@pytest.mark.parametrize("kind", PLANTED)
def test_what_is_planted_is_found(sample: Path, kind: str) -> None:
    planted = PLANTED[kind](sample)
    look = look_at(sample)
    assert names(look, kind) == planted
    # and nothing else is, but for the mode of a picture that had to be saved otherwise
    assert {finding.kind for finding in look.findings} <= {kind, "modes", "tiny"}
    assert found(look, kind).fix


@pytest.mark.parametrize("plant", [plant_mode, plant_depth])
def test_mixed_modes_are_found(sample: Path, plant: Callable[[Path], set[str]]) -> None:
    planted = plant(sample)
    look = look_at(sample)
    assert names(look, "modes") == planted
    if plant is plant_mode:
        assert found(look, "modes").level == "warning"
        assert "not L: 75 % of the class bag" in found(look, "modes").message


def test_classes_and_stray_files(sample: Path) -> None:
    (sample / "train/empty").mkdir()
    shutil.move(sample / "train/sandal", sample.parent / "sandal")  # test keeps its own
    for file in sorted((sample / "train/dress").iterdir())[5:]:
        file.unlink()
    (sample / "train/notes.txt").write_text("")
    (sample / "train/loose.png").write_bytes(b"")
    shutil.rmtree(sample / "test/shirt")
    look = look_at(sample)
    by_kind = {(finding.kind, finding.level): finding.message for finding in look.findings}
    assert "empty" in by_kind["empty_class", "error"]
    assert "test has classes that training lacks: sandal" in by_kind["class_sets", "error"]
    assert "no test images of shirt" in by_kind["class_sets", "warning"]
    assert by_kind["imbalance", "warning"] == ("classes of very different size: ankle_boot has 60 images, dress 5")
    stray = [finding.message for finding in look.findings if finding.kind == "stray"]
    assert any("1 file is not an image and was ignored: 1 .txt" in text for text in stray)
    assert any("1 image outside of the class folders ignored, such as loose.png" in text for text in stray)


@pytest.mark.parametrize("group", [None, r"^(.*)\.\w+$"])
def test_near_copies_across_a_split_that_imgrec_cut_are_told_with_the_key_that_keeps_them_together(
    sample: Path, group: str | None
) -> None:
    shutil.rmtree(sample / "test")
    for file in sorted((sample / "train/coat").iterdir())[:20]:
        stream = io.BytesIO()
        Image.open(file).save(stream, "JPEG", quality=90)
        file.with_name(f"{file.stem}-2.jpg").write_bytes(stream.getvalue())
    dataset = load_dataset(Data(folder=str(sample / "train"), group=group), SMALL, 0)
    (leak,) = [finding for finding in dataset.findings if finding.kind == "near_leak"]
    assert "exclude the copy" in leak.fix
    assert ("widen data.group" if group else '--set "data.group=') in leak.fix
    together = Data(folder=str(sample / "train"), group=r"([^/]*?)(?:-2)?\.\w+$")
    assert "near_leak" not in {finding.kind for finding in load_dataset(together, SMALL, 0).findings}


SMALL = ImageSection(size=(28, 28), color="gray")


def test_a_leak_between_given_splits_ends_a_run_and_the_hint_mends_it(sample: Path) -> None:
    plant_leak(sample)
    with pytest.raises(DataError) as caught:
        load_dataset(Data(folder=str(sample)), SMALL, 0)
    assert caught.value.message.startswith("one picture stands in two splits: train/coat/")
    assert "--set data.on_leak=skip" in caught.value.hint
    events: list[object] = []
    dataset = load_dataset(Data(folder=str(sample), on_leak="skip"), SMALL, 0, events.append)
    assert len(dataset.examples) == 800
    assert [skipped.reason for skipped in dataset.skipped] == ["also among the images that judge or choose the model"]
    assert dataset.pixels.shape[0] == 801
    for example in dataset.examples:  # rows still belong to their files
        np.testing.assert_array_equal(dataset.pixels[example.row][..., 0], np.asarray(Image.open(example.file)))
    assert len(load_dataset(Data(folder=str(sample), on_leak="keep"), SMALL, 0).examples) == 801


def test_a_bad_image_may_end_a_run(sample: Path) -> None:
    plant_zero(sample)
    with pytest.raises(DataError, match=r"1 image cannot be read and ended the run: .*zero.png \(the file is empty\)"):
        load_dataset(Data(folder=str(sample), on_bad_image="stop"), SMALL, 0)
    dataset = load_dataset(Data(folder=str(sample)), SMALL, 0)
    assert [skipped.path for skipped in dataset.skipped] == ["bag/zero.png"]


def test_training_tells_what_was_found_in_one_line(sample: Path) -> None:
    plant_contradiction(sample)
    plant_extension(sample)
    events: list[object] = []
    load_dataset(Data(folder=str(sample)), SMALL, 0, events.append)
    told = [event.text for event in events if isinstance(event, Warn)]
    assert told == [
        "1 picture stands under two labels; 1 file whose ending is not that of what they hold (JPEG). "
        "To see them: imgrec data check CONFIG -o sheet.html"
    ]


def test_findings_as_json_hold_no_absolute_path(sample: Path) -> None:
    plant_contradiction(sample)
    plant_cut(sample)
    assert str(sample) not in json.dumps(look_at(sample).as_dict())
