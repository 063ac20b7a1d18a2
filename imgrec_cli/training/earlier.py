"""What an earlier run gives to a new one: weights by layer, in the last layer by class; and answers to learn from."""

from collections.abc import Iterator, Sequence

import keras
import numpy as np
from numpy.typing import NDArray

from imgrec_cli.config import Config, load_config
from imgrec_cli.dataset import Dataset, load_dataset
from imgrec_cli.errors import InputError
from imgrec_cli.origin import earlier_run
from imgrec_cli.progress import Advance, Listener, Note, Warn, ignore
from imgrec_cli.rundir import Run
from imgrec_cli.training import checkpoint, distribute
from imgrec_cli.training.input import padded_blocks
from imgrec_cli.training.loss import Teaching
from imgrec_cli.training.restored import restored

BATCH_SIZE = 32
NAMED = 12  # layers or classes that are told by name


def take_over(model: keras.Model, run: Run, dataset: Dataset, on_event: Listener) -> None:
    """Give a training model the best weights of an earlier run, and tell what was taken over and what is fresh.

    A layer takes them where name and shapes are the same. The last layer takes the columns of the classes that have the
    same name, where it sees as many features; the others keep the weights that they began with. Raises InputError where
    nothing of the run fits.
    """
    with distribute.one_device():
        _, names, theirs = _network(run)
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
    kernel, bias = (np.array(distribute.whole(weight)) for weight in last.weights)
    their_kernel, their_bias = weights_of["logits"]
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


def taught(config: Config, run: Run, dataset: Dataset, on_event: Listener) -> Teaching | None:
    """What the teacher answers for the training images, as they are; None where the config names no teacher.

    The run keeps it while it trains, so that it goes on without the teacher.
    """
    teacher = config.teacher
    if teacher is None:
        return None
    labels = dataset.labels("train")
    if run.teacher_checkpoint.exists():
        groups, _ = checkpoint.read(run.teacher_checkpoint)
        probabilities = groups["probabilities"][0]
    else:
        earlier = earlier_run("teacher.run", teacher.run)
        tell_images_seen(earlier, dataset, on_event)
        probabilities = _answers(earlier, config, dataset, on_event)
        checkpoint.write(run.teacher_checkpoint, {"probabilities": [probabilities]}, {"teacher": earlier.name})
        right = float((probabilities.argmax(axis=1) == labels).mean())
        on_event(Note(f"{earlier.name} teaches: it answers {100 * right:.1f} % of the training images right"))
    return Teaching(probabilities, labels, teacher.temperature, teacher.share)


def _answers(run: Run, config: Config, dataset: Dataset, on_event: Listener) -> NDArray[np.float32]:
    """Probabilities float32 [N, classes] of an earlier run for the training images, in their order and that of the
    classes; it sees them in its own size and color."""
    their_config, names, network = _network(run)
    theirs = load_dataset(config.data, their_config.image, config.seed, ignore)
    row_of = {example.file: example.row for example in theirs.examples}
    rows = np.array([row_of[example.file] for example in dataset.examples if example.split == "train"], np.int64)
    found, done = [], 0
    for pixels, count in padded_blocks(theirs.pixels, rows, BATCH_SIZE):
        found.append(np.asarray(network.predict_on_batch(pixels))[:count])
        done += count
        on_event(Advance("the teacher's answers", done, len(rows)))
    return np.concatenate(found)[:, [names.index(name) for name in dataset.class_names]]


def _network(run: Run) -> tuple[Config, Sequence[str], keras.Model]:
    """Config, class names and shipped network of a finished run."""
    config, names = load_config(run.resolved_config_file), run.record["data"]["class_names"]
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
