"""The layer table of a model: output shapes and parameter counts in plain Python, without Keras."""

from dataclasses import dataclass
from typing import assert_never

from imgrec_cli.config.sections import BatchNorm, Config, Conv, Dense, Dropout, Flatten, GlobalPool, Layer, Pool

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LayerRow:
    """One layer; `output_shape` is (height, width, channels) or (units,), without the batch."""

    name: str
    output_shape: Shape
    parameters: int


class DoesNotFitError(ValueError):
    """A layer cannot take what the one before it gives; the text says why."""


def layer_table(config: Config, classes: int) -> list[LayerRow]:
    """Rows of the whole network: the scaling of the pixels, the stack of the config, the softmax that is added.

    Parameters include those that are not trained (moving mean and variance of batch_norm). `config` is one that
    `load_config` accepted, so that every layer fits.
    """
    shape: Shape = (*config.image.size, config.image.channels)
    rows = [LayerRow("scaling", shape, 0)]
    for number, layer in enumerate(config.model.layers, start=1):
        shape, parameters = after(layer, shape)
        rows.append(LayerRow(f"{layer.type}_{number}", shape, parameters))
    shape, parameters = after(Dense(type="dense", units=classes), shape)
    return [*rows, LayerRow("softmax", shape, parameters)]


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
