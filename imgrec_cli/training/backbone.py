"""Published networks from keras.applications, with fused batch normalisation while they are trained."""

import difflib
import re
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import keras

from imgrec_cli.config import BackboneModel, Image, Unfreeze
from imgrec_cli.errors import InputError
from imgrec_cli.training.families import application, weights_file
from imgrec_cli.training.runtime import fused_kernels


def backbone(spec: BackboneModel, image: Image, dtype: str, *, fused: bool) -> keras.Model:
    """The network without its top, pooled to one row of features, computed in the dtype policy `dtype`.

    Biases that a batch normalisation takes away again are left out, as He et al. 2015 do. With `fused`, some of its
    layers are ours, which train faster and hold the same weights in the same order. Its weights are random:
    `load_pretrained` gives it others.
    """
    with _dtype_policy(dtype):
        plain = application(spec, image)
        needless = _needless_biases(plain)
        kernels = fused_kernels() if fused else None
        sums = _sums_before_relu(plain) if kernels is not None else {}
        paddings = _paddings_of_convolutions(plain, kernels.zeros_of_same) if kernels is not None else {}
        normalised = {}
        if kernels is not None and (spec.freeze or spec.unfreeze is not None):  # no normalisation learns
            normalised = _normalised_convolutions(plain, kernels, needless)
        places = {layer.name: place for place, layer in enumerate(plain.layers)}
        made: dict[str, keras.layers.Layer] = {}

        def copy(layer: keras.layers.Layer) -> keras.layers.Layer:
            if layer.name not in made:
                made[layer.name] = new(layer)
                if layer.name in normalised:
                    normalisation = plain.get_layer(normalised[layer.name])
                    copy(normalisation).put_into(made[layer.name], layer.output.shape)
            return made[layer.name]

        def new(layer: keras.layers.Layer) -> keras.layers.Layer:
            changes: dict[str, Any] = {}
            if layer.name in needless:
                changes = {"use_bias": False}
            elif layer.name in sums.values():
                changes = {"activation": "linear"}  # the sum before it is a ReLU already
            elif layer.name in paddings:
                changes = {"padding": 0}
            if layer.name in paddings.values():
                changes["padding"] = "same"
            kind, activation = type(layer), _activation(layer)
            if layer.name in places and _is_numbered(layer):  # additions by `+` are no layers
                # Keras counts all layers of a process: a run that is resumed would be shipped with other names
                changes["name"] = f"{kind.__name__.lower()}_{places[layer.name]}"
            if kernels is not None and kind is keras.layers.BatchNormalization:
                kind = kernels.BatchNormalization
            elif kernels is not None and layer.name in sums:
                kind = kernels.AddReLU
            elif activation == "relu6" and layer.input._keras_history.operation.name in normalised.values():
                pass  # oneDNN makes one pass of the convolution, the addition and this
            elif kernels is not None and activation and kernels.Activation.fits(activation, layer.compute_dtype):
                return kernels.Activation(activation, name=changes.get("name", layer.name), dtype=layer.dtype_policy)
            elif kernels is not None and isinstance(layer, keras.layers.DepthwiseConv2D):
                if layer.name in normalised or kernels.DepthwiseConv2D.fits(layer):
                    kind = kernels.DepthwiseConv2D
            elif (
                kernels is not None
                and isinstance(layer, keras.layers.Conv2D)
                and (layer.name in normalised or kernels.Conv2D.fits(layer, layer.output.shape))
            ):
                kind = kernels.Conv2D
            return kind.from_config({**layer.get_config(), **changes})

        seconds: dict[int, Any] = {}  # of maps that a layer gives twice: the one for the first of their readers

        def read(layer: keras.layers.Layer, *inputs: Any, **options: Any) -> Any:
            if layer.name in sums.values():
                second, first = layer(seconds.pop(id(inputs[0]))), layer(*inputs)
            else:
                outputs = layer(*keras.tree.map_structure(lambda x: seconds.pop(id(x), x), inputs), **options)
                if kernels is None or type(layer) is not kernels.AddReLU:
                    return outputs
                first, second = outputs
            seconds[id(first)] = second
            return first

        model = keras.models.clone_model(plain, clone_function=copy, call_function=read)
    if spec.unfreeze is None:
        model.trainable = not spec.freeze
    else:
        _unfreeze(model, spec.unfreeze)
    return model


def _is_numbered(layer: keras.layers.Layer) -> bool:
    """Whether the layer has the name that Keras gives to those without one: its class and a number."""
    return re.sub(r"[_\d]", "", layer.name) == re.sub(r"\d", "", type(layer).__name__.lower())


