"""Packed pixels → batches for the compiled step.

The order of examples is a pure function of (seed, epoch), and of the parts of the pack where there are some: position
(epoch, step) is all a resumed run needs to know, on any number of processes.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgrec_cli.config import Config
from imgrec_cli.dataset import Dataset, PartPixels
from imgrec_cli.errors import DataError, InputError

Ints = NDArray[np.int64]
Inputs = NDArray[Any] | PartPixels


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


def order_in_parts(seed: int, epoch: int, parts: Ints, count: int, batch_size: int, labels: Ints | None = None) -> Ints:
    """Places int64 [steps, B] of the examples of one epoch, slots [s·B/count, (s+1)·B/count) of a batch of part s.

    `parts` int64 [N] are those of the examples. A part with fewer than its slots repeats some, one with more leaves
    some out; with `labels` int64 [N] each is balanced by itself.
    """
    steps, each = len(parts) // batch_size, batch_size // count
    columns = []
    for part in range(count):
        own, own_seed = np.flatnonzero(parts == part), seed + (part + 1 << 32)  # seeds of configs are below 2³²
        shuffled = order(own_seed, epoch, len(own)) if labels is None else balanced_order(own_seed, epoch, labels[own])
        columns.append(np.resize(own[shuffled], (steps, each)))
    return np.concatenate(columns, axis=1)


@dataclass(frozen=True)
class Deal:
    """Which slots of a batch take which rows: of `count` equal runs of slots each those of one part of the pack.

    `part_of` int64 are the parts of all rows of the pack; it is not looked at where the pack is whole.
    """

    count: int
    part_of: Ints

    def batches(self, rows: Ints, batch_size: int) -> tuple[Ints, Ints]:
        """All `rows` [N], each once, as batches int64 [n, B]; and int64 [N], which of the n·B slots each one has.

        What remains free is filled with copies of the last row of the part, so that one compiled function serves all.
        """
        each = batch_size // self.count
        parts = self.part_of[rows] if self.count > 1 else np.zeros(len(rows), np.int64)
        members = [np.flatnonzero(parts == part) for part in range(self.count)]
        number = -(-max(map(len, members)) // each)
        found, slots = np.empty((number, self.count, each), np.int64), np.empty(len(rows), np.int64)
        for part, own in enumerate(members):
            spare = rows[own[-1]] if len(own) else np.argmax(self.part_of == part)
            filled = np.full(number * each, spare)
            filled[: len(own)] = rows[own]
            found[:, part] = filled.reshape(number, each)
            batch, slot = np.divmod(np.arange(len(own)), each)
            slots[own] = batch * batch_size + part * each + slot
        return found.reshape(number, batch_size), slots


WHOLE = Deal(1, np.empty(0, np.int64))


def dealt(config: Config, dataset: Dataset) -> Deal:
    """How the config deals the rows of a data set to the slots of a batch."""
    count = config.distribute.pack_parts
    return WHOLE if count is None else Deal(count, dataset.places % count)


def require_parts(config: Config, dataset: Dataset) -> None:
    """Raise InputError or DataError where a batch, or the training images, cannot be dealt as the config says."""
    deal = dealt(config, dataset)
    size, fewer = config.train.images_per_step, "use fewer distribute.pack_parts, or none"
    if size % deal.count:
        raise InputError(
            f"distribute.pack_parts: {size} images of a batch cannot be divided into {deal.count} parts",
            f"use train.batch_size={size // deal.count * deal.count}, or fewer parts" if size > deal.count else fewer,
        )
    if deal.count == 1:
        return
    parts, labels = deal.part_of[dataset.rows("train")], dataset.labels("train")
    for part in range(deal.count):
        present = np.unique(labels[parts == part])
        named = f"distribute.pack_parts: part {part + 1} of {deal.count} has no training image"
        if not len(present):
            raise DataError(named, fewer)
        missing = np.setdiff1d(labels, present)
        if config.train.sampling == "balanced" and len(missing):
            raise DataError(
                f"{named} of {dataset.class_names[missing[0]]}, and balanced sampling needs every class in each", fewer
            )


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
    deal: Deal = WHOLE

    @property
    def steps(self) -> int:
        """Whole batches in an epoch; what does not fill one is left for another epoch's permutation."""
        return len(self.rows) // self.batch_size

    def blocks(
        self, epoch: int, first_step: int, block: int, clock: InputClock | None = None
    ) -> Iterator[tuple[NDArray[Any], NDArray[np.int32]]]:
        """Batches of one epoch from `first_step` on, gathered `block` at a time; `clock` adds up the work.

        Yields inputs [n, B, …] and labels int32 [n, B] with n ≤ `block`, B the size of this process's part.
        Gathering many batches in one call is what keeps Python out of the way of small models.
        """
        taken = self._order(epoch)[first_step:]
        for start in range(0, len(taken), block):
            began = time.perf_counter()
            chosen = taken[start : start + block, self.part]
            told = chosen if self.as_places else self.labels[chosen]
            gathered = self.inputs[self.rows[chosen]], told.astype(np.int32)
            if clock is not None:
                clock.seconds += time.perf_counter() - began
            yield gathered

    def _order(self, epoch: int) -> Ints:
        """Places int64 [steps, B] of the examples of one epoch."""
        if self.deal.count > 1:
            parts, labels = self.deal.part_of[self.rows], self.labels if self.balanced else None
            return order_in_parts(self.seed, epoch, parts, self.deal.count, self.batch_size, labels)
        shuffled = (
            balanced_order(self.seed, epoch, self.labels) if self.balanced else order(self.seed, epoch, len(self.rows))
        )
        return shuffled[: self.steps * self.batch_size].reshape(-1, self.batch_size)

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
        deal=dealt(config, dataset),
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
            self._gathered: tuple[NDArray[Any], NDArray[np.int32]]

        def __len__(self) -> int:
            return source.steps - first_step

        def __getitem__(self, index: int) -> tuple[NDArray[Any], NDArray[np.int32]]:
            start = index - index % block
            if start != self._start:
                self._start, self._gathered = start, next(source.blocks(epoch, first_step + start, block, clock))
            inputs, labels = self._gathered
            return inputs[index - start], labels[index - start]

    return Batches()


def padded_blocks(inputs: Inputs, rows: Ints, batch_size: int) -> Iterator[tuple[NDArray[Any], int]]:
    """All `rows` in order, as batches of exactly `batch_size`; yields inputs [B, …] and how many of them count.

    The last batch is filled up with copies of its last image, so that one compiled function serves all of them.
    """
    for start in range(0, len(rows), batch_size):
        chosen = rows[start : start + batch_size]
        padding = np.full(batch_size - len(chosen), chosen[-1])
        yield inputs[np.concatenate([chosen, padding])], len(chosen)
