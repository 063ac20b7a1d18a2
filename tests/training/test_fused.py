"""Fused kernels against Keras's own optimizers and layers, and against the formulas in float64."""

import numpy as np
import pytest

pytestmark = pytest.mark.tf

OPTIMIZERS = [
    ("Adam", {"learning_rate": 3e-3}),
    ("Adam", {"learning_rate": 3e-3, "global_clipnorm": 0.1, "use_ema": True}),
    ("Adam", {"learning_rate": 3e-3, "gradient_accumulation_steps": 2}),
    ("AdamW", {"learning_rate": 3e-3, "weight_decay": 0.1}),
    ("SGD", {"learning_rate": 1e-2}),
    ("SGD", {"learning_rate": 1e-2, "momentum": 0.9, "weight_decay": 0.01}),
    ("SGD", {"learning_rate": 1e-2, "momentum": 0.9, "nesterov": True, "clipnorm": 0.5}),
    ("RMSprop", {"learning_rate": 1e-3, "momentum": 0.5}),
    ("RMSprop", {"learning_rate": 1e-3}),
]


def trained(optimizer, steps=40):
    """Weights and optimizer state after some steps on a small network with a fixed seed."""
    import keras

    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(4, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(16, activation="tanh"),
            layers.Dense(3),
        ]
    )
    generator = np.random.default_rng(0)
    images, labels = generator.normal(size=(32, 8, 8, 1)).astype("float32"), generator.integers(0, 3, 32)
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    for _ in range(steps):
        model.train_on_batch(images, labels)
    as_arrays = keras.ops.convert_to_numpy
    return [as_arrays(w).copy() for w in model.weights], [as_arrays(v).copy() for v in optimizer.variables]


@pytest.mark.parametrize(("name", "options"), OPTIMIZERS, ids=lambda value: str(value))
def test_updates_equal_keras(name, options):
    import keras

    from imgrec_cli.training import fused

    expected, expected_state = trained(getattr(keras.optimizers, name)(**options))
    got, state = trained(getattr(fused, name)(**options))
    for ours, theirs in zip(got, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-6)
    for ours, theirs in zip(state, expected_state, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=5e-4, atol=2e-6)


@pytest.mark.parametrize(("name", "options"), [OPTIMIZERS[0], OPTIMIZERS[3]], ids=lambda value: str(value))
def test_updates_by_rounded_gradients_equal_keras(monkeypatch, name, options):
    """Of many weights in bfloat16, for which these are few."""
    import keras

    from imgrec_cli.training import fused
    from imgrec_cli.training.fused import optimizers

    updated, update = [], optimizers._adam_of_rounded
    monkeypatch.setattr(optimizers, "_MANY_WEIGHTS", 100)
    monkeypatch.setattr(optimizers, "_adam_of_rounded", lambda *given: (updated.append(given[0].shape), update(*given)))
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        expected, expected_state = trained(getattr(keras.optimizers, name)(**options), steps=3)
        got, state = trained(getattr(fused, name)(**options), steps=3)
    finally:
        keras.config.set_dtype_policy(policy)
    assert (144, 16) in {tuple(shape) for shape in updated}
    for ours, theirs in zip(got, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=1e-5)
    for ours, theirs in zip(state, expected_state, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)


def batch_norm_in_float64(x, gamma, beta, upstream, epsilon):
    """Output, statistics and gradients of batch normalisation (Ioffe and Szegedy 2015, section 3)."""
    x, upstream = x.astype(np.float64), upstream.astype(np.float64)
    axes, n = (0, 1, 2), x[..., 0].size
    mean, variance = x.mean(axes), x.var(axes)
    deviation = np.sqrt(variance + epsilon)
    normal = (x - mean) / deviation
    d_beta, d_gamma = upstream.sum(axes), (upstream * normal).sum(axes)
    d_x = gamma / deviation / n * (n * upstream - d_beta - normal * d_gamma)
    return normal * gamma + beta, mean, variance, d_x, d_gamma, d_beta


