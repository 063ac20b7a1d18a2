"""TensorFlow's own fused kernels behind Keras's layers and optimizers: same formulas, a fraction of the passes.

Keras 3 spells an optimizer update and a batch normalisation as a dozen elementwise passes over memory; TensorFlow has
each as one kernel. All are subclasses that override one method, keep Keras's state in Keras's order, and stand aside
where a kernel does not apply. docs/fused-kernels.md says what to check when Keras or TensorFlow is upgraded.
"""

from typing import Any

import keras
import tensorflow as tf

Tensor = Any


def missing_kernels() -> list[str]:
    """What this module needs and this Keras or TensorFlow no longer has; empty where all is there."""
    kernels = ("ResourceApplyAdam", "ResourceApplyKerasMomentum", "ResourceApplyRMSProp", "FusedBatchNormV3")
    missing = [f"tensorflow.raw_ops.{name}" for name in kernels if not hasattr(tf.raw_ops, name)]
    if not hasattr(keras.optimizers.Optimizer, "_get_variable_index"):
        missing.append("keras.optimizers.Optimizer._get_variable_index")
    return missing


def _handle(variable: Any) -> Tensor:
    """The resource that raw kernels take, of a Keras or a TensorFlow variable."""
    return (variable.value if hasattr(variable, "value") and not callable(variable.value) else variable).handle


class _AdamStep:
    """Adam's update as one pass (Kingma and Ba 2014, algorithm 1 with the reordering of its section 2)."""

    def update_step(self: Any, gradient: Tensor, variable: Any, learning_rate: Tensor) -> None:
        if self.amsgrad or not isinstance(gradient, tf.Tensor):
            super().update_step(gradient, variable, learning_rate)  # type: ignore[misc]
            return
        dtype = variable.dtype
        index = self._get_variable_index(variable)
        step = tf.cast(self.iterations + 1, dtype)
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


class BatchNormalization(keras.layers.BatchNormalization):
    """keras.layers.BatchNormalization with TensorFlow's fused kernel in training.

    Statistics, moving averages and gradients are those of Keras's layer. Frozen and inference behaviour are its own.
    """

    def call(self, inputs: Tensor, training: bool | None = None, mask: Tensor | None = None) -> Tensor:
        fits = (
            training
            and self.trainable
            and mask is None
            and not self.renorm
            and not self.synchronized
            and len(inputs.shape) == 4
            # of a single value the kernel makes NaN on a GPU, and a map of 1 by 1 may meet a batch of 1
            and inputs.shape[1:3] != (1, 1)
            and self.axis in (-1, 3)
            and inputs.dtype in (tf.float32, tf.bfloat16, tf.float16)
        )
        if not fits:
            return super().call(inputs, training=training, mask=mask)
        channels = inputs.shape[-1]
        values = tf.size(inputs, out_type=tf.int64) // channels
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=tf.convert_to_tensor(self.gamma) if self.scale else tf.ones(channels),
            offset=tf.convert_to_tensor(self.beta) if self.center else tf.zeros(channels),
            mean=tf.zeros(0),
            variance=tf.zeros(0),
            epsilon=self.epsilon,
            is_training=True,
        )
        # the kernel returns the variance of a sample, n / (n - 1) of what it normalises with and Keras averages
        count = tf.cast(values, tf.float32)
        variance = variance * (count - 1) / count
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + batch * (1.0 - self.momentum))
        return tf.cast(outputs, self.compute_dtype)


class PointwiseConv2D(keras.layers.Conv2D):
    """keras.layers.Conv2D with a kernel of one pixel, whose gradient is a matrix product while it trains in bfloat16.

    The sums are the same; oneDNN takes two to five times as long for them as a convolution's gradient in bfloat16, and
    about as long in float32.
    """

    @staticmethod
    def fits(layer: keras.layers.Layer) -> bool:
        """Whether a Keras layer is a convolution that this one can stand for."""
        return (
            type(layer) is keras.layers.Conv2D
            and layer.kernel_size == (1, 1)
            and layer.groups == 1
            and layer.data_format == "channels_last"
            and layer.compute_dtype == "bfloat16"
        )

    def convolution_op(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        rows, columns = self.strides

        @tf.custom_gradient
        def convolution(x: Tensor, weights: Tensor) -> tuple[Tensor, Any]:
            steps = [1, rows, columns, 1]

            def gradient(upstream: Tensor) -> tuple[Tensor, Tensor]:
                of_inputs = tf.raw_ops.Conv2DBackpropInput(
                    input_sizes=tf.shape(x), filter=weights, out_backprop=upstream, strides=steps, padding="VALID"
                )
                seen = x if self.strides == (1, 1) else x[:, ::rows, ::columns]
                flat, flat_upstream = tf.reshape(seen, (-1, x.shape[-1])), tf.reshape(upstream, (-1, self.filters))
                of_weights = tf.linalg.matmul(flat, flat_upstream, transpose_a=True)
                return of_inputs, of_weights[None, None]

            return tf.nn.conv2d(x, weights, steps, "VALID"), gradient

        result: Tensor = convolution(inputs, tf.convert_to_tensor(kernel))
        return result
