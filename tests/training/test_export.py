"""Exports: every document's network from its LiteRT file, every format of a small run, and what is refused."""

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from imgrec_cli.bundle import LARGEST_GAP, MODEL, TARGETS, FileRecord, Manifest, Parity, find_bundle
from imgrec_cli.cli.export import Target
from imgrec_cli.config import load_config
from imgrec_cli.errors import ExportError, ParityError
from imgrec_cli.imaging import PixelSpec, load_pixels

pytestmark = pytest.mark.tf

ROOT = Path(__file__).parents[2]
IMAGES = sorted((ROOT / "data" / "fashion-mini" / "test").glob("*/*.png"))[::25]


@pytest.mark.parametrize("name", [f"document-00{number}" for number in range(5)])
def test_the_file_agrees_with_keras_on_every_label(name, tmp_path):
    import keras

    from imgrec_cli.classifier import Classifier
    from imgrec_cli.training.formats import write_model
    from imgrec_cli.training.model import shipped_model

    keras.utils.set_random_seed(0)
    config = load_config(ROOT / "configs" / f"{name}.yaml")
    spec = PixelSpec(config.image.size, config.image.color, config.image.fit)
    pixels = np.stack([load_pixels(path, spec) for path in IMAGES])
    model = shipped_model(config, 10)
    # of random weights the probabilities are all alike; larger ones tell the classes apart
    model.layers[-2].set_weights([30 * weights for weights in model.layers[-2].get_weights()])
    write_model("litert", config, model, tmp_path, pixels)
    manifest = Manifest(
        name=name,
        created="",
        class_names=[str(number) for number in range(10)],
        pixels=spec,
        files={MODEL: FileRecord.of(tmp_path / MODEL)},
        parity=Parity(0, 0.0, 0, 0),
        versions={},
    )
    expected = np.asarray(model.predict_on_batch(pixels))
    answered = Classifier(tmp_path, manifest).scores(pixels)
    assert np.ptp(expected, axis=0).max() > 0.1
    assert np.abs(answered - expected).max() < LARGEST_GAP
    np.testing.assert_array_equal(answered.argmax(axis=1), expected.argmax(axis=1))


@pytest.mark.parametrize("name", ["document-003", "fashion-mnist", "networks/resnet-20"])
def test_a_model_of_plain_layers_answers_alike_also_with_shortcuts(name, tmp_path):
    import keras

    from imgrec_cli.training.formats import write_model
    from imgrec_cli.training.model import shipped_model

    config = load_config(ROOT / "configs" / f"{name}.yaml", ["image.standardize=off"])
    spec = PixelSpec(config.image.size, config.image.color, config.image.fit)
    pixels = np.stack([load_pixels(path, spec) for path in IMAGES])
    model = shipped_model(config, 10, unfamiliarity=True)
    write_model("keras", config, model, tmp_path, pixels)
    plain = keras.saving.load_model(tmp_path / TARGETS["keras"].model, safe_mode=True)
    expected = np.asarray(model.predict_on_batch(pixels)[0])
    np.testing.assert_allclose(np.asarray(plain.predict_on_batch(pixels)), expected, rtol=0, atol=1e-6)


@pytest.fixture(scope="module")
def exported(tiny_run, tmp_path_factory):
    """A copy of the tiny run, and what was exported of it by target."""
    pytest.importorskip("tf2onnx", reason="ONNX needs the `onnx` extra")
    from imgrec_cli import api

    run = tmp_path_factory.mktemp("exported") / tiny_run.name
    shutil.copytree(tiny_run, run)
    return run, {one.target: one for one in api.export(run, list(TARGETS))}


def test_the_command_knows_every_target():
    assert [target.value for target in Target] == list(TARGETS)


