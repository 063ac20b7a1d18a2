"""How little an image looks like the training images: how far its features lie from theirs, and how faint its logits.

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

Floats = NDArray[np.float32]

AXES = 64
SHRINKAGE = 0.1  # share of the mean variance that is added to every direction's
# of features and measures, relative: what varies less is rounding, which must not be blown up to a difference
LEAST_DEVIATION = 0.01
WIDEST_FEATURES = 2048  # beyond it the axes take too long to find, and too much room in the bundle
BATCH_SIZE = 32
# images whose features are looked at: about half a minute of a small CPU at most
FEATURE_FLOP = 1e12
FEWEST_IMAGES, MOST_IMAGES = 500, 5000


class Unfamiliarity(keras.layers.Layer):
    """Features float [N, d] and logits float [N, classes] → float32 [N]: about 0 for training images, more for others.

    The sum of two measures, each with mean 0 and deviation 1 over training images. One is the distance of the features,
    scaled to length 1, from the nearest class's mean, by the covariance within the classes (Lee et al. 2018); of that
    the largest axes are kept, and one variance for all other directions. The other is the energy of the logits, minus
    the logarithm of the sum of their exponentials (Liu et al. 2020).
    """

    def build(self, shapes: Any) -> None:
        (_, width), (_, classes) = shapes
        axes = min(AXES, width // 2)

        def constant(name: str, *shape: int) -> Any:
            return self.add_weight(shape=shape, trainable=False, name=name, initializer="zeros")

        # all is measured from the mean of all: float32 would lose the digits of small differences of long vectors
        self.centre = constant("centre", width)
        self.means = constant("means", classes, width)
        self.axes = constant("axes", width, axes)
        # what is added to the square along an axis, so that it counts by the axis's own variance
        self.extra = constant("extra", axes)
        # 1 / variance of all other directions, then mean and 1 / deviation of the distance and of the energy
        self.numbers = constant("numbers", 5)

    def distance(self, features: Any) -> Any:
        """Float32 [N]: the distance from the nearest class, per direction."""
        length = ops.sqrt(ops.sum(features * features, axis=-1, keepdims=True))
        unit = features / ops.maximum(length, 1e-6) - self.centre
        squares = ops.sum(unit * unit, axis=-1, keepdims=True) + ops.sum(self.means * self.means, axis=-1)
        squares = squares - 2 * ops.matmul(unit, ops.transpose(self.means))
        along = ops.expand_dims(ops.matmul(unit, self.axes), 1) - ops.matmul(self.means, self.axes)
        weighed = squares * self.numbers[0] + ops.sum(along * along * self.extra, axis=-1)
        return ops.sqrt(ops.maximum(ops.min(weighed, axis=-1), 0.0) / features.shape[-1])

    def call(self, inputs: Any) -> Any:
        features, logits = inputs
        _, mean, scale, mean_energy, scale_energy = ops.unstack(ops.convert_to_tensor(self.numbers))
        largest = ops.max(logits, axis=-1, keepdims=True)
        energy = -ops.log(ops.sum(ops.exp(logits - largest), axis=-1)) - largest[:, 0]
        return (self.distance(features) - mean) * scale + (energy - mean_energy) * scale_energy

    def learn(self, features: Floats, logits: Floats, labels: NDArray[np.int64]) -> None:
        """Set all weights from training images: features [N, d], logits [N, classes], labels int [N]."""
        unit = features.astype(np.float64)
        unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-6)
        classes, width = self.means.shape
        self.centre.assign(unit.mean(axis=0))
        unit -= unit.mean(axis=0)
        means = np.stack([unit[labels == label].mean(axis=0) for label in range(classes)])
        within = unit - means[labels]
        variances, vectors = np.linalg.eigh(within.T @ within / len(within))  # in rising order
        # no direction counts without bound: there may be fewer images than directions, and units that never fire
        least = LEAST_DEVIATION**2 / width  # the mean square of a unit vector's values is 1 / width
        variances = np.maximum(variances, 0) + SHRINKAGE * max(float(variances.mean()), least)
        count = self.axes.shape[1]
        rest = float(variances[: width - count].mean())
        self.means.assign(means)
        self.axes.assign(vectors[:, ::-1][:, :count])
        self.extra.assign((1 / variances[::-1] - 1 / rest)[:count])
        self.numbers.assign([1 / rest, 0, 1, 0, 1])
        distances = np.concatenate(
            [
                np.asarray(self.distance(ops.convert_to_tensor(features[i : i + 512])))
                for i in range(0, len(features), 512)
            ]
        )
        shifted = logits.astype(np.float64)
        energies = -np.logaddexp.reduce(shifted, axis=1)
        numbers = [1 / rest]
        for values in (distances, energies):
            mean, deviation = float(values.mean()), float(values.std())
            numbers += [mean, 1 / max(deviation, LEAST_DEVIATION * max(1, abs(mean)))]
        self.numbers.assign(numbers)


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
) -> tuple[Floats, Floats]:
    """What the shipped network makes of images before its last layer, float32 [positions, d], and behind it: logits
    float32 [positions, classes]."""
    model = keras.Model(shipped.input, shipped.get_layer("unfamiliarity").input)
    rows = dataset.rows(split)[positions]
    found, done = [], 0
    for pixels, count in padded_blocks(dataset.pixels, rows, BATCH_SIZE):
        features, logits = model.predict_on_batch(pixels)
        found.append((np.asarray(features)[:count], np.asarray(logits)[:count]))
        done += count
        on_event(Advance(f"features of {split}", done, len(rows)))
    return np.concatenate([features for features, _ in found]), np.concatenate([logits for _, logits in found])
