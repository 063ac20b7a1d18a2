"""Published networks from keras.applications, with fused batch normalisation while they are trained."""

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

    With `fused`, its batch normalisation layers are ours, which train faster and hold the same weights in the same
    order. Its weights are random: `load_pretrained` gives it others.
    """
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype)
    try:
        build = getattr(keras.applications, APPLICATIONS[spec.name])
        model = build(include_top=False, weights=None, input_shape=(*image.size, 3), pooling="avg", name=spec.name)
        kernels = fused_kernels() if fused else None
        if kernels is not None:
            model = keras.models.clone_model(model, clone_function=_with_fused_batch_norm)
        model.trainable = not spec.freeze
        return model
    finally:
        keras.config.set_dtype_policy(policy)


def _with_fused_batch_norm(layer: keras.layers.Layer) -> keras.layers.Layer:
    kernels = fused_kernels()
    kind = kernels.BatchNormalization if kernels and type(layer) is keras.layers.BatchNormalization else type(layer)
    return kind.from_config(layer.get_config())


def load_pretrained(model: keras.Model, spec: BackboneModel) -> None:
    """Put the weights of a keras.applications file into a backbone; does nothing for `weights: none`."""
    if spec.weights == "none":
        return
    try:
        model.load_weights(spec.weights)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"model.weights: {spec.weights}: not the weights of {spec.name} without its top: {reason}",
            "keras.applications calls such files …_no_top.h5",
        ) from error
