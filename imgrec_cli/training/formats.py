"""The model to ship → a file of each format, and the runtimes that need TensorFlow to answer from one."""

import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from imgrec_cli.atomic import full_disk_said, replacing
from imgrec_cli.bundle import TARGETS, Manifest
from imgrec_cli.config import Config, load_config, resolved_yaml
from imgrec_cli.engines import Engine, Pixels, Scores
from imgrec_cli.errors import DiskSpaceError, ExportError, MissingExtraError, install_command, require_tensorflow
from imgrec_cli.machine import native_messages_hidden
from imgrec_cli.training import checkpoint
from imgrec_cli.training.families import CaffeScaling
from imgrec_cli.training.model import shipped_model

METADATA = "imgrec.json"
LABELS = "labels.txt"
LARGE_WEIGHTS_BYTES = 64_000_000  # in float32
# Distances are squares of small differences: 8 bits cannot tell them apart. And a file for plain Keras holds no layer
# of ours.
WITHOUT_UNFAMILIARITY = ("litert-int8", "tflite-micro", "keras")


def write_model(target: str, config: Config, model: keras.Model, folder: Path, pixels: Pixels) -> None:
    """Write the shipped model into `folder` as the target's file. `pixels` uint8 [N, H, W, C] are training images, by
    which the ranges of 8-bit numbers are chosen.

    Raises ExportError where an operator has no place in the format, MissingExtraError where a package is missing.
    """
    path = folder / TARGETS[target].model
    if target in WITHOUT_UNFAMILIARITY:
        model = plain_model(model, "float32" if target == "tflite-micro" else "uint8")
    match target:
        case "onnx":
            _write_onnx(model, path)
        case "saved_model":
            with native_messages_hidden():
                model.export(path, format="tf_saved_model", verbose=False)
        case "keras":
            model.save(path)
        case "litert" if keras.backend.backend() != "tensorflow":
            _write_elsewhere(config, model, path)
        case _:
            _write_litert(model, path, target, pixels)


def plain_model(shipped: keras.Model, dtype: str) -> keras.Model:
    """The shipped model of Keras's own layers alone: images of `dtype`, 0 to 255 → probabilities, the same weights."""
    images = keras.Input(shipped.input_shape[1:], dtype=dtype, name="images")
    made: dict[int, Any] = {id(shipped.inputs[0]): images}  # by the tensors of `shipped`, those of the plain model
    for layer in shipped.layers[1:]:
        # a layer that other models share has been called in them too
        node = next(node for node in layer._inbound_nodes if all(id(tensor) in made for tensor in node.input_tensors))
        given = [made[id(tensor)] for tensor in node.input_tensors]
        x = given if len(given) > 1 else given[0]
        if layer.name == "pixels":
            # nothing but the cast to float
            x = keras.layers.Rescaling(1.0, name="pixels", dtype="float32")(images)
        elif isinstance(layer, CaffeScaling):
            x = _caffe_scaling(x)
        elif layer.name == "unfamiliarity":
            continue
        elif layer.name != "features":
            x = layer(x)
        made[id(node.outputs[0])] = x
    return keras.Model(images, made[id(shipped.outputs[0])], name="shipped")


def _caffe_scaling(images: Any) -> Any:
    """The same numbers from a convolution: channels in reverse order, minus a constant for each."""
    convolution = keras.layers.Conv2D(3, 1, name="scaling", dtype="float32", trainable=False)
    scaled = convolution(images)
    offset = np.asarray(CaffeScaling(dtype="float32")(np.zeros((1, 1, 1, 3), np.float32)))[0, 0, 0]
    convolution.set_weights([np.eye(3)[::-1][None, None], offset])
    return scaled


