"""Images behind URLs: listed once, followed when they change, and every failure in words with the right exit code."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from imgrec_cli.config import Data, Image, load_config
from imgrec_cli.config.writing import resolved_yaml
from imgrec_cli.dataset import load_dataset, scan
from imgrec_cli.dataset.first_look import look_at
from imgrec_cli.dataset.manifest import Row, write_manifest
from imgrec_cli.errors import ConfigError, DataError, MissingExtraError, UnreachableError
from imgrec_cli.storage import remote

fsspec = pytest.importorskip("fsspec", reason="the `remote` extra")
SMALL = Image(size=(7, 5))


@pytest.fixture
def photos(make_image) -> Iterator[str]:
    """URL of a folder in memory with train/ and test/ of class folders, and the same folder on disk below tmp_path."""
    system = fsspec.filesystem("memory")
    for split, count in (("train", 8), ("test", 3)):
        for name in ("cat", "dog"):
            for number in range(count):
                file = make_image(f"photos/{split}/{name}/{number}.png")
                system.pipe_file(f"/photos/{split}/{name}/{number}.png", file.read_bytes())
    yield "memory://photos"
    system.rm("/photos", recursive=True)


def test_a_folder_behind_a_url_is_the_folder_on_disk(
    photos: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = load_dataset(Data(folder=str(tmp_path / "photos")), SMALL, 3)
    monkeypatch.setenv("IMGREC_CACHE", str(tmp_path / "another"))  # else the pack of the folder is found
    found = load_dataset(Data(folder=f"{photos}/"), SMALL, 3)
    assert [(e.path, e.label, e.split) for e in found.examples] == [
        (e.path, e.label, e.split) for e in expected.examples
    ]
    np.testing.assert_array_equal(found.pixels, expected.pixels)
    assert (found.fingerprint, found.shown) == (expected.fingerprint, expected.shown)
    first = next(e for e in found.examples if e.split == "test")
    assert first.file == "memory://photos/test/cat/0.png"
    assert look_at(Data(folder=photos), Path("photos")).images == 16


def test_it_is_asked_for_its_names_once_and_for_nothing_where_the_pack_is_known(
    photos: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    kind = type(fsspec.filesystem("memory"))
    for name in ("find", "cat_file"):
        real = getattr(kind, name)
        monkeypatch.setattr(
            kind,
            name,
            lambda self, path, *a, name=name, real=real, **k: asked.append(name) or real(self, path, *a, **k),
        )
    load_dataset(Data(folder=photos), SMALL, 0)
    assert (asked.count("find"), asked.count("cat_file")) == (1, 22)
    asked.clear()
    load_dataset(Data(folder=photos), SMALL, 0)
    assert asked == ["find"]


def test_a_changed_file_is_read_again(photos: str, make_image) -> None:
    before = load_dataset(Data(folder=photos), SMALL, 0)
    fsspec.filesystem("memory").pipe_file("/photos/train/cat/0.png", make_image("other.png").read_bytes())
    after = load_dataset(Data(folder=photos), SMALL, 0)
    assert len(set(before.digests) - set(after.digests)) == 1


def test_a_network_that_is_lost_midway_ends_it_and_leaves_nothing(
    photos: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = type(fsspec.filesystem("memory"))
    real, asked = kind.cat_file, []

    def lost(self, path, *arguments, **keywords):
        asked.append(path)
        if len(asked) > 9:
            raise ConnectionResetError(104, "Connection reset by https://host/a?X-Amz-Signature=secret")
        return real(self, path, *arguments, **keywords)

    monkeypatch.setattr(kind, "cat_file", lost)
    with pytest.raises(UnreachableError) as caught:
        load_dataset(Data(folder=photos), SMALL, 0)
    assert caught.value.exit_code == 11
    assert caught.value.message.startswith("memory://photos/")
    assert "Connection reset by https://host/a?…" in caught.value.message
    assert "secret" not in caught.value.message
    assert list((cache / "packs").iterdir()) == []
    monkeypatch.setattr(kind, "cat_file", real)
    assert len(load_dataset(Data(folder=photos), SMALL, 0).pixels) == 22


def test_a_file_that_vanished_since_the_list_is_left_out_by_name(photos: str, monkeypatch: pytest.MonkeyPatch) -> None:
    listing = scan(Data(folder=photos))
    fsspec.filesystem("memory").rm("/photos/train/cat/0.png")
    dataset = load_dataset(Data(folder=photos), SMALL, 0, listing=listing)
    assert [(one.path, one.reason) for one in dataset.skipped] == [("cat/0.png", "no such file behind the URL")]


def test_shards_behind_a_url(photos: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tarfile

    system = fsspec.filesystem("memory")
    for number in range(2):
        with tarfile.open(tmp_path / "s.tar", "w") as tar:
            for file in sorted((tmp_path / "photos" / "train").rglob("*.png"))[number::2]:
                tar.add(file, file.relative_to(tmp_path / "photos" / "train").as_posix())
        system.pipe_file(f"/photos/shards/s{number}.tar", (tmp_path / "s.tar").read_bytes())
    expected = load_dataset(Data(folder=str(tmp_path / "photos" / "train")), SMALL, 3)
    monkeypatch.setenv("IMGREC_CACHE", str(tmp_path / "another"))
    found = load_dataset(Data(folder="memory://photos/shards/s{0..1}.tar"), SMALL, 3)
    assert found.fingerprint == expected.fingerprint
    np.testing.assert_array_equal(found.pixels, expected.pixels)
    with pytest.raises(DataError) as caught:
        scan(Data(folder="memory://photos/shards"))
    assert "data.folder=memory://photos/shards/s{0..1}.tar" in caught.value.hint
    with pytest.raises(DataError, match=r"s2\.tar: there is nothing"):
        scan(Data(folder="memory://photos/shards/s{0..2}.tar"))


def test_what_cannot_be_meant_is_said(photos: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="memory://nothing: there is nothing"):
        scan(Data(folder="memory://nothing"))
    with pytest.raises(DataError, match="Protocol not known: photo") as caught:
        scan(Data(folder="photo://nothing"))
    assert "s3://" in caught.value.hint
    with pytest.raises(DataError, match="a manifest names files on disk"):
        write_manifest(tmp_path / "split.csv", [Row("a", "memory://photos/a.png", "cat", None, "")])
    monkeypatch.setitem(__import__("sys").modules, "fsspec.core", None)
    with pytest.raises(MissingExtraError) as missing:
        scan(Data(folder=photos))
    assert '".[remote]"' in missing.value.hint


def test_a_config_keeps_urls_and_refuses_what_opens_doors(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"

    def config(text: str):
        file.write_text(f"version: 1\ndata: {{{text}}}\nmodel: {{type: layers, layers: [{{type: flatten}}]}}\n")
        return load_config(file)

    loaded = config("folder: s3://bucket/photos")
    assert loaded.data.folder == "s3://bucket/photos"
    assert "folder: s3://bucket/photos" in resolved_yaml(loaded, tmp_path)
    for secret in ("s3://key:word@bucket/photos", '"https://host/photos?X-Amz-Signature=1"'):
        with pytest.raises(ConfigError, match="must hold no password, key or signature"):
            config(f"train: {secret}")
    with pytest.raises(ConfigError, match=r"data\.manifest: must lie on this machine"):
        config("manifest: s3://bucket/labels.csv")


def test_a_server_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("aiohttp", reason="the `remote` extra")
    with socket.socket() as taken:  # bound, and never listening
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/photos"
        with pytest.raises(UnreachableError, match="cannot be read") as caught:
            scan(Data(folder=url))
    assert url in caught.value.message


def test_a_server_on_loopback_by_http(photos: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("aiohttp", reason="the `remote` extra")
    import threading
    from functools import partial
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    import tarfile

    with tarfile.open(tmp_path / "photos" / "all.tar", "w") as tar:
        tar.add(tmp_path / "photos" / "train", ".")
    (tmp_path / "photos" / "train" / "cat").rename(tmp_path / "photos" / "train" / "big cat")
    (tmp_path / "photos" / "test" / "cat").rename(tmp_path / "photos" / "test" / "big cat")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_address[1]}/photos"
            (tmp_path / "photos" / "all.tar").rename(tmp_path / "all.tar")
            found = load_dataset(Data(folder=url), SMALL, 3)
            expected = load_dataset(Data(folder=str(tmp_path / "photos")), SMALL, 3)
            assert found.class_names == ("big cat", "dog")
            assert found.fingerprint == expected.fingerprint
            # this server answers a wish for a part of a file with all of it, and the list is read once
            passes: list[str] = []
            real = tarfile.open
            monkeypatch.setattr(tarfile, "open", lambda *a, **k: passes.append("") or real(*a, **k))
            shard = load_dataset(Data(folder=f"{url.removesuffix('/photos')}/all.tar"), SMALL, 3)
            assert len(passes) == 1
            assert sorted(shard.digests) == sorted(
                found.digests[e.row] for e in found.examples if "/test/" not in e.file
            )
        finally:
            server.shutdown()
            thread.join()


def test_nothing_of_the_environments_keys_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    with pytest.raises(DataError) as caught, remote._errors_of("s3://bucket/photos"):
        raise PermissionError("Access Denied")
    assert caught.value.message == "s3://bucket/photos: no access: Access Denied"
    assert "hidden" not in caught.value.hint
    assert os.environ["AWS_SECRET_ACCESS_KEY"] == "hidden"
