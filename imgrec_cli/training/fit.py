"""The training story, top to bottom: one Keras `fit` call per epoch, our validation between."""

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from imgrec_cli.config import Config, PlateauSchedule, layer_table
from imgrec_cli.dataset import Dataset
from imgrec_cli.errors import TrainingError
from imgrec_cli.metrics.summary import class_figures, confusion_matrix
from imgrec_cli.origin import earlier_run
from imgrec_cli.progress import EpochEnd, Listener, Note, Warn
from imgrec_cli.rundir import Run
from imgrec_cli.training import checkpoint, distribute
from imgrec_cli.training.earlier import take_over, taught
from imgrec_cli.training.features import frozen_features, head_is_enough, head_model, with_head
from imgrec_cli.training.input import WHOLE, Deal, InputClock, Inputs, Source, training_source
from imgrec_cli.training.job import Job, lost_peers_said
from imgrec_cli.training.loss import Teaching, class_weights, training_loss
from imgrec_cli.training.model import behind_backbone, training_model
from imgrec_cli.training.optimize import averages, optimizer
from imgrec_cli.training.phases import phases
from imgrec_cli.training.place import Best, Place, out_of_patience
from imgrec_cli.training.stop import Stop
from imgrec_cli.training.watch import Keeper, Reporter

SHARE_OF_SAVING = 0.1  # of the time, at most, for the checkpoints between epochs
MOST_STEPS_PER_EXECUTION = 32
MOST_IMAGES_PER_CALL = 512
VALUES_PER_CALL = 2**19


def steps_per_execution(config: Config, classes: int) -> int:
    """Steps that one call of the compiled function takes: many for small models, so that Python does not slow them.

    Aims at a quarter of a second by an estimate of 50 GFLOP/s, so that signals and progress never wait long. It is a
    function of the config alone: every machine takes the same steps in the same calls.
    """
    return max(1, min(MOST_STEPS_PER_EXECUTION, int(0.25 / max(step_flop(config, classes) / 50e9, 1e-5))))


def step_flop(config: Config, classes: int) -> float:
    """Floating-point operations of one training step: 2 per multiply-add, forward once and backward twice."""
    multiply_adds = sum(row.multiply_adds for row in layer_table(config, classes))
    return 6.0 * multiply_adds * config.train.images_per_step


def compiled(
    model: keras.Model,
    config: Config,
    block: int,
    steps_per_epoch: int,
    weights: NDArray[np.float32] | None = None,
    teaching: Teaching | None = None,
) -> keras.Model:
    """The model with the config's loss and optimizer, ready for `fit`; `block` steps run in one call.

    `weights` float32 [classes] is what an image of each class counts. With `teaching` a batch carries image indices in
    place of labels.
    """
    model.compile(
        optimizer=optimizer(config, steps_per_epoch),
        loss=training_loss(config, model, weights, teaching),
        metrics=["accuracy" if teaching is None else teaching.accuracy()],
        steps_per_execution=block,
        # XLA is slower than oneDNN on CPUs and does not know the warp; JAX compiles everything in any case
        jit_compile="auto" if keras.backend.backend() == "jax" else False,
    )
    model.optimizer.build(model.trainable_variables)
    return model


def state_variables(model: keras.Model) -> list[Any]:
    """All that training changes: weights, statistics, layer seeds, optimizer, metric sums. By position: names vary."""
    return [*model.variables, *model.optimizer.variables, *model.metrics_variables]


