"""What an earlier run gives to a new one: weights by layer, and in the last layer by class."""

from collections.abc import Iterator, Sequence
from typing import Any

import keras

from imgrec_cli.config import Config, load_config
from imgrec_cli.dataset import Dataset
from imgrec_cli.errors import InputError
from imgrec_cli.progress import Listener, Note, Warn
from imgrec_cli.rundir import Run
from imgrec_cli.training.restored import restored

NAMED = 12  # layers or classes that are told by name


def take_over(model: keras.Model, run: Run, dataset: Dataset, on_event: Listener) -> None:
    """Give a training model the best weights of an earlier run, and tell what was taken over and what is fresh.

    A layer takes them where name and shapes are the same. The last layer takes the columns of the classes that have the
    same name, where it sees as many features; the others keep the weights that they began with. Raises InputError where
    the run has no trained network, or nothing of it fits.
    """
    _, names, theirs = _network(run, "model.start_from")
    tell_images_seen(run, dataset, on_event)
    weights_of = {layer.name: layer.get_weights() for layer in _with_weights(theirs)}
    taken: list[str] = []
    fresh: list[str] = []
    for layer in _with_weights(model):
        if layer.name == "logits":
            continue
        found = weights_of.get(layer.name, [])
        same = [array.shape for array in found] == [tuple(weight.shape) for weight in layer.weights]
        if same:
            layer.set_weights(found)
        (taken if same else fresh).append(layer.name)
    last = model.get_layer("logits")
    (kernel, bias), (their_kernel, their_bias) = last.get_weights(), weights_of["logits"]
    class_names = dataset.class_names
    known = [name for name in class_names if name in names] if len(kernel) == len(their_kernel) else []
    for name in known:
        here, there = class_names.index(name), names.index(name)
        kernel[:, here], bias[here] = their_kernel[:, there], their_bias[there]
    last.set_weights([kernel, bias])
    if not taken and not known:
        raise InputError(
            f"model.start_from: {run.folder}: no layer and no class of it has the name and shape of one here",
            "start from a run of the same network: imgrec compare shows what differs in two configs",
        )
    on_event(Note(f"layers from {run.name}: {_told(taken)}; fresh: {_told(fresh)}"))
    on_event(
        Note(f"classes from {run.name}: {_told(known)}; fresh: {_told([n for n in class_names if n not in known])}")
    )


def tell_images_seen(run: Run, dataset: Dataset, on_event: Listener) -> None:
    """Warn where an earlier run was trained on images that judge the new one: its figures would be too good."""
    seen = {example.digest for example in run.read_examples("train")}
    for split in ("validation", "test"):
        digests = [dataset.digest(example) for example in dataset.examples if example.split == split]
        known = sum(digest in seen for digest in digests)
        if known:
            on_event(
                Warn(
                    f"{run.name} was trained on {known:,} of the {len(digests):,} {split} images: their figures will "
                    "be too good; data.split and seed as in that run keep them apart"
                )
            )


def _network(run: Run, key: str) -> tuple[Config, Sequence[str], Any]:
    """Config, class names and shipped network of an earlier run that the config names under `key`."""
    record = run.record
    if record.get("status") != "finished":
        raise InputError(f"{key}: {run.folder}: did not finish", "imgrec train --resume goes on with it")
    if not run.best_checkpoint.is_file():
        raise InputError(f"{key}: {run.folder}: has no network of its own", "name one of its trainings")
    names = record["data"]["class_names"]
    config = load_config(run.resolved_config_file)
    return config, names, restored(config, len(names), run)


def _with_weights(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """Layers that have weights, those within a backbone one by one."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _with_weights(layer)
        elif layer.weights:
            yield layer


def _told(names: Sequence[str]) -> str:
    shown = ", ".join(names[:NAMED]) or "none"
    return f"{shown} and {len(names) - NAMED:,} more" if len(names) > NAMED else shown
