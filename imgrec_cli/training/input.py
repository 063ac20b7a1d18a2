"""Packed pixels → batches for the compiled step.

The order of examples is a pure function of (seed, epoch): position (epoch, step) is all a resumed run needs to know.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgrec_cli.config import Config
from imgrec_cli.dataset import Dataset

Ints = NDArray[np.int64]
Inputs = NDArray[Any]


def order(seed: int, epoch: int, examples: int) -> Ints:
    """Permutation int64 [examples] of one epoch, the same on every machine."""
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(examples)


def balanced_order(seed: int, epoch: int, labels: Ints) -> Ints:
    """Places int64 [N] of the examples of one epoch, as many as there are labels, the same number of each class as far
    as that goes. Which images of a class come, or how often, follows from the epoch."""
    random = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    present = random.permutation(np.unique(labels))
    quota = np.full(len(present), len(labels) // len(present))
    quota[: len(labels) % len(present)] += 1
    chosen = [
        np.resize(random.permutation(np.flatnonzero(labels == label)), n)
        for label, n in zip(present, quota, strict=True)
    ]
    return random.permutation(np.concatenate(chosen))


@dataclass
class InputClock:
    """Seconds spent gathering batches: where they fill the time of an epoch, training waits for its input."""

    seconds: float = 0.0


@dataclass(frozen=True)
class Source:
    """Training examples: `inputs` [images, …] by row, and the `rows` int64 [N] and `labels` int64 [N] that train.

    `balanced` gives every class as many places in an epoch. With `as_places` batches hold the place of every image
    among the N instead of its label: the loss looks up what it needs.
    """

    inputs: Inputs
    rows: Ints
    labels: Ints
    batch_size: int
    seed: int
    balanced: bool = False
    as_places: bool = False
    part: slice = field(default_factory=lambda: slice(None))
    """What this process feeds of every batch, where there are several."""

    @property
    def steps(self) -> int:
        """Whole batches in an epoch; what does not fill one is left for another epoch's permutation."""
        return len(self.rows) // self.batch_size

    def blocks(
        self, epoch: int, first_step: int, block: int, clock: InputClock | None = None
    ) -> Iterator[tuple[Inputs, NDArray[np.int32]]]:
        """Batches of one epoch from `first_step` on, gathered `block` at a time; `clock` adds up the work.

        Yields inputs [n, B, …] and labels int32 [n, B] with n ≤ `block`, B the size of this process's part.
        Gathering many batches in one call is what keeps Python out of the way of small models.
        """
        shuffled = (
            balanced_order(self.seed, epoch, self.labels) if self.balanced else order(self.seed, epoch, len(self.rows))
        )
        taken = shuffled[first_step * self.batch_size : self.steps * self.batch_size].reshape(-1, self.batch_size)
        for start in range(0, len(taken), block):
            began = time.perf_counter()
            chosen = taken[start : start + block, self.part]
            told = chosen if self.as_places else self.labels[chosen]
            gathered = self.inputs[self.rows[chosen]], told.astype(np.int32)
            if clock is not None:
                clock.seconds += time.perf_counter() - began
            yield gathered

    def batches(self, epoch: int, first_step: int, block: int, clock: InputClock | None = None) -> Any:
        """The same batches in the form that the Keras backend takes, gathered ahead of the step: the same bits on each.

        Their number is known and right: running out of data inside a compiled step would advance counters and seeds
        once too often.
        """
        import keras

        if keras.backend.backend() != "tensorflow":
            return _sequence(self, epoch, first_step, block, clock)
        import tensorflow as tf

        shape = self.inputs.shape[1:]
        signature = (
            tf.TensorSpec((None, self.batch_size, *shape), self.inputs.dtype),
            tf.TensorSpec((None, self.batch_size), tf.int32),
        )
        gathered = tf.data.Dataset.from_generator(
            lambda: self.blocks(epoch, first_step, block, clock), output_signature=signature
        )
        batches = gathered.prefetch(2).unbatch()
        batches = batches.apply(tf.data.experimental.assert_cardinality(self.steps - first_step)).prefetch(block)
        return without_autotuning(batches)


def training_source(config: Config, dataset: Dataset, inputs: Inputs, part: slice = slice(None)) -> Source:
    """The training examples of a data set as the resolved config samples them, with `inputs` by row; `part` is what
    this process feeds of every batch."""
    train = config.train
    return Source(
        inputs,
        dataset.rows("train"),
        dataset.labels("train"),
        train.images_per_step,
        config.seed,
        train.sampling == "balanced",
        as_places=config.teacher is not None,
        part=part,
    )


def without_autotuning(batches: Any) -> Any:
    """A `tf.data.Dataset` that tunes nothing: the end of `fit` waits for the tuning thread, which may sleep seconds."""
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    return batches.with_options(options)


def _sequence(source: Source, epoch: int, first_step: int, block: int, clock: InputClock | None) -> Any:
    """The batches of an epoch as a Keras data set that needs no TensorFlow; any of them can be asked for again."""
    import keras

    class Batches(keras.utils.PyDataset):
        def __init__(self) -> None:
            super().__init__(workers=1)
            self._start = -1
            self._gathered: tuple[Inputs, NDArray[np.int32]]

        def __len__(self) -> int:
            return source.steps - first_step

        def __getitem__(self, index: int) -> tuple[Inputs, NDArray[np.int32]]:
            start = index - index % block
            if start != self._start:
                self._start, self._gathered = start, next(source.blocks(epoch, first_step + start, block, clock))
            inputs, labels = self._gathered
            return inputs[index - start], labels[index - start]

    return Batches()


def padded_blocks(
    inputs: Inputs, rows: Ints, batch_size: int, part: slice = slice(None)
) -> Iterator[tuple[Inputs, int]]:
    """All `rows` in order, as batches of exactly `batch_size`; yields inputs [B, …] and how many of them count.

    Of every batch only `part` is gathered; what counts is counted of the whole.

    The last batch is filled up with copies of its last image, so that one compiled function serves all of them.
    """
    for start in range(0, len(rows), batch_size):
        chosen = rows[start : start + batch_size]
        padding = np.full(batch_size - len(chosen), chosen[-1])
        yield inputs[np.concatenate([chosen, padding])[part]], len(chosen)
