"""Bundles describe themselves, and damaged or foreign ones are said to be."""

import json
import shutil
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from imgrec_cli.bundle import FileRecord, Manifest, Parity, check_files, find_bundle
from imgrec_cli.errors import InputError
from imgrec_cli.imaging import PixelSpec

MANIFEST = Manifest(
    name="x",
    created="2026-01-01T00:00:00Z",
    class_names=["b", "ä"],
    pixels=PixelSpec(size=(8, 6), color="gray", fit="pad", range=(0, 4095)),
    files={"model.tflite": FileRecord(3, "ab"), "selftest.npz": FileRecord(1, "cd")},
    parity=Parity(1, 0.0, 0, 0),
    versions={"imgrec": "0"},
)


def with_decision(values, **changes):
    return {**values, "decision": {**values["decision"], **changes}}


def test_a_manifest_comes_back_as_it_was(tmp_path):
    MANIFEST.write(tmp_path)
    assert Manifest.read(tmp_path) == MANIFEST


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: {**values, "format": 99}, "bundle format 99, this imgrec reads format 1"),
        (lambda values: {key: value for key, value in values.items() if key != "pixels"}, "damaged: KeyError"),
        (lambda values: [values], "damaged: TypeError"),
        (lambda values: {**values, "class_names": []}, "class_names is not a list of names"),
        (lambda values: {**values, "class_names": ["a", "a"]}, "class_names holds a name twice"),
        (lambda values: {**values, "class_names": [1]}, "ValueError.*class_names is not a list of names"),
        (lambda values: {**values, "pixels": {**values["pixels"], "size": [10**9, 10**9]}}, "not within 1 to 4096"),
        (lambda values: {**values, "files": {}}, "files lacks model.tflite or selftest.npz"),
        (
            lambda values: {**values, "files": {"model.tflite": {"bytes": "3", "sha256": 1}}},
            "sizes or hashes that are none",
        ),
        (
            lambda values: with_decision(values, temperature="hot"),
            "decision.temperature is 'hot', not a number above 0",
        ),
        (lambda values: with_decision(values, temperature=0), "decision.temperature is 0, not a number above 0"),
        (lambda values: with_decision(values, thresholds={"c": 0.5}), "decision.thresholds is not one of class names"),
        (lambda values: with_decision(values, thresholds={"b": "x"}), "of class names with numbers"),
        (lambda values: with_decision(values, conformal="0.5"), "decision.conformal is not a list of numbers"),
        (lambda values: {**values, "unfamiliar_above": "1"}, "unfamiliar_above is '1', not a number"),
        (lambda values: {**values, "titles": {"b": 1}}, "titles is not one of names with names"),
        (lambda values: {**values, "other": "b"}, "other is not a list of names"),
        (lambda values: {**values, "merged": {"b": "x"}}, "merged is not one of names with lists of names"),
        (lambda values: {**values, "left_out": [1]}, "left_out is not a list of names"),
        (lambda values: {**values, "surprise": 1}, "unexpected keyword argument 'surprise'"),
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
        check_files(tmp_path, MANIFEST)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "..\\x", "C:x", "..", "."])
def test_a_manifest_cannot_name_files_elsewhere(tmp_path, name):
    outside = replace(MANIFEST, files={name: FileRecord(1, "a")})
    with pytest.raises(InputError, match="names a file outside the bundle: ") as caught:
        check_files(tmp_path, outside)
    assert caught.value.message.endswith(name)


def test_a_changed_byte_is_noticed_though_the_size_is_right(tmp_path):
    (tmp_path / "model.tflite").write_bytes(b"123")
    with pytest.raises(InputError, match=r"model.tflite: damaged: not the file that was shipped"):
        check_files(tmp_path, MANIFEST)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "damaged: RecursionError"),
        ("{" * 3, "damaged"),
        (" " * 10_000_001, "larger than 10,000,000 bytes"),
    ],
    ids=["recursion", "cut off", "endless"],
)
def test_a_hostile_manifest_is_one_line(tmp_path, text, message):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        Manifest.read(tmp_path)
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 500


@pytest.mark.parametrize("name", ["model.keras", "weights.h5", "model.pt"])
def test_models_that_can_carry_code_are_never_loaded_to_predict(tmp_path, name):
    (tmp_path / name).write_bytes(b"PK")
    with pytest.raises(InputError, match="can carry code and is never loaded to predict"):
        find_bundle(tmp_path / name)


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
    from imgrec_cli.classifier import Classifier

    shutil.copytree(tiny_run / "bundle", tmp_path / "b")
    (tmp_path / "b" / "model.tflite").write_bytes(b"not a model at all")
    manifest = Manifest.read(tmp_path / "b")
    files = {**manifest.files, "model.tflite": FileRecord.of(tmp_path / "b" / "model.tflite")}
    replace(manifest, files=files).write(tmp_path / "b")
    with pytest.raises(InputError, match="not a model that litert takes"):
        Classifier.load(tmp_path / "b")


@pytest.mark.tf
def test_a_bundle_with_a_changed_byte_does_not_pass_its_self_test(tiny_run, tmp_path):
    from imgrec_cli.classifier import Classifier

    shutil.copytree(tiny_run / "bundle", tmp_path / "b")
    model = tmp_path / "b" / "model.tflite"
    content = bytearray(model.read_bytes())
    content[-1] ^= 1
    model.write_bytes(content)
    with pytest.raises(InputError, match=r"model.tflite: damaged: not the file that was shipped"):
        Classifier.load(tmp_path / "b")


@pytest.mark.tf
def test_a_self_test_that_would_fill_the_memory_is_not_read(tiny_run, tmp_path):
    from imgrec_cli.classifier import Classifier

    shutil.copytree(tiny_run / "bundle", tmp_path / "b")
    with zipfile.ZipFile(tmp_path / "b" / "selftest.npz", "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("pixels.npy", bytes(50_000_000))
        bomb.writestr("scores.npy", bytes(10))
    manifest = Manifest.read(tmp_path / "b")
    files = {**manifest.files, "selftest.npz": FileRecord.of(tmp_path / "b" / "selftest.npz")}
    replace(manifest, files=files).write(tmp_path / "b")
    with pytest.raises(InputError, match=r"selftest.npz: damaged: holds arrays of "):
        Classifier.load(tmp_path / "b").verify()


@pytest.mark.tf
def test_a_manifest_that_does_not_fit_its_model_is_said(tiny_run, tmp_path):
    from imgrec_cli.classifier import Classifier

    shutil.copytree(tiny_run / "bundle", tmp_path / "b")
    manifest = Manifest.read(tmp_path / "b")
    replace(manifest, class_names=["circle", "cross"]).write(tmp_path / "b")
    with pytest.raises(InputError, match=r"gives \[3\]; the manifest says uint8 \[16, 16, 1\] and 2 classes"):
        Classifier.load(tmp_path / "b")