def _unfreeze(model: keras.Model, spec: Unfreeze) -> None:
    """Leave the layers from `from_layer` on trainable, except for batch normalisations, which keep to their statistics.

    Raises InputError where there is no such layer.
    """
    layers = model.layers
    match spec.from_layer:
        case None:
            first = 0
        case float(share):
            first = len(layers) - round(share * len(layers))
        case name:
            found = [place for place, layer in enumerate(layers) if layer.name.startswith(name)]
            if not found:
                names = sorted({layer.name for layer in layers})
                near = difflib.get_close_matches(name, names, 1) or [layers[len(layers) * 2 // 3].name]
                raise InputError(
                    f"model.unfreeze.from_layer: {model.name} has no layer {name}", f"one of its layers is {near[0]}"
                )
            first = found[0]
    for place, layer in enumerate(layers):
        layer.trainable = place >= first and not isinstance(layer, keras.layers.BatchNormalization)


@contextmanager
def _dtype_policy(name: str) -> Iterator[None]:
    """Keras's own applications take their precision from the process's policy alone."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _needless_biases(model: keras.Model) -> dict[str, str]:
    """Convolutions with a bias whose only reader is a batch normalisation, and that normalisation's name."""
    found = {}
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D) and layer.use_bias:
            readers = [node.operation for node in layer._outbound_nodes]
            if len(readers) == 1 and isinstance(readers[0], keras.layers.BatchNormalization):
                found[layer.name] = readers[0].name
    return found


def _normalised_convolutions(model: keras.Model, kernels: ModuleType, needless: Container[str]) -> dict[str, str]:
    """Convolutions without a bias, but a needless one, whose only reader is a batch normalisation; that one's name."""
    found = {}
    for layer in model.layers:
        if kernels.Conv2D.can_stand_for(layer) or kernels.DepthwiseConv2D.can_stand_for(layer):
            readers = [node.operation for node in layer._outbound_nodes]
            alone = len(readers) == 1 and type(readers[0]) is keras.layers.BatchNormalization
            linear = layer.activation is keras.activations.linear and (not layer.use_bias or layer.name in needless)
            if alone and linear and readers[0].axis in (-1, 3):
                found[layer.name] = readers[0].name
    return found


def _sums_before_relu(model: keras.Model) -> dict[str, str]:
    """Additions of two maps whose only reader is a ReLU, and that ReLU's name."""
    found = {}
    for layer in model.layers:
        if type(layer) is keras.layers.Add and len(layer.input) == 2:
            readers = [node.operation for node in layer._outbound_nodes]
            if len(readers) == 1 and _is_relu(readers[0]):
                found[layer.name] = readers[0].name
    return found


def _paddings_of_convolutions(model: keras.Model, zeros: Callable[[int, int, int], tuple[int, int]]) -> dict[str, str]:
    """Zeros around a map whose only reader is a convolution that would put as many there by itself, and its name."""
    found = {}
    for layer in model.layers:
        readers = [node.operation for node in layer._outbound_nodes]
        if type(layer) is keras.layers.ZeroPadding2D and len(readers) == 1:
            reader = readers[0]
            if isinstance(reader, keras.layers.Conv2D | keras.layers.DepthwiseConv2D) and reader.padding == "valid":
                around = tuple(
                    zeros(length, kernel, stride)
                    for length, kernel, stride in zip(
                        layer.input.shape[1:3], reader.kernel_size, reader.strides, strict=True
                    )
                )
                if layer.padding == around and reader.dilation_rate == (1, 1):
                    found[layer.name] = reader.name
    return found


def _is_relu(layer: keras.layers.Layer) -> bool:
    return _activation(layer) == "relu"


def _activation(layer: keras.layers.Layer) -> str:
    """The name of the activation that a layer consists of; empty where it is another layer or has settings of its
    own."""
    if type(layer) is keras.layers.Activation:
        return str(layer.activation.__name__)
    if type(layer) is keras.layers.ReLU and not layer.negative_slope and not layer.threshold:
        return {None: "relu", 6: "relu6"}.get(layer.max_value, "")
    return ""


def load_pretrained(model: keras.Model, spec: BackboneModel, image: Image) -> None:
    """Put the weights of a keras.applications file into a backbone; does nothing for `weights: none`.

    A bias that was left out goes into the moving mean of the normalisation behind it: the answers stay the same.
    Raises InputError where the file holds no weights of this network.
    """
    file = weights_file(spec, image)
    if file is None:
        return
    plain = application(spec, image)
    try:
        plain.load_weights(file)
    except Exception as error:  # h5py and Keras each have their own kinds for a damaged file
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(
            f"model.weights: {file}: not the weights of {spec.name} without its top: {reason}",
            "keras.applications calls such files …_no_top.h5",
        ) from error
    for convolution, normalisation in _needless_biases(plain).items():
        moving_mean = plain.get_layer(normalisation).moving_mean
        moving_mean.assign(moving_mean - plain.get_layer(convolution).bias)
    for layer, pretrained in zip(model.layers, plain.layers, strict=True):
        layer.set_weights(pretrained.get_weights()[: len(layer.weights)])
