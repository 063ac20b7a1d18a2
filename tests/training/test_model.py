"""What is trained and what is shipped are one network."""

import numpy as np
import pytest

from imgrec_cli.config import Config

pytestmark = pytest.mark.tf

LAYERS = [
    {"type": "conv", "filters": 6, "padding": "same", "activation": "relu"},
    {"type": "pool"},
    {"type": "conv", "filters": 5, "activation": "tanh"},
    {"type": "pool"},
    {"type": "conv", "filters": 5, "padding": "same", "activation": "relu"},
    {"type": "pool", "kind": "average"},
    {"type": "batch_norm", "activation": "relu"},
    {"type": "pool", "size": 1},
    {"type": "flatten"},
    {"type": "dropout", "rate": 0.5},
    {"type": "dense", "units": 7, "activation": "gelu"},
]


def config_with(**sections):
    return Config.model_validate(
        {
            "image": {"size": [24, 20], "color": "rgb"},
            "model": {"type": "layers", "layers": LAYERS},
            "train": {"precision": "float32"},
            **sections,
        }
    )


def images():
    return np.random.default_rng(0).integers(0, 256, (4, 24, 20, 3), np.uint8)


def test_the_shipped_model_answers_as_the_trained_one():
    import keras

    from imgrec_cli.training.model import shipped_model, training_model

    config = config_with(augment=[{"type": "rotate", "degrees": 30}])
    trained, shipped = training_model(config, 3), shipped_model(config, 3)
    shipped.set_weights(trained.get_weights())
    expected = keras.ops.softmax(trained(images(), training=False))
    np.testing.assert_allclose(shipped(images()), expected, atol=1e-6)


def test_relu_behind_the_max_pool_changes_no_value_and_no_gradient():
    import keras
    import tensorflow as tf

    from imgrec_cli.config import LayersModel
    from imgrec_cli.training.model import network

    spec = LayersModel.model_validate({"type": "layers", "layers": LAYERS[:2]})
    x = tf.constant(np.random.default_rng(0).normal(size=(4, 24, 20, 3)).astype("float32"))
    upstream = tf.constant(np.random.default_rng(1).normal(size=(4, 12, 10, 6)).astype("float32"))
    results = []
    for training in (False, True):
        images = keras.Input((24, 20, 3))
        built = keras.Model(images, list(network(spec, images, "float32", training=training))[-1])
        if results:
            built.set_weights(results[0][2])
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = built(x)
        gradients = tape.gradient(y, [x, *built.trainable_variables], output_gradients=upstream)
        results.append((y, gradients, built.get_weights()))
    assert [layer.name for layer in built.layers[1:]] == ["conv_1", "pool_2", "pool_2_relu"]
    np.testing.assert_array_equal(results[0][0], results[1][0])
    for ours, plain in zip(results[1][1], results[0][1], strict=True):
        np.testing.assert_array_equal(ours, plain)


RESIDUAL = [
    {"type": "conv", "filters": 6, "padding": "same", "activation": "relu"},
    {
        "type": "residual",
        "layers": [
            {"type": "conv", "filters": 8, "stride": 2, "padding": "same", "bias": False},
            {"type": "batch_norm", "activation": "relu"},
            {"type": "conv", "filters": 8, "padding": "same", "bias": False, "dilation": 1},
            {"type": "batch_norm"},
        ],
    },
    {"type": "residual", "repeat": 2, "layers": [{"type": "conv", "filters": 8, "kernel": 1}], "activation": "tanh"},
    {"type": "pool", "kind": "average", "size": 3, "stride": 2, "padding": "same"},
    {"type": "global_pool"},
]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_residual_blocks_train_with_fused_layers_and_ship_as_plain_ones(precision):
    import keras

    from imgrec_cli.config import layer_table
    from imgrec_cli.training import fused
    from imgrec_cli.training.model import shipped_model, training_model

    config = config_with(model={"type": "layers", "layers": RESIDUAL}, train={"precision": precision})
    trained, shipped = training_model(config, 3), shipped_model(config, 3)
    kinds = [type(layer) for layer in trained.layers]
    assert (kinds.count(fused.AddReLU), kinds.count(keras.layers.Add), kinds.count(fused.BatchNormalization)) == (
        1,
        2,
        3,
    )
    # two of one pixel in the blocks, that of the projection; the one of 3×3 that is left sees a map of 12×10
    assert kinds.count(fused.Conv2D) == (3 if precision == "bfloat16" else 0)
    assert [w.path for w in trained.weights] == [w.path for w in shipped.weights]
    shipped.set_weights(trained.get_weights())
    expected = keras.ops.softmax(trained(images(), training=False))
    np.testing.assert_allclose(shipped(images()), expected, atol=1e-6 if precision == "float32" else 0.02)
    table = layer_table(config, 3)
    assert sum(row.parameters for row in table) == shipped.count_params()
    for row in table[1:-1]:
        assert shipped.get_layer(row.name).output.shape[1:] == row.output_shape


