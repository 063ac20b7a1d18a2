"""Processes that share the work of a pack: each decodes and keeps its own parts, and all know of all images.

The processes are threads here, each with a cache of its own; tests/training/test_hosts.py has real ones.
"""

import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from imgrec_cli import machine
from imgrec_cli.config.images import Data, Image
from imgrec_cli.dataset import Dataset, Parts, cache, clear_packs, list_packs, load_dataset, pack, scan
from imgrec_cli.errors import DataError, DiskSpaceError, InputError
from imgrec_cli.imaging import load_pixels
from imgrec_cli.progress import Advance, Event, Note

MakeImage = Callable[..., Path]
SMALL = Image(size=(16, 16))
COUNT = 4


@dataclass
class Hosts:
    """Some processes, as threads. `opened[i]` are the names of the files that process i has examined."""

    folder: Path
    caches: list[Path]
    opened: list[list[str]] = field(default_factory=list)
    events: list[list[Event]] = field(default_factory=list)
    here: threading.local = field(default_factory=threading.local)

    def load(self, image: Image = SMALL, **data: Any) -> list[Dataset]:
        """The data set of every process; of several errors the first that is none of being left alone."""
        number = len(self.caches)
        said: list[bytes] = [b""] * number
        barrier = threading.Barrier(number, timeout=60)

        def exchange(data: bytes) -> list[bytes]:
            said[self.here.index] = data
            barrier.wait()
            told = list(said)
            barrier.wait()
            return told

        def run(index: int) -> Dataset:
            self.here.index = index
            each = COUNT // number
            shared = Parts(COUNT, range(index * each, (index + 1) * each), exchange)
            wanted = Data(folder=str(self.folder), **data)
            try:
                dataset = load_dataset(wanted, image, 0, self.events[index].append, parts=shared)
                self.statistics[index] = dataset.pixel_statistics()
                return dataset
            except BaseException:
                barrier.abort()
                raise

        self.opened, self.events = [[] for _ in self.caches], [[] for _ in self.caches]
        self.statistics: list[Any] = [None] * number
        with ThreadPoolExecutor(number) as pool:
            results = list(pool.map(lambda index: _caught(run, index), range(number)))
        errors = [result for result in results if isinstance(result, BaseException)]
        for error in errors:
            if not isinstance(error, threading.BrokenBarrierError):
                raise error
        return results

    def packed(self) -> list[str]:
        """What the processes said of packing."""
        texts = [event.text for events in self.events for event in events if isinstance(event, Note)]
        return [text.partition(": ")[0] for text in texts if text.startswith("packing")]


def _caught(function: Callable[[int], Dataset], index: int) -> Any:
    try:
        return function(index)
    except BaseException as error:
        return error


@pytest.fixture
def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Hosts]:
    """hosts(2) are two processes that have caches of their own, hosts(2, shared=True) one cache."""

    def made(number: int, *, shared: bool = False) -> Hosts:
        found = Hosts(tmp_path / "data", [tmp_path / f"cache{0 if shared else i}" for i in range(number)])
        alone, real = machine.cache_folder, pack.examine

        def folder() -> Path:
            return found.caches[found.here.index] if hasattr(found.here, "index") else alone()

        def examine(path: str, spec: Any) -> Any:
            found.opened[found.here.index].append(Path(path).relative_to(found.folder).as_posix())
            return real(path, spec)

        for module in (machine, cache):
            monkeypatch.setattr(module, "cache_folder", folder)
        monkeypatch.setattr(pack, "examine", examine)
        return found

    return made


@pytest.fixture
def folder(tmp_path: Path, make_image: MakeImage) -> Path:
    """Twenty cats and twenty dogs, among them what an audit finds: an image that cannot be read, the same picture twice
    and nearly the same one, each in another part than its fellow."""
    data = tmp_path / "data"
    for name in ("cat", "dog"):
        for index in range(20):
            picture = make_image(f"data/{name}/{index:02d}.png")
            Pillow.open(picture).resize((40, 30), Pillow.Resampling.BICUBIC).save(picture)
    (data / "cat" / "05.png").write_bytes(b"no image")
    shutil.copy(data / "dog" / "02.png", data / "dog" / "12.png")
    Pillow.open(data / "cat" / "08.png").point(lambda value: int(value * 0.9)).save(data / "cat" / "14.png")
    return data


def plain(dataset: Dataset) -> dict[str, Any]:
    """What must not depend on who packed."""
    names = ("examples", "skipped", "digests", "fingerprint", "findings", "found_names", "identities", "shown")
    return {name: getattr(dataset, name) for name in names} | {"places": dataset.places.tolist()}


