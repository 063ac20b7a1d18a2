"""Config → Keras model: one table from our words to Keras's, with every unit conversion in plain sight."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, assert_never

import keras

from imgrec_cli.config import (
    BackboneModel,
    BatchNorm,
    Config,
    Conv,
    Dense,
    Dropout,
    Flatten,
    GlobalPool,
    Image,
    Layer,
    LayersModel,
    Pool,
    Standardize,
)
from imgrec_cli.training.augment import Augment
from imgrec_cli.training.backbone import backbone, family_scaling, load_pretrained
from imgrec_cli.training.familiarity import WIDEST_FEATURES, Unfamiliarity
from imgrec_cli.training.runtime import fused_kernels

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


def layer(spec: Layer, name: str, dtype: str, *, fused: bool) -> Iterable[keras.layers.Layer]:
    """The Keras layers of one entry of `model.layers`, with `fused` those that train faster with the same weights."""
    layers = keras.layers
    match spec:
        case Conv():
            yield layers.Conv2D(
                spec.filters,
                spec.kernel,
                strides=spec.stride,
                padding=spec.padding,
                activation=spec.activation,
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
            yield layers.Dense(spec.units, activation=spec.activation, name=name, dtype=dtype)
        case Dropout():
            yield layers.Dropout(spec.rate, name=name, dtype=dtype)
        case BatchNorm():
            kernels = fused_kernels() if fused else None
            yield (kernels or layers).BatchNormalization(momentum=spec.momentum, name=name, dtype=dtype)
            if spec.activation != "linear":
                yield layers.Activation(spec.activation, name=f"{name}_{spec.activation}", dtype=dtype)
        case _:
            assert_never(spec)


def stack(specs: Sequence[Layer], dtype: str, *, training: bool) -> Iterator[keras.layers.Layer]:
    """The Keras layers of `model.layers`, named by their place; with `training`, fused and reordered for speed.

    While training, a ReLU before a max pool stands behind it, where there are fewer values to go through: the largest
    of some values and zero is the same in either order, and so is its gradient, bit for bit. TensorFlow's gradient of
    ReLU is slow in bfloat16, and so costs a quarter.
    """
    postponed = False
    for number, (spec, following) in enumerate(zip(specs, [*specs[1:], None], strict=True), start=1):
        name = f"{spec.type}_{number}"
        max_pool_follows = isinstance(following, Pool) and following.kind == "max"
        postpone = training and max_pool_follows and isinstance(spec, Conv | BatchNorm) and spec.activation == "relu"
        if postpone:
            spec = spec.model_copy(update={"activation": "linear"})
        yield from layer(spec, name, dtype, fused=training)
        if postponed:
            yield keras.layers.Activation("relu", name=f"{name}_relu", dtype=dtype)
        postponed = postpone


@dataclass(frozen=True)
class _Graph:
    """Logits float32 [B, classes]; what goes into the layer behind them; the last map [B, H, W, C] where it is not
    inside a backbone."""

    logits: Any
    features: Any
    last_map: Any | None


def _graph(config: Config, classes: int, images: Any, dtype: str, *, training: bool) -> _Graph:
    """The network on float images [B, H, W, C], 0..255; the same weights in the same order either way.

    With `training` fused layers are used where there are any; what is shipped is plain Keras.
    """
    last_map = None
    match config.model:
        case LayersModel(layers=specs):
            x = scaling(config.image)(images)
            for part in stack(specs, dtype, training=training):
                x = part(x)
                last_map = x if len(x.shape) == 4 else last_map
        case BackboneModel() as spec:
            network = backbone(spec, config.image, dtype, fused=training)
            if training:
                load_pretrained(network, spec, config.image)
            x = network(family_scaling(spec)(images))
            if spec.dropout:
                x = keras.layers.Dropout(spec.dropout, name="dropout", dtype=dtype)(x)
        case _:
            assert_never(config.model)
    # the loss needs logits that are not rounded to 8 bits of mantissa
    logits = keras.layers.Dense(classes, name="logits", dtype="float32")(x)
    return _Graph(logits, x, last_map)


def training_model(config: Config, classes: int) -> keras.Model:
    """The model that is trained: augmentation → scaling → network → logits.

    Input uint8 [B, H, W, C], 0..255; output float32 [B, classes]. Augmentation acts in training only. The config is
    resolved: no `auto` is left in it.
    """
    images = keras.Input((*config.image.size, config.image.channels), dtype="uint8", name="images")
    augmented = Augment(config.augment, seed=config.seed, name="augment", dtype="float32")(images)
    graph = _graph(config, classes, augmented, POLICIES[config.train.precision], training=True)
    return keras.Model(images, graph.logits, name="training")


def shipped_model(config: Config, classes: int, *, unfamiliarity: bool = False) -> keras.Model:
    """The model that is exported: scaling → network → softmax, no augmentation, float32.

    Input uint8 [N, H, W, C], 0..255; output float32 probabilities [N, classes]. Its weights stand in the order of the
    training model's. With `unfamiliarity` a second output float32 [N] follows, and the weights of that layer behind
    the others, where there are features that it can be measured on.
    """
    images = keras.Input((*config.image.size, config.image.channels), dtype="uint8", name="images")
    pixels = Augment((), seed=0, name="pixels", dtype="float32")(images)
    graph = _graph(config, classes, pixels, "float32", training=False)
    outputs = [keras.layers.Softmax(name="probabilities", dtype="float32")(graph.logits)]
    features = graph.features
    if features.shape[-1] > WIDEST_FEATURES and graph.last_map is not None:
        features = keras.layers.GlobalAveragePooling2D(name="features", dtype="float32")(graph.last_map)
    if unfamiliarity and 2 <= features.shape[-1] <= WIDEST_FEATURES:
        outputs.append(Unfamiliarity(name="unfamiliarity", dtype="float32")([features, graph.logits]))
    return keras.Model(images, outputs[0] if len(outputs) == 1 else outputs, name="shipped")
