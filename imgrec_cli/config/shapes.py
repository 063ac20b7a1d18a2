"""The layer table of a model: output shapes and parameter counts in plain Python, without Keras."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import assert_never

from imgrec_cli.config.networks import (
    BackboneModel,
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    Flatten,
    GlobalPool,
    Layer,
    LayersModel,
    Pool,
    Residual,
)
from imgrec_cli.config.sections import Config
from imgrec_cli.config.values import Padding

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
    """A layer cannot take what the one before it gives; the text says why, `inner` which layer of a residual it is."""

    def __init__(self, text: str, inner: int | None = None, *, by_size: bool = False) -> None:
        super().__init__(text)
        self.inner, self.by_size = inner, by_size


def expanded(layers: Sequence[Layer]) -> list[tuple[str, Layer]]:
    """The entries of `model.layers` by name, which says their place; a residual stands as often as it repeats."""
    found: list[tuple[str, Layer]] = []
    for number, layer in enumerate(layers, start=1):
        name = f"{layer.type}_{number}"
        if isinstance(layer, Residual) and layer.repeat > 1:
            found += [(f"{name}_{block}", layer) for block in range(1, layer.repeat + 1)]
        else:
            found.append((name, layer))
    return found


def layer_table(config: Config, classes: int) -> list[LayerRow]:
    """Rows of the whole network: the scaling of the pixels, the stack of the config, the softmax that is added.

    Parameters include those that are not trained (moving mean and variance of batch_norm). `config` is one that
    `load_config` accepted, so that every layer fits.
    """
    shape: Shape = (*config.image.size, config.image.channels)
    rows = [LayerRow("scaling", shape, 0, 0)]
    match config.model:
        case LayersModel(layers=layers):
            for name, layer in expanded(layers):
                cost = after(layer, shape)
                shape = cost.shape
                rows.append(LayerRow(name, shape, cost.parameters, cost.multiply_adds))
        case BackboneModel(name=name, width=share, head=head):
            facts = BACKBONES[name, share]
            height, width = (facts.side(side) for side in config.image.size)
            work = round(facts.multiply_adds_per_pixel * math.prod(config.image.size))
            rows.append(LayerRow(name, (height, width, facts.channels), facts.parameters, work))
            shape = (facts.channels,)
            rows.append(LayerRow("global_pool", shape, 0, 0))
            if head is not None:
                cost = after(Dense(type="dense", units=head.units), shape)
                shape = cost.shape
                rows.append(LayerRow("head", shape, cost.parameters, cost.multiply_adds))
    softmax = after(Dense(type="dense", units=classes), shape)
    return [*rows, LayerRow("softmax", softmax.shape, softmax.parameters, softmax.multiply_adds)]


def values_of_layers(config: Config) -> int:
    """How many numbers all layers of `model.layers` give for one image, those within residual blocks among them."""
    shape: Shape = (*config.image.size, config.image.channels)
    values = math.prod(shape)
    if isinstance(config.model, LayersModel):
        for _, layer in expanded(config.model.layers):
            cost = after(layer, shape)
            shape, values = cost.shape, values + cost.values
    return values


def _rounded_up(side: int) -> int:
    return -(-side // 32)


@dataclass(frozen=True, slots=True)
class BackboneFacts:
    """What is known of a backbone without building it: parameters without the top, channels at its end, its work and
    its layers' outputs per pixel of the image, the side of its last map by that of the image, the smallest image."""

    parameters: int
    channels: int
    multiply_adds_per_pixel: float
    outputs_per_pixel: float
    side: Callable[[int], int] = _rounded_up
    smallest: int = 32