@pytest.mark.parametrize("number", [2, 4])
def test_every_process_finds_what_one_alone_does(folder: Path, hosts: Callable[..., Hosts], number: int) -> None:
    corrections = folder.parent / "corrections.csv"
    corrections.write_text("path,action,label,note,hash\ndog/03.png,exclude,,,\ncat/04.png,relabel,dog,,\n")
    alone = load_dataset(Data(folder=str(folder), corrections=str(corrections)), SMALL, 0)
    kinds = {finding.kind for finding in alone.findings}
    assert kinds == {"undecodable", "duplicate", "near_duplicate"}
    found = hosts(number)
    for index, dataset in enumerate(found.load(corrections=str(corrections))):
        assert plain(dataset) == plain(alone)
        assert found.statistics[index] == alone.pixel_statistics()


def test_a_process_opens_and_keeps_its_own_parts(folder: Path, hosts: Callable[..., Hosts]) -> None:
    found = hosts(2)
    datasets = found.load()
    listed = [Path(example.file).relative_to(folder).as_posix() for example in scan(Data(folder=str(folder))).examples]
    for index, own in enumerate(((0, 1), (2, 3))):
        assert sorted(found.opened[index]) == sorted(name for p, name in enumerate(listed) if p % COUNT in own)
        kept = sum(file.stat().st_size for file in found.caches[index].glob("packs/*/pixels.bin"))
        assert kept == (20 if index else 19) * 16 * 16 * 3
        advances = [event for event in found.events[index] if isinstance(event, Advance)]
        assert advances[-1] == Advance("packing", 20, 20)
    assert found.packed() == [
        "packing 20 images of 16×16×3, parts 1, 2 of 4",
        "packing 20 images of 16×16×3, parts 3, 4 of 4",
    ]
    assert all(len(dataset.pixels) == 39 for dataset in datasets)


def test_rows_of_other_parts_are_decoded_when_they_are_asked_for(folder: Path, hosts: Callable[..., Hosts]) -> None:
    found = hosts(2)
    first = found.load()[0]
    found.here.index, found.opened = 0, [[], []]
    expected = np.stack([load_pixels(Path(e.file), first.spec) for e in sorted(first.examples, key=lambda e: e.row)])
    own = np.flatnonzero(first.places % COUNT < 2)
    np.testing.assert_array_equal(first.pixels[own], expected[own])
    assert found.opened == [[], []]
    for index in (slice(None), slice(3, 9, 2), 7, [5, 1], np.array([[3, 30], [30, 2]])):
        np.testing.assert_array_equal(first.pixels[index], expected[index])
    assert first.pixels.shape == expected.shape
    assert first.pixels.dtype == np.uint8


def test_a_file_that_has_changed_since_is_not_taken_for_what_it_was(
    folder: Path, hosts: Callable[..., Hosts], make_image: MakeImage
) -> None:
    first = hosts(2).load()[0]
    changed = next(example for example in first.examples if first.places[example.row] % COUNT == 3)
    shutil.copy(make_image("other.png"), changed.file)
    with pytest.raises(InputError, match="not what it was when the images were listed: its content has changed"):
        first.pixels[changed.row]
    Path(changed.file).unlink()
    with pytest.raises(InputError, match="not what it was when the images were listed: no such file"):
        first.pixels[changed.row]


@pytest.mark.parametrize("shared", [False, True])
def test_a_second_training_packs_nothing(folder: Path, hosts: Callable[..., Hosts], shared: bool) -> None:
    found = hosts(2, shared=shared)
    first = found.load()[0]
    assert len(found.packed()) == 2
    second = found.load()[1]
    assert found.packed() == []
    assert found.opened == [[], []]
    assert plain(first) == plain(second)
    assert len(list(found.caches[0].glob("packs/*"))) == (4 if shared else 2)


def test_parts_are_kept_when_other_processes_take_them(folder: Path, hosts: Callable[..., Hosts]) -> None:
    found = hosts(4, shared=True)
    found.load()
    found.caches = found.caches[:2]
    found.load()
    assert found.packed() == []


def test_a_changed_image_packs_its_own_part_anew(
    folder: Path, hosts: Callable[..., Hosts], make_image: MakeImage
) -> None:
    found = hosts(2)
    found.load()
    listed = [Path(example.file) for example in scan(Data(folder=str(folder))).examples]
    shutil.copy(make_image("other.png"), listed[6])
    found.load()
    assert found.packed() == ["packing 10 images of 16×16×3, part 3 of 4"]