@pytest.mark.parametrize("shape", [(2, 2, 2, 3), (8, 5, 5, 16)])
def test_batch_norm_equals_the_formula(shape):
    import tensorflow as tf

    from imgrec_cli.training import fused

    generator = np.random.default_rng(0)
    x, upstream = (generator.normal(1, 2, shape).astype("float32") for _ in range(2))
    layer = fused.BatchNormalization(momentum=0.9)
    layer.build(shape)
    gamma, beta = (
        generator.uniform(0.5, 2, shape[-1]).astype("float32"),
        generator.normal(size=shape[-1]).astype("float32"),
    )
    layer.gamma.assign(gamma)
    layer.beta.assign(beta)
    with tf.GradientTape() as tape:
        inputs = tf.constant(x)
        tape.watch(inputs)
        outputs = layer(inputs, training=True)
    d_x, d_gamma, d_beta = tape.gradient(
        outputs, [inputs, layer.gamma.value, layer.beta.value], output_gradients=tf.constant(upstream)
    )
    expected, mean, variance, *gradients = batch_norm_in_float64(x, gamma, beta, upstream, layer.epsilon)
    np.testing.assert_allclose(outputs, expected, atol=1e-5)
    np.testing.assert_allclose(layer.moving_mean, 0.1 * mean, atol=1e-6)
    # also for 8 values, where the kernel's own variance would be 8/7 of this
    np.testing.assert_allclose(layer.moving_variance, 0.9 + 0.1 * variance, rtol=1e-5)
    for got, wanted in zip((d_x, d_gamma, d_beta), gradients, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=2e-5)


def test_batch_norm_at_inference_and_frozen_is_keras():
    import keras

    from imgrec_cli.training import fused

    x = np.random.default_rng(0).normal(size=(4, 3, 3, 2)).astype("float32")
    ours, theirs = fused.BatchNormalization(), keras.layers.BatchNormalization()
    for layer in (ours, theirs):
        layer.build(x.shape)
        layer.moving_mean.assign([0.5, -1.0])
        layer.moving_variance.assign([2.0, 0.3])
    np.testing.assert_array_equal(ours(x, training=False), theirs(x, training=False))
    ours.trainable = theirs.trainable = False
    np.testing.assert_allclose(ours(x, training=True), theirs(x, training=True), rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(ours.moving_mean, [0.5, -1.0])


@pytest.mark.parametrize("options", [{"scale": False}, {"center": False}, {"axis": 1}])
def test_batch_norm_options_equal_keras(options):
    import keras

    from imgrec_cli.training import fused

    x = np.random.default_rng(0).normal(size=(4, 3, 5, 2)).astype("float32")
    ours, theirs = fused.BatchNormalization(**options), keras.layers.BatchNormalization(**options)
    np.testing.assert_allclose(ours(x, training=True), theirs(x, training=True), atol=1e-5)
    np.testing.assert_allclose(ours.moving_variance, theirs.moving_variance, rtol=1e-5)


def test_batch_norm_after_dense_equals_keras():
    import keras

    from imgrec_cli.training import fused

    x = np.random.default_rng(0).normal(size=(16, 5)).astype("float32")
    np.testing.assert_allclose(
        fused.BatchNormalization()(x, training=True), keras.layers.BatchNormalization()(x, training=True), atol=1e-6
    )


def test_what_is_missing_is_named(monkeypatch):
    import tensorflow as tf

    from imgrec_cli.training import fused

    assert fused.missing_kernels() == []
    monkeypatch.setattr(tf.test, "is_built_with_xla", lambda: False)
    assert fused.missing_kernels() == ["XLA"]


@pytest.fixture
def without_a_kernel(monkeypatch):
    from imgrec_cli.training import fused, runtime

    monkeypatch.setattr(fused, "missing_kernels", lambda: ["tensorflow.raw_ops.ResourceApplyAdam"])
    runtime.fused_kernels.cache_clear()
    yield
    runtime.fused_kernels.cache_clear()


@pytest.mark.usefixtures("without_a_kernel")
def test_a_missing_kernel_falls_back_to_keras_with_one_warning(tiny_config):
    import keras

    from imgrec_cli.config import Runtime, load_config
    from imgrec_cli.training import optimize, runtime

    assert type(optimize.optimizer(load_config(tiny_config), 10)) is keras.optimizers.Adam
    assert [text for text in runtime.start(Runtime(device="cpu")).warnings if "ResourceApplyAdam" in text] == [
        "training is slower than it could be: this Keras or TensorFlow lacks tensorflow.raw_ops.ResourceApplyAdam"
    ]


def outputs_and_gradients(layer, x):
    """What a built layer makes of x, and the gradients for x and its weights of a loss that is not linear."""
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
        loss = tf.reduce_sum(y * tf.sin(y))
    return [y, *tape.gradient(loss, [x, *(weight.value for weight in layer.trainable_variables)])]


@pytest.mark.parametrize(
    "options",
    [{"kernel_size": 1}, {"kernel_size": 1, "strides": 2}, {"kernel_size": 3, "padding": "same"}],
    ids=["pointwise", "pointwise with a stride", "3×3"],
)
def test_a_convolution_with_a_product_for_a_gradient_has_the_gradient_of_a_convolution(options):
    import keras
    import tensorflow as tf

    from imgrec_cli.training import fused

    x = tf.constant(np.random.default_rng(0).normal(size=(4, 7, 6, 5)).astype("float32"))
    plain, quick = keras.layers.Conv2D(8, **options), fused.Conv2D(8, **options)
    for layer in (plain, quick):
        layer.build(x.shape)
        layer.set_weights(plain.get_weights())
    expected, found = outputs_and_gradients(plain, x), outputs_and_gradients(quick, x)
    assert len(expected) == 4
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "side", "expected"),
    [
        ({"kernel_size": 1, "strides": 2}, 40, True),
        ({"kernel_size": 3, "padding": "same"}, 10, True),
        ({"kernel_size": 3, "padding": "same"}, 20, False),
        ({"kernel_size": 3, "padding": "valid"}, 5, False),
        ({"kernel_size": 3, "padding": "same", "strides": 2}, 5, False),
        ({"kernel_size": 3, "padding": "same", "dilation_rate": 2}, 5, False),
        ({"kernel_size": 1, "dtype": "float32"}, 5, False),
    ],
)
def test_which_convolutions_train_with_a_product(options, side, expected):
    import keras

    from imgrec_cli.training import fused

    layer = keras.layers.Conv2D(8, **{"dtype": "mixed_bfloat16", **options})
    assert fused.Conv2D.fits(layer, layer(keras.Input((side, side, 5))).shape) is expected


