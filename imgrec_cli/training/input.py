"""Packed pixels → batches for the compiled step.

The order of examples is a pure function of (seed, epoch): position (epoch, step) is all a resumed run needs to know.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Pixels = NDArray[np.uint8]


def order(seed: int, epoch: int, examples: int) -> Ints:
    """Permutation int64 [examples] of one epoch, the same on every machine."""
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(examples)


def steps_per_epoch(examples: int, batch_size: int) -> int:
    """Whole batches in an epoch; what does not fill one is left for another epoch's permutation."""
    return examples // batch_size


def blocks(
    pixels: Pixels, rows: Ints, labels: Ints, *, seed: int, epoch: int, first_step: int, batch_size: int, block: int
) -> Iterator[tuple[Pixels, NDArray[np.int32]]]:
    """Batches of one epoch from `first_step` on, gathered `block` at a time.

    Yields uint8 [n, B, H, W, C] and int32 [n, B] with n ≤ `block`. Gathering many batches in one call is what keeps
    Python out of the way of small models.
    """
    steps = steps_per_epoch(len(rows), batch_size)
    taken = order(seed, epoch, len(rows))[first_step * batch_size : steps * batch_size].reshape(-1, batch_size)
    for start in range(0, len(taken), block):
        chosen = taken[start : start + block]
        yield pixels[rows[chosen]], labels[chosen].astype(np.int32)


@dataclass
class InputClock:
    """Seconds spent gathering batches: where they fill the time of an epoch, training waits for its input."""

    seconds: float = 0.0


def tensorflow_batches(
    pixels: Pixels,
    rows: Ints,
    labels: Ints,
    *,
    seed: int,
    epoch: int,
    first_step: int,
    batch_size: int,
    block: int,
    clock: InputClock | None = None,
) -> Any:
    """The same batches as a `tf.data.Dataset` of known length, gathered ahead of the step; `clock` adds up the work.

    The length must be known and right: running out of data inside a compiled step advances counters and seeds once
    too often.
    """
    import tensorflow as tf

    shape = pixels.shape[1:]
    signature = (
        tf.TensorSpec((None, batch_size, *shape), pixels.dtype),
        tf.TensorSpec((None, batch_size), tf.int32),
    )

    def generate() -> Iterator[tuple[Pixels, NDArray[np.int32]]]:
        found = blocks(
            pixels,
            rows,
            labels,
            seed=seed,
            epoch=epoch,
            first_step=first_step,
            batch_size=batch_size,
            block=block,
        )
        while True:
            started = time.perf_counter()
            gathered = next(found, None)
            if gathered is None:
                return
            if clock is not None:
                clock.seconds += time.perf_counter() - started
            yield gathered

    length = steps_per_epoch(len(rows), batch_size) - first_step
    batches = tf.data.Dataset.from_generator(generate, output_signature=signature).prefetch(2).unbatch()
    return batches.apply(tf.data.experimental.assert_cardinality(length)).prefetch(block)


def padded_blocks(pixels: Pixels, rows: Ints, batch_size: int) -> Iterator[tuple[Pixels, int]]:
    """All `rows` in order, as batches of exactly `batch_size`; yields uint8 [B, H, W, C] and how many of them count.

    The last batch is filled up with copies of its last image, so that one compiled function serves all of them.
    """
    for start in range(0, len(rows), batch_size):
        chosen = rows[start : start + batch_size]
        padding = np.full(batch_size - len(chosen), chosen[-1])
        yield pixels[np.concatenate([chosen, padding])], len(chosen)
