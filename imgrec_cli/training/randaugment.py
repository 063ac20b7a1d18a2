"""RandAugment (Cubuk et al. 2019) in the terms of `augment`: a matrix and a pass over the values for each operation.

The strengths at the largest magnitude are those of the authors' code: 30 degrees, a slant of 0.3, 0.45 of the side,
factors of 1 ± 0.9, 4 bits, and all values from 0 on.
"""

import math
from collections.abc import Iterator
from typing import Any

from keras import ops

from imgrec_cli.config import RandAugment

Tensor = Any
OPERATIONS = (
    *("identity", "autocontrast", "brightness", "color", "contrast", "posterize", "solarize"),
    *("rotate", "shear_x", "shear_y", "translate_x", "translate_y"),
)
LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601


class _Drawn:
    """What is done to every picture of a batch: one operation, to one of two sides."""

    def __init__(self, spec: RandAugment, uniform: Tensor) -> None:
        self.number = ops.floor(uniform[:, 0] * len(OPERATIONS))
        self.strength = ops.where(uniform[:, 1] < 0.5, -1.0, 1.0) * (spec.magnitude / 10)

    def of(self, operation: str, value: Tensor, otherwise: float = 0.0) -> Tensor:
        """float32 [B]: the value where this operation was drawn."""
        return ops.where(self.number == OPERATIONS.index(operation), value, otherwise)


def _each(spec: RandAugment, uniform: Tensor) -> Iterator[_Drawn]:
    for place in range(spec.operations):
        yield _Drawn(spec, uniform[:, 2 * place : 2 * place + 2])


def matrices(spec: RandAugment, uniform: Tensor, height: int, width: int) -> Iterator[Tensor]:
    """For each operation float32 [B, 3, 3] as `augment.matrix` has them; `uniform` float32 [B, 2 · operations]."""
    for drawn in _each(spec, uniform):
        angle = drawn.of("rotate", drawn.strength * math.radians(30))
        zero, one = ops.zeros_like(angle), ops.ones_like(angle)
        xy = drawn.of("shear_x", 0.3 * drawn.strength) - ops.sin(angle)
        yx = drawn.of("shear_y", 0.3 * drawn.strength) + ops.sin(angle)
        tx = drawn.of("translate_x", 0.45 * width * drawn.strength)
        ty = drawn.of("translate_y", 0.45 * height * drawn.strength)
        rows = ((ops.cos(angle), xy, tx), (yx, ops.cos(angle), ty), (zero, zero, one))
        yield ops.stack([ops.stack(row, axis=-1) for row in rows], axis=1)


def values(spec: RandAugment, uniform: Tensor, images: Tensor) -> Tensor:
    """The operations on values, on float32 images [B, H, W, C], 0..255."""
    strength = spec.magnitude / 10
    for drawn in _each(spec, uniform):
        gray = (
            ops.sum(images * ops.convert_to_tensor(LUMINANCE), -1, keepdims=True) if images.shape[-1] == 3 else images
        )
        mean = ops.mean(gray, axis=(1, 2, 3))
        low, high = ops.min(images, axis=(1, 2)), ops.max(images, axis=(1, 2))
        factor = 1 + 0.9 * drawn.strength
        gain = drawn.of("brightness", factor, 1) * drawn.of("contrast", factor, 1) * drawn.of("color", factor, 1)
        stretched = (drawn.number == OPERATIONS.index("autocontrast"))[:, None] & (high > low)
        gains = ops.where(stretched, 255 / ops.maximum(high - low, 1e-3), gain[:, None])
        offsets = ops.where(stretched, -low * gains, drawn.of("contrast", (1 - factor) * mean)[:, None])
        of_gray = drawn.of("color", 1 - factor)
        images = images * gains[:, None, None, :] + offsets[:, None, None, :] + gray * of_gray[:, None, None, None]
        images = ops.clip(images, 0.0, 255.0)
        step = drawn.of("posterize", 2.0 ** round(4 * strength), 1)[:, None, None, None]
        images = ops.where(step > 1, ops.floor(images / step) * step, images)
        turned_from = drawn.of("solarize", 255 * (1 - strength), 256)[:, None, None, None]
        images = ops.where(images >= turned_from, 255 - images, images)
    return images