def test_a_sum_and_its_relu_in_one_pass_have_the_values_and_gradients_of_two():
    import tensorflow as tf

    from imgrec_cli.training import fused

    first, second = (tf.constant(v, tf.float32) for v in np.random.default_rng(0).normal(size=(2, 3, 4, 4, 5)))
    results = []
    for sum_then_relu in (lambda a, b: [tf.nn.relu(a + b)] * 2, lambda a, b: fused.AddReLU()([a, b])):
        with tf.GradientTape() as tape:
            tape.watch((first, second))
            one, other = sum_then_relu(first, second)
            loss = tf.reduce_sum(tf.square(one)) + tf.reduce_sum(tf.sin(other))
        results.append([one, other, *tape.gradient(loss, (first, second))])
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


@pytest.mark.parametrize("name", ["relu6", "leaky_relu", "silu", "hard_silu", "gelu", "mish", "softplus"])
def test_an_activation_of_one_pass_has_the_values_and_gradients_of_keras_s(name):
    import keras
    import tensorflow as tf

    from imgrec_cli.training import fused

    x = tf.constant(np.random.default_rng(0).normal(scale=4, size=(3, 4, 4, 5)), tf.float32)
    expected, found = (outputs_and_gradients(kind(name), x) for kind in (keras.layers.Activation, fused.Activation))
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kernel", [3, 5, (3, 1)], ids=str)
@pytest.mark.parametrize(("strides", "padding"), [(1, "same"), (2, "same"), (2, "valid")])
@pytest.mark.parametrize("size", [(8, 9), (9, 8)], ids=str)
def test_a_depthwise_convolution_with_a_turned_kernel_has_the_gradients_of_keras_s(kernel, strides, padding, size):
    import keras
    import tensorflow as tf

    from imgrec_cli.training import fused

    x = tf.constant(np.random.default_rng(0).normal(size=(2, *size, 4)), tf.float32)
    plain, quick = (
        kind(kernel, strides=strides, padding=padding, activation="tanh")
        for kind in (keras.layers.DepthwiseConv2D, fused.DepthwiseConv2D)
    )
    for layer in (plain, quick):
        layer.build(x.shape)
        layer.set_weights(plain.get_weights())
    expected, found = outputs_and_gradients(plain, x), outputs_and_gradients(quick, x)
    assert len(expected) == 4
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"padding": "same"}, True),
        ({"padding": "same", "dtype": "float32"}, True),
        ({"strides": 2}, True),
        ({"strides": 2, "dtype": "float32"}, False),  # oneDNN's own is the faster one there
        ({"padding": "valid"}, False),
        ({"kernel_size": 2, "padding": "same"}, False),
        ({"padding": "same", "depth_multiplier": 2}, False),
        ({"padding": "same", "dilation_rate": 2}, False),
    ],
)
def test_which_depthwise_convolutions_train_with_a_turned_kernel(options, expected):
    import keras

    from imgrec_cli.training import fused

    layer = keras.layers.DepthwiseConv2D(**{"kernel_size": 3, "dtype": "mixed_bfloat16", **options})
    assert fused.DepthwiseConv2D.fits(layer) is expected
