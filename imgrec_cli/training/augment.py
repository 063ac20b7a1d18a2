"""Random changes of the training images inside the compiled step: one affine warp, few passes over the values, mixing.

Drawing random numbers and applying them are two functions, so that what is applied can be tested on its own.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import keras
from keras import ops

from imgrec_cli.config import (
    Augmentation,
    Brightness,
    ChannelShift,
    Contrast,
    Crop,
    Cutmix,
    Erase,
    Fill,
    Flip,
    Mixup,
    RandAugment,
    Rotate,
    Shear,
    Shift,
    Zoom,
)
from imgrec_cli.training import randaugment
from imgrec_cli.training.mixing import erased, mixed

Tensor = Any
GEOMETRIC = (Rotate, Shift, Shear, Zoom, Crop, Flip)
PHOTOMETRIC = (Brightness, Contrast, ChannelShift)

# how many uniform numbers one image needs for each kind
_DRAWS = {Rotate: 1, Shift: 2, Shear: 1, Zoom: 2, Crop: 4, Flip: 1, Brightness: 1, Contrast: 1, Fill: 0}
_DRAWS |= {Mixup: 1, Cutmix: 3}


def draws(spec: Augmentation, channels: int) -> int:
    """Number of uniform random numbers in 0..1 that one image needs for this step."""
    if isinstance(spec, ChannelShift):
        return channels
    if isinstance(spec, Erase):
        return 5 + channels
    if isinstance(spec, RandAugment):
        return 2 * spec.operations
    return _DRAWS[type(spec)]


def _between(low: float, high: float, uniform: Tensor) -> Tensor:
    return low + (high - low) * uniform


def matrix(spec: Augmentation, uniform: Tensor, height: int, width: int) -> Tensor:
    """Where the pixels of the result come from: float32 [B, 3, 3] on column vectors (x, y, 1), pixels from the centre.

    `uniform` float32 [B, draws]. The formulas for rotation, shift, shear and zoom are those of Keras's
    ImageDataGenerator (`keras.preprocessing.image`, legacy), so its settings carry over.
    """
    one, zero = ops.ones_like(uniform[:, 0]), ops.zeros_like(uniform[:, 0])
    xx, xy, yx, yy, tx, ty = one, zero, zero, one, zero, zero
    match spec:
        case Rotate():
            angle = _between(-spec.degrees, spec.degrees, uniform[:, 0]) * (math.pi / 180)
            xx, xy, yx, yy = ops.cos(angle), -ops.sin(angle), ops.sin(angle), ops.cos(angle)
        case Shift(pixels=pixels) if pixels:
            ty, tx = (ops.floor(_between(-pixels, pixels + 1, uniform[:, side])) for side in (0, 1))
        case Shift():
            ty = _between(-spec.height, spec.height, uniform[:, 0]) * height
            tx = _between(-spec.width, spec.width, uniform[:, 1]) * width
        case Shear():
            angle = _between(-spec.degrees, spec.degrees, uniform[:, 0]) * (math.pi / 180)
            xy, yy = -ops.sin(angle), ops.cos(angle)
        case Zoom(range=(low, high)):
            yy, xx = _between(low, high, uniform[:, 0]), _between(low, high, uniform[:, 1])
        case Crop(area=(least, most), aspect=(narrow, wide)):
            area = _between(least, most, uniform[:, 0])
            # uniform in the logarithm: 3:4 and 4:3 are equally likely
            aspect = ops.exp(_between(math.log(narrow), math.log(wide), uniform[:, 1]))
            xx = ops.minimum(ops.sqrt(area * aspect), 1.0)
            yy = ops.minimum(ops.sqrt(area / aspect), 1.0)
            tx = (1 - xx) * (uniform[:, 2] - 0.5) * width
            ty = (1 - yy) * (uniform[:, 3] - 0.5) * height
        case Flip(axis="horizontal"):
            xx = ops.where(uniform[:, 0] < 0.5, -one, one)
        case Flip():
            yy = ops.where(uniform[:, 0] < 0.5, -one, one)
        case _:
            raise AssertionError(f"{spec.type} is not geometric")
    rows = [ops.stack(row, axis=-1) for row in ((xx, xy, tx), (yx, yy, ty), (zero, zero, one))]
    return ops.stack(rows, axis=1)


def product(first: Tensor, second: Tensor) -> Tensor:
    """Matrix products of [B or 1, 3, 3] by [B or 1, 3, 3], elementwise: a general matrix product takes milliseconds to
    set up for matrices this small."""
    return ops.sum(first[:, :, :, None] * second[:, None, :, :], axis=2)


def warp(images: Tensor, matrices: Tensor, fill: Fill) -> Tensor:
    """Apply float32 [B, 3, 3] matrices (result → source, about the centre) to images [B, H, W, C], bilinearly."""
    height, width = images.shape[1:3]
    cx, cy = (width - 1) / 2, (height - 1) / 2
    to_centre = ops.convert_to_tensor([[1.0, 0.0, -cx], [0.0, 1.0, -cy], [0.0, 0.0, 1.0]], "float32")
    back = ops.convert_to_tensor([[1.0, 0.0, cx], [0.0, 1.0, cy], [0.0, 0.0, 1.0]], "float32")
    flat = ops.reshape(product(product(back[None], matrices), to_centre[None]), (-1, 9))[:, :8]
    return ops.image.affine_transform(
        images, flat, interpolation="bilinear", fill_mode=fill.mode, fill_value=fill.value
    )


@dataclass(frozen=True)
class Gains:
    """A change of values `gain · pixel + offset`; each [B, 1, 1, 1] or [B, 1, 1, C]."""

    gain: Tensor
    offset: Tensor

    def then(self, spec: Augmentation, uniform: Tensor, mean: Tensor) -> "Gains":
        """This change followed by that of `spec`; `mean` [B, 1, 1, 1] of the unchanged picture, 0..255."""
        match spec:
            case Brightness(range=(low, high)):
                factor = _between(low, high, uniform)[:, None, None, :]
                return Gains(self.gain * factor, self.offset * factor)
            case Contrast(range=(low, high)):
                factor = _between(low, high, uniform)[:, None, None, :]
                centre = self.gain * mean + ops.mean(self.offset, axis=-1, keepdims=True)
                return Gains(self.gain * factor, self.offset * factor + (1 - factor) * centre)
            case ChannelShift():
                return Gains(self.gain, self.offset + _between(-spec.amount, spec.amount, uniform)[:, None, None, :])
            case _:
                raise AssertionError(f"{spec.type} does not change values")


class Augment(keras.layers.Layer):
    """Images [B, H, W, C], uint8 or float, 0..255 → float32 of the same shape and range, changed in training only.

    All geometric steps are composed, in their order, into one bilinear warp; all others into one multiply-add, clipped
    to 0..255. What randaugment does to the values, erasing and mixing follow. At zero strength the result equals the
    input. Where images were mixed, `kept` float32 [B] is the share that each has of its own; the rest is of the one at
    the mirrored place in the batch.
    """

    def __init__(self, specs: Sequence[Augmentation], seed: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.specs = [spec for spec in specs if not isinstance(spec, Fill)]
        fills = [spec for spec in specs if isinstance(spec, Fill)]
        self.fill = fills[0] if fills else Fill(type="fill", mode="nearest")
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.kept: Tensor | None = None

    def call(self, images: Tensor, training: bool = False) -> Tensor:
        images = ops.cast(images, "float32")
        self.kept = None
        if not training or not self.specs:
            return images
        # the kinds in this order: runs of older versions of imgrec, which had the first two, go on with the same bits
        kinds = (GEOMETRIC, PHOTOMETRIC, (RandAugment,), (Erase,), (Mixup, Cutmix))
        groups: list[list[Any]] = [[spec for spec in self.specs if isinstance(spec, kind)] for kind in kinds]
        geometric, photometric, randomly, erasing, mixing = groups
        drawn = self._drawn(images, [spec for group in groups for spec in group])
        later = drawn[len(geometric) + len(photometric) :]
        matrices = [matrix(spec, part, *images.shape[1:3]) for spec, part in zip(geometric, drawn, strict=False)]
        for spec, part in zip(randomly, later, strict=False):
            matrices += randaugment.matrices(spec, part, *images.shape[1:3])
        if matrices:
            images = warp(images, reduce(product, matrices), self.fill)
        if photometric:
            one = ops.ones_like(drawn[0][:, :1])[:, None, None, :]
            mean = ops.mean(images, axis=(1, 2, 3), keepdims=True)
            gains = Gains(one, ops.zeros_like(one))
            for place, spec in enumerate(photometric, start=len(geometric)):
                gains = gains.then(spec, drawn[place], mean)
            images = ops.clip(images * gains.gain + gains.offset, 0.0, 255.0)
        for spec, part in zip(randomly, later, strict=False):
            images = randaugment.values(spec, part, images)
        for spec, part in zip(erasing, later[len(randomly) :], strict=False):
            images = erased(spec, part, images)
        if mixing:
            shares = [
                keras.random.beta(ops.shape(images)[:1], s.alpha, s.alpha, seed=self.seed_generator) for s in mixing
            ]
            images, self.kept = mixed(mixing, later[len(randomly) + len(erasing) :], shares, images)
        return images

    def _drawn(self, images: Tensor, specs: list[Augmentation]) -> list[Tensor]:
        """Uniform numbers float32 [B, draws] for each step."""
        counts = [draws(spec, images.shape[-1]) for spec in specs]
        uniform = keras.random.uniform((ops.shape(images)[0], sum(counts)), seed=self.seed_generator)
        parts, start = [], 0
        for count in counts:
            parts.append(uniform[:, start : start + count])
            start += count
        return parts
