"""The sections `loss`, `teacher`, `optimizer` and `train`: what is learnt from, in which steps, for how long."""

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from imgrec_cli.config.durations import Duration, Interval, Length, Saving
from imgrec_cli.config.values import Folder, Name, Section, word_or


class _Loss(Section):
    """What all losses have."""

    label_smoothing: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Share of a label that is spread evenly over all classes (Szegedy et al. 2015).",
    )
    class_weights: Annotated[
        Annotated[Literal["equal", "balanced"], Tag("<word>")]
        | Annotated[dict[Name, Annotated[float, Field(gt=0, le=1e6)]], Tag("<value>")],
        word_or(dict, ("equal", "balanced"), "expected equal, balanced or a weight by class such as {cat: 2}"),
    ] = Field(
        default="equal",
        description="What an image of a class counts. balanced: images / (classes · images of the class); or by class, "
        "1 for those that are not named.",
    )


class CrossEntropy(_Loss):
    """Negative logarithm of the probability of the true class."""

    type: Literal["cross_entropy"]


class MeanAbsoluteError(_Loss):
    """Mean distance of all probabilities from 0 and 1: bears wrong labels better, learns slower (Ghosh et al. 2017)."""

    type: Literal["mean_absolute_error"]


class Focal(_Loss):
    """Cross entropy that cares less for what is answered right (Lin et al. 2017); its alpha are class_weights."""

    type: Literal["focal"]
    gamma: float = Field(default=2.0, ge=0, le=10, description="How much less; 0 is cross entropy.")


Loss = Annotated[CrossEntropy | MeanAbsoluteError | Focal, Field(discriminator="type")]


class Teacher(Section):
    """A finished run with the same classes, whose answers to the training images are learnt beside their labels.

    Its probabilities and the network's are both softened, and their Kullback-Leibler divergence times temperature² is
    added to the loss (Hinton, Vinyals and Dean 2015, section 2).
    """

    run: Folder = Field(description="Folder of the run; its images may be of another size or color.")
    temperature: float = Field(
        default=3.0,
        ge=1,
        le=100,
        description="What logits are divided by: 1 as they are, more shows what comes second.",
    )
    share: float = Field(
        default=0.7, gt=0, le=1, description="Of the loss, the share of the answers; the rest is that of the labels."
    )


Rate = Annotated[float, Field(gt=0, le=100)]
MonitoredMetric = Literal["val/loss", "val/accuracy", "val/precision", "val/recall", "val/f1"]


class CosineSchedule(Section):
    """Rise in a straight line, then fall along half a cosine over the rest of training (Loshchilov and Hutter 2016)."""

    type: Literal["cosine"]
    peak: Rate = Field(description="Largest step size.")
    warmup: Length = Field(
        default=Duration(0, "%"),
        json_schema_extra={"default": "0%"},
        description="How long the rate rises from 0 to the peak.",
        examples=["5%"],
    )
    end: float = Field(default=0.0, ge=0, le=100, description="Step size at the end of the last epoch.")


class StepSchedule(Section):
    """Multiply the step size by a factor, again and again."""

    type: Literal["step"]
    start: Rate = Field(description="First step size.")
    factor: float = Field(default=0.1, gt=0, lt=1, description="What it is multiplied by.")
    every: Interval = Field(description="How long one step size is kept.", examples=["30%"])


class ExponentialSchedule(Section):
    """Shrink the step size a little after every step."""

    type: Literal["exponential"]
    start: Rate = Field(description="First step size.")
    factor: float = Field(default=0.1, gt=0, lt=1, description="What it has been multiplied by after `every`.")
    every: Interval = Field(description="How long it takes to shrink by the factor.", examples=["30%"])


class PlateauSchedule(Section):
    """Multiply the step size by a factor when a validation metric no longer improves."""

    type: Literal["plateau"]
    start: Rate = Field(description="First step size.")
    factor: float = Field(default=0.1, gt=0, lt=1, description="What it is multiplied by.")
    metric: MonitoredMetric = Field(default="val/loss", description="What is watched.")
    patience: int = Field(default=2, ge=1, description="Epochs without improvement before the rate shrinks.")
    min_delta: float = Field(default=0.0, ge=0, description="Smallest change that counts as an improvement.")
    end: float = Field(default=0.0, ge=0, le=100, description="Smallest step size.")


Schedule = Annotated[CosineSchedule | StepSchedule | ExponentialSchedule | PlateauSchedule, Field(discriminator="type")]
LearningRate = Annotated[
    Annotated[Rate, Tag("<number>")] | Annotated[Schedule, Tag("<schedule>")],
    Discriminator(
        lambda value: (
            "<schedule>"
            if isinstance(value, dict | Section)
            else "<number>"
            if isinstance(value, int | float) and not isinstance(value, bool)
            else None
        ),
        custom_error_type="neither",
        custom_error_message="expected a number such as 1e-3, or a schedule such as {type: cosine, peak: 1e-3}",
    ),
]


class _Optimizer(Section):
    """What all optimizers have."""

    clip_norm: float | None = Field(
        default=None,
        gt=0,
        description="Largest length of the gradient of all weights together; a longer one is shortened to it.",
        examples=[1.0],
    )