def predict_logits(
    answer: Callable[[NDArray[Any]], NDArray[Any]],
    inputs: Inputs,
    rows: NDArray[np.int64],
    batch_size: int,
    deal: Deal = WHOLE,
    stop: Stop | None = None,
) -> NDArray[Any]:
    """Outputs float32 [N, classes] of a model, by `distribute.forward`, for rows of the pack, in their order; fewer
    where a stop is asked for.

    Batches are larger than those of training where the images are small: there is a call per batch. `deal` says which
    slots of a batch take which rows.
    """
    batch_size = max(batch_size, min(MOST_IMAGES_PER_CALL, VALUES_PER_CALL // math.prod(inputs.shape[1:])))
    batch_size += -batch_size % math.lcm(distribute.parts_of_batch(), deal.count)
    part, (batches, slots) = distribute.own_part(batch_size), deal.batches(rows, batch_size)
    outputs = []
    for batch in batches:
        outputs.append(answer(inputs[batch[part]]))
        if stop is not None and stop.is_asked:
            break
    found = np.concatenate(outputs)
    return found[slots[slots < len(found)]]


def validation_metrics(logits: NDArray[Any], labels: NDArray[np.int64]) -> dict[str, float]:
    """Figures of the whole validation set, computed in float64: the mean cross entropy in nats, whatever is trained on,
    the share of right answers, and precision, recall and F1 as means over the classes.

    `logits` float [N, classes], `labels` int64 [N].
    """
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    predicted = logits.argmax(axis=1)
    precision, recall, f1, present = class_figures(confusion_matrix(labels, predicted, logits.shape[1]))
    return {
        "val/loss": float(-log_probabilities[np.arange(len(labels)), labels].mean()),
        "val/accuracy": float((predicted == labels).mean()),
        "val/precision": float(np.average(precision, weights=present)),
        "val/recall": float(np.average(recall, weights=present)),
        "val/f1": float(np.average(f1, weights=present)),
    }


@contextmanager
def averaged(model: keras.Model) -> Iterator[None]:
    """The averages of the weights in their place, where `train.ema` keeps some; after the block the very same bits as
    before.

    Keras's own SwapEMAWeights swaps by adding and subtracting, which changes last bits.
    """
    found = averages(model)
    raw = checkpoint.copies(model.trainable_variables) if found else []
    for variable, average in zip(model.trainable_variables, found, strict=bool(found)):
        variable.assign(keras.ops.copy(average))  # JAX would share the array, and a compiled step uses up its weights
    try:
        yield
    finally:
        for variable, array in zip(model.trainable_variables, raw, strict=bool(raw)):
            variable.assign(array)


@dataclass(frozen=True, slots=True)
class Trained:
    """A model with its best weights, the epoch that they are of, and the bits (SHA-256) that training ended with.

    `features` are those of `frozen_features`, where only the last layer was trained.
    """

    model: keras.Model
    best_epoch: int
    best_weights_sha256: str
    last_state_sha256: str
    features: NDArray[np.float32] | None


class Saver:
    """The checkpoints of one training: `place` and `best` weights beside the arrays of the model."""

    def __init__(
        self, run: Run, model: keras.Model, place: Place, best: list[checkpoint.Array], job: Job | None = None
    ) -> None:
        self.run, self.model, self.place, self.best, self.job = run, model, place, best, job or Job()
        self._ended, self._seconds = -math.inf, 0.0

    def take_up(self, found: checkpoint.Found, source: Source, on_event: Listener) -> None:
        """Put a checkpoint of this run into the model, and stand where it stands.

        Lines of `metrics.jsonl` that will be written again are taken away.
        """
        inputs, labels = next(source.blocks(1, 0, 1))
        self.model.test_on_batch(inputs[0], labels[0])  # the metrics have no variables before
        meta = dict(found.meta)
        if parts := meta.pop("parts", None):
            distribute.restore_parts(self.run.state_folder(parts), state_variables(self.model))
        else:
            checkpoint.restore(state_variables(self.model), found.groups["state"], found.path)
        self.place, self.best = Place.from_dict(meta), found.groups.get("best", [])
        on_event(Note(f"going on from {self.place.text(source.steps)}"))
        if self.job.leads:
            self.run.forget_metrics_from(self.place.epoch)

    def save(self) -> None:
        """Write all that is needed to go on from here to the bit."""
        began = time.perf_counter()
        groups, meta = {"state": state_variables(self.model), "best": self.best}, asdict(self.place)
        if distribute.weights_are_split():  # each process writes its parts, then the leader the file that names them
            meta["parts"] = f"state-{self.place.epoch:05d}-{self.place.step:08d}"
            distribute.save_parts(self.run.state_folder(meta["parts"]), groups.pop("state"))
        if self.job.leads:
            checkpoint.write_last(self.run, groups, meta)
            checkpoint.drop_unnamed_parts(self.run)
        self._ended = time.perf_counter()
        self._seconds = self._ended - began

    def save_between_epochs(self) -> None:
        """Save, unless that would take more than a tenth of the time: a large model goes some short epochs without."""
        due = self.place.over or time.perf_counter() - self._ended >= self._seconds / SHARE_OF_SAVING
        if self.job.decided_by_leader(due):
            self.save()


def fit(config: Config, dataset: Dataset, run: Run, stop: Stop, on_event: Listener, job: Job | None = None) -> Trained:
    """Train as the resolved config says, from the run's last checkpoint where it has one.

    Writes `metrics.jsonl`, `metrics.csv` and the checkpoints of the run, of several processes in a `job` the one that
    leads. Raises TrainingError on a loss that is not finite, Interrupted where a stop was asked for, PeerLostError
    where another process died.
    """
    job = job or Job()
    job.require_same("other images", dataset.fingerprint, "every host has to see the same files, whole and unchanged")
    with job.leader_first():  # who keeps the answers for the others
        teaching = taught(config, run, dataset, on_event)
    spread = distribute.begin(config)
    if distribute.weights_are_split():
        distribute.require_orbax()
    try:
        with lost_peers_said():
            return _fit(config, dataset, run, teaching, stop, on_event, job)
    finally:
        if spread:
            distribute.end()


def _fit(
    config: Config, dataset: Dataset, run: Run, teaching: Teaching | None, stop: Stop, on_event: Listener, job: Job
) -> Trained:
    classes, stopping = len(dataset.class_names), config.train.early_stopping
    place = Place(Best(stopping.metric, stopping.min_delta) if stopping else Best("val/accuracy", 0.0))
    found = checkpoint.read_last(run)
    if found is not None:
        for message in found.damaged:
            on_event(Warn(f"{message}; going on from {found.path.name}, the state before it"))
    elif job.leads:
        run.forget_metrics_from(1)
    saver: Saver | None = None
    for number, phase in enumerate(phases(config)):
        if found is not None and found.meta.get("phase", 0) > number:
            continue
        # each phase by itself: one that is taken up begins as it began
        keras.utils.set_random_seed(config.seed)
        only_head = head_is_enough(phase)
        features = frozen_features(phase, dataset, on_event) if only_head else None
        inputs: Inputs = dataset.pixels if features is None else features
        source = training_source(phase, dataset, inputs, distribute.own_part(phase.train.images_per_step))
        block = min(MOST_STEPS_PER_EXECUTION if only_head else steps_per_execution(phase, classes), source.steps)
        model = head_model(phase, classes, inputs.shape[1]) if only_head else training_model(phase, classes)
        if not only_head:
            distribute.require_named(phase.distribute.layout, model.weights)
        if phase.distribute.shards is not None:
            from imgrec_cli.training.shards import in_shards

            model = in_shards(model, phase.distribute.shards)
        before = saver
        if config.model.start_from is not None and found is None and before is None:
            take_over(model, earlier_run("model.start_from", config.model.start_from), dataset, on_event)
        weights = class_weights(config.loss, dataset.class_names, source.labels)
        saver = Saver(run, compiled(model, phase, block, source.steps, weights, teaching), place, [], job)
        with stop.deferred():
            if found is not None and found.meta.get("phase", 0) == number:
                saver.take_up(found, source, on_event)
            elif before is not None:
                layers = behind_backbone(model) if head_is_enough(phases(config)[number - 1]) else [model]
                weights_before = [weight for layer in layers for weight in layer.weights]
                checkpoint.restore(weights_before, before.best, run.best_checkpoint)
                saver.best = checkpoint.copies(model.weights)
                place.next_phase()
                on_event(Note(f"the backbone is trained from here on: {_trained_share(model)}"))
            place = saver.place
            train_epochs(phase, dataset, source, block, saver, stop, on_event)
    assert saver is not None  # noqa: S101 - there is always a phase
    state = checkpoint.digest(state_variables(model))
    if job.leads:
        checkpoint.write(run.best_checkpoint, {"weights": saver.best}, {"epoch": saver.place.best.epoch})
    if keras.distribution.distribution() is not None:  # what follows works with a model on one device
        distribute.end()
        model = head_model(phase, classes, inputs.shape[1]) if only_head else training_model(phase, classes)
    checkpoint.restore(model.weights, saver.best, run.best_checkpoint)
    return Trained(
        with_head(config, classes, model) if only_head else model,
        saver.place.best.epoch,
        checkpoint.digest(saver.best),
        state,
        features,
    )


def _trained_share(model: keras.Model) -> str:
    trained = sum(math.prod(weight.shape) for weight in model.trainable_weights)
    return f"{trained:,} of {model.count_params():,} parameters"


def train_epochs(
    config: Config, dataset: Dataset, source: Source, block: int, saver: Saver, stop: Stop, on_event: Listener
) -> None:
    """Train and validate the epochs that are left, saving on the way; `saver` then holds the best weights."""
    model, place = saver.model, saver.place
    epochs = place.epochs_before + config.train.epochs
    stopping, rate, first_epoch = config.train.early_stopping, config.optimizer.learning_rate, place.epoch
    job, answer = saver.job, distribute.forward(model)
    if place.over:  # or not, where the run was given more epochs
        place.over = place.epoch > epochs or out_of_patience(place.best, stopping)
    while not place.over:
        started, first_step = time.perf_counter(), place.step
        if not place.trained:
            clock = InputClock()
            reporter = Reporter(place, epochs, source, on_event, clock, tell_pace=place.epoch == first_epoch)
            keeper = Keeper(saver, source.steps, config.train.checkpoint_every, stop, job)
            # shuffle=False: Keras would reorder by Python's global random state; the order is ours
            history = model.fit(
                source.batches(place.epoch, first_step, block, clock),
                initial_epoch=place.epoch - 1,
                epochs=place.epoch,
                shuffle=False,
                verbose=0,
                callbacks=[reporter, keeper],
            ).history
            place.step = source.steps
            place.trained = {name: float(history[name][0]) for name in ("loss", "accuracy")}
        fitted = time.perf_counter()
        with averaged(model):
            batch_size = config.train.images_per_step
            rows = dataset.rows("validation")
            stopping_early = stop if job.count == 1 else None
            logits = predict_logits(answer, source.inputs, rows, batch_size, source.deal, stopping_early)
        stop.ask_all(job.any(stop.is_asked)[0])
        stop.check(saver.save, place.text(source.steps))
        # the leader's figures on every host: processors differ in last bits, and all have to stop at the same epoch
        told = job.said_by_leader(json.dumps(validation_metrics(logits, dataset.labels("validation"))))
        judged: dict[str, float] = json.loads(told)
        if not math.isfinite(judged["val/loss"]):
            raise TrainingError(
                f"the validation loss is {judged['val/loss']} after epoch {place.epoch}: training diverged",
                "lower optimizer.learning_rate",
            )
        metrics = {
            "train/loss": place.trained["loss"],
            "train/accuracy": place.trained["accuracy"],
            **judged,
            "lr": float(keras.ops.convert_to_numpy(model.optimizer.learning_rate)),
            "images_per_second": (source.steps - first_step) * source.batch_size / (fitted - started),
            "seconds": time.perf_counter() - started,
        }
        is_best = place.best.update(place.epoch, metrics)
        if is_best:
            with averaged(model):
                saver.best = checkpoint.copies(model.weights)
        if isinstance(rate, PlateauSchedule) and place.plateau.shrinks(rate, metrics):
            model.optimizer.learning_rate = max(rate.end, metrics["lr"] * rate.factor)
        run_step = place.epoch * source.steps
        if job.leads:
            saver.run.append_metrics({"epoch": place.epoch, "step": run_step, **metrics})
        on_event(EpochEnd(place.epoch, epochs, metrics, is_best))
        place.next_epoch(epochs, stopping)
        saver.save_between_epochs()
