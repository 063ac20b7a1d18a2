"""Where an export may be written: a bundle is replaced, nothing else is."""

import shutil
from pathlib import Path

import pytest

from imgrec_cli.api import export
from imgrec_cli.bundle import write_zip
from imgrec_cli.errors import InputError

BUNDLE = Path(__file__).parent / "fixtures" / "bundle-1"


@pytest.fixture
def run(tmp_path):
    """As much of a run as is looked at before anything is written."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "run.json").write_text('{"format": 1, "status": "failed"}', encoding="utf-8")
    return folder


def test_an_export_replaces_neither_a_website_nor_an_archive_of_photos(run, tmp_path):
    website, photos = tmp_path / "website", tmp_path / "photos.zip"
    website.mkdir()
    (website / "manifest.json").write_text('{"name": "My site", "start_url": "/"}', encoding="utf-8")
    (website / "index.html").write_text("mine", encoding="utf-8")
    shutil.make_archive(str(tmp_path / "photos"), "zip", website)
    before = photos.read_bytes()
    for place in (website, photos):
        with pytest.raises(InputError, match="exists and is no bundle") as caught:
            export(run, ["litert"], place)
        assert caught.value.hint == "name another place, or remove it"
    assert (website / "index.html").read_text(encoding="utf-8") == "mine"
    assert photos.read_bytes() == before


def test_a_zip_does_not_take_the_place_of_a_bundles_folder(run, tmp_path):
    shutil.copytree(BUNDLE, tmp_path / "model.zip")
    write_zip(BUNDLE, tmp_path / "model")
    with pytest.raises(InputError, match=r"model\.zip: is a folder, which this export cannot replace"):
        export(run, ["litert"], tmp_path / "model.zip")
    with pytest.raises(InputError, match=r"model: is a file, which this export cannot replace"):
        export(run, ["litert"], tmp_path / "model")
