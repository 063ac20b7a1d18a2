"""Packs: found again by content, built once, and what is left of one that could not be finished."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from imgrec_cli.config.images import Data, Image
from imgrec_cli.dataset import Dataset, clear_packs, list_packs, load_dataset
from imgrec_cli.errors import DiskSpaceError, InputError
from imgrec_cli.imaging import PixelSpec
from imgrec_cli.progress import Advance, Event

MakeImage = Callable[..., Path]
Load = Callable[..., tuple[Dataset, list[Event]]]
PackedAnew = Callable[[list[Event]], bool]
SMALL = Image(size=(6, 5))


def test_a_second_run_decodes_and_reads_nothing(
    folder: Path, decoded: list[PixelSpec], monkeypatch: pytest.MonkeyPatch, load: Load, packed_anew: PackedAnew
) -> None:
    first, _ = load(folder)
    assert len(decoded) == 40

    def unreadable(path: Path) -> Any:
        raise AssertionError(f"{path} was read again")

    monkeypatch.setattr("imgrec_cli.dataset.digests.open_file", unreadable)
    monkeypatch.setattr("imgrec_cli.dataset.pack.open_file", unreadable)
    second, events = load(folder)
    assert not packed_anew(events)
    assert len(decoded) == 40
    np.testing.assert_array_equal(second.pixels, first.pixels)
    assert second.examples == first.examples
    assert second.fingerprint == first.fingerprint


def test_touched_and_copied_files_find_their_pack(
    folder: Path, tmp_path: Path, decoded: list[PixelSpec], load: Load, packed_anew: PackedAnew
) -> None:
    load(folder)
    for file in folder.glob("*/*"):
        os.utime(file, (1, 1))
    assert not packed_anew(load(folder)[1])
    shutil.copytree(folder, tmp_path / "copy")
    load(tmp_path / "copy")
    assert len(list_packs()) == 1


def test_a_changed_added_or_removed_file_makes_a_new_pack(
    folder: Path, make_image: MakeImage, load: Load, packed_anew: PackedAnew
) -> None:
    first, _ = load(folder)
    kept = np.array(first.pixels)
    status = (folder / "cat/5.png").stat()
    for seed in range(1000):  # the same size and time, as an editor that restores times would leave
        if make_image("data/cat/5.png", seed).stat().st_size == status.st_size:
            break
    os.utime(folder / "cat/5.png", ns=(status.st_atime_ns, status.st_mtime_ns))
    changed, events = load(folder)
    assert packed_anew(events)
    row = next(example.row for example in changed.examples if example.path == "cat/5.png")
    differs = (changed.pixels != kept).any((1, 2, 3))
    assert np.flatnonzero(differs).tolist() == [row]
    make_image("data/dog/new.png")
    assert load(folder)[0].pixels.shape[0] == 41
    (folder / "dog/new.png").unlink()
    assert not packed_anew(load(folder)[1])
    np.testing.assert_array_equal(first.pixels, kept)


def test_each_image_section_has_a_pack_of_its_own(folder: Path, load: Load, packed_anew: PackedAnew) -> None:
    sections = [
        SMALL,
        Image(size=(5, 6)),
        Image(size=(6, 5), color="gray"),
        Image(size=(6, 5), fit="crop"),
        Image(size=(6, 5), range=(0.0, 128.0)),
    ]
    for image in sections:
        assert packed_anew(load(folder, image)[1])
    for image in (*sections, Image(size=(6, 5), range=(0.0, 255.0)), Image(size=(6, 5), standardize="auto")):
        assert not packed_anew(load(folder, image)[1])
    assert len(list_packs()) == len(sections)


def test_packs_are_listed_and_cleared(folder: Path, cache: Path, load: Load, packed_anew: PackedAnew) -> None:
    assert list_packs() == []
    assert clear_packs() == 0
    before = time.time()
    load(folder)
    load(folder, Image(size=(4, 4), color="gray"))
    latest, first = list_packs()
    assert (latest.images, latest.bytes, latest.source) == (40, 40 * 16, str(folder))
    assert first.bytes == 40 * 6 * 5 * 3
    assert before - 2 <= first.last_used <= latest.last_used
    assert clear_packs() >= latest.bytes + first.bytes
    assert list_packs() == []
    assert packed_anew(load(folder)[1])


def test_clearing_removes_nothing_else(folder: Path, cache: Path, load: Load, packed_anew: PackedAnew) -> None:
    load(folder)
    (pixels,) = cache.glob("packs/*/pixels.bin")
    key = pixels.parent.name
    mine = [
        *("notes.txt", "files/letter.npz", "surveys/2026.json", "packs/bags/rucksack.jpg", "packs/pixels.bin"),
        *("packs/old.partial/a.png", f"packs/{key}/mine.txt", f"files/{key}.npz.txt", "locks/door"),
    ]
    for name in mine:
        (cache / name).parent.mkdir(parents=True, exist_ok=True)
        (cache / name).write_text("mine")
    (left,) = [f".{file.name}.123.tmp" for file in cache.glob("files/*.npz") if len(file.stem) == 32]
    (cache / "files" / left).touch()

    def there() -> dict[str, int]:
        return {file.relative_to(cache).as_posix(): file.stat().st_size for file in cache.rglob("*") if file.is_file()}

    before = there()
    freed = clear_packs()
    assert {name for name in there() if not name.endswith(".lock")} == set(mine)
    assert freed == sum(before.values()) - sum(there().values()) > 3600
    assert list_packs() == []
    assert packed_anew(load(folder)[1])  # also beside what was left in the pack's folder
    assert len(list_packs()) == 1
    assert (cache / f"packs/{key}/mine.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("image", "kind"), [(SMALL, "png"), (Image(size=(6, 5), range=(0.0, 4095.0)), "png"), (SMALL, "tif")]
)
@pytest.mark.parametrize("trouble", [OSError(5, "Input/output error"), MemoryError()])
def test_a_failure_that_passes_is_not_kept(
    make_image: MakeImage,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    image: Image,
    kind: str,
    trouble: Exception,
    load: Load,
    packed_anew: PackedAnew,
) -> None:
    for index in range(6):
        make_image(f"data/cat/{index}.{kind}", deep=3000 if kind == "tif" else 0)
        make_image(f"data/dog/{index}.{kind}", deep=3000 if kind == "tif" else 0)
    (tmp_path / "data/cat/damaged.png").write_bytes(b"no picture")
    ill = tmp_path / f"data/dog/3.{kind}"
    real = Pillow.open

    def failing(stream: Any, **options: Any) -> Any:
        if stream.name == str(ill):
            raise trouble
        return real(stream, **options)

    def skipped() -> list[str]:
        return [image.path for image in first.skipped]

    monkeypatch.setattr(Pillow, "open", failing)
    first, events = load(tmp_path / "data", image)
    assert packed_anew(events)
    assert skipped() == ["cat/damaged.png", f"dog/3.{kind}"]
    first, events = load(tmp_path / "data", image)  # still ill: nothing is packed for it
    assert not packed_anew(events)
    assert skipped() == ["cat/damaged.png", f"dog/3.{kind}"]
    monkeypatch.setattr(Pillow, "open", real)
    first, events = load(tmp_path / "data", image)
    assert packed_anew(events)
    assert skipped() == ["cat/damaged.png"]
    assert len(first.pixels) == 12
    monkeypatch.setattr(Pillow, "open", failing)
    assert not packed_anew(load(tmp_path / "data", image)[1])


def test_a_damaged_pack_is_built_again(folder: Path, cache: Path, load: Load, packed_anew: PackedAnew) -> None:
    expected = np.array(load(folder)[0].pixels)
    (pixels,) = cache.glob("packs/*/pixels.bin")
    pixels.write_bytes(pixels.read_bytes()[:-1])
    dataset, events = load(folder)
    assert packed_anew(events)
    np.testing.assert_array_equal(dataset.pixels, expected)
    (records,) = cache.glob("packs/*/records.json")
    records.write_text("{}")
    assert packed_anew(load(folder)[1])
    for index in cache.glob("files/*.npz"):
        index.write_text("[")
    np.testing.assert_array_equal(load(folder)[0].pixels, expected)


def test_too_little_disk_is_said_before_anything_is_written(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, load: Load
) -> None:
    usage = shutil.disk_usage(cache)._replace(free=2000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DiskSpaceError) as caught:
        load(folder)
    assert caught.value.message == (
        f"packing 40 images of 6×5×3 needs 3.6 kB, and 2.0 kB are free in {cache / 'packs'}"
    )
    assert "IMGREC_CACHE" in caught.value.hint
    assert list((cache / "packs").iterdir()) == []


def test_a_disk_that_becomes_full(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, load: Load) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskSpaceError, match=r"the disk became full while packing 40 images of 6×5×3, .* 3\.6 kB"):
        load(folder)
    assert list((cache / "packs").iterdir()) == []
    monkeypatch.undo()


def test_an_interrupted_run_leaves_nothing(folder: Path, cache: Path) -> None:
    def interrupt(event: Event) -> None:
        if isinstance(event, Advance):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_dataset(Data(folder=str(folder)), SMALL, 0, interrupt)
    assert list((cache / "packs").iterdir()) == []


def test_a_cache_that_cannot_be_made(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, load: Load) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("IMGREC_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(InputError, match="cannot be made") as caught:
        load(folder)
    assert "IMGREC_CACHE" in caught.value.hint


LOAD = """
import sys, time
from imgrec_cli.config.images import Data, Image
from imgrec_cli.dataset import load_dataset, pack
from imgrec_cli.progress import Advance, Note
real = pack.decode
def slow(source, spec):
    time.sleep(float(sys.argv[2]))
    return real(source, spec)