def _write_litert(model: keras.Model, path: Path, target: str, pixels: Pixels) -> None:
    """By LiteRT's own converter, from a graph that holds the weights as constants.

    Keras's exporter calls it too, but by way of a SavedModel on the disk, which takes three times as long for a usual
    network. For one of large weights, which a graph would hold several times over, it is the better way. It would also
    allow TensorFlow's own operators, which no light runtime has.
    """
    import tensorflow as tf

    sets, dtype = tf.lite.OpsSet, model.inputs[0].dtype
    operators = [sets.TFLITE_BUILTINS]
    options: dict[str, Any] = {} if target == "litert" else {"optimizations": [tf.lite.Optimize.DEFAULT]}
    types, batch = {}, None
    match target:
        case "litert-float16":
            types["supported_types"] = [tf.float16]
        case "litert-int8" | "tflite-micro":
            # int8 operators where they exist; others only at input and output, because the input is uint8
            operators = [sets.TFLITE_BUILTINS_INT8, *([] if target == "tflite-micro" else operators)]
            options["representative_dataset"] = lambda: _representative(pixels, dtype)
    if target == "tflite-micro":
        batch = 1  # memory is laid out for one image
        options.update(inference_input_type=tf.int8, inference_output_type=tf.int8)
    types["supported_ops"] = operators
    signature = [tf.TensorSpec((batch, *model.input_shape[1:]), dtype, name="images")]
    temporary = Path(tempfile.gettempdir())
    places: dict[str, str] = {}
    try:
        with native_messages_hidden(), full_disk_said(temporary), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # int8 inputs have no ranges yet, it says: the images are about to tell
            if 4 * model.count_params() > LARGE_WEIGHTS_BYTES:
                way = {"verbose": False, "input_signature": signature}
                model.export(path, format="litert", target_spec=types, **way, **options)
                return
            traced = tf.function(lambda images: model(images, training=False), signature).get_concrete_function()
            places = {operation.type: operation.name for operation in traced.graph.get_operations()}
            converter = tf.lite.TFLiteConverter.from_concrete_functions([traced], model)
            converter.experimental_lower_to_saved_model = False
            for name, value in options.items():
                setattr(converter, name, value)
            for name, value in types.items():
                setattr(converter.target_spec, name, value)
            content = converter.convert()
    except tf.errors.OpError as error:  # TensorFlow writes a copy of a large model on the way, in its own words
        if "No space left on device" not in str(error):
            raise
        raise DiskSpaceError(
            f"{temporary}: the disk became full while the model was exported",
            "make room, or name a folder on a larger disk by the environment variable TMPDIR",
        ) from error
    except Exception as error:
        if type(error).__name__ != "ConverterError":  # the converter's own kind, which is not public
            raise
        raise _unsupported(error, places) from error
    with replacing(path) as stream:
        stream.write(content)


def _representative(pixels: Pixels, dtype: str) -> Iterator[list[NDArray[Any]]]:
    """The images one by one; each holds the smallest and the largest value: a step of the input is a pixel's."""
    for image in pixels:
        image = image.astype(dtype)
        image[0, 0, :], image[-1, -1, :] = 0, 255
        yield [image[None]]


def _unsupported(error: Exception, places: dict[str, str]) -> ExportError:
    """What the converter could not convert; `places` are the names of the graph's operations, by operator."""
    text = str(error)
    operator = re.search(r"'tf\.(\w+)' op", text)
    if operator is None:
        return ExportError(f"the export failed: {text.splitlines()[-1][:300]}")
    said = re.search(r'"([^"@]+)@', text)
    parts = places.get(operator[1], said[1] if said else "").split("/")
    layer = re.sub(r"_\d+$", "", parts[1]) if len(parts) > 1 else "?"
    return ExportError(
        f"layer {layer} needs the operator {operator[1]}, which light runtimes do not have. Nothing was shipped",
        "replace this layer; operators of TensorFlow itself are left out on purpose: they would not run on a device",
    )


def _write_elsewhere(config: Config, model: keras.Model, path: Path) -> None:
    """The converter belongs to TensorFlow: on another backend it runs in a process of its own."""
    require_tensorflow("the export to LiteRT")
    with tempfile.TemporaryDirectory() as folder:
        asked, weights = Path(folder) / "config.yaml", Path(folder) / "weights.npz"
        asked.write_text(resolved_yaml(config, asked.parent), encoding="utf-8")
        checkpoint.write(weights, {"weights": model.weights}, {})
        classes, second = str(model.outputs[0].shape[-1]), str(int(len(model.outputs) > 1))
        words = [sys.executable, "-m", __name__, str(asked), classes, second, str(weights), str(path)]
        # without the GPU, whose memory the training process holds
        environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": "-1"}
        done = subprocess.run(words, env=environment, capture_output=True, encoding="utf-8", errors="replace")
    if done.returncode:
        raise ExportError(f"the export to LiteRT failed with {done.returncode}: {done.stderr[-500:].strip()}")


