"""Rectangles that are covered, and pictures that are mixed with another one of their batch, inside the compiled step.

The other one stands at the mirrored place in the batch: which pictures meet there is as random as their order.
"""

import math
from collections.abc import Sequence
from typing import Any

from keras import ops

from imgrec_cli.config import Cutmix, Erase, Mixup

Tensor = Any


def _within(top: Tensor, left: Tensor, bottom: Tensor, right: Tensor, images: Tensor) -> Tensor:
    """Which pixels [B, H, W, 1] lie in a rectangle of whole pixels, its edges float32 [B]."""
    height, width = images.shape[1:3]
    rows, columns = ops.arange(height, dtype="float32"), ops.arange(width, dtype="float32")
    in_rows = (rows[None] >= top[:, None]) & (rows[None] < bottom[:, None])
    in_columns = (columns[None] >= left[:, None]) & (columns[None] < right[:, None])
    return (in_rows[:, :, None] & in_columns[:, None, :])[..., None]


def erased(spec: Erase, uniform: Tensor, images: Tensor) -> Tensor:
    """Images float32 [B, H, W, C], some with a rectangle of one color; `uniform` float32 [B, 5 + C]."""
    height, width = images.shape[1:3]
    area = (spec.area[0] + (spec.area[1] - spec.area[0]) * uniform[:, 1]) * height * width
    narrow, wide = (math.log(aspect) for aspect in spec.aspect)
    aspect = ops.exp(narrow + (wide - narrow) * uniform[:, 2])
    tall = ops.clip(ops.round(ops.sqrt(area / aspect)), 1, height)
    broad = ops.clip(ops.round(ops.sqrt(area * aspect)), 1, width)
    top = ops.floor(uniform[:, 3] * (height - tall + 1))
    left = ops.floor(uniform[:, 4] * (width - broad + 1))
    covered = _within(top, left, top + tall, left + broad, images) & (uniform[:, 0] < spec.share)[:, None, None, None]
    return ops.where(covered, 255 * uniform[:, None, None, 5:], images)


def mixed(
    specs: Sequence[Mixup | Cutmix], uniforms: Sequence[Tensor], shares: Sequence[Tensor], images: Tensor
) -> tuple[Tensor, Tensor]:
    """Images float32 [B, H, W, C] of which some are mixed, and the share float32 [B] that each has of its own.

    `shares` float32 [B] are drawn from each step's Beta(alpha, alpha), `uniforms` float32 [B, draws] decide which are
    mixed and where. The steps change different pictures.
    """
    height, width = images.shape[1:3]
    others = ops.flip(images, axis=0)
    kept = ops.ones_like(shares[0])
    chance, begin = uniforms[0][:, 0], 0.0
    for spec, uniform, share in zip(specs, uniforms, shares, strict=True):
        picked = (chance >= begin) & (chance < begin + spec.share)
        begin += spec.share
        # of two numbers that are both too small for float32 the share would be no number
        share = ops.where(ops.isfinite(share), share, 1.0)
        if isinstance(spec, Mixup):
            share = ops.where(picked, share, 1.0)
            part = share[:, None, None, None]
            images, kept = part * images + (1 - part) * others, kept * share
            continue
        tall, broad = (ops.sqrt(1 - share) * side for side in (height, width))
        top, bottom = (ops.clip(ops.round(uniform[:, 1] * height + s * tall / 2), 0, height) for s in (-1, 1))
        left, right = (ops.clip(ops.round(uniform[:, 2] * width + s * broad / 2), 0, width) for s in (-1, 1))
        images = ops.where(_within(top, left, bottom, right, images) & picked[:, None, None, None], others, images)
        kept = ops.where(picked, 1 - (bottom - top) * (right - left) / (height * width), kept)
    return images, kept
