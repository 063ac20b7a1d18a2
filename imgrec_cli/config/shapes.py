"""The layer table of a model: output shapes and parameter counts in plain Python, without Keras."""

import math
from dataclasses import dataclass
from typing import assert_never

from imgrec_cli.config.sections import (
    BackboneModel,
    BatchNorm,
    Config,
    Conv,
    Dense,
    Dropout,
    Flatten,
    GlobalPool,
    Layer,
    LayersModel,
    Pool,
)

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LayerRow:
    """One layer; `output_shape` is (height, width, channels) or (units,), without the batch.

    `multiply_adds` are those of one image on its way forward, of convolutions and dense layers.
    """

    name: str
    output_shape: Shape
    parameters: int
    multiply_adds: int


class DoesNotFitError(ValueError):
    """A layer cannot take what the one before it gives; the text says why."""


def layer_table(config: Config, classes: int) -> list[LayerRow]:
    """Rows of the whole network: the scaling of the pixels, the stack of the config, the softmax that is added.

    Parameters include those that are not trained (moving mean and variance of batch_norm). `config` is one that
    `load_config` accepted, so that every layer fits.
    """
    shape: Shape = (*config.image.size, config.image.channels)
    rows = [LayerRow("scaling", shape, 0, 0)]
    match config.model:
        case LayersModel(layers=layers):
            for number, layer in enumerate(layers, start=1):
                shape, parameters = after(layer, shape)
                has_weights = isinstance(layer, Conv | Dense)
                # one per weight and place, biases are not multiplied
                work = (parameters - shape[-1]) * math.prod(shape[:-1]) if has_weights else 0
                rows.append(LayerRow(f"{layer.type}_{number}", shape, parameters, work))
        case BackboneModel(name=name, width=share):
            facts = BACKBONES[name, share]
            # every halving rounds up, five times: the map is 32 times smaller than the image
            height, width = (math.ceil(side / 32) for side in config.image.size)
            work = round(facts.multiply_adds_per_pixel * math.prod(config.image.size))
            rows.append(LayerRow(name, (height, width, facts.channels), facts.parameters, work))
            shape = (facts.channels,)
            rows.append(LayerRow("global_pool", shape, 0, 0))
    shape, parameters = after(Dense(type="dense", units=classes), shape)
    return [*rows, LayerRow("softmax", shape, parameters, parameters - classes)]


@dataclass(frozen=True, slots=True)
class BackboneFacts:
    """What is known of a backbone without building it: parameters without the top, channels at its end, its work."""

    parameters: int
    channels: int
    multiply_adds_per_pixel: float


# By name and width. Parameters without the top and without biases before batch normalisation (a test builds them);
# multiply-adds at 224×224 from keras.applications' page of MobileNetV2, which has them from its authors, and from He et
# al. 2015, table 1.
BACKBONES = {
    ("mobilenet_v2", 0.35): BackboneFacts(410_208, 1280, 59e6 / 224**2),
    ("mobilenet_v2", 0.5): BackboneFacts(706_224, 1280, 97e6 / 224**2),
    ("mobilenet_v2", 0.75): BackboneFacts(1_382_064, 1280, 209e6 / 224**2),
    ("mobilenet_v2", 1.0): BackboneFacts(2_257_984, 1280, 300e6 / 224**2),
    ("mobilenet_v2", 1.3): BackboneFacts(3_766_048, 1664, 509e6 / 224**2),
    ("mobilenet_v2", 1.4): BackboneFacts(4_363_712, 1792, 582e6 / 224**2),
    ("resnet50", 1.0): BackboneFacts(23_561_152, 2048, 3.8e9 / 224**2),
}


def after(layer: Layer, shape: Shape) -> tuple[Shape, int]:
    """Output shape and number of parameters of a layer that is given `shape`; raises DoesNotFitError."""
    match layer:
        case Conv():
            height, width, channels = _map(layer, shape)
            if layer.padding == "valid" and layer.kernel > min(height, width):
                raise DoesNotFitError(
                    f"a kernel of {layer.kernel} by {layer.kernel} is larger than the {_text(shape)} map"
                )
            lost = layer.kernel - 1 if layer.padding == "valid" else 0
            # the number of kernel positions, rounded up (Dumoulin and Visin 2016, section 2)
            height, width = ((side - lost + layer.stride - 1) // layer.stride for side in (height, width))
            return (height, width, layer.filters), (layer.kernel**2 * channels + 1) * layer.filters
        case Pool():
            height, width, channels = _map(layer, shape)
            if layer.size > min(height, width):
                raise DoesNotFitError(f"a window of {layer.size} by {layer.size} is larger than the {_text(shape)} map")
            return (height // layer.size, width // layer.size, channels), 0
        case GlobalPool():
            return _map(layer, shape)[2:], 0
        case Flatten():
            height, width, channels = _map(layer, shape)
            return (height * width * channels,), 0
        case Dense():
            if len(shape) != 1:
                raise DoesNotFitError(f"dense wants one row of numbers, not a map; put {_FLAT} before it")
            return (layer.units,), (shape[0] + 1) * layer.units
        case Dropout():
            return shape, 0
        case BatchNorm():
            return shape, 4 * shape[-1]
    assert_never(layer)


_FLAT = "{type: flatten} or {type: global_pool}"


def _map(layer: Layer, shape: Shape) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise DoesNotFitError(f"{layer.type} wants a map, but flatten, global_pool or dense before it left none")
    return shape[0], shape[1], shape[2]


def _text(shape: Shape) -> str:
    return " by ".join(str(side) for side in shape[:2])
