"""What models think of images they were not trained on: k-fold training of a config, every image held out once."""

from dataclasses import replace

import keras
import numpy as np
from numpy.typing import NDArray

from imgrec_cli.config import Config
from imgrec_cli.dataset import Dataset
from imgrec_cli.dataset.split import folds
from imgrec_cli.errors import ConfigError, DataError
from imgrec_cli.progress import Advance, Listener
from imgrec_cli.training import distribute
from imgrec_cli.training.features import frozen_features, head_is_enough, head_model
from imgrec_cli.training.fit import averaged, compiled, predict_logits, steps_per_execution
from imgrec_cli.training.input import Inputs, Source
from imgrec_cli.training.loss import class_weights
from imgrec_cli.training.model import training_model
from imgrec_cli.training.phases import phases


def out_of_fold_probabilities(config: Config, dataset: Dataset, number: int, on_event: Listener) -> NDArray[np.float64]:
    """Probabilities [images, classes] of every example, in order, from the model of the fold that left it out.

    Equal pictures and groups of the config fall into one fold. Each model trains for all epochs of the resolved config:
    no score chooses among them, so none of the held-out images has a say in what is asked of it. Raises DataError where
    a class would be missing from the images that a fold trains on.
    """
    if config.model.start_from is not None:
        raise ConfigError(
            "model.start_from: an earlier run may have learnt the very labels that are in doubt here",
            "leave it out for this: --set model.start_from=null",
        )
    config = phases(config)[0]  # of two phases the short one tells enough
    classes = len(dataset.class_names)
    # every image may train: the features of a frozen backbone are wanted of all
    everything = replace(dataset, examples=tuple(replace(example, split="train") for example in dataset.examples))
    rows, labels = everything.rows("train"), everything.labels("train")
    only_head = head_is_enough(config)
    inputs: Inputs = frozen_features(config, everything, on_event) if only_head else dataset.pixels
    fold_of = np.array(
        folds(
            [example.path for example in dataset.examples],
            labels.tolist(),
            [dataset.identities[row] for row in rows],
            groups=dataset.groups,
            seed=config.seed,
            number=number,
        )
    )
    kept_of = [np.flatnonzero(fold_of != fold) for fold in range(number)]
    for kept in kept_of:
        missing = set(labels.tolist()) - set(labels[kept].tolist())
        if missing:
            name = dataset.class_names[min(missing)]
            raise DataError(
                f"all images of {name} fall into one of {number} parts", "add images, or leave the class out"
            )
    keras.utils.set_random_seed(config.seed)
    batch_size = min(config.train.images_per_step, *map(len, kept_of))
    network = head_model(config, classes, inputs.shape[1]) if only_head else training_model(config, classes)
    steps = min(map(len, kept_of)) // batch_size
    weights = class_weights(config.loss, dataset.class_names, labels)
    model = compiled(network, config, min(steps_per_execution(config, classes), steps), steps, weights)
    # one model for all folds, which is compiled once and begins each as it began the first
    changing = [*model.variables, *model.optimizer.variables]
    start = [np.array(variable) for variable in changing]
    probabilities = np.zeros((len(rows), classes))
    for fold, kept in enumerate(kept_of):
        held_out = np.flatnonzero(fold_of == fold)
        if not len(held_out):
            continue
        for variable, value in zip(changing, start, strict=True):
            variable.assign(value)
        balanced = config.train.sampling == "balanced"
        source = Source(inputs, rows[kept], labels[kept], batch_size, config.seed, balanced)
        for epoch in range(1, config.train.epochs + 1):
            batches = source.batches(epoch, 0, model.steps_per_execution)
            model.fit(batches, initial_epoch=epoch - 1, epochs=epoch, shuffle=False, verbose=0)
            on_event(Advance("training folds", fold * config.train.epochs + epoch, number * config.train.epochs))
        with averaged(model):
            logits = predict_logits(distribute.forward(model), inputs, rows[held_out], batch_size).astype(np.float64)
        shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities[held_out] = shifted / shifted.sum(axis=1, keepdims=True)
    return probabilities
