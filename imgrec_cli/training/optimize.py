"""Optimizer section → Keras optimizer: its schedule, its average of the weights, a fused update where there is one."""

from typing import Any, assert_never

import keras
from keras import ops

from imgrec_cli.config import (
    Adam,
    AdamW,
    Config,
    CosineSchedule,
    ExponentialSchedule,
    Lion,
    Muon,
    PlateauSchedule,
    RMSprop,
    Sgd,
    StepSchedule,
)
from imgrec_cli.training.runtime import fused_kernels


def optimizer(config: Config, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    """The Keras optimizer of a config whose epochs have this many steps."""
    spec = config.optimizer
    rate = learning_rate(config, steps_per_epoch)
    kinds: Any = fused_kernels() or keras.optimizers
    options: dict[str, Any] = {"global_clipnorm": spec.clip_norm}
    if config.train.ema is not None:
        options |= {"use_ema": True, "ema_momentum": config.train.ema}

    def kind(name: str) -> Any:
        found = getattr(kinds, name, None) or getattr(keras.optimizers, name)
        return type(name, (AveragesBeside, found), {}) if "use_ema" in options else found

    match spec:
        case Adam():
            return kind("Adam")(rate, beta_1=spec.beta_1, beta_2=spec.beta_2, **options)
        case AdamW():
            return kind("AdamW")(
                rate, weight_decay=spec.weight_decay, beta_1=spec.beta_1, beta_2=spec.beta_2, **options
            )
        case Sgd():
            return kind("SGD")(rate, momentum=spec.momentum, nesterov=spec.nesterov, **options)
        case RMSprop():
            return kind("RMSprop")(rate, rho=spec.rho, momentum=spec.momentum, **options)
        case Lion():
            return kind("Lion")(rate, weight_decay=spec.weight_decay, beta_1=spec.beta_1, beta_2=spec.beta_2, **options)
        case Muon():
            decay = {"weight_decay": spec.weight_decay, "adam_weight_decay": spec.weight_decay}
            return kind("Muon")(rate, momentum=spec.momentum, exclude_layers=["logits"], **decay, **options)
        case _:
            assert_never(spec)


def learning_rate(config: Config, steps_per_epoch: int) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """The step size as Keras takes it: a number, or a function of the number of steps taken."""
    spec, schedules = config.optimizer.learning_rate, keras.optimizers.schedules
    epochs = config.train.epochs
    match spec:
        case CosineSchedule():
            warmup = spec.warmup.steps(steps_per_epoch, epochs)
            # Keras counts the decay from the end of the warm-up; nothing is left of it after a warm-up of 100 %
            decay = max(1, steps_per_epoch * epochs - warmup)
            if not warmup:
                return schedules.CosineDecay(spec.peak, decay, alpha=spec.end / spec.peak)
            return schedules.CosineDecay(
                0.0, decay, alpha=spec.end / spec.peak, warmup_target=spec.peak, warmup_steps=warmup
            )
        case StepSchedule() | ExponentialSchedule():
            every = max(1, spec.every.steps(steps_per_epoch, epochs))
            return schedules.ExponentialDecay(spec.start, every, spec.factor, staircase=isinstance(spec, StepSchedule))
        case PlateauSchedule():
            return float(spec.start)
        case _:
            return float(spec)


class AveragesBeside:
    """Mixed into a Keras optimizer with `use_ema`: keeps the average of the weights beside them, never in their place.

    Keras would overwrite the weights at the end of every `fit`. The average also follows faster at first, keeping
    (1 + n) / (10 + n) of itself after n steps while that is less than `ema_momentum`, as TensorFlow's
    ExponentialMovingAverage does with `num_updates`: else a short training would ship its first weights.
    """

    def finalize_variable_values(self, var_list: Any) -> None:
        pass

    def _update_model_variables_moving_average(self: Any, trainable_variables: Any) -> None:
        done = ops.cast(self.iterations, "float32")  # without the present step, the first of which keeps nothing
        keep = ops.minimum(ops.cast(self.ema_momentum, "float32"), done / (done + 9.0))
        for variable, average in zip(trainable_variables, self._model_variables_moving_average, strict=True):
            average.assign(keep * average + (1 - keep) * variable)


def averages(model: keras.Model) -> list[Any]:
    """The averages of the trainable weights of a compiled model, in their order; empty without `train.ema`."""
    return list(model.optimizer._model_variables_moving_average) if model.optimizer.use_ema else []
