"""The training story, top to bottom: one Keras `fit` call per epoch, our validation between."""

import math
import time
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from imgrec_cli.config import Config, EarlyStopping, layer_table
from imgrec_cli.dataset import Dataset
from imgrec_cli.errors import TrainingError
from imgrec_cli.machine import peak_memory_bytes
from imgrec_cli.progress import EpochEnd, Listener, Note, Step
from imgrec_cli.rundir import Run
from imgrec_cli.training import checkpoint
from imgrec_cli.training.features import frozen_features, head_is_enough, head_model, with_head
from imgrec_cli.training.input import InputClock, Source, padded_blocks
from imgrec_cli.training.model import training_model
from imgrec_cli.training.optimize import optimizer

SECONDS_BETWEEN_STEP_EVENTS = 0.1
STEPS_TO_JUDGE_PACE = 20
MOST_STEPS_PER_EXECUTION = 32
MOST_IMAGES_PER_CALL = 512
VALUES_PER_CALL = 2**19


@dataclass
class Best:
    """The best epoch so far, and how long ago it was."""

    metric: str
    min_delta: float
    value: float | None = None
    tie_break: float = math.inf
    epoch: int = 0
    epochs_since: int = 0

    def update(self, epoch: int, metrics: dict[str, float]) -> bool:
        """Whether this epoch is the best; between equal accuracies the lower validation loss wins."""
        value, tie_break = metrics[self.metric], metrics["val/loss"]
        gain = math.inf if self.value is None else value - self.value
        if self.metric == "val/loss":
            gain = -gain if self.value is not None else math.inf
        improved = gain > self.min_delta
        if improved or (gain == 0 and self.min_delta == 0 and tie_break < self.tie_break):
            self.value, self.tie_break, self.epoch = value, tie_break, epoch
            self.epochs_since = 0 if improved else self.epochs_since + 1
            return True
        self.epochs_since += 1
        return False


def steps_per_execution(config: Config, classes: int) -> int:
    """Steps that one call of the compiled function takes: many for small models, so that Python does not slow them.

    Aims at a quarter of a second by an estimate of 50 GFLOP/s, so that signals and progress never wait long. It is a
    function of the config alone: every machine takes the same steps in the same calls.
    """
    return max(1, min(MOST_STEPS_PER_EXECUTION, int(0.25 / max(step_flop(config, classes) / 50e9, 1e-5))))


def step_flop(config: Config, classes: int) -> float:
    """Floating-point operations of one training step: 2 per multiply-add, forward once and backward twice."""
    multiply_adds = sum(row.multiply_adds for row in layer_table(config, classes))
    return 6.0 * multiply_adds * config.train.batch_size


def compiled(model: keras.Model, config: Config, block: int) -> keras.Model:
    """The model with the config's loss and optimizer, ready for `fit`; `block` steps run in one call."""
    model.compile(
        optimizer=optimizer(config.optimizer),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        steps_per_execution=block,
        # XLA is slower than oneDNN on CPUs and does not know the warp; JAX compiles everything in any case
        jit_compile="auto" if keras.backend.backend() == "jax" else False,
    )
    model.optimizer.build(model.trainable_variables)
    return model


def state_variables(model: keras.Model) -> list[Any]:
    """All that training changes: weights, statistics, layer seeds, optimizer, metric sums. By position: names vary."""
    return [*model.variables, *model.optimizer.variables, *model.metrics_variables]


class Reporter(keras.callbacks.Callback):
    """Tells the listener where training stands, and stops it on a loss that is not finite."""

    def __init__(
        self, epoch: int, epochs: int, steps: int, batch_size: int, on_event: Listener, clock: InputClock
    ) -> None:
        super().__init__()
        self.epoch, self.epochs, self.steps, self.batch_size = epoch, epochs, steps, batch_size
        self.on_event, self.clock = on_event, clock
        self.started = self.last_event = time.perf_counter()
        # step, time and seconds of input after the first call, which compiles
        self.first: tuple[int, float, float] | None = None
        self.pace_told = epoch > 1

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        logs = logs or {}
        step = min(batch + 1, self.steps)  # the last execution counts past the end
        if not math.isfinite(logs["loss"]):
            raise TrainingError(
                f"the loss is {logs['loss']} in epoch {self.epoch} at step {step} of {self.steps}: training diverged",
                "lower optimizer.learning_rate; where precision is bfloat16, try train.precision: float32",
            )
        now = time.perf_counter()
        if now - self.last_event >= SECONDS_BETWEEN_STEP_EVENTS or step == self.steps:
            self.last_event = now
            speed = step * self.batch_size / max(now - self.started, 1e-9)
            self.on_event(Step(self.epoch, self.epochs, step, self.steps, logs["loss"], logs["accuracy"], speed))
        if self.first is None:
            self.first = step, now, self.clock.seconds
        elif not self.pace_told and (step - self.first[0] >= STEPS_TO_JUDGE_PACE or step == self.steps):
            self.pace_told = True
            self.on_event(Note(self.pace(step, now)))

    def pace(self, step: int, now: float) -> str:
        """Speed so far, what limits it, and how long all epochs will take."""
        first_step, first_time, first_input = self.first or (0, self.started, 0.0)
        seconds_per_step = (now - first_time) / max(step - first_step, 1)
        limit = "input" if self.clock.seconds - first_input > 0.9 * (now - first_time) else "compute"
        epoch_seconds = seconds_per_step * self.steps
        memory = f", peak memory {peak / 1e9:.1f} GB" if (peak := peak_memory_bytes()) else ""
        return (
            f"{self.batch_size / seconds_per_step:,.0f} images/s, {limit}-bound; about {epoch_seconds:.0f} s an epoch, "
            f"{epoch_seconds * self.epochs:.0f} s for all {self.epochs}{memory}"
        )


