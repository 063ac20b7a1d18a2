"""Config → Keras model: one table from our words to Keras's, with every unit conversion in plain sight."""

from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
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
    Model,
    Pool,
    Residual,
    Standardize,
    expanded,
    projection,
)
from imgrec_cli.training.augment import Augment
from imgrec_cli.training.backbone import backbone, load_pretrained
from imgrec_cli.training.familiarity import WIDEST_FEATURES, Unfamiliarity
from imgrec_cli.training.families import family_scaling
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


def network(model: LayersModel, x: Any, dtype: str, *, training: bool) -> Iterator[Any]:
    """What every layer of `model.layers` gives for the scaled pixels `x`, named by their place.

    With `training`, some layers are ours, which train faster with the same weights, and others are reordered: a ReLU
    before a max pool stands behind it, where there are fewer values to go through. The largest of some values and zero
    is the same in either order, and so is its gradient, bit for bit. TensorFlow's gradient of ReLU is slow in bfloat16,
    and so costs a quarter.
    """
    layers = _Layers(model, dtype, fused_kernels() if training else None)
    named = expanded(model.layers)
    postponed = False
    for (name, spec), (_, following) in zip(named, [*named[1:], ("", None)], strict=True):
        max_pool_follows = isinstance(following, Pool) and following.kind == "max"
        postpone = training and max_pool_follows and isinstance(spec, Conv | BatchNorm) and spec.activation == "relu"
        if postpone:
            spec = spec.model_copy(update={"activation": "linear"})
        x = layers.added(spec, name, x)
        if postponed:
            x = keras.layers.Activation("relu", name=f"{name}_relu", dtype=dtype)(x)
        yield x
        postponed = postpone


class _Layers:
    """Entries of `model.layers` as Keras layers; `kernels` are those that train faster with the same weights.

    `seconds` holds, by the id of a map that a layer gives twice, the one for the first of its two readers.
    """

    def __init__(self, model: LayersModel, dtype: str, kernels: ModuleType | None) -> None:
        self.model, self.dtype, self.kernels = model, dtype, kernels
        self.seconds: dict[int, Any] = {}

    def added(self, spec: Layer, name: str, x: Any) -> Any:
        """The output of one more layer, of the residual block that is one or of its Keras layers."""
        layers = keras.layers
        dtype: dict[str, Any] = {"dtype": self.dtype}
        match spec:
            case Conv():
                return self._convolution(spec, name, x)
            case Pool():
                kind = layers.MaxPooling2D if spec.kind == "max" else layers.AveragePooling2D
                return kind(spec.size, spec.stride, spec.padding, name=name, **dtype)(x)
            case GlobalPool():
                pool = layers.GlobalMaxPooling2D if spec.kind == "max" else layers.GlobalAveragePooling2D
                return pool(name=name, **dtype)(x)
            case Flatten():
                return layers.Flatten(name=name, **dtype)(x)
            case Dense():
                options = weight_options(self.model)
                return layers.Dense(spec.units, spec.activation, name=name, **options, **dtype)(x)
            case Dropout():
                return layers.Dropout(spec.rate, name=name, **dtype)(x)
            case BatchNorm():
                x = (self.kernels or layers).BatchNormalization(momentum=spec.momentum, name=name, **dtype)(x)
                return self._activated(spec.activation, name, x)
            case Residual():
                return self._residual(spec, name, x)
        assert_never(spec)

    def _convolution(self, spec: Conv, name: str, x: Any) -> Any:
        apart = self._fused(spec.activation) is not None
        plain = keras.layers.Conv2D(
            spec.filters,
            spec.kernel,
            strides=spec.stride,
            dilation_rate=spec.dilation,
            padding=spec.padding,
            use_bias=spec.bias,
            activation="linear" if apart else spec.activation,
            name=name,
            dtype=self.dtype,
            **weight_options(self.model),
        )
        if self.kernels is not None and self.kernels.Conv2D.fits(plain, plain.compute_output_shape(x.shape)):
            plain = self.kernels.Conv2D.from_config(plain.get_config())
        return self._activated(spec.activation, name, plain(x)) if apart else plain(x)

    def _fused(self, activation: str) -> ModuleType | None:
        """The kernels, where the activation is faster by theirs."""
        compute_dtype = keras.DTypePolicy(self.dtype).compute_dtype
        fits = self.kernels is not None and self.kernels.Activation.fits(activation, compute_dtype)
        return self.kernels if fits else None

    def _activated(self, activation: str, name: str, x: Any) -> Any:
        if activation == "linear":
            return x
        layers = self._fused(activation) or keras.layers
        return layers.Activation(activation, name=f"{name}_{activation}", dtype=self.dtype)(x)

    def _residual(self, block: Residual, name: str, x: Any) -> Any:
        inner = self.seconds.pop(id(x), x)
        for number, spec in enumerate(block.layers, start=1):
            inner = self.added(spec, f"{name}_{spec.type}_{number}", inner)
        for spec in projection(block, x.shape[1:], inner.shape[1:]):
            x = self.added(spec, f"{name}_projection_{spec.type}", x)
        if block.activation == "relu" and self.kernels is not None:
            outputs, second = self.kernels.AddReLU(name=name, dtype=self.dtype)([inner, x])
            self.seconds[id(outputs)] = second
            return outputs
        return self._activated(block.activation, name, keras.layers.Add(name=name, dtype=self.dtype)([inner, x]))


def weight_options(model: Model) -> dict[str, Any]:
    """How the kernel of a layer begins and what it adds to the loss, as arguments of Keras's layers.

    `glorot_…` is Glorot and Bengio 2010, `he_…` He et al. 2015b, both with the variance that their sections derive.
    """
    if not isinstance(model, LayersModel):
        return {}
    penalty = keras.regularizers.L1L2(model.l1, model.l2) if model.l1 or model.l2 else None
    return {"kernel_initializer": model.init, "kernel_regularizer": penalty}


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
    last_map: Any | None = None
    match config.model:
        case LayersModel() as spec:
            outputs = list(network(spec, scaling(config.image)(images), dtype, training=training))
            x = outputs[-1]
            last_map = next((output for output in reversed(outputs) if len(output.shape) == 4), None)
        case BackboneModel() as spec:
            published = backbone(spec, config.image, dtype, fused=training)
            if training:
                load_pretrained(published, spec, config.image)
            x = before_logits(spec, published(family_scaling(spec)(images)), dtype)
        case _:
            assert_never(config.model)
    # the loss needs logits that are not rounded to 8 bits of mantissa
    logits = keras.layers.Dense(classes, name="logits", dtype="float32", **weight_options(config.model))(x)
    return _Graph(logits, x, last_map)


def before_logits(spec: BackboneModel, x: Any, dtype: str) -> Any:
    """What stands between the features of a backbone [B, channels] and the last layer."""
    if spec.head is not None:
        x = keras.layers.Dense(spec.head.units, spec.head.activation, name="head", dtype=dtype)(x)
    if spec.dropout:
        x = keras.layers.Dropout(spec.dropout, name="dropout", dtype=dtype)(x)
    return x


def behind_backbone(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers of a model with a backbone that are trained where it is frozen, first to last."""
    return [layer for layer in model.layers if layer.name in ("head", "logits")]


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
