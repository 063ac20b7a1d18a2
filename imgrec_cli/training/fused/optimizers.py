"""Keras's optimizers, whose update is one pass over the weights."""

import math
from typing import Any

import keras
import tensorflow as tf

Tensor = Any


def _of_tensorflow(variable: Any) -> Any:
    """The TensorFlow variable in a Keras one, or the one that is given."""
    return variable.value if hasattr(variable, "value") and not callable(variable.value) else variable


def _handle(variable: Any) -> Tensor:
    """The resource that raw kernels take."""
    return _of_tensorflow(variable).handle


_MANY_WEIGHTS = 1 << 20  # from here on an update takes as long as memory does


def _adam_of_rounded(
    weights: Any,
    first: Any,
    second: Any,
    gradient: Tensor,
    rate: Tensor,
    beta_1: Tensor,
    beta_2: Tensor,
    epsilon: float,
) -> None:
    """The same update in the same order as the kernel's, by a gradient that is rounded to bfloat16 still."""
    gradient = tf.cast(gradient, tf.float32)
    moment = first + (gradient - first) * (1 - beta_1)
    energy = second + (tf.square(gradient) - second) * (1 - beta_2)
    first.assign(moment)
    second.assign(energy)
    weights.assign_sub(moment * rate / (tf.sqrt(energy) + epsilon))


def _before_cast(gradient: Tensor) -> Tensor | None:
    """The bfloat16 values that a float32 gradient was cast from and is nothing else; None elsewhere."""
    if tf.executing_eagerly():
        return None
    while gradient.op.type in ("Identity", "IdentityN"):
        gradient = gradient.op.inputs[gradient.value_index]
    is_cast = gradient.op.type == "Cast" and gradient.op.inputs[0].dtype == tf.bfloat16
    return gradient.op.inputs[0] if is_cast else None


class _AdamStep:
    """Adam's update as one pass (Kingma and Ba 2014, algorithm 1 with the reordering of its section 2).

    Of many weights in bfloat16 XLA makes a pass that reads their gradient before it is cast: half the bytes, and no
    pass that casts.
    """

    def update_step(self: Any, gradient: Tensor, variable: Any, learning_rate: Tensor) -> None:
        if self.amsgrad or not isinstance(gradient, tf.Tensor):
            super().update_step(gradient, variable, learning_rate)  # type: ignore[misc]
            return
        dtype = variable.dtype
        index = self._get_variable_index(variable)
        step = tf.cast(self.iterations + 1, dtype)
        rounded = _before_cast(gradient) if math.prod(variable.shape) >= _MANY_WEIGHTS else None
        if rounded is not None and dtype == "float32":
            beta_1, beta_2 = tf.cast(self.beta_1, dtype), tf.cast(self.beta_2, dtype)
            rate = tf.cast(learning_rate, dtype) * tf.sqrt(1 - tf.pow(beta_2, step)) / (1 - tf.pow(beta_1, step))
            state = (variable, self._momentums[index], self._velocities[index])
            # a new function for each: one that is kept raises once the variables of another model are gone
            update = tf.function(_adam_of_rounded, jit_compile=True)
            update(*map(_of_tensorflow, state), rounded, rate, beta_1, beta_2, self.epsilon)
            return
        tf.raw_ops.ResourceApplyAdam(
            var=_handle(variable),
            m=_handle(self._momentums[index]),
            v=_handle(self._velocities[index]),
            beta1_power=tf.pow(tf.cast(self.beta_1, dtype), step),
            beta2_power=tf.pow(tf.cast(self.beta_2, dtype), step),
            lr=tf.cast(learning_rate, dtype),
            beta1=tf.cast(self.beta_1, dtype),
            beta2=tf.cast(self.beta_2, dtype),
            epsilon=tf.cast(self.epsilon, dtype),
            grad=tf.cast(gradient, dtype),
        )


class Adam(_AdamStep, keras.optimizers.Adam):
    """keras.optimizers.Adam with a fused update."""


class AdamW(_AdamStep, keras.optimizers.AdamW):
    """keras.optimizers.AdamW with a fused update; the decay stays Keras's own pass."""


class SGD(keras.optimizers.SGD):
    """keras.optimizers.SGD with a fused update where it has momentum."""

    def update_step(self, gradient: Tensor, variable: Any, learning_rate: Tensor) -> None:
        if self.momentum == 0 or not isinstance(gradient, tf.Tensor):
            super().update_step(gradient, variable, learning_rate)
            return
        dtype = variable.dtype
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=_handle(variable),
            accum=_handle(self.momentums[self._get_variable_index(variable)]),
            lr=tf.cast(learning_rate, dtype),
            grad=tf.cast(gradient, dtype),
            momentum=tf.cast(self.momentum, dtype),
            use_nesterov=self.nesterov,
        )


class RMSprop(keras.optimizers.RMSprop):
    """keras.optimizers.RMSprop with a fused update where it has momentum: the kernel needs that slot."""

    def update_step(self, gradient: Tensor, variable: Any, learning_rate: Tensor) -> None:
        if self.momentum == 0 or self.centered or not isinstance(gradient, tf.Tensor):
            super().update_step(gradient, variable, learning_rate)
            return
        dtype = variable.dtype
        index = self._get_variable_index(variable)
        tf.raw_ops.ResourceApplyRMSProp(
            var=_handle(variable),
            ms=_handle(self._velocities[index]),
            mom=_handle(self._momentums[index]),
            lr=tf.cast(learning_rate, dtype),
            rho=tf.cast(self.rho, dtype),
            momentum=tf.cast(self.momentum, dtype),
            epsilon=tf.cast(self.epsilon, dtype),
            grad=tf.cast(gradient, dtype),
        )