@pytest.mark.parametrize("target", TARGETS)
def test_every_format_passes_and_its_bundle_is_whole(exported, imgrec, target):
    run, found = exported
    assert found[target].error is None
    place = run / "exports" / target
    assert found[target].place == place
    manifest = Manifest.read(place)
    assert (manifest.target, manifest.class_names) == (target, ["circle", "cross", "square"])
    assert manifest.parity.images > 0
    verified = imgrec("bundle", "verify", place)
    assert verified.code == 0, verified.err
    whole = f"{place}: {len(manifest.files)} files as shipped; "
    assert verified.out.startswith(whole)
    light = TARGETS[target].runtime in ("litert", "onnx")
    assert ("answers its self-test" in verified.out) == light
    assert f"format       {target}, " in imgrec("bundle", "show", place).out


@pytest.mark.parametrize("target", [name for name, kind in TARGETS.items() if kind.runtime in ("litert", "onnx")])
def test_light_bundles_answer_alike(exported, tiny_config, target):
    from imgrec_cli import Classifier

    run, _ = exported
    images = sorted((tiny_config.parent / "shapes").glob("*/0*.png"))
    reference, classifier = Classifier.load(run), Classifier.load(run / "exports" / target)
    for image in images:
        ours, theirs = classifier.predict(image).scores, reference.predict(image).scores
        assert ours == pytest.approx(theirs, abs=1e-3 if TARGETS[target].exact else 0.05)


def test_sizes_shrink_with_the_precision(exported):
    _, found = exported
    sizes = {target: one.manifest.model_bytes for target, one in found.items()}
    assert sizes["litert-int8"] < sizes["litert"]
    assert sizes["litert-float16"] < sizes["litert"]


def test_temperature_is_that_of_float32_in_every_format(exported):
    _, found = exported
    temperatures = [one.manifest.decision.temperature for one in found.values()]
    assert temperatures == pytest.approx([temperatures[0]] * len(temperatures), rel=1e-3)


def test_the_model_file_itself_tells_classes_and_pixels(exported):
    import onnx

    run, _ = exported
    told = []
    for target in ("litert", "litert-int8", "keras"):
        with zipfile.ZipFile(run / "exports" / target / TARGETS[target].model) as archive:
            told.append(json.loads(archive.read("imgrec.json")))
            assert archive.read("labels.txt").decode() == "circle\ncross\nsquare\n"
    told.append(json.loads((run / "exports/saved_model/saved_model/assets.extra/imgrec.json").read_text("utf-8")))
    properties = onnx.load(run / "exports" / "onnx" / "model.onnx").metadata_props
    told.append(json.loads({one.key: one.value for one in properties}["imgrec.json"]))
    for values in told:
        assert values["class_names"] == ["circle", "cross", "square"]
        assert values["pixels"]["size"] == [16, 16]
        assert values["decision"]["temperature"] > 0
        assert "uint8 [N, height, width, channels]" in values["input"]


