"""Keras's layers, whose values and gradients take fewer passes over maps."""

import functools
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

Tensor = Any


class BatchNormalization(keras.layers.BatchNormalization):
    """keras.layers.BatchNormalization with TensorFlow's fused kernel in training.

    Statistics, moving averages and gradients are those of Keras's layer. Inference behaviour is its own. A frozen one
    may lie in the kernel of the convolution before it (`put_into`), and otherwise takes the same kernel's other mode.
    """

    _in_convolution = False

    def put_into(self, convolution: "Conv2D | DepthwiseConv2D", maps: tuple[int | None, ...]) -> None:
        """Let a convolution that gives `maps` [B, H, W, C] to this layer alone multiply by `_factor`, in its kernel.

        For layers that stay frozen. What is left to do here is an addition, of which oneDNN makes one pass with the
        convolution.
        """
        self.build(maps)
        self._in_convolution = True
        convolution.factor = self._factor

    def _factor(self) -> Tensor:
        """What a frozen normalisation multiplies by, float32 [C]."""
        factor = tf.math.rsqrt(tf.convert_to_tensor(self.moving_variance) + self.epsilon)
        return factor * tf.convert_to_tensor(self.gamma) if self.scale else factor

    def call(self, inputs: Tensor, training: bool | None = None, mask: Tensor | None = None) -> Tensor:
        if self._in_convolution:
            offset = -tf.convert_to_tensor(self.moving_mean) * self._factor()
            offset += tf.convert_to_tensor(self.beta) if self.center else 0.0
            return tf.nn.bias_add(inputs, tf.cast(offset, inputs.dtype))
        fits = (
            training
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
        scale = tf.convert_to_tensor(self.gamma) if self.scale else tf.ones(channels)
        offset = tf.convert_to_tensor(self.beta) if self.center else tf.zeros(channels)
        if not self.trainable:
            outputs, *_ = tf.raw_ops.FusedBatchNormV3(
                x=inputs,
                scale=scale,
                offset=offset,
                mean=tf.convert_to_tensor(self.moving_mean),
                variance=tf.convert_to_tensor(self.moving_variance),
                epsilon=self.epsilon,
                is_training=False,
            )
            return tf.cast(outputs, self.compute_dtype)
        values = tf.size(inputs, out_type=tf.int64) // channels
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=scale,
            offset=offset,
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


@tf.function(jit_compile=True)
def _relu_of_sum(first: Tensor, second: Tensor) -> Tensor:
    return tf.nn.relu(first + second)


@tf.function(jit_compile=True)
def _relu_gradient(one: Tensor, other: Tensor, outputs: Tensor) -> Tensor:
    return tf.where(outputs > 0, one + other, tf.zeros([], outputs.dtype))


class AddReLU(keras.layers.Layer):
    """The sum of two maps and the ReLU behind it, as one pass over memory that XLA compiles.

    Gives the result twice, for two readers, whose gradients are then summed in the same pass; TensorFlow's sum is one
    more. A whole step compiled by XLA is slower than oneDNN's on CPUs, and a ReLU behind a normalisation is fused with
    it already: neither is done.
    """

    def call(self, inputs: list[Tensor]) -> list[Tensor]:
        @tf.custom_gradient
        def relu_of_sum(first: Tensor, second: Tensor) -> tuple[list[Tensor], Any]:
            outputs = _relu_of_sum(first, second)

            def gradient(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
                of_sum = _relu_gradient(one, other, outputs)
                return of_sum, of_sum

            return [outputs, tf.identity(outputs)], gradient

        result: list[Tensor] = relu_of_sum(*inputs)
        return result


class Activation(keras.layers.Activation):
    """keras.layers.Activation whose values and gradients are one pass each, which XLA compiles.

    Measured on two cores with amx_bf16: 2.6 to 3.9 times as fast for silu, hard_silu and gelu; twice as fast for relu6
    and leaky_relu in bfloat16, and no faster in float32. A ReLU behind a normalisation is fused with it already.
    """

    @staticmethod
    def fits(name: str, compute_dtype: str) -> bool:
        """Whether the activation of this name is faster this way."""
        if name in ("relu6", "leaky_relu"):
            return compute_dtype == "bfloat16"
        return name in ("silu", "hard_silu", "gelu", "mish", "softplus")

    def __init__(self, activation: Any, **options: Any) -> None:
        super().__init__(activation, **options)
        self._values, self._slope = _compiled(self.activation)

    def call(self, inputs: Tensor) -> Tensor:
        at_outputs = self.activation is keras.activations.relu6  # has the same slope there, and they are kept anyway

        @tf.custom_gradient
        def activated(x: Tensor) -> tuple[Tensor, Any]:
            outputs = self._values(x)
            return outputs, lambda upstream: self._slope(upstream, outputs if at_outputs else x)

        result: Tensor = activated(inputs)
        return result


@functools.cache
def _compiled(activation: Any) -> tuple[Any, Any]:
    """The activation and its gradient, each as a function that XLA compiles once for every shape."""

    @tf.function(jit_compile=True)
    def of_inputs(upstream: Tensor, x: Tensor) -> Tensor:
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = activation(x)
        return tape.gradient(outputs, x, upstream)

    return tf.function(activation, jit_compile=True), of_inputs


def _times(kernel: Tensor, factor: Tensor) -> Tensor:
    """A kernel times a float32 factor, rounded once."""
    return tf.cast(tf.cast(kernel, tf.float32) * factor, kernel.dtype)


class DepthwiseConv2D(keras.layers.DepthwiseConv2D):
    """keras.layers.DepthwiseConv2D whose gradient for its inputs is a depthwise convolution with the kernel turned.

    The sums are the same. Measured on two cores with amx_bf16: oneDNN's own takes twice as long in bfloat16, and with
    a stride six to twenty times. `factor` may hold what gives a float32 [C] that outputs are multiplied by.
    """

    factor: Callable[[], Tensor] | None = None

    @staticmethod
    def can_stand_for(layer: keras.layers.Layer) -> bool:
        """Whether a Keras layer is a convolution that this one gives the outputs of."""
        return (
            isinstance(layer, keras.layers.DepthwiseConv2D)
            and layer.depth_multiplier == 1
            and layer.data_format == "channels_last"
            and layer.dilation_rate == (1, 1)
        )

    @staticmethod
    def fits(layer: keras.layers.Layer) -> bool:
        """Whether it is one whose gradient is faster here."""
        return (
            DepthwiseConv2D.can_stand_for(layer)
            and all(size % 2 for size in layer.kernel_size)
            and (
                (layer.strides == (1, 1) and layer.padding == "same")
                or (layer.strides == (2, 2) and layer.compute_dtype == "bfloat16")
            )
        )

    def call(self, inputs: Tensor) -> Tensor:
        padding, steps = self.padding.upper(), [1, *self.strides, 1]
        kernel = tf.cast(tf.convert_to_tensor(self.kernel), inputs.dtype)
        if self.factor is not None:
            kernel = _times(kernel, self.factor()[:, None])

        @tf.custom_gradient
        def convolution(x: Tensor, weights: Tensor) -> tuple[Tensor, Any]:
            def gradient(upstream: Tensor) -> tuple[Tensor, Tensor]:
                of_weights = tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
                    input=x, filter_sizes=tf.shape(weights), out_backprop=upstream, strides=steps, padding=padding
                )
                if self.strides == (2, 2):
                    upstream = _spread(upstream, *(self._places(axis, x.shape[1 + axis]) for axis in (0, 1)))
                places = weights.shape[0] * weights.shape[1]
                # tf.reverse takes as long as the convolution
                turned = tf.gather(tf.reshape(weights, (places, -1)), range(places - 1, -1, -1))
                turned = tf.reshape(turned, weights.shape)
                return tf.nn.depthwise_conv2d(upstream, turned, [1, 1, 1, 1], "SAME"), of_weights

            return tf.nn.depthwise_conv2d(x, weights, steps, padding), gradient

        if DepthwiseConv2D.fits(self):
            outputs = convolution(inputs, kernel)
        else:
            outputs = tf.nn.depthwise_conv2d(inputs, kernel, steps, padding)
        if self.use_bias:
            outputs = tf.nn.bias_add(outputs, tf.cast(tf.convert_to_tensor(self.bias), outputs.dtype))
        return self.activation(outputs)

    def _places(self, axis: int, length: int) -> tuple[int, int]:
        """Where along an axis of the inputs the middle of the kernel stands first, and the length of the axis."""
        kernel, stride = self.kernel_size[axis], self.strides[axis]
        before = zeros_of_same(length, kernel, stride)[0] if self.padding == "same" else 0
        return kernel // 2 - before, length


def zeros_of_same(length: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros that padding `same` puts before and behind an axis: as many as give an output to every step in it."""
    zeros = max(0, (-(-length // stride) - 1) * stride + kernel - length)
    return zeros // 2, zeros - zeros // 2


@tf.function(jit_compile=True)
def _spread(values: Tensor, rows: tuple[int, int], columns: tuple[int, int]) -> Tensor:
    """Maps [B, H, W, C] with every value two pixels from the next, zeros between and around them; each of `rows` and
    `columns` says where the first one goes and how long the axis becomes."""
    _, height, width, channels = values.shape
    spread = tf.pad(values[:, :, None, :, None], [[0, 0], [0, 0], [0, 1], [0, 0], [0, 1], [0, 0]])
    spread = tf.reshape(spread, (-1, 2 * height, 2 * width, channels))[:, :-1, :-1]
    around = [(first, length - first - (2 * size - 1)) for (first, length), size in ((rows, height), (columns, width))]
    return tf.pad(spread, [[0, 0], *around, [0, 0]])


class Conv2D(keras.layers.Conv2D):
    """keras.layers.Conv2D whose kernel's gradient is a matrix product, for the shapes where that is faster in bfloat16.

    The sums are the same. Measured on two cores with amx_bf16: oneDNN takes two to five times as long for kernels of
    one pixel, and four times as long for kernels of 3×3 on maps of 5×5; on maps of 20×20 it is twice as fast. `factor`
    may hold what gives a float32 [C] that outputs are multiplied by.
    """

    factor: Callable[[], Tensor] | None = None

    @staticmethod
    def can_stand_for(layer: keras.layers.Layer) -> bool:
        """Whether a Keras layer is a convolution that this one gives the outputs of."""
        return isinstance(layer, keras.layers.Conv2D) and layer.data_format == "channels_last"

    @staticmethod
    def fits(layer: keras.layers.Layer, output_shape: tuple[int | None, ...]) -> bool:
        """Whether it is one that gives maps [B, H, W, C] of a shape for which its gradient is faster here."""
        if not Conv2D.can_stand_for(layer) or layer.groups != 1 or layer.compute_dtype != "bfloat16":
            return False
        if layer.kernel_size == (1, 1):
            return True
        _, height, width, _ = output_shape
        return (
            layer.kernel_size == (3, 3)
            and (layer.strides, layer.dilation_rate, layer.padding) == ((1, 1), (1, 1), "same")
            and height is not None
            and width is not None
            and height * width <= 100
        )

    def convolution_op(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        if self.factor is not None:
            kernel = _times(tf.convert_to_tensor(kernel), self.factor())
        if not Conv2D.fits(self, self.compute_output_shape(inputs.shape)):
            return super().convolution_op(inputs, kernel)
        padding = "SAME" if self.kernel_size == (3, 3) else "VALID"
        steps = [1, *self.strides, 1]

        @tf.custom_gradient
        def convolution(x: Tensor, weights: Tensor) -> tuple[Tensor, Any]:
            def gradient(upstream: Tensor) -> tuple[Tensor, Tensor]:
                of_inputs = tf.raw_ops.Conv2DBackpropInput(
                    input_sizes=tf.shape(x), filter=weights, out_backprop=upstream, strides=steps, padding=padding
                )
                seen = self._seen_by_each_weight(x)
                of_weights = tf.linalg.matmul(
                    tf.reshape(seen, (-1, seen.shape[-1])),
                    tf.reshape(upstream, (-1, self.filters)),
                    transpose_a=True,
                )
                return of_inputs, tf.reshape(of_weights, weights.shape)

            return tf.nn.conv2d(x, weights, steps, padding), gradient

        result: Tensor = convolution(inputs, tf.convert_to_tensor(kernel))
        return result

    def _seen_by_each_weight(self, x: Tensor) -> Tensor:
        """The values [B, height, width, kernel · kernel · channels] that stand under the kernel at every place."""
        if self.kernel_size == (1, 1):
            # a pool of one pixel keeps the values of x[:, ::rows, ::columns], which takes ten times as long
            return x if self.strides == (1, 1) else tf.nn.max_pool2d(x, 1, self.strides, "VALID")
        height, width = x.shape[1:3]
        padded = tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])
        return tf.concat([padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)], axis=-1)