def predict_logits(model: keras.Model, inputs: NDArray[Any], rows: NDArray[np.int64], batch_size: int) -> NDArray[Any]:
    """Outputs float32 [N, classes] of a Keras model for rows of the pack, in their order.

    Batches are larger than those of training where the images are small: there is a call per batch.
    """
    batch_size = max(batch_size, min(MOST_IMAGES_PER_CALL, VALUES_PER_CALL // math.prod(inputs.shape[1:])))
    outputs = [
        np.asarray(model.predict_on_batch(batch))[:count] for batch, count in padded_blocks(inputs, rows, batch_size)
    ]
    return np.concatenate(outputs)


def loss_and_accuracy(logits: NDArray[Any], labels: NDArray[np.int64]) -> tuple[float, float]:
    """Mean cross entropy in nats, computed in float64, and the share of right answers.

    `logits` float [N, classes], `labels` int64 [N].
    """
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    right = logits.argmax(axis=1) == labels
    return float(-log_probabilities[np.arange(len(labels)), labels].mean()), float(right.mean())


def fit(config: Config, dataset: Dataset, run: Run, on_event: Listener) -> tuple[keras.Model, int]:
    """Train as the resolved config says; return the model with its best weights, and the epoch they are of.

    Writes `metrics.jsonl`, `metrics.csv` and the checkpoints of the run. Raises TrainingError on a loss that is not
    finite.
    """
    keras.utils.set_random_seed(config.seed)
    classes = len(dataset.class_names)
    validation_rows, validation_labels = dataset.rows("validation"), dataset.labels("validation")
    batch_size = config.train.batch_size
    only_head = head_is_enough(config)
    inputs: NDArray[Any] = frozen_features(config, dataset, on_event) if only_head else dataset.pixels
    source = Source(inputs, dataset.rows("train"), dataset.labels("train"), batch_size, config.seed)
    steps = source.steps
    block = min(MOST_STEPS_PER_EXECUTION if only_head else steps_per_execution(config, classes), steps)
    trained = head_model(config, classes, inputs.shape[1]) if only_head else training_model(config, classes)
    model = compiled(trained, config, block)
    stopping = config.train.early_stopping
    best = Best(stopping.metric, stopping.min_delta) if stopping else Best("val/accuracy", 0.0)

    for epoch in range(1, config.train.epochs + 1):
        started = time.perf_counter()
        clock = InputClock()
        reporter = Reporter(epoch, config.train.epochs, steps, batch_size, on_event, clock)
        batches = source.batches(epoch, 0, block, clock)
        # shuffle=False: Keras would reorder by Python's global random state; the order is ours
        history = model.fit(
            batches, initial_epoch=epoch - 1, epochs=epoch, shuffle=False, verbose=0, callbacks=[reporter]
        ).history
        fitted = time.perf_counter()
        logits = predict_logits(model, inputs, validation_rows, batch_size)
        loss, accuracy = loss_and_accuracy(logits, validation_labels)
        metrics = {
            "train/loss": float(history["loss"][0]),
            "train/accuracy": float(history["accuracy"][0]),
            "val/loss": loss,
            "val/accuracy": accuracy,
            "lr": float(keras.ops.convert_to_numpy(model.optimizer.learning_rate)),
            "images_per_second": steps * batch_size / (fitted - started),
            "seconds": time.perf_counter() - started,
        }
        if not math.isfinite(loss):
            raise TrainingError(
                f"the validation loss is {loss} after epoch {epoch}: training diverged",
                "lower optimizer.learning_rate",
            )
        is_best = best.update(epoch, metrics)
        run.append_metrics({"epoch": epoch, "step": epoch * steps, **metrics})
        if is_best:
            checkpoint.write(run.best_checkpoint, model.weights, {"epoch": epoch})
        checkpoint.write(run.last_checkpoint, state_variables(model), {"epoch": epoch, "best": vars(best)})
        on_event(EpochEnd(epoch, config.train.epochs, metrics, is_best))
        if stopping and out_of_patience(best, stopping):
            break

    arrays, _ = checkpoint.read(run.best_checkpoint)
    checkpoint.restore(model.weights, arrays, run.best_checkpoint)
    return with_head(config, classes, model) if only_head else model, best.epoch


def out_of_patience(best: Best, stopping: EarlyStopping) -> bool:
    """Whether early stopping ends the run after this epoch."""
    return best.epochs_since >= stopping.patience
