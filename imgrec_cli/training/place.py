"""Where training stands, as far as it is no array: plain values that a checkpoint keeps beside the arrays."""

import math
from dataclasses import dataclass, field
from typing import Any

from imgrec_cli.config import EarlyStopping, PlateauSchedule


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


def out_of_patience(best: Best, stopping: EarlyStopping | None) -> bool:
    """Whether early stopping ends the run after this epoch."""
    return stopping is not None and best.epochs_since >= stopping.patience


@dataclass
class Plateau:
    """How long a validation metric has not improved, for the plateau schedule."""

    value: float | None = None
    epochs_since: int = 0

    def shrinks(self, spec: PlateauSchedule, metrics: dict[str, float]) -> bool:
        """Whether the step size shrinks after an epoch with these metrics; the patience then begins anew."""
        value = metrics[spec.metric] * (-1 if spec.metric == "val/loss" else 1)
        if self.value is None or value - self.value > spec.min_delta:
            self.value, self.epochs_since = value, 0
            return False
        self.epochs_since += 1
        if self.epochs_since < spec.patience:
            return False
        self.epochs_since = 0
        return True


@dataclass
class Place:
    """`step` steps of `epoch` are done; epochs count from 1.

    `phase` is the index of the current phase, `epochs_before` the epochs of earlier ones.
    `trained` are the training loss and accuracy of the epoch once all its steps are done, `over` says that nothing is
    left to train.
    """

    best: Best
    epoch: int = 1
    step: int = 0
    trained: dict[str, float] = field(default_factory=dict)
    plateau: Plateau = field(default_factory=Plateau)
    over: bool = False
    phase: int = 0
    epochs_before: int = 0

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Place":
        """The inverse of `dataclasses.asdict`, also after JSON."""
        return cls(**{**values, "best": Best(**values["best"]), "plateau": Plateau(**values["plateau"])})

    def text(self, steps: int) -> str:
        """For people: `epoch 3 at step 20 of 100`."""
        return "the end of training" if self.over else f"epoch {self.epoch} at step {self.step} of {steps}"

    def next_epoch(self, epochs: int, stopping: EarlyStopping | None) -> None:
        """Go to the begin of the next epoch, or to the end."""
        self.epoch, self.step, self.trained = self.epoch + 1, 0, {}
        self.over = self.epoch > epochs or out_of_patience(self.best, stopping)

    def next_phase(self) -> None:
        """Go to the begin of the next phase: what is best stays, patience begins anew."""
        self.phase, self.epochs_before, self.over = self.phase + 1, self.epoch - 1, False
        self.best.epochs_since, self.plateau = 0, Plateau()
