"""Published networks from keras.applications, with fused batch normalisation while they are trained."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
from keras import ops

from imgrec_cli.config import BackboneModel, Image
from imgrec_cli.errors import InputError
from imgrec_cli.training.runtime import fused_kernels

APPLICATIONS = {"mobilenet_v2": "MobileNetV2", "resnet50": "ResNet50"}


class CaffeScaling(keras.layers.Layer):
    """RGB images 0..255 → BGR minus ImageNet's means, as the weights of He et al. 2015 were trained (Caffe's habit)."""

    def call(self, images: Any) -> Any:
        return ops.flip(images, axis=-1) - ops.convert_to_tensor([103.939, 116.779, 123.68], images.dtype)


def family_scaling(spec: BackboneModel) -> keras.layers.Layer:
    """The layer that takes float pixels 0..255 to what the family's weights expect; keras.applications calls it
    `preprocess_input`."""
    if spec.name == "resnet50":
        return CaffeScaling(name="scaling", dtype="float32")
    return keras.layers.Rescaling(1 / 127.5, -1.0, name="scaling", dtype="float32")


def backbone(spec: BackboneModel, image: Image, dtype: str, *, fused: bool) -> keras.Model:
    """The network without its top, pooled to one row of features, computed in the dtype policy `dtype`.

    Biases that a batch normalisation takes away again are left out, as He et al. 2015 do. With `fused`, some of its
    layers are ours, which train faster and hold the same weights in the same order. Its weights are random:
    `load_pretrained` gives it others.
    """
    with _dtype_policy(dtype):
        plain = _application(spec, image)
        needless = _needless_biases(plain)
        kernels = fused_kernels() if fused else None
        sums = _sums_before_relu(plain) if kernels is not None else {}

        def copy(layer: keras.layers.Layer) -> keras.layers.Layer:
            changes: dict[str, Any] = {}
            if layer.name in needless:
                changes = {"use_bias": False}
            elif layer.name in sums.values():
                changes = {"activation": "linear"}  # the sum before it is a ReLU already
            kind = type(layer)
            if kernels is not None and kind is keras.layers.BatchNormalization:
                kind = kernels.BatchNormalization
            elif kernels is not None and layer.name in sums:
                kind = kernels.AddReLU
            elif (
                kernels is not None
                and isinstance(layer, keras.layers.Conv2D)
                and kernels.Conv2D.fits(layer, layer.output.shape)
            ):
                kind = kernels.Conv2D
            return kind.from_config({**layer.get_config(), **changes})

        model = keras.models.clone_model(plain, clone_function=copy)
    model.trainable = not spec.freeze
    return model


@contextmanager
def _dtype_policy(name: str) -> Iterator[None]:
    """Keras's own applications take their precision from the process's policy alone."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _application(spec: BackboneModel, image: Image) -> keras.Model:
    build = getattr(keras.applications, APPLICATIONS[spec.name])
    options = {} if spec.width == 1 else {"alpha": spec.width}
    shape = (*image.size, 3)
    return build(include_top=False, weights=None, input_shape=shape, pooling="avg", name=spec.name, **options)


def _needless_biases(model: keras.Model) -> dict[str, str]:
    """Convolutions with a bias whose only reader is a batch normalisation, and that normalisation's name."""
    found = {}
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D) and layer.use_bias:
            readers = [node.operation for node in layer._outbound_nodes]
            if len(readers) == 1 and isinstance(readers[0], keras.layers.BatchNormalization):
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


def _is_relu(layer: keras.layers.Layer) -> bool:
    return type(layer) is keras.layers.Activation and layer.activation is keras.activations.relu


def load_pretrained(model: keras.Model, spec: BackboneModel, image: Image) -> None:
    """Put the weights of a keras.applications file into a backbone; does nothing for `weights: none`.

    A bias that was left out goes into the moving mean of the normalisation behind it: the answers stay the same.
    Raises InputError where the file holds no weights of this network.
    """
    if spec.weights == "none":
        return
    plain = _application(spec, image)
    try:
        plain.load_weights(spec.weights)
    except Exception as error:  # h5py and Keras each have their own kinds for a damaged file
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(
            f"model.weights: {spec.weights}: not the weights of {spec.name} without its top: {reason}",
            "keras.applications calls such files …_no_top.h5",
        ) from error
    for convolution, normalisation in _needless_biases(plain).items():
        moving_mean = plain.get_layer(normalisation).moving_mean
        moving_mean.assign(moving_mean - plain.get_layer(convolution).bias)
    for layer in (layer for layer in model.layers if layer.weights):
        weights = plain.get_layer(layer.name).get_weights()
        layer.set_weights(weights[: len(layer.weights)])
