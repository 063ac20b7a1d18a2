"""Smaller networks from a trained one: a wide dense layer split in two, and students that learn its answers."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from imgrec_cli.config import (
    BackboneModel,
    Config,
    Conv,
    CrossEntropy,
    Cutmix,
    Dense,
    LayersModel,
    Mixup,
    Residual,
    layer_table,
)
from imgrec_cli.config.shapes import BACKBONES, DoesNotFitError
from imgrec_cli.dataset import Dataset, load_dataset
from imgrec_cli.progress import Advance, Listener
from imgrec_cli.training.export import Trained
from imgrec_cli.training.features import frozen_features, head_is_enough, head_model, with_head
from imgrec_cli.training.fit import steps_per_execution
from imgrec_cli.training.input import Source, padded_blocks
from imgrec_cli.training.loss import Teaching, TrainingLoss
from imgrec_cli.training.model import shipped_model, training_model
from imgrec_cli.training.parity import answers_of

Floats = NDArray[np.float32]

LARGE_SHARE = 0.25  # of all parameters: a dense layer with more is worth splitting
ENERGIES = (0.999, 0.99, 0.95)  # shares of the variance of its outputs that are kept
SAMPLE_IMAGES = 1000  # of training, on which the outputs are looked at
# Hinton, Vinyals and Dean 2015, section 2: softened answers beside the true labels
SOFTENING = 3.0
TEACHER_SHARE = 0.7
LEARNING_RATE, TUNING_RATE = 1e-3, 2e-4
TUNING_EPOCHS, MOST_TUNING_EPOCHS = 3, 20
TUNING_STEPS = 300  # at least, where the data set is small


def parameters(config: Config, classes: int) -> int:
    """Number of parameters of a config's network."""
    return sum(row.parameters for row in layer_table(config, classes))


def large_dense(config: Config, classes: int) -> int | None:
    """Place in `model.layers` of the dense layer that holds most parameters; None where none holds a quarter."""
    if not isinstance(config.model, LayersModel):
        return None
    parameters_of = {row.name: row.parameters for row in layer_table(config, classes)}
    sizes = [
        parameters_of[f"dense_{number}"] if isinstance(layer, Dense) else 0
        for number, layer in enumerate(config.model.layers, start=1)
    ]
    place = int(np.argmax(sizes))
    return place if sizes[place] > LARGE_SHARE * parameters(config, classes) else None