def _write_onnx(model: keras.Model, path: Path) -> None:
    missing = [name for name in ("onnx", "tf2onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtraError(f"the export to ONNX needs {', '.join(missing)}", install_command("onnx"))
    import logging

    logging.getLogger("tf2onnx").setLevel(logging.WARNING)
    with native_messages_hidden(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of numpy names that tf2onnx still asks for
        model(np.zeros((1, *model.input_shape[1:]), np.uint8))
        model.export(path, format="onnx", verbose=False)


def open_runtime(target: str, folder: Path) -> Engine:
    """The file of a target that only TensorFlow and Keras answer from, in its own runtime."""
    path = folder / TARGETS[target].model
    return _KerasFile(path) if target == "keras" else _SavedModel(path)


class _KerasFile:
    """A `.keras` file as plain Keras loads it, in its safe mode."""

    def __init__(self, path: Path) -> None:
        self._model = keras.saving.load_model(path, compile=False)

    def outputs(self, pixels: Pixels) -> tuple[Scores, Scores | None]:
        return np.asarray(self._model.predict_on_batch(pixels)), None


class _SavedModel:
    """A SavedModel as TensorFlow loads it, by its signature `serve`."""

    def __init__(self, path: Path) -> None:
        import tensorflow as tf

        self._model = tf.saved_model.load(str(path))

    def outputs(self, pixels: Pixels) -> tuple[Scores, Scores | None]:
        answers = self._model.serve(pixels)
        scores, *second = [np.asarray(a) for a in (answers if isinstance(answers, list | tuple) else [answers])]
        return scores, second[0] if second else None


def add_metadata(folder: Path, manifest: Manifest) -> None:
    """Put classes, preprocessing and decisions into the model's own file, where others look for them.

    A `.tflite` file takes a zip at its end (the convention of LiteRT's metadata), a `.keras` file is one, an `.onnx`
    file has properties, a SavedModel a folder `assets.extra`.
    """
    values = metadata(manifest)
    text, labels = json.dumps(values, ensure_ascii=False, indent=2), "\n".join(manifest.class_names) + "\n"
    path = folder / manifest.model
    match TARGETS[manifest.target].runtime:
        case "onnx":
            import onnx

            model = onnx.load(str(path))
            onnx.helper.set_model_props(model, {METADATA: text})
            onnx.save(model, str(path))
        case "tensorflow":
            (path / "assets.extra").mkdir()
            (path / "assets.extra" / METADATA).write_text(text + "\n", encoding="utf-8")
            (path / "assets.extra" / LABELS).write_text(labels, encoding="utf-8")
        case _:
            with zipfile.ZipFile(path, "a") as archive:
                for name, content in ((METADATA, text + "\n"), (LABELS, labels)):
                    archive.writestr(zipfile.ZipInfo(name), content)


def metadata(manifest: Manifest) -> dict[str, Any]:
    """What has to be known to use the model's file alone."""
    from dataclasses import asdict

    pixels = manifest.pixels
    if manifest.target == "tflite-micro":
        takes = "int8 [1, height, width, channels]: pixel minus 128"
        gives = "int8 [1, classes]: 256 × probability minus 128"
    else:
        takes, gives = "uint8 [N, height, width, channels]: pixels 0 to 255", "float32 [N, classes]: probabilities"
    return {
        "imgrec": manifest.format,
        "class_names": manifest.class_names,
        "pixels": asdict(pixels),
        "input": takes,
        "output": gives,
        "decision": asdict(manifest.decision),
        "unfamiliar_above": manifest.unfamiliar_above,
        "other": manifest.other,
    }


def _main(config_file: str, classes: str, unfamiliarity: str, weights: str, path: str) -> None:
    """What the process of its own does: the same model in TensorFlow, with the same weights, as LiteRT."""
    model = shipped_model(load_config(config_file), int(classes), unfamiliarity=unfamiliarity == "1")
    groups, _ = checkpoint.read(Path(weights))
    checkpoint.restore(model.weights, groups["weights"], Path(weights))
    _write_litert(model, Path(path), "litert", np.empty((0,), np.uint8))


if __name__ == "__main__":
    _main(*sys.argv[1:])
