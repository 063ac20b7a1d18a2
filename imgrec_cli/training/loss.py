"""Logits and labels → what training makes small: the loss of every image, mixed ones and classes' weights included."""

from collections.abc import Sequence
from typing import Any, assert_never

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from imgrec_cli.config import Config, CrossEntropy, Focal, Loss, MeanAbsoluteError
from imgrec_cli.training.augment import Augment

Tensor = Any


def class_weights(spec: Loss, class_names: Sequence[str], labels: NDArray[np.int64]) -> NDArray[np.float32] | None:
    """What an image of each class counts, float32 [classes]; None where all count 1.

    `labels` int64 [N] of the training images. balanced is N / (classes · images of the class), as in scikit-learn, over
    the classes that have images.
    """
    if spec.class_weights == "equal":
        return None
    if isinstance(spec.class_weights, dict):
        return np.array([spec.class_weights.get(name, 1.0) for name in class_names], np.float32)
    counts = np.bincount(labels, minlength=len(class_names))
    return (len(labels) / (max((counts > 0).sum(), 1) * np.maximum(counts, 1))).astype(np.float32)


def example_losses(spec: Loss, targets: Tensor, logits: Tensor) -> Tensor:
    """Losses float32 [B] of logits [B, classes] against shares of the classes [B, classes], rows that sum to 1."""
    classes = logits.shape[-1]
    targets = (1 - spec.label_smoothing) * targets + spec.label_smoothing / classes
    match spec:
        case CrossEntropy():
            return ops.categorical_crossentropy(targets, logits, from_logits=True)
        case MeanAbsoluteError():
            return ops.mean(ops.abs(targets - ops.softmax(logits)), axis=-1)
        case Focal():
            logarithms = ops.log_softmax(logits)
            # (1 - p)^gamma of a probability of 1 has no gradient where gamma is below 1
            doubt = ops.power(ops.maximum(1 - ops.exp(logarithms), 1e-7), spec.gamma)
            return -ops.sum(targets * doubt * logarithms, axis=-1)
    assert_never(spec)


class Teaching:
    """What a teacher answers for the training images, and how much of the loss its answers are.

    The loss and the accuracy then speak of an image by its place among the N training images. `softened` float32
    [N, classes] is the softmax of the teacher's logits / `temperature`.
    """

    def __init__(
        self, probabilities: NDArray[Any], labels: NDArray[np.int64], temperature: float, share: float
    ) -> None:
        """`probabilities` float [N, classes] are the teacher's own, `labels` int [N] the true ones; `share`, 0 to 1, is
        how much of the loss is the teacher's."""
        logits = np.log(np.maximum(probabilities.astype(np.float64), 1e-30)) / temperature
        softened = np.exp(logits - logits.max(axis=1, keepdims=True))
        softened /= softened.sum(axis=1, keepdims=True)
        self.softened, self.temperature, self.share = softened.astype(np.float32), temperature, share
        # tensors from the start: arrays would be copied into the graph of the step
        self._labels = ops.convert_to_tensor(labels.astype(np.int32))
        self._softened = ops.convert_to_tensor(self.softened)
        self._entropies = ops.convert_to_tensor(
            (-(softened * np.log(softened + 1e-300)).sum(axis=1)).astype(np.float32)
        )

    def true_labels(self, places: Tensor) -> Tensor:
        """Labels int32 [B] of the images at these places."""
        return ops.take(self._labels, places)

    def losses(self, places: Tensor, logits: Tensor) -> Tensor:
        """Float32 [B]: the divergence of the softened answers of logits [B, classes] from the teacher's, times
        temperature², which makes up for the smaller gradients of softened answers."""
        softened = ops.take(self._softened, places, axis=0)
        cross = ops.categorical_crossentropy(softened, logits / self.temperature, from_logits=True)
        return self.temperature**2 * (cross - ops.take(self._entropies, places))

    def accuracy(self) -> keras.metrics.Metric:
        """The share of right answers, by places."""

        def right(places: Tensor, logits: Tensor) -> Tensor:
            labels = self.true_labels(ops.cast(ops.reshape(places, (-1,)), "int32"))
            return keras.metrics.sparse_categorical_accuracy(labels, logits)

        return keras.metrics.MeanMetricWrapper(right, name="accuracy")


class TrainingLoss(keras.losses.Loss):
    """The mean loss of a batch, of labels [B] and logits [B, classes]; with `teaching` places [B] stand for the labels.

    Where `augment` mixed the images, their labels are mixed in the same shares. An image counts what its classes count,
    in these shares; the mean is over the number of images, not over the sum of what they count.
    """

    def __init__(
        self,
        spec: Loss,
        weights: NDArray[np.float32] | None,
        augment: Augment | None,
        teaching: Teaching | None = None,
    ) -> None:
        super().__init__(name="loss", reduction="sum_over_batch_size", dtype="float32")
        self.spec, self.weights, self.augment, self.teaching = spec, weights, augment, teaching

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        given = ops.cast(ops.reshape(y_true, (-1,)), "int32")
        labels = given if self.teaching is None else self.teaching.true_labels(given)
        targets = ops.one_hot(labels, y_pred.shape[-1], dtype="float32")
        kept = None if self.augment is None else self.augment.kept
        if kept is not None:
            targets = kept[:, None] * targets + (1 - kept[:, None]) * ops.flip(targets, axis=0)
        losses = example_losses(self.spec, targets, y_pred)
        if self.teaching is not None:
            share = self.teaching.share
            losses = (1 - share) * losses + share * self.teaching.losses(given, y_pred)
        if self.weights is None:
            return losses
        return losses * ops.sum(targets * ops.convert_to_tensor(self.weights), axis=-1)


def training_loss(
    config: Config, model: keras.Model, weights: NDArray[np.float32] | None, teaching: Teaching | None
) -> TrainingLoss:
    """The loss of a config for a model whose images may be mixed while it trains."""
    augment = next((layer for layer in model.layers if isinstance(layer, Augment)), None)
    return TrainingLoss(config.loss, weights, augment, teaching)