def split_dense(trained: Trained, most_parameters: int, on_event: Listener) -> Iterator[tuple[int, Trained]]:
    """The network with its largest dense layer as two of a lower rank, widest first, as (rank, network).

    The rank keeps a share of the variance of the layer's outputs over training images, and they are projected onto
    their main directions (Zhang et al. 2015, Accelerating Very Deep Convolutional Networks, section 3.1). Ranks that
    give more than `most_parameters` are left out for the largest that does not.
    """
    config, model, classes = trained.config, trained.model, len(trained.dataset.class_names)
    place = large_dense(config, classes)
    if place is None:
        return
    assert isinstance(config.model, LayersModel)  # noqa: S101 - for the type checker
    layer: Any = model.get_layer(f"dense_{place + 1}")
    kernel, bias = layer.get_weights()
    values = _linear_outputs(model, layer, trained.dataset, config.seed, on_event).astype(np.float64)
    mean = values.mean(axis=0)
    variances, directions = np.linalg.eigh((values - mean).T @ (values - mean) / len(values))
    variances, directions = np.maximum(variances[::-1], 0), directions[:, ::-1]
    shares = np.cumsum(variances) / max(variances.sum(), 1e-30)
    others = parameters(config, classes) - kernel.size - bias.size
    affordable = int((most_parameters - others - bias.size) // (sum(kernel.shape) + 1))
    largest = min(affordable, min(kernel.shape) // 2)
    ranks = {min(int(np.searchsorted(shares, share)) + 1, largest) for share in ENERGIES}
    for rank in sorted((rank for rank in ranks if rank >= 1), reverse=True):
        main = directions[:, :rank]
        parts = [kernel @ main, bias @ main, main.T, mean - mean @ main @ main.T]
        layers = list(config.model.layers)
        narrow = Dense(type="dense", units=rank, activation="linear")
        layers[place : place + 1] = [narrow, layers[place]]
        split = _with_layers(config, layers)
        smaller = shipped_model(split, classes)
        weights: list[Any] = []
        for old in model.layers:
            if old.name != "unfamiliarity":
                weights += parts if old is layer else old.get_weights()
        smaller.set_weights(weights)
        yield rank, Trained.of(split, trained.dataset, smaller, on_event)


def _linear_outputs(
    model: keras.Model, layer: keras.layers.Layer, dataset: Dataset, seed: int, on_event: Listener
) -> Floats:
    """What a dense layer gives for training images before its activation, float32 [N, units]."""
    linear = keras.layers.Dense(layer.units, dtype="float32")
    cut = keras.Model(model.input, linear(layer.input))
    linear.set_weights(layer.get_weights())
    random = np.random.Generator(np.random.Philox(key=[seed, 2]))
    rows = np.sort(random.permutation(dataset.rows("train"))[:SAMPLE_IMAGES])
    found, done = [], 0
    for pixels, count in padded_blocks(dataset.pixels, rows, 32):
        found.append(np.asarray(cut.predict_on_batch(pixels))[:count])
        done += count
        on_event(Advance("looking at the dense layer", done, len(rows)))
    return np.concatenate(found)


def _with_layers(config: Config, layers: list[Any]) -> Config:
    return config.model_copy(update={"model": config.model.model_copy(update={"layers": tuple(layers)})})


def students(config: Config, classes: int, most_parameters: int) -> list[tuple[str, Config]]:
    """Smaller networks of the same kind that fit, most work first, as (what is smaller, config).

    Narrower ones have fewer filters and units; of a published network there is none to begin from. Smaller input is
    two thirds of the side.
    """
    found = []
    for width in (1.0, 0.5, 0.25):
        for side in (1.0, 2 / 3):
            if width == side == 1:
                continue
            name = " and ".join(
                [*([f"{width:g} × width"] if width < 1 else []), *(["2/3 of the input's side"] if side < 1 else [])]
            )
            size = tuple(max(8, round(side * length)) for length in config.image.size)
            student = config.model_copy(update={"image": config.image.model_copy(update={"size": size})})
            if isinstance(config.model, BackboneModel) and min(size) < BACKBONES[config.model.name, 1.0].smallest:
                continue
            if width < 1:
                if not isinstance(config.model, LayersModel):
                    continue
                student = _with_layers(student, [_narrower(layer, width) for layer in config.model.layers])
            try:
                if parameters(student, classes) <= most_parameters:
                    found.append((name, student))
            except DoesNotFitError:
                continue
    return sorted(found, key=lambda pair: -sum(row.multiply_adds for row in layer_table(pair[1], classes)))


def _narrower(layer: Any, width: float) -> Any:
    match layer:
        case Conv(filters=filters):
            return layer.model_copy(update={"filters": max(4, round(width * filters))})
        case Dense(units=units):
            return layer.model_copy(update={"units": max(4, round(width * units))})
        case Residual(layers=layers):
            return layer.model_copy(update={"layers": tuple(_narrower(inner, width) for inner in layers)})
    return layer


def distilled(teacher: Trained, student: Config, on_event: Listener, start: Trained | None = None) -> Trained:
    """The student's network, trained on the teacher's answers for the training images beside their labels.

    With `start`, a network of the same config, it goes on from its weights for a few epochs; otherwise it learns from
    the beginning for as many as the teacher did. The epoch with the best validation accuracy is kept.
    """
    classes = len(teacher.dataset.class_names)
    dataset, student = teacher.dataset, without_mixing(student)
    if student.image.size != teacher.config.image.size:
        dataset = load_dataset(student.data, student.image, student.seed, on_event)
    answers = answers_of(teacher.model, teacher.dataset, "the network's own answers", on_event, split="train")
    teaching = Teaching(answers.scores, dataset.labels("train"), SOFTENING, TEACHER_SHARE)
    only_head = head_is_enough(student)
    inputs: Any = frozen_features(student, dataset, on_event) if only_head else dataset.pixels
    model = head_model(student, classes, inputs.shape[1]) if only_head else training_model(student, classes)
    begin = start
    if isinstance(student.model, BackboneModel) and student.model.start_from is not None:
        begin = start or teacher  # the network is the same on smaller images, and its weights lie nowhere else
    if begin is not None:
        model.set_weights(begin.model.get_weights()[: len(model.get_weights())])
    rows, labels = dataset.rows("train"), dataset.labels("train")
    batch_size = min(student.train.images_per_step, len(rows))
    source = Source(inputs, rows, labels, batch_size, student.seed, as_places=True)
    tuning = min(MOST_TUNING_EPOCHS, max(TUNING_EPOCHS, -(-TUNING_STEPS // source.steps)))
    epochs = student.train.epochs if start is None else tuning
    block = min(steps_per_execution(student, classes), source.steps)
    rate = keras.optimizers.schedules.CosineDecay(
        LEARNING_RATE if start is None else TUNING_RATE, max(1, epochs * source.steps)
    )
    model.compile(
        optimizer=keras.optimizers.Adam(rate),
        loss=TrainingLoss(CrossEntropy(type="cross_entropy"), None, None, teaching),
        steps_per_execution=block,
        jit_compile=False,
    )
    best, weights = -1.0, model.get_weights()
    judged = replace_pixels(dataset, inputs)
    for epoch in range(1, epochs + 1):
        model.fit(source.batches(epoch, 0, block), shuffle=False, verbose=0)
        answers = answers_of(model, judged, "validating", lambda _: None)
        accuracy = float((answers.labels == dataset.labels("validation")).mean())
        if accuracy > best:
            best, weights = accuracy, model.get_weights()
        on_event(Advance("training a smaller network", epoch, epochs))
    model.set_weights(weights)
    whole = with_head(student, classes, model) if only_head else model
    shipped = shipped_model(student, classes)
    shipped.set_weights(whole.get_weights())
    return Trained.of(student, dataset, shipped, on_event)


def without_mixing(config: Config) -> Config:
    """The config without the steps that mix pictures: the teacher answers for each picture by itself."""
    kept = tuple(step for step in config.augment if not isinstance(step, Mixup | Cutmix))
    return config.model_copy(update={"augment": kept})


def replace_pixels(dataset: Dataset, inputs: Any) -> Dataset:
    """The data set with other inputs by row, such as features, in place of pixels."""
    return dataset if inputs is dataset.pixels else replace(dataset, pixels=inputs)