@pytest.mark.parametrize(("precision", "leaky"), [("float32", False), ("bfloat16", True)])
def test_activations_train_in_one_pass_where_that_is_faster_and_ship_in_their_layer(precision, leaky):
    import keras

    from imgrec_cli.training import fused
    from imgrec_cli.training.model import shipped_model, training_model

    layers = [
        {"type": "conv", "filters": 4, "activation": "leaky_relu"},
        {"type": "conv", "filters": 4, "activation": "silu"},
        {"type": "batch_norm", "activation": "gelu"},
        {"type": "conv", "filters": 4, "activation": "relu"},
        {"type": "global_pool"},
    ]
    config = config_with(model={"type": "layers", "layers": layers}, train={"precision": precision})
    trained, shipped = training_model(config, 3), shipped_model(config, 3)
    one_pass = [layer.activation.__name__ for layer in trained.layers if type(layer) is fused.Activation]
    assert one_pass == ["leaky_relu", "silu", "gelu"][not leaky :]
    assert not any(type(layer) is fused.Activation for layer in shipped.layers)
    assert shipped.get_layer("conv_2").activation.__name__ == "silu"
    shipped.set_weights(trained.get_weights())
    expected = keras.ops.softmax(trained(images(), training=False))
    np.testing.assert_allclose(shipped(images()), expected, atol=1e-6 if precision == "float32" else 0.02)


def test_a_residual_block_adds_what_its_layers_make_to_the_map():
    import keras

    from imgrec_cli.training.model import shipped_model

    config = config_with(model={"type": "layers", "layers": [RESIDUAL[1], {"type": "global_pool"}]})
    model = shipped_model(config, 3)
    layer = model.get_layer
    x = layer("scaling")(images().astype("float32"))
    inner = layer("residual_1_batch_norm_4")(
        layer("residual_1_conv_3")(keras.ops.relu(layer("residual_1_batch_norm_2")(layer("residual_1_conv_1")(x))))
    )
    around = layer("residual_1_projection_batch_norm")(layer("residual_1_projection_conv")(x))
    block = keras.Model(model.input, layer("residual_1_relu").output)
    np.testing.assert_allclose(block(images()), np.maximum(np.array(inner) + np.array(around), 0), atol=1e-6)


@pytest.mark.parametrize(
    ("init", "variance", "bounded"),
    [
        ("glorot_uniform", 2 / (900 + 1600), True),
        ("glorot_normal", 2 / (900 + 1600), False),
        ("he_uniform", 2 / 900, True),
        ("he_normal", 2 / 900, False),
    ],
)
def test_kernels_begin_with_the_variance_of_the_formula(init, variance, bounded):
    import keras

    from imgrec_cli.training.model import shipped_model

    # 3 × 3 × 100 numbers go into each of the second convolution's outputs, and what one of its inputs reaches
    layers = [{"type": "conv", "filters": 100}, {"type": "conv", "filters": 160}, {"type": "global_pool"}]
    config = config_with(model={"type": "layers", "layers": [*layers, {"type": "dense", "units": 900}], "init": init})
    keras.utils.set_random_seed(0)
    model = shipped_model(config, 1600)
    fan_in, fan_out = 9 * 100, 9 * 160
    expected = 2 / (fan_in + fan_out) if init.startswith("glorot") else 2 / fan_in
    kernel = np.array(model.get_layer("conv_2").kernel)
    assert kernel.var() == pytest.approx(expected, rel=0.02)
    last = np.array(model.get_layer("logits").kernel)
    assert last.var() == pytest.approx(variance, rel=0.02)
    # uniform numbers end at the square root of three variances
    assert bool(np.abs(last).max() <= (3 * variance) ** 0.5 * 1.0001) is bounded


def test_penalties_are_sums_over_all_kernels():
    from imgrec_cli.training.model import training_model

    config = config_with(model={"type": "layers", "layers": RESIDUAL, "l1": 0.01, "l2": 0.001})
    model = training_model(config, 3)
    kernels = [w.numpy().astype(np.float64) for w in model.trainable_weights if w.path.endswith("kernel")]
    assert len(kernels) == 7
    expected = sum(0.01 * np.abs(kernel).sum() + 0.001 * np.square(kernel).sum() for kernel in kernels)
    assert float(sum(model.losses)) == pytest.approx(expected, rel=1e-5)


def test_standardised_pixels_have_mean_0_and_deviation_1():
    from imgrec_cli.config import Standardize
    from imgrec_cli.training.model import scaling

    pixels = np.random.default_rng(0).integers(0, 256, (2000, 3)) * [0.2, 0.5, 1.0]
    statistics = Standardize(mean=tuple(pixels.mean(0) / 255), deviation=tuple(pixels.std(0) / 255))
    image = config_with().image.model_copy(update={"standardize": statistics})
    scaled = np.asarray(scaling(image)(pixels[None, None].astype("float32")))[0, 0]
    np.testing.assert_allclose(scaled.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(scaled.std(0), 1, atol=1e-4)


def test_running_statistics_follow_by_the_momentum_of_the_config():
    from imgrec_cli.training.model import training_model

    layers = [{"type": "flatten"}, {"type": "batch_norm", "momentum": 0.75}]
    model = training_model(config_with(model={"type": "layers", "layers": layers}), 3)
    batch = images()
    model(batch, training=True)
    (moving,) = [w.numpy() for w in model.weights if w.path.endswith("moving_mean")]
    np.testing.assert_allclose(moving, 0.25 * (batch / 255).reshape(4, -1).mean(axis=0), atol=1e-6)