# By name and width; a test builds them. Parameters are without the top and without biases before batch normalisation.
# Multiply-adds are counted in Keras's layers at 224×224, outputs are the numbers that all layers give.
BACKBONES = {
    ("mobilenet_v2", 0.35): BackboneFacts(410_208, 1280, 1156, 189),
    ("mobilenet_v2", 0.5): BackboneFacts(706_224, 1280, 1910, 238),
    ("mobilenet_v2", 0.75): BackboneFacts(1_382_064, 1280, 4141, 385),
    ("mobilenet_v2", 1.0): BackboneFacts(2_257_984, 1280, 5969, 435),
    ("mobilenet_v2", 1.3): BackboneFacts(3_766_048, 1664, 10119, 587),
    ("mobilenet_v2", 1.4): BackboneFacts(4_363_712, 1792, 11567, 623),
    ("mobilenet_v3_small", 0.75): BackboneFacts(583_160, 432, 836, 96),
    ("mobilenet_v3_small", 1.0): BackboneFacts(939_120, 576, 1094, 104),
    ("mobilenet_v3_large", 0.75): BackboneFacts(1_808_736, 720, 3036, 277),
    ("mobilenet_v3_large", 1.0): BackboneFacts(2_996_352, 960, 4267, 304),
    ("efficientnet_v2_b0", 1.0): BackboneFacts(5_919_312, 1280, 14286, 316),
    ("efficientnet_v2_b1", 1.0): BackboneFacts(6_931_124, 1280, 20220, 421),
    ("efficientnet_v2_b2", 1.0): BackboneFacts(8_769_374, 1408, 23267, 455),
    ("efficientnet_v2_b3", 1.0): BackboneFacts(12_930_622, 1536, 32056, 570),
    ("efficientnet_v2_s", 1.0): BackboneFacts(20_331_360, 1280, 56772, 834),
    ("resnet50", 1.0): BackboneFacts(23_561_152, 2048, 76848, 740),
    ("resnet101", 1.0): BackboneFacts(42_605_504, 2048, 150832, 1114),
    ("resnet50_v2", 1.0): BackboneFacts(23_564_800, 2048, 69360, 625),
    ("resnet101_v2", 1.0): BackboneFacts(42_626_560, 2048, 143344, 1022),
    ("convnext_tiny", 1.0): BackboneFacts(27_820_128, 768, 88783, 587, lambda side: side // 32),
    ("convnext_small", 1.0): BackboneFacts(49_454_688, 768, 173050, 938, lambda side: side // 32),
    ("densenet121", 1.0): BackboneFacts(7_037_504, 1024, 56464, 995, lambda side: -(-side // 4) // 8),
    ("xception", 1.0): BackboneFacts(20_861_480, 2048, 90697, 689, lambda side: -(-((side - 3) // 2 - 1) // 16), 71),
}


@dataclass(frozen=True, slots=True)
class Cost:
    """What a layer gives and takes: its output's shape, its parameters, multiply-adds and output values per image."""

    shape: Shape
    parameters: int
    multiply_adds: int
    values: int


def after(layer: Layer, shape: Shape) -> Cost:
    """What a layer is that is given `shape`; raises DoesNotFitError."""
    parameters = work = 0
    match layer:
        case Conv():
            height, width, channels = _map(layer, shape)
            if layer.dilation > 1 and layer.stride > 1:
                raise DoesNotFitError(f"a dilation of {layer.dilation} needs a stride of 1, got {layer.stride}")
            reach = layer.dilation * (layer.kernel - 1) + 1
            if layer.padding == "valid" and reach > min(height, width):
                dilated = f" with a dilation of {layer.dilation}" if layer.dilation > 1 else ""
                raise DoesNotFitError(
                    f"a kernel of {layer.kernel} by {layer.kernel}{dilated} is larger than the {_text(shape)} map"
                )
            shape = (*_positions((height, width), reach, layer.stride, layer.padding), layer.filters)
            weights = layer.kernel**2 * channels * layer.filters
            parameters = weights + layer.filters * layer.bias
            work = weights * math.prod(shape[:2])
        case Pool():
            height, width, channels = _map(layer, shape)
            if layer.padding == "valid" and layer.size > min(height, width):
                raise DoesNotFitError(f"a window of {layer.size} by {layer.size} is larger than the {_text(shape)} map")
            shape = (*_positions((height, width), layer.size, layer.stride or layer.size, layer.padding), channels)
        case GlobalPool():
            shape = _map(layer, shape)[2:]
        case Flatten():
            shape = (math.prod(_map(layer, shape)),)
        case Dense():
            if len(shape) != 1:
                raise DoesNotFitError(f"dense wants one row of numbers, not a map; put {_FLAT} before it")
            work = shape[0] * layer.units
            shape, parameters = (layer.units,), work + layer.units
        case Dropout():
            pass
        case BatchNorm():
            parameters = 4 * shape[-1]
        case Residual():
            return _after_residual(layer, _map(layer, shape))
        case _:
            assert_never(layer)
    return Cost(shape, parameters, work, math.prod(shape))


def _positions(sides: tuple[int, int], reach: int, stride: int, padding: Padding) -> tuple[int, int]:
    """Places of a kernel or window along both sides, rounded up (Dumoulin and Visin 2016, section 2)."""
    lost = reach - 1 if padding == "valid" else 0
    height, width = (-(-(side - lost) // stride) for side in sides)
    return height, width


def _after_residual(block: Residual, shape: tuple[int, int, int]) -> Cost:
    """One block of them, however often it repeats."""
    inner: Shape = shape
    parameters = work = values = 0
    for index, layer in enumerate(block.layers):
        try:
            cost = after(layer, inner)
        except DoesNotFitError as error:
            raise DoesNotFitError(str(error), index, by_size=error.by_size) from None
        inner = cost.shape
        parameters, work, values = parameters + cost.parameters, work + cost.multiply_adds, values + cost.values
    for layer in projection(block, shape, inner):
        cost = after(layer, shape)
        shape = (cost.shape[0], cost.shape[1], cost.shape[2])
        parameters, work, values = parameters + cost.parameters, work + cost.multiply_adds, values + cost.values
    if shape != inner:
        raise DoesNotFitError(
            f"the layers make {_text(inner)} of the {_text(shape)} map, which no stride explains; use padding: same",
            by_size=True,
        )
    return Cost(inner, parameters, work, values + math.prod(inner))


def projection(block: Residual, shape: Shape, inner: Shape) -> list[Conv | BatchNorm]:
    """The layers that bring the map `shape` to the shape `inner` of what is added to it; none where it has it already
    (He et al. 2015, section 3.3, option B)."""
    stride = math.prod(
        layer.stride if isinstance(layer, Conv) else layer.stride or layer.size
        for layer in block.layers
        if isinstance(layer, Conv | Pool)
    )
    if shape == inner and stride == 1:
        return []
    normalised = any(isinstance(layer, BatchNorm) for layer in block.layers)
    convolution = Conv(type="conv", filters=inner[-1], kernel=1, stride=stride, bias=not normalised)
    return [convolution, *([BatchNorm(type="batch_norm")] if normalised else [])]


_FLAT = "{type: flatten} or {type: global_pool}"


def _map(layer: Layer, shape: Shape) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise DoesNotFitError(f"{layer.type} wants a map, but flatten, global_pool or dense before it left none")
    return shape[0], shape[1], shape[2]


def _text(shape: Shape) -> str:
    return " by ".join(str(side) for side in shape[:2])
