"""Tar shards as WebDataset writes them: the same listing as the folder they were made from, or a clear error."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from imgrec_cli.config import Data, Image
from imgrec_cli.dataset import load_dataset, scan, scan_labelled
from imgrec_cli.errors import BadImageError, DataError
from imgrec_cli.imaging import PixelSpec, load_pixels
from imgrec_cli.storage import stamp_of

SPEC = PixelSpec((7, 5), "rgb", "stretch")
SMALL = Image(size=(7, 5))
Write = Callable[..., Path]


def png(seed: int) -> bytes:
    stream = io.BytesIO()
    Pillow.fromarray(np.random.default_rng(seed).integers(0, 256, (9, 7, 3), np.uint8)).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """write("a.tar", {"cat/1.png": b"…"}) writes a shard."""

    def written(name: str, files: dict[str, bytes]) -> Path:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(file, "w") as tar:
            for member, content in files.items():
                info = tarfile.TarInfo(member)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        return file

    return written


def refused(place: Path | str, **keys: object) -> DataError:
    with pytest.raises(DataError) as caught:
        scan(Data(folder=str(place), **keys))  # type: ignore[arg-type]
    return caught.value


def test_shards_of_webdataset_are_the_folder_they_were_made_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    webdataset = pytest.importorskip("webdataset", reason="the writer of such shards")
    names = [f"{name}/{number}" for number in range(12) for name in ("Käse", "dog", "10", "9")]
    for seed, key in enumerate(names):
        (tmp_path / "photos" / key).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / f"{key}.png").write_bytes(png(seed))
    for shard in range(3):
        with webdataset.TarWriter(str(tmp_path / f"train-{shard:02d}.tar")) as writer:
            for seed in range(shard, len(names), 3):
                writer.write({"__key__": names[seed], "png": png(seed), "cls": names[seed].partition("/")[0]})
        with webdataset.TarWriter(str(tmp_path / f"plain-{shard:02d}.tar")) as writer:  # no label but the folder
            for seed in range(shard, len(names), 3):
                writer.write({"__key__": names[seed], "png": png(seed)})
    expected = load_dataset(Data(folder=str(tmp_path / "photos")), SMALL, 1)
    assert expected.class_names == ("9", "10", "dog", "Käse")
    for row in ("train", "plain"):
        monkeypatch.setenv("IMGREC_CACHE", str(tmp_path / f"cache of {row}"))  # else the pack of the folder is found
        found = load_dataset(Data(folder=str(tmp_path / f"{row}-{{00..02}}.tar")), SMALL, 1)
        assert found.class_names == expected.class_names
        assert [(e.path, e.label, e.split) for e in found.examples] == [
            (e.path, e.label, e.split) for e in expected.examples
        ]
        np.testing.assert_array_equal(found.pixels, expected.pixels)
        assert found.fingerprint == expected.fingerprint
        assert found.shown[0].startswith(f"{row}-0")


def test_a_label_stands_beside_the_image(write: Write) -> None:
    files: dict[str, bytes] = {}
    for number in range(6):
        files |= {f"{number:03d}.jpg": png(number), f"{number:03d}.cls": str(number % 2).encode() + b"\n"}
    for number in range(6, 9):
        files |= {f"{number:03d}.jpg": png(number), f"{number:03d}.json": json.dumps({"label": 10}).encode()}
    files |= {"000.json": b'{"label": "not this one"}', "000.txt": b"a caption", "._000.jpg": b"litter"}
    listing = scan(Data(folder=str(write("a.tar", files))))
    assert listing.class_names == ("0", "1", "10")
    assert [(e.path, listing.class_names[e.label]) for e in listing.examples][:2] == [
        ("000.jpg", "0"),
        ("002.jpg", "0"),
    ]
    assert listing.warnings == (f"{listing.folders[0]}: 1 file is not an image and was ignored: 1 .txt",)


def test_names_that_begin_anew_in_every_shard_get_the_shards_name(write: Write) -> None:
    for shard in ("a", "b"):
        write(f"{shard}.tar", {f"{name}/{n}.png": png(n) for name in ("cat", "dog") for n in range(3)})
    folder = write("b.tar", {f"{name}/{n}.png": png(n) for name in ("cat", "dog") for n in range(3)}).parent
    listing = scan(Data(folder=[str(folder / "a.tar"), str(folder / "b.tar")]))  # type: ignore[arg-type]
    assert listing.examples[0].path == "a.tar/cat/0.png"
    for number, shard in enumerate(("a", "b")):
        (folder / f"{shard}.tar").rename(folder / f"s{number}.tar")
    listing = scan(Data(folder=str(folder / "s{0..1}.tar")))
    assert [e.path for e in listing.examples][:4] == [f"s{s}/cat/{n}.png" for s in (0, 1) for n in range(3)][:4]


def test_label_from_and_splits(write: Write) -> None:
    for split, count in (("train", 6), ("val", 2)):
        write(f"{split}.tar", {f"{split}_{'cat' if n % 2 else 'dog'}_{n}.png": png(n) for n in range(count)})
    folder = write("x.tar", {"a/a.png": png(0)}).parent
    data = Data(train=str(folder / "train.tar"), validation=str(folder / "val.tar"), label_from="_([a-z]+)_")
    listing = scan(data)
    assert listing.class_names == ("cat", "dog")
    assert listing.given == {"validation"}
    twice = Data(train=str(folder / "train.tar"), validation=str(folder / "train.tar"))
    with pytest.raises(DataError, match="lie among the"):
        scan(twice)


def test_a_member_is_opened_by_its_path(write: Write) -> None:
    tar = write("a.tar", {"cat/1.png": png(1), "./dog/2.png": png(2)})
    np.testing.assert_array_equal(load_pixels(tar / "cat" / "1.png", SPEC), load_pixels(png(1), SPEC))
    np.testing.assert_array_equal(load_pixels(tar / "dog" / "2.png", SPEC), load_pixels(png(2), SPEC))
    with pytest.raises(BadImageError, match=r"no such file in .*a\.tar"):
        load_pixels(tar / "cat" / "2.png", SPEC)
    with pytest.raises(BadImageError, match="no such file or directory"):
        load_pixels(tar.parent / "b.tar" / "cat" / "1.png", SPEC)


def test_a_shard_that_changed_is_read_anew(write: Write) -> None:
    def files(first: int) -> dict[str, bytes]:
        return {f"{name}/{n}.png": png(first + n + 10 * (name == "cat")) for name in ("cat", "dog") for n in range(4)}

    tar = write("a.tar", files(0))
    before = load_dataset(Data(folder=str(tar)), SMALL, 0)
    stamp = stamp_of(f"{tar}/cat/0.png")
    assert load_dataset(Data(folder=str(tar)), SMALL, 0).digests == before.digests
    write("a.tar", {"more/0.png": png(99), "more/1.png": png(98), "more/2.png": png(97), **files(50)})
    after = load_dataset(Data(folder=str(tar)), SMALL, 0)
    assert after.class_names == ("cat", "dog", "more")
    assert not set(after.digests) & set(before.digests)
    assert stamp_of(f"{tar}/cat/0.png") != stamp


def test_what_is_wrong_with_a_shard_is_said(write: Write, tmp_path: Path) -> None:
    good = {f"{name}/{n}.png": png(n) for name in ("cat", "dog") for n in range(3)}
    tar = write("a-0.tar", good)
    error = refused(tmp_path / "a-{0..2}.tar")
    assert error.message == f"data.folder: {tmp_path / 'a-1.tar'} and 1 more: no such tar file"
    assert refused(tmp_path / "a-{2..0}.tar").hint == "write {0..2}"

    whole = tar.read_bytes()
    for cut in (tar.stat().st_size // 2, 3 * 1024 + 100, 1024):
        tar.write_bytes(whole[:cut])
        assert "damaged" in refused(tar).message, cut
    tar.write_bytes(whole[:1024] + b"x" * 512 + whole[1536:])
    assert refused(tar).message == f"{tar}: damaged at byte 1,024, or cut off there"
    import gzip

    tar.write_bytes(gzip.compress(whole))
    assert "compressed ones have to be unpacked first" in refused(tar).hint

    write("twice.tar", good)
    with tarfile.open(tmp_path / "twice.tar", "a") as file:
        file.addfile(tarfile.TarInfo("cat/1.png"))
    assert refused(tmp_path / "twice.tar").message.endswith("twice.tar: cat/1.png is in it twice")
    assert "1.cls: no label: it is empty" in refused(write("e.tar", {"1.png": png(1), "1.cls": b" "})).message
    assert "1.json: no label: Expecting" in refused(write("j.tar", {"1.png": png(1), "1.json": b"{"})).message
    some = refused(write("s.tar", {"1.png": png(1), "1.cls": b"cat", "2.png": png(2)}))
    assert "1 image without KEY.cls or KEY.json with a label, such as 2.png; others have one" in some.message
    none = refused(write("n.tar", {"1.png": png(1), "2.png": png(2)}))
    assert "2 images without KEY.cls" in none.message
    assert "data.label_from" in none.hint


def test_a_folder_of_shards_is_answered_with_their_names(write: Write) -> None:
    for name in ("train-08.tar", "train-09.tar", "train-10.tar", "val.tar"):
        folder = write(f"all/{name}", {"cat/1.png": png(1)}).parent
    error = refused(folder)
    assert error.message == f"{folder}: 4 tar files in it, and no images beside them"
    assert error.hint == (
        f'shards are named by their files: --set "data.folder={folder}/train-{{08..10}}.tar" or '
        f"--set data.folder={folder}/val.tar"
    )


def test_a_folder_to_judge_on_may_be_shards(write: Write) -> None:
    write("t-0.tar", {"cat/1.png": png(1), "dog/1.png": png(2)})
    folder = write("t-1.tar", {"cat/2.png": png(3), "dog/0.png": png(4)}).parent
    found = scan_labelled(folder / "t-{0..1}.tar")
    assert found == {
        "cat": [("cat/1.png", folder / "t-0.tar/cat/1.png"), ("cat/2.png", folder / "t-1.tar/cat/2.png")],
        "dog": [("dog/0.png", folder / "t-1.tar/dog/0.png"), ("dog/1.png", folder / "t-0.tar/dog/1.png")],
    }
    with pytest.raises(DataError, match="a URL is named in a config, not here"):
        scan_labelled(Path("s3://bucket/photos"))