pack.decode = slow
def tell(event):
    print(event.text if isinstance(event, Note) else event, flush=True)
load_dataset(Data(folder=sys.argv[1]), Image(size=(6, 5)), 0, tell)
"""


def start_run(folder: Path, seconds_per_image: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", LOAD, str(folder), str(seconds_per_image)], stdout=subprocess.PIPE, text=True
    )


def test_two_runs_at_once_build_one_pack(folder: Path, load: Load, packed_anew: PackedAnew) -> None:
    runs = [start_run(folder, 0.02) for _ in range(2)]
    told = [run.communicate()[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    assert sum("packing 40 images" in text for text in told) == 1
    assert sum("another run is packing these images" in text for text in told) <= 1
    assert len(list_packs()) == 1
    assert not packed_anew(load(folder)[1])


def test_a_killed_run_leaves_nothing_that_is_taken_for_a_pack(
    folder: Path, cache: Path, make_image: MakeImage, tmp_path: Path, load: Load
) -> None:
    with start_run(folder, 0.2) as run:
        assert run.stdout is not None
        assert run.stdout.readline().startswith("packing 40 images")
        run.stdout.readline()
        run.kill()
    (partial,) = (cache / "packs").iterdir()
    assert list_packs() == []
    for name in ("cat", "dog"):
        for index in range(3):
            make_image(f"other/{name}/{index}.png")
    load(tmp_path / "other")  # any later build clears up
    assert not partial.exists()
    dataset, _ = load(folder)
    assert len(dataset.examples) == 40
    assert len(list_packs()) == 2


def test_clearing_spares_a_pack_that_is_being_built(folder: Path) -> None:
    with start_run(folder, 0.03) as run:
        assert run.stdout is not None
        run.stdout.readline()
        clear_packs()
        run.stdout.read()
    assert run.returncode == 0
    assert len(list_packs()) == 1