class Adam(_Optimizer):
    """Adam (Kingma and Ba 2014)."""

    type: Literal["adam"]
    learning_rate: LearningRate = Field(default=1e-3, description="Step size, constant or by a schedule.")
    beta_1: float = Field(default=0.9, ge=0, lt=1, description="Decay of the mean of the gradients.")
    beta_2: float = Field(default=0.999, ge=0, lt=1, description="Decay of the mean of their squares.")


class Sgd(_Optimizer):
    """Stochastic gradient descent, with momentum if asked for."""

    type: Literal["sgd"]
    learning_rate: LearningRate = Field(default=1e-2, description="Step size, constant or by a schedule.")
    momentum: float = Field(default=0.0, ge=0, lt=1, description="Share of the last step that is kept.")
    nesterov: bool = Field(default=False, description="Look ahead along the momentum.")


class AdamW(_Optimizer):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2017)."""

    type: Literal["adamw"]
    learning_rate: LearningRate = Field(default=1e-3, description="Step size, constant or by a schedule.")
    weight_decay: float = Field(default=1e-2, ge=0, le=1, description="Share of a weight taken away per unit of step.")
    beta_1: float = Field(default=0.9, ge=0, lt=1, description="Decay of the mean of the gradients.")
    beta_2: float = Field(default=0.999, ge=0, lt=1, description="Decay of the mean of their squares.")


class RMSprop(_Optimizer):
    """Steps divided by a running root mean square of the gradients (Hinton 2012, lecture 6e)."""

    type: Literal["rmsprop"]
    learning_rate: LearningRate = Field(default=1e-3, description="Step size, constant or by a schedule.")
    rho: float = Field(default=0.9, ge=0, lt=1, description="Decay of the mean of the squared gradients.")
    momentum: float = Field(default=0.0, ge=0, lt=1, description="Share of the last step that is kept.")


class Lion(_Optimizer):
    """Steps of one length, by the sign of the momentum (Chen et al. 2023); wants a tenth of Adam's step size."""

    type: Literal["lion"]
    learning_rate: LearningRate = Field(default=1e-4, description="Step size, constant or by a schedule.")
    weight_decay: float = Field(default=0.0, ge=0, le=10, description="Share of a weight taken away per unit of step.")
    beta_1: float = Field(default=0.9, ge=0, lt=1, description="Share of the momentum in a step.")
    beta_2: float = Field(default=0.99, ge=0, lt=1, description="Decay of the mean of the gradients.")


class Muon(_Optimizer):
    """Orthogonal steps for the kernels of dense layers, AdamW for all else (Jordan 2024, Liu et al. 2025).

    The last layer is among all else.
    """

    type: Literal["muon"]
    learning_rate: LearningRate = Field(default=1e-3, description="Step size, constant or by a schedule.")
    weight_decay: float = Field(default=4e-3, ge=0, le=1, description="Share of a weight taken away per unit of step.")
    momentum: float = Field(default=0.95, ge=0, lt=1, description="Share of the last step that is kept.")


Optimizer = Annotated[Adam | AdamW | Sgd | RMSprop | Lion | Muon, Field(discriminator="type")]


class EarlyStopping(Section):
    """Stop when a validation metric no longer improves; the best weights are kept in any case."""

    metric: MonitoredMetric = Field(default="val/loss", description="What is watched.")
    patience: int = Field(default=3, ge=1, description="Epochs without improvement before training stops.")
    min_delta: float = Field(default=0.0, ge=0, description="Smallest change that counts as an improvement.")


class Train(Section):
    """The length and the batches of training."""

    batch_size: Annotated[
        Annotated[Literal["auto"], Tag("<word>")] | Annotated[int, Field(ge=1, le=65536), Tag("<value>")],
        word_or((int, float), ("auto",), "expected a whole number or auto"),
    ] = Field(default=32, description="Images per step; auto: the fastest here that fits into memory, by a probe.")
    epochs: int = Field(default=10, ge=1, le=100_000, description="Passes over the training images.")
    sampling: Literal["natural", "balanced"] = Field(
        default="natural",
        description="natural: every image once an epoch. balanced: as many images, equally many of each class; "
        "those of rare classes come several times.",
    )
    early_stopping: EarlyStopping | None = Field(
        default=None,
        description="When to stop before the last epoch.",
        examples=[{"metric": "val/loss", "patience": 3}],
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="Arithmetic of the step; weights are float32 in any case."
    )
    ema: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Share of the average of the weights that each step keeps; the averaged weights are then "
        "validated, chosen and shipped.",
        examples=[0.999],
    )
    checkpoint_every: Saving = Field(
        default=Duration(10, "minute"),
        json_schema_extra={"default": "10 minutes"},
        description="How often all state is saved inside an epoch; between epochs it is saved too, where that takes at "
        "most a tenth of the time.",
        examples=["10 minutes"],
    )
    keep_optimizer: bool = Field(
        default=False, description="Keep the last state of a finished run, so that it can be given more epochs."
    )

    @property
    def images_per_step(self) -> int:
        """The batch size of a resolved config, in which no `auto` is left."""
        if self.batch_size == "auto":
            raise ValueError("train.batch_size is not resolved")
        return self.batch_size
