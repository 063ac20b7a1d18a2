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
    import tensorflow as tf

    from imgrec_cli.training.model import stack

    specs = config_with().model.layers[:2]
    x = tf.constant(np.random.default_rng(0).normal(size=(4, 24, 20, 3)).astype("float32"))
    upstream = tf.constant(np.random.default_rng(1).normal(size=(4, 12, 10, 6)).astype("float32"))
    results = []
    for training in (False, True):
        layers = list(stack(specs, "float32", training=training))
        for layer, weights in zip(layers, results[0][2] if results else [], strict=False):
            layer.build(x.shape)
            layer.set_weights(weights)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = x
            for layer in layers:
                y = layer(y)
        gradients = tape.gradient(y, [x, *layers[0].trainable_variables], output_gradients=upstream)
        results.append((y, gradients, [layers[0].get_weights()]))
    assert [layer.name for layer in stack(specs, "float32", training=True)] == ["conv_1", "pool_2", "pool_2_relu"]
    np.testing.assert_array_equal(results[0][0], results[1][0])
    for ours, plain in zip(results[1][1], results[0][1], strict=True):
        np.testing.assert_array_equal(ours, plain)


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
