"""Near duplicates: the same picture saved again, resized, or a little brighter, found by hash and judged by pixels."""

from collections.abc import Callable
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIDE = 32  # pixels; pictures are compared at this size
BITS_APART = 6  # at most, for two hashes to be worth a look at the pixels
# Two pictures differ by the distance between them once each has mean 0 and length 1: 0 for equal ones, 1.4 for two that
# have nothing in common. What is near depends on how alike the pictures of a collection are in any case: a share of the
# distance from a picture to the one nearest to it, within these bounds.
SHARE_OF_NEAREST = 0.25
BOUNDS = (0.10, 0.25)
FLATTEST = 4.0  # gray levels of standard deviation; below it the noise of a JPEG is all there is to compare
MOST_PAIRS = 200_000_000  # examined per two bytes of the hash, so that collections of nearly identical drawings finish

_SAMPLE, _AMONG = 512, 8192
_PICTURES = 128  # whose pixels are looked at together: 224×224 ones take 77 MB as float32
_PAIRS = 1024

Pixels = NDArray[np.uint8]
Directions = tuple[NDArray[np.float32], NDArray[np.bool_]]


@cache
def _areas(size: int) -> NDArray[np.float32]:
    """Mean over areas: float32 [SIDE, size], rows that sum to 1."""
    edges = np.linspace(0, size, SIDE + 1)
    overlap = np.minimum(edges[1:, None], np.arange(1, size + 1)) - np.maximum(edges[:-1, None], np.arange(size))
    weights = overlap.clip(0)
    means: NDArray[np.float32] = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return means


@cache
def _cosines() -> NDArray[np.float32]:
    """The eight lowest frequencies of the discrete cosine transform (type II) but the constant: float32 [8, SIDE]."""
    waves: NDArray[np.float32] = np.cos(np.pi / SIDE * (np.arange(SIDE) + 0.5) * np.arange(1, 9)[:, None]).astype(
        np.float32
    )
    return waves


def small_gray(pixels: Pixels) -> NDArray[np.float32]:
    """Pictures uint8 [N, H, W, C] as gray ones float32 [N, SIDE, SIDE], 0 to 255."""
    count, height, width, channels = pixels.shape
    # the mean over colors is part of the mean over columns: a pass of its own takes longer than both products
    columns = np.repeat(_areas(width).T, channels, axis=0) / channels
    small: NDArray[np.float32] = (
        _areas(height) @ pixels.reshape(count, height, width * channels).astype(np.float32) @ columns
    )
    return small


def hashes(pixels: Pixels) -> NDArray[np.uint64]:
    """A perceptual hash uint64 [N] of pictures uint8 [N, H, W, C]: which low frequencies lie above their median.

    Zauner 2010, Implementation and Benchmarking of Perceptual Image Hash Functions, section 3.2.1; here without the
    frequencies that are constant in one direction. Half of the bits are 1, so two hashes differ in an even number.
    """
    frequencies = (_cosines() @ small_gray(pixels) @ _cosines().T).reshape(len(pixels), 64)
    bits = frequencies > np.median(frequencies, axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(np.uint64)[:, 0]


def candidates(looks: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Pairs int64 [N, 2] of places in `looks` whose hashes differ in at most BITS_APART bits, each once, in order.

    Of a hash's eight bytes at least two are equal then (pigeonhole principle), so pictures are compared only where two
    bytes are: some millions of pairs for 50,000 pictures in place of a milliard.
    """
    parts = looks.view(np.uint8).reshape(-1, 8).astype(np.uint16)
    found = [np.empty((0, 2), np.int64)]
    for one, other in combinations(range(8), 2):
        keys = parts[:, one] << 8 | parts[:, other]
        order = np.argsort(keys, kind="stable")
        keys, sorted_looks = keys[order], looks[order]
        begins, step, looked_at = np.arange(len(order)), 1, 0
        while looked_at < MOST_PAIRS:
            begins = begins[begins + step < len(order)]
            begins = begins[keys[begins] == keys[begins + step]]
            if not len(begins):
                break
            looked_at += len(begins)
            near = begins[np.bitwise_count(sorted_looks[begins] ^ sorted_looks[begins + step]) <= BITS_APART]
            found.append(np.sort(np.stack([order[near], order[near + step]], axis=1), axis=1))
            step += 1
    return np.unique(np.concatenate(found), axis=0)


def near_duplicates(pixels: Pixels, looks: NDArray[np.uint64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Pairs int64 [N, 2] of `rows` of pixels uint8 [images, H, W, C] that show the same picture but for small changes.

    `looks` uint64 are the `hashes` of `rows`, which should differ in their pixels.
    """
    return near_by_direction(lambda chosen: directions(pixels[chosen]), looks, rows)


def near_by_direction(
    directions_of: Callable[[NDArray[np.int64]], Directions], looks: NDArray[np.uint64], rows: NDArray[np.int64]
) -> NDArray[np.int64]:
    """`near_duplicates` of pictures that are seen through `directions_of` rows alone, wherever their pixels lie."""
    pairs = candidates(looks)
    if not len(pairs):
        return pairs
    limit = _limit(directions_of, rows)
    # each picture is prepared once, however many it is compared with; half precision moves a distance by 0.001
    chosen, places = np.unique(pairs, return_inverse=True)
    prepared, flat = _block_by_block(directions_of, rows[chosen], np.float16)
    near = []
    for pair in np.split(places.reshape(-1, 2), range(_PAIRS, len(pairs), _PAIRS)):
        left, right = prepared[pair[:, 0]].astype(np.float32), prepared[pair[:, 1]].astype(np.float32)
        left -= right
        differences = np.sqrt(np.einsum("ij,ij->i", left, left))
        near.append((differences < limit) & ~flat[pair].any(axis=1))
    result: NDArray[np.int64] = rows[pairs[np.concatenate(near)]]
    return result


def _block_by_block(
    directions_of: Callable[[NDArray[np.int64]], Directions], rows: NDArray[np.int64], dtype: type[np.floating[Any]]
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    found, flat = np.empty((len(rows), SIDE * SIDE), dtype), np.empty(len(rows), bool)
    for start in range(0, len(rows), _PICTURES):
        block = slice(start, start + _PICTURES)
        found[block], flat[block] = directions_of(rows[block])
    return found, flat


def directions(pixels: Pixels) -> Directions:
    """Gray pictures with mean 0 and length 1, float32 [N, SIDE²], and which of them are too flat to be compared."""
    small = small_gray(pixels).reshape(len(pixels), SIDE * SIDE)
    small -= small.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(small, axis=1, keepdims=True)
    return small / np.maximum(lengths, 1e-6), lengths[:, 0] < FLATTEST * SIDE


def _limit(directions_of: Callable[[NDArray[np.int64]], Directions], rows: NDArray[np.int64]) -> float:
    """How much two pictures of this collection may differ: by a sample of distances to the nearest one."""
    among = rows[:: max(1, len(rows) // _AMONG)]
    found, flat = _block_by_block(directions_of, among, np.float32)
    found = found[~flat]
    if len(found) < 3:
        return BOUNDS[0]
    sampled = np.arange(0, len(found), max(1, len(found) // _SAMPLE))
    likeness = found[sampled] @ found.T
    likeness[np.arange(len(sampled)), sampled] = -1
    nearest = np.sqrt(np.maximum(2 - 2 * likeness.max(axis=1), 0))
    return float(np.clip(SHARE_OF_NEAREST * np.median(nearest), *BOUNDS))
