"""Bundles describe themselves, and damaged or foreign ones are said to be."""

import json
import shutil

import numpy as np
import pytest

from imgrec_cli.bundle import FileRecord, Manifest, Parity, check_sizes, find_bundle
from imgrec_cli.errors import InputError
from imgrec_cli.imaging import PixelSpec

MANIFEST = Manifest(
    name="x",
    created="2026-01-01T00:00:00Z",
    class_names=["b", "ä"],
    pixels=PixelSpec(size=(8, 6), color="gray", fit="pad", range=(0, 4095)),
    files={"model.tflite": FileRecord(3, "ab")},
    parity=Parity(1, 0.0, 0, 0),
    versions={"imgrec": "0"},
)


def test_a_manifest_comes_back_as_it_was(tmp_path):
    MANIFEST.write(tmp_path)
    assert Manifest.read(tmp_path) == MANIFEST


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: {**values, "format": 99}, "bundle format 99, this imgrec reads format 1"),
        (lambda values: {key: value for key, value in values.items() if key != "pixels"}, "damaged: KeyError"),
        (lambda values: [values], "damaged: TypeError"),
    ],
)
def test_manifests_that_cannot_be_used_are_named(tmp_path, change, message):
    MANIFEST.write(tmp_path)
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(InputError, match=message):
        Manifest.read(tmp_path)


def test_a_cut_off_model_is_noticed(tmp_path):
    MANIFEST.write(tmp_path)
    (tmp_path / "model.tflite").write_bytes(b"12")
    with pytest.raises(InputError, match=r"model.tflite: damaged: 2 bytes instead of 3"):
        check_sizes(tmp_path, MANIFEST)


def test_a_manifest_cannot_name_files_elsewhere(tmp_path):
    outside = Manifest(
        **{**{f: getattr(MANIFEST, f) for f in MANIFEST.__slots__}, "files": {"../x": FileRecord(1, "a")}}
    )
    with pytest.raises(InputError, match=r"names a file outside the bundle: \.\./x"):
        check_sizes(tmp_path, outside)


def test_what_is_no_bundle_is_said(tmp_path):
    with pytest.raises(InputError, match="no such run or bundle"):
        find_bundle(tmp_path / "missing")
    with pytest.raises(InputError, match="neither a run nor a bundle"):
        find_bundle(tmp_path)


@pytest.mark.tf
def test_a_shipped_bundle_answers_its_self_test_and_holds_no_picture_of_the_user(tiny_run):
    from imgrec_cli.classifier import Classifier

    classifier = Classifier.load(tiny_run)
    classifier.verify()
    with np.load(tiny_run / "bundle" / "selftest.npz") as stored:
        np.testing.assert_allclose(classifier.scores(stored["pixels"]), stored["scores"], atol=1e-5)
    assert sorted(p.name for p in (tiny_run / "bundle").iterdir()) == [
        *("README.md", "manifest.json", "model.tflite", "selftest.npz")
    ]
    parity = classifier.manifest.parity
    assert parity.images > 0
    assert parity.disagreements == 0
    assert parity.largest_gap < 1e-3


@pytest.mark.tf
def test_a_model_that_is_not_litert_is_said(tiny_run, tmp_path):
    from dataclasses import replace

    from imgrec_cli.classifier import Classifier

    shutil.copytree(tiny_run / "bundle", tmp_path / "b")
    (tmp_path / "b" / "model.tflite").write_bytes(b"not a model at all")
    manifest = Manifest.read(tmp_path / "b")
    replace(manifest, files={"model.tflite": FileRecord.of(tmp_path / "b" / "model.tflite")}).write(tmp_path / "b")
    with pytest.raises(InputError, match="not a LiteRT model"):
        Classifier.load(tmp_path / "b")


@pytest.mark.tf
def test_a_bundle_with_a_changed_byte_does_not_pass_its_self_test(tiny_run, tmp_path):
    from imgrec_cli.classifier import Classifier

    shutil.copytree(tiny_run / "bundle", tmp_path / "b")
    model = tmp_path / "b" / "model.tflite"
    content = bytearray(model.read_bytes())
    content[-1] ^= 1
    model.write_bytes(content)
    with pytest.raises(InputError, match=r"model.tflite: not the file that was shipped"):
        Classifier.load(tmp_path / "b").verify()