def test_the_keras_file_needs_nothing_of_ours(exported, tmp_path):
    run, _ = exported
    with np.load(run / "exports" / "keras" / "selftest.npz") as stored:
        np.savez(tmp_path / "selftest.npz", **stored)
    script = (
        "import sys, numpy as np, keras\n"
        "sys.modules['imgrec_cli'] = None\n"
        "stored = np.load(sys.argv[2])\n"
        "answers = keras.saving.load_model(sys.argv[1]).predict(stored['pixels'], verbose=0)\n"
        "assert abs(answers - stored['scores']).max() < 1e-5\n"
    )
    file = run / "exports" / "keras" / "model.keras"
    done = subprocess.run(
        [sys.executable, "-c", script, file, tmp_path / "selftest.npz"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr


def test_a_bundle_may_be_one_zip(exported, imgrec, tiny_config, tmp_path):
    run, _ = exported
    archive = tmp_path / "shapes.zip"
    done = imgrec("export", run, "--to", "litert-int8", "-o", archive)
    assert done.code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["shapes.zip"]
    assert find_bundle(archive) == archive
    assert imgrec("bundle", "verify", archive).code == 0
    image = tiny_config.parent / "shapes" / "circle" / "00.png"
    from_zip = imgrec("predict", "-m", archive, image, "--format", "json").out
    from_folder = imgrec("predict", "-m", run / "exports" / "litert-int8", image, "--format", "json").out
    assert from_zip == from_folder
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 1
    archive.write_bytes(content)
    broken = imgrec("predict", "-m", archive, image)
    assert broken.code == 2
    assert "damaged" in broken.err


def test_a_bundle_that_imgrec_does_not_answer_from_says_what_does(exported, imgrec, tiny_config):
    run, _ = exported
    done = imgrec("predict", "-m", run / "exports" / "keras", tiny_config.parent / "shapes" / "circle" / "00.png")
    assert done.code == 2
    assert "a bundle for keras, from which imgrec does not answer itself" in done.err


def test_an_export_that_answers_otherwise_is_refused_and_leaves_nothing(exported, imgrec, monkeypatch, tmp_path):
    from imgrec_cli.training import export

    run, _ = exported
    real = export.write_model

    def wrong(target, config, model, folder, pixels):
        weights = model.get_weights()
        model.set_weights([weights[0] + 1.0, *weights[1:]])
        real(target, config, model, folder, pixels)
        model.set_weights(weights)

    monkeypatch.setattr(export, "write_model", wrong)
    done = imgrec("export", run, "--to", "litert", "--to", "litert-int8", "-q")
    assert done.code == 4
    assert done.out.count("not written") == 2
    assert "the exported model differs from the trained one by" in done.err
    assert imgrec("export", run, "--to", "onnx", "-o", tmp_path / "b.zip").code == 4
    assert list(tmp_path.iterdir()) == []
    assert Manifest.read(run / "exports" / "litert").target == "litert"  # the one from before stays
    assert not [path for path in (run / "exports").iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("parity", "message"),
    [
        (Parity(200, 0.3, 5, 0, accuracy=0.95, reference_accuracy=0.97), "allowed is a loss of 1 points"),
        (Parity(200, 0.3, 30, 0, accuracy=0.97, reference_accuracy=0.97), "at least 90 % have to"),
        (Parity(200, float("nan"), 0, 0, accuracy=0.97, reference_accuracy=0.97), "Nothing was shipped"),
    ],
)
def test_reduced_precision_may_lose_so_much(parity, message):
    from imgrec_cli.training.parity import check_parity

    with pytest.raises(ParityError, match=message):
        check_parity("litert-int8", parity, 0.01)


def test_full_precision_may_differ_by_rounding_alone():
    from imgrec_cli.training.parity import check_parity

    check_parity("litert", Parity(200, 9e-4, 0, 0, unfamiliarity_gap=0.019), 0.01)
    with pytest.raises(ParityError, match=r"differs from the trained one by 0\.001 in a probability"):
        check_parity("litert", Parity(200, 1e-3, 0, 0, unfamiliarity_gap=0.0), 0.01)
    with pytest.raises(
        ParityError, match=r"by 0\.021 in unfamiliarity on 200 validation images, allowed is less than 0\.02"
    ):
        check_parity("litert", Parity(200, 0.0, 0, 0, unfamiliarity_gap=0.021), 0.01)


def test_reduced_precision_may_lose_one_image_of_few():
    from imgrec_cli.training.parity import check_parity

    check_parity("litert-int8", Parity(20, 0.3, 1, 0, accuracy=0.9, reference_accuracy=0.95), 0.01)


def test_a_layer_that_no_light_runtime_has_is_named(tmp_path):
    import keras

    from imgrec_cli.training.formats import write_model

    images = keras.Input((20, 20, 1), dtype="uint8")
    x = keras.layers.Resizing(10, 10, antialias=True, name="shrink")(keras.layers.Rescaling(1.0)(images))
    model = keras.Model(images, keras.layers.Dense(3)(keras.layers.Flatten()(x)), name="shipped")
    with pytest.raises(ExportError, match="layer shrink needs the operator ScaleAndTranslate") as caught:
        write_model("litert", None, model, tmp_path, np.zeros((1, 20, 20, 1), np.uint8))
    assert "replace this layer" in caught.value.hint


def test_images_that_changed_since_the_run_are_said(exported, imgrec, tmp_path, tiny_config):
    run, _ = exported
    changed = tmp_path / run.name
    shutil.copytree(run, changed)
    record = json.loads((changed / "run.json").read_text(encoding="utf-8"))
    record["data"]["fingerprint"] = "another"
    (changed / "run.json").write_text(json.dumps(record), encoding="utf-8")
    done = imgrec("export", changed, "--to", "litert")
    assert done.code == 2
    assert "the images or their split are not those of the run" in done.err


def test_the_sources_for_a_microcontroller_hold_what_the_bundle_holds(exported, tmp_path):
    run, _ = exported
    folder = run / "exports" / "tflite-micro"
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("needs a C++ compiler")
    (tmp_path / "main.cc").write_text(
        '#include <cstdio>\n#include "model_data.h"\n#include "test_vectors.h"\n'
        "int main() {\n"
        '  for (int c = 0; c < kClasses; ++c) std::printf("%s\\n", kClassNames[c]);\n'
        "  for (int v = 0; v < kVectors; ++v)\n"
        '    for (int i = 0; i < kHeight * kWidth * kChannels; ++i) std::printf("%d\\n", VectorPixel(v, i));\n'
        "  std::fwrite(kModel, 1, kModelBytes, stderr);\n}\n"
    )
    words = [compiler, "-std=c++17", "-I", folder, tmp_path / "main.cc", folder / "model_data.cc", "-o", tmp_path / "a"]
    built = subprocess.run(words, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    done = subprocess.run([tmp_path / "a"], capture_output=True)
    told = done.stdout.decode().split()
    assert told[:3] == ["circle", "cross", "square"]
    from imgrec_cli.training.micro import test_pixels

    manifest = Manifest.read(folder)
    np.testing.assert_array_equal(np.array(told[3:], int), test_pixels(manifest).ravel())
    assert (folder / "model.tflite").read_bytes().startswith(done.stderr)
    header = (folder / "model_data.h").read_text()
    contract = (folder / "README.md").read_text(encoding="utf-8")
    assert "CONV_2D" in contract
    assert "resolver.AddConv2D();" in (folder / "example.cc").read_text()
    arena = int(header.split("kArenaBytes = ")[1].split(";")[0])
    assert f"{arena:,} bytes" in contract or arena == 0


class Says:
    """An engine that answers every image with one number, and notes how many it was asked about."""

    def __init__(self, number):
        self.number, self.images = number, 0

    def outputs(self, pixels):
        self.images += len(pixels)
        return np.full((len(pixels), 2), self.number, np.float32), None


def test_a_slow_microcontroller_hands_the_rest_of_the_images_over(monkeypatch):
    from imgrec_cli.training import micro

    slow, quick = Says(1), Says(2)
    judge = micro.Judge(slow, quick)
    pixels = np.zeros((5, 4, 4, 3), np.uint8)
    assert (judge.outputs(pixels)[0] == 1).all()
    assert judge.told(5) == "by tflite-micro's interpreter"
    monkeypatch.setattr(micro, "JUDGING_SECONDS", -1)
    assert (judge.outputs(pixels)[0] == 2).all()
    assert (slow.images, quick.images) == (5, 5)
    assert judge.told(10) == (
        "by tflite-micro's interpreter, which answered the first 5, and LiteRT's integer kernels, the others"
    )
    alone = micro.Judge(None, quick)
    assert (alone.outputs(pixels)[0] == 2).all()
    assert alone.told(5) == "by LiteRT's integer kernels (tflite-micro was not installed)"


def test_names_become_c_literals_of_utf8():
    from imgrec_cli.training.micro import _c_string

    assert _c_string('a "b" é') == r'"a \042b\042 \303\251"'


def test_an_old_bundle_stays_where_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    from imgrec_cli.training.export import _put

    place, unfinished = tmp_path / "bundle", tmp_path / ".bundle.unfinished"
    for folder in (place, unfinished):
        folder.mkdir()
        (folder / "name.txt").write_text(folder.name)
    replace = Path.replace

    def refuse_the_new_one(path, target):
        if path == unfinished:
            raise PermissionError("open in another program")
        return replace(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", refuse_the_new_one)
        with pytest.raises(PermissionError):
            _put(unfinished, place)
    assert (place / "name.txt").read_text() == "bundle"
    _put(unfinished, place)
    assert (place / "name.txt").read_text() == ".bundle.unfinished"
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
