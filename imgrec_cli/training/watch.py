"""What watches an epoch from within `fit`: progress and pace for the listener, checkpoints, the wish to stop."""

import math
import time
from typing import Any, Protocol

import keras

from imgrec_cli.config import Duration
from imgrec_cli.errors import TrainingError
from imgrec_cli.machine import peak_memory_bytes
from imgrec_cli.progress import Listener, Note, Step
from imgrec_cli.training import checkpoint
from imgrec_cli.training.input import InputClock, Source
from imgrec_cli.training.job import Job
from imgrec_cli.training.place import Place
from imgrec_cli.training.stop import Stop

SECONDS_BETWEEN_STEP_EVENTS = 0.1
STEPS_TO_JUDGE_PACE = 20


class Reporter(keras.callbacks.Callback):
    """Tells the listener where training stands, and stops it on a loss that is not finite."""

    def __init__(
        self, place: Place, epochs: int, source: Source, on_event: Listener, clock: InputClock, *, tell_pace: bool
    ) -> None:
        super().__init__()
        self.epoch, self.epochs, self.first_step = place.epoch, epochs, place.step
        self.epochs_of_phase = epochs - place.epochs_before
        self.steps, self.batch_size = source.steps, source.batch_size
        self.on_event, self.clock = on_event, clock
        self.started = self.last_event = time.perf_counter()
        # step, time and seconds of input after the first call, which compiles
        self.first: tuple[int, float, float] | None = None
        self.pace_told = not tell_pace

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        logs = logs or {}
        step = min(self.first_step + batch + 1, self.steps)  # the last execution counts past the end
        if not math.isfinite(logs["loss"]):
            raise TrainingError(
                f"the loss is {logs['loss']} in epoch {self.epoch} at step {step} of {self.steps}: training diverged",
                "lower optimizer.learning_rate; where precision is bfloat16, try train.precision: float32",
            )
        now = time.perf_counter()
        if now - self.last_event >= SECONDS_BETWEEN_STEP_EVENTS or step == self.steps:
            self.last_event = now
            speed = (step - self.first_step) * self.batch_size / max(now - self.started, 1e-9)
            self.on_event(Step(self.epoch, self.epochs, step, self.steps, logs["loss"], logs["accuracy"], speed))
        if self.first is None:
            self.first = step, now, self.clock.seconds
        elif not self.pace_told and (step - self.first[0] >= STEPS_TO_JUDGE_PACE or step == self.steps):
            self.pace_told = True
            self.on_event(Note(self.pace(step, now)))

    def pace(self, step: int, now: float) -> str:
        """Speed so far, what limits it, and how long all epochs will take."""
        first_step, first_time, first_input = self.first or (self.first_step, self.started, 0.0)
        seconds_per_step = (now - first_time) / max(step - first_step, 1)
        limit = "input" if self.clock.seconds - first_input > 0.9 * (now - first_time) else "compute"
        epoch_seconds = seconds_per_step * self.steps
        memory = f", peak memory {peak / 1e9:.1f} GB" if (peak := peak_memory_bytes()) else ""
        return (
            f"{self.batch_size / seconds_per_step:,.0f} images/s, {limit}-bound; about {epoch_seconds:.0f} s an epoch, "
            f"{epoch_seconds * self.epochs_of_phase:.0f} s for all {self.epochs_of_phase}{memory}"
        )


class State(Protocol):
    """What can be saved and put back; `place` is where it stands."""

    place: Place

    def save(self) -> None: ...


class Keeper(keras.callbacks.Callback):
    """Saves the state inside an epoch when it is time to, or when a stop is asked for and then raises Interrupted."""

    def __init__(self, state: State, steps: int, every: Duration, stop: Stop, job: Job | None = None) -> None:
        super().__init__()
        self.state, self.steps, self.every, self.stop, self.job = state, steps, every, stop, job or Job()
        self.first_step = self.saved_step = state.place.step
        self.saved_time = time.monotonic()
        self.sums: list[Any] = []

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if self.first_step:  # `fit` sets the sums of the metrics to zero before the first step of its epoch
            self.sums = checkpoint.copies(self.model.metrics_variables)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        for variable, value in zip(self.model.metrics_variables if self.sums else (), self.sums, strict=True):
            variable.assign(value)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        step = min(self.first_step + batch + 1, self.steps)
        if step == self.steps:
            return  # the metrics of the epoch are still to be read; what follows looks for a stop
        self.state.place.step = step
        seconds = self.every.seconds
        if seconds is None:
            due = step - self.saved_step >= self.every.amount
        else:
            due = time.monotonic() - self.saved_time >= seconds
        asked, due = self.job.any(self.stop.is_asked, due)  # one host that wants to is enough: all stop or save there
        self.stop.ask_all(asked)
        self.stop.check(self.save, self.state.place.text(self.steps))
        if due:
            self.save()
            self.saved_step, self.saved_time = step, time.monotonic()

    def save(self) -> None:
        _ = self.model  # on JAX this is what brings the state of the compiled step into the variables
        self.state.save()
