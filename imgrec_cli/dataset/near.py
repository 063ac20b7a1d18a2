"""Near duplicates: the same picture saved again, resized, or a little brighter, found by hash and judged by pixels."""

from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from imgrec_cli.machine import available_cores

SIDE = 32  # pixels; pictures are compared at this size
BITS_APART = 7  # at most, for two hashes to be worth a look at the pixels
_BANDS = 8  # one more than BITS_APART, so that two such hashes are equal in one band at least (pigeonhole principle)
LARGEST_DIFFERENCE = 0.12  # of two pictures, as a share of their contrast
FLATTEST = 4.0  # gray levels of standard deviation; below it the noise of a JPEG is all there is to compare
MOST_PAIRS = 20_000_000  # looked at, so that a set of almost equal drawings ends as well

Pixels = NDArray[np.uint8]


@cache
def _areas(size: int, side: int) -> NDArray[np.float32]:
    """Mean over areas: float32 [side, size], rows that sum to 1."""
    edges = np.linspace(0, size, side + 1)
    starts, ends = np.arange(size), np.arange(1, size + 1)
    overlap = np.minimum(edges[1:, None], ends) - np.maximum(edges[:-1, None], starts)
    weights = overlap.clip(0)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


@cache
def _cosines() -> NDArray[np.float32]:
    """The eight lowest frequencies of the discrete cosine transform (type II) but the constant: float32 [8, SIDE]."""
    return np.cos(np.pi / SIDE * (np.arange(SIDE) + 0.5) * np.arange(1, 9)[:, None]).astype(np.float32)


def small_gray(pixels: Pixels) -> NDArray[np.float32]:
    """Pictures uint8 [N, H, W, C] as gray ones float32 [N, SIDE, SIDE], 0 to 255."""
    gray = pixels.mean(axis=3, dtype=np.float32)
    result: NDArray[np.float32] = _areas(gray.shape[1], SIDE) @ gray @ _areas(gray.shape[2], SIDE).T
    return result


def hashes(pixels: Pixels) -> NDArray[np.uint64]:
    """A 64-bit perceptual hash of each picture uint8 [N, H, W, C]: which low frequencies lie above their median.

    Zauner 2010, Implementation and Benchmarking of Perceptual Image Hash Functions, section 3.2.1 (without the rows of
    constant frequency, so that all bits speak of both directions).
    """
    frequencies = (_cosines() @ small_gray(pixels) @ _cosines().T).reshape(len(pixels), 64)
    bits = frequencies > np.median(frequencies, axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(np.uint64)[:, 0]


def candidates(found: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Pairs int64 [N, 2] of places in `found` whose hashes differ in at most BITS_APART bits, each pair once.

    All of them, unless there are more than MOST_PAIRS to look at.
    """
    bands = found.view(np.uint8).reshape(-1, _BANDS)
    pairs = []
    looked_at = 0
    for band in range(_BANDS):
        order = np.argsort(bands[:, band], kind="stable")
        starts = np.flatnonzero(np.diff(bands[order, band], prepend=-1))
        for members in np.split(order, starts[1:]):
            for left, right in _pairs_of(members):
                looked_at += len(left)
                near = np.bitwise_count(found[left] ^ found[right]) <= BITS_APART
                # told by the first band in which the two are equal
                first = (bands[left[near]] == bands[right[near]]).argmax(axis=1) == band
                pairs.append(np.stack([left[near][first], right[near][first]], axis=1))
    return np.concatenate(pairs) if pairs else np.empty((0, 2), np.int64)