def test_a_whole_pack_is_used_where_there_is_one(
    folder: Path, hosts: Callable[..., Hosts], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = hosts(2)
    found.here.index, found.opened, found.events = 0, [[]], [[]]
    alone = load_dataset(Data(folder=str(folder)), SMALL, 0)  # into the first one's cache
    first, second = found.load()
    assert found.packed() == ["packing 20 images of 16×16×3, parts 3, 4 of 4"]
    assert isinstance(first.pixels, np.memmap)
    assert plain(first) == plain(second) == plain(alone)

    # what the other one cannot read is of use to none, though it is in the pack here
    listed = scan(Data(folder=str(folder))).examples
    real, lost = pack.examine, listed[7].file
    shutil.rmtree(found.caches[1])
    monkeypatch.setattr(
        pack,
        "examine",
        lambda path, spec: (
            (pack.Facts("", "", "Input/output error", None, True), None)
            if path == lost and found.here.index == 1
            else real(path, spec)
        ),
    )
    first, second = found.load()
    assert plain(first) == plain(second)
    assert [image.reason for image in first.skipped] == [second.skipped[0].reason, "Input/output error"]
    found.here.index = 0
    for example in first.examples:
        np.testing.assert_array_equal(first.pixels[example.row], load_pixels(Path(example.file), first.spec))


def test_deep_images_in_one_part_give_all_the_same_range(
    tmp_path: Path, hosts: Callable[..., Hosts], make_image: MakeImage
) -> None:
    for index in range(24):
        make_image(f"data/{'cat' if index < 12 else 'dog'}/{index:02d}.png", deep=1000 if index % 4 == 3 else 0)
    gray = Image(size=(8, 8), color="gray")
    found = hosts(2)
    for image in (gray, gray):  # the second time the survey is known to one of them
        first, second = found.load(image)
        assert first.spec.range == second.spec.range == (0.0, 1023.0)
        assert plain(first) == plain(second)
    assert found.packed() == []


def test_parts_are_listed_and_cleared_like_packs(
    folder: Path, hosts: Callable[..., Hosts], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = hosts(2, shared=True)
    found.load()
    found.here.index = 0
    told = {info.source: (info.images, info.bytes) for info in list_packs()}
    assert told[f"{folder}, part 4 of 4"] == (10, 10 * 16 * 16 * 3)
    assert len(told) == 4
    (found.caches[0] / "packs" / f"{'0' * 32}.partial").mkdir()
    assert clear_packs() > 39 * 16 * 16 * 3
    assert list((found.caches[0] / "packs").iterdir()) == []


def test_a_pack_of_a_part_is_not_taken_for_a_whole_one(folder: Path, hosts: Callable[..., Hosts]) -> None:
    found = hosts(2)
    found.load()
    listed = scan(Data(folder=str(folder))).examples
    for place, example in enumerate(listed):  # what remains are the images of a part
        if place % COUNT != 0:
            Path(example.file).unlink()
    found.here.index = 0
    said: list[Event] = []
    load_dataset(Data(folder=str(folder)), SMALL, 0, said.append)
    assert any(isinstance(event, Note) and event.text.startswith("packing 10 images") for event in said)


def test_a_disk_too_small_for_all_own_parts_is_said_before_the_first(
    folder: Path, hosts: Callable[..., Hosts], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = hosts(2)
    room = shutil._ntuple_diskusage(20_000, 0, 10 * 16 * 16 * 3)  # enough for one part
    monkeypatch.setattr(shutil, "disk_usage", lambda path: room)
    with pytest.raises(DiskSpaceError, match=r"packing 20 images of 16×16×3, parts ., . of 4 needs 15\.4 kB"):
        found.load()
    assert found.opened == [[], []]


def test_a_part_may_hold_no_readable_image_but_not_all(
    tmp_path: Path, hosts: Callable[..., Hosts], make_image: MakeImage
) -> None:
    for index in range(16):
        make_image(f"data/{'cat' if index < 8 else 'dog'}/{index:02d}.png")
    images = sorted((tmp_path / "data").rglob("*.png"))
    for image in images[3::4]:
        image.write_bytes(b"no image")
    found = hosts(2)
    assert {len(dataset.pixels) for dataset in found.load()} == {12}
    for image in images:
        image.write_bytes(b"no image")
    with pytest.raises(DataError, match="none of the 16 images can be read"):
        found.load()


def test_of_parts_the_one_without_a_file_is_empty(
    tmp_path: Path, hosts: Callable[..., Hosts], make_image: MakeImage
) -> None:
    for name in ("train/cat/1", "train/dog/1", "validation/cat/1"):
        make_image(f"data/{name}.png")
    assert {len(dataset.pixels) for dataset in hosts(2).load()} == {3}
