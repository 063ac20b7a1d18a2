"""How little an image looks like the training images: how far its features lie outside the directions they vary in.

docs/decisions/unfamiliar-by-features.md says what was measured against it.
"""

from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from imgrec_cli.config import Config, layer_table
from imgrec_cli.dataset import Dataset
from imgrec_cli.progress import Advance, Listener
from imgrec_cli.training.input import padded_blocks

AXES = 64
WIDEST_FEATURES = 2048  # beyond it the axes take too long to find, and too much room in the bundle
BATCH_SIZE = 32
# images whose features are looked at: about half a minute of a small CPU at most
FEATURE_FLOP = 1e12
FEWEST_IMAGES, MOST_IMAGES = 500, 5000


class Unfamiliarity(keras.layers.Layer):
    """Features float [N, d] → float32 [N], 0 to 2: the length of what is left of the features, scaled to length 1 and
    centred, after the projection on the training images' principal axes (the residual of Wang et al. 2022, ViM)."""

    def build(self, shape: tuple[int | None, int]) -> None:
        width = shape[-1]
        self.mean = self.add_weight(shape=(width,), trainable=False, name="mean", initializer="zeros")
        self.axes = self.add_weight(
            shape=(width, min(AXES, width // 2)), trainable=False, name="axes", initializer="zeros"
        )

    def call(self, features: Any) -> Any:
        length = ops.sqrt(ops.sum(features * features, axis=-1, keepdims=True))
        centred = features / ops.maximum(length, 1e-6) - self.mean
        rest = centred - ops.matmul(ops.matmul(centred, self.axes), ops.transpose(self.axes))
        return ops.sqrt(ops.sum(rest * rest, axis=-1))


def statistics(features: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """The weights of `Unfamiliarity`, mean [d] and axes [d, k], for training features float32 [N, d]."""
    unit = features.astype(np.float64)
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-6)
    mean = unit.mean(axis=0)
    centred = unit - mean
    width = features.shape[1]
    _, vectors = np.linalg.eigh(centred.T @ centred)  # in rising order
    count = min(AXES, width // 2)
    axes = vectors[:, ::-1][:, :count]
    # fewer images than axes: the rest would be directions in which nothing varies
    axes[:, len(features) - 1 :] = 0
    return [mean.astype(np.float32), np.ascontiguousarray(axes, np.float32)]


def sample(config: Config, dataset: Dataset, split: str) -> NDArray[np.int64]:
    """Positions int64 in a split, rising: all of its images, or so many of each class as the work allows.

    Which ones follows from the seed. Deep networks look at fewer images than small ones.
    """
    labels = dataset.labels(split)
    flop = 2.0 * sum(row.multiply_adds for row in layer_table(config, len(dataset.class_names)))
    most = max(FEWEST_IMAGES, min(MOST_IMAGES, int(FEATURE_FLOP / max(flop, 1.0))))
    if len(labels) <= most:
        return np.arange(len(labels))
    shuffled = np.random.Generator(np.random.Philox(key=[config.seed, 0])).permutation(len(labels))
    share = most / len(labels)
    chosen = []
    for label in range(len(dataset.class_names)):
        of_class = shuffled[labels[shuffled] == label]
        chosen.append(of_class[: max(1, round(share * len(of_class)))] if len(of_class) else of_class)
    return np.sort(np.concatenate(chosen))


def features_of(
    shipped: keras.Model, dataset: Dataset, split: str, positions: NDArray[np.int64], on_event: Listener
) -> NDArray[np.float32]:
    """What the shipped network makes of images before its last layer: float32 [positions, d]."""
    model = keras.Model(shipped.input, shipped.get_layer("unfamiliarity").input)
    rows = dataset.rows(split)[positions]
    found, done = [], 0
    for pixels, count in padded_blocks(dataset.pixels, rows, BATCH_SIZE):
        found.append(np.asarray(model.predict_on_batch(pixels))[:count])
        done += count
        on_event(Advance(f"features of {split}", done, len(rows)))
    return np.concatenate(found)
