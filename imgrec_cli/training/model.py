"""Config → Keras model: one table from our words to Keras's, with every unit conversion in plain sight."""

from collections.abc import Iterable
from typing import Any, assert_never

import keras

from imgrec_cli.config import (
    Activation,
    BatchNorm,
    Config,
    Conv,
    Dense,
    Dropout,
    Flatten,
    GlobalPool,
    Image,
    Layer,
    Pool,
    Standardize,
)
from imgrec_cli.training.augment import Augment

POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}


def scaling(image: Image) -> keras.layers.Layer:
    """The layer that takes pixels from 0..255 to what the stack wants: 0..1, or mean 0 and deviation 1."""
    match image.standardize:
        case Standardize(mean=mean, deviation=deviation):
            scale = [1 / (255 * d) for d in deviation]
            offset = [-m / d for m, d in zip(mean, deviation, strict=True)]
        case _:
            scale, offset = [1 / 255], [0.0]
    return keras.layers.Rescaling(scale, offset, name="scaling", dtype="float32")


def layer(spec: Layer, name: str, dtype: str) -> Iterable[keras.layers.Layer]:
    """The Keras layers of one entry of `model.layers`."""
    layers = keras.layers
    match spec:
        case Conv():
            yield layers.Conv2D(
                spec.filters,
                spec.kernel,
                strides=spec.stride,
                padding=spec.padding,
                activation=activation(spec.activation),
                name=name,
                dtype=dtype,
            )
        case Pool(kind="max"):
            yield layers.MaxPooling2D(spec.size, name=name, dtype=dtype)
        case Pool():
            yield layers.AveragePooling2D(spec.size, name=name, dtype=dtype)
        case GlobalPool(kind="max"):
            yield layers.GlobalMaxPooling2D(name=name, dtype=dtype)
        case GlobalPool():
            yield layers.GlobalAveragePooling2D(name=name, dtype=dtype)
        case Flatten():
            yield layers.Flatten(name=name, dtype=dtype)
        case Dense():
            yield layers.Dense(spec.units, activation=activation(spec.activation), name=name, dtype=dtype)
        case Dropout():
            yield layers.Dropout(spec.rate, name=name, dtype=dtype)
        case BatchNorm():
            yield layers.BatchNormalization(name=name, dtype=dtype)
            if spec.activation != "linear":
                yield layers.Activation(activation(spec.activation), name=f"{name}_{spec.activation}", dtype=dtype)
        case _:
            assert_never(spec)


def activation(name: Activation) -> str:
    """Keras's name of an activation; they are the same words."""
    return name


def _stack(config: Config, dtype: str) -> Iterable[keras.layers.Layer]:
    for number, spec in enumerate(config.model.layers, start=1):
        yield from layer(spec, f"{spec.type}_{number}", dtype)


def training_model(config: Config, classes: int) -> keras.Model:
    """The model that is trained: augmentation → scaling → stack → logits.

    Input uint8 [B, H, W, C], 0..255; output float32 [B, classes]. Augmentation acts in training only. The config is
    resolved: no `auto` is left in it.
    """
    dtype = POLICIES[config.train.precision]
    images = keras.Input((*config.image.size, config.image.channels), dtype="uint8", name="images")
    x: Any = Augment(config.augment, seed=config.seed, name="augment", dtype="float32")(images)
    x = scaling(config.image)(x)
    for part in _stack(config, dtype):
        x = part(x)
    # the loss needs logits that are not rounded to 8 bits of mantissa
    return keras.Model(images, keras.layers.Dense(classes, name="logits", dtype="float32")(x), name="training")


def shipped_model(config: Config, classes: int) -> keras.Model:
    """The model that is exported: scaling → stack → softmax, no augmentation.

    Input uint8 [N, H, W, C], 0..255; output float32 probabilities [N, classes]. Its weights stand in the order of the
    training model's.
    """
    images = keras.Input((*config.image.size, config.image.channels), dtype="uint8", name="images")
    x: Any = scaling(config.image)(images)
    for part in _stack(config, "float32"):
        x = part(x)
    logits = keras.layers.Dense(classes, name="logits", dtype="float32")(x)
    return keras.Model(images, keras.layers.Softmax(name="probabilities", dtype="float32")(logits), name="shipped")
