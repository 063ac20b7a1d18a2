"""Learning rates over all steps against their formulas in float64, and averages of weights against theirs."""

import math

import numpy as np
import pytest

from imgrec_cli.config import PlateauSchedule, load_config
from imgrec_cli.errors import ConfigError

pytestmark = pytest.mark.tf

STEPS, EPOCHS = 37, 6  # 222 in all


def rates(tiny_config, schedule):
    from imgrec_cli.training.optimize import optimizer

    config = load_config(tiny_config, [f"optimizer={{type: sgd, learning_rate: {schedule}}}", f"train.epochs={EPOCHS}"])
    found = optimizer(config, STEPS)
    values = []
    for step in range(STEPS * EPOCHS + 1):
        found._iterations.assign(step)
        values.append(float(found.learning_rate))
    return np.array(values)


def cosine(step, peak, warmup, end):
    if step < warmup:
        return peak * step / warmup
    share = (step - warmup) / (STEPS * EPOCHS - warmup)
    return end + (peak - end) * (1 + math.cos(math.pi * share)) / 2


@pytest.mark.parametrize(
    ("schedule", "formula"),
    [
        ("{type: cosine, peak: 0.1}", lambda n: cosine(n, 0.1, 0, 0)),
        ("{type: cosine, peak: 0.1, warmup: 10%, end: 0.001}", lambda n: cosine(n, 0.1, 22, 0.001)),
        ("{type: cosine, peak: 0.1, warmup: 1 epoch}", lambda n: cosine(n, 0.1, 37, 0)),
        ("{type: cosine, peak: 0.1, warmup: 50 steps}", lambda n: cosine(n, 0.1, 50, 0)),
        ("{type: step, start: 0.1, factor: 0.5, every: 2 epochs}", lambda n: 0.1 * 0.5 ** (n // 74)),
        ("{type: exponential, start: 0.1, factor: 0.5, every: 50%}", lambda n: 0.1 * 0.5 ** (n / 111)),
        ("{type: plateau, start: 0.1}", lambda n: 0.1),
        ("0.1", lambda n: 0.1),
    ],
)
def test_every_step_has_the_rate_of_the_formula(tiny_config, schedule, formula):
    expected = [formula(step) for step in range(STEPS * EPOCHS + 1)]
    np.testing.assert_allclose(rates(tiny_config, schedule), expected, rtol=2e-5, atol=1e-8)


def test_a_plateau_waits_for_its_patience_and_begins_anew():
    from imgrec_cli.training.place import Plateau

    spec = PlateauSchedule(type="plateau", start=0.1, patience=2)
    plateau = Plateau()
    losses = [1.0, 0.9, 0.95, 0.91, 0.92, 0.93, 0.5, 0.6, 0.7]
    shrunk = [plateau.shrinks(spec, {"val/loss": loss}) for loss in losses]
    assert shrunk == [False, False, False, True, False, True, False, False, True]


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ("{type: cosine, peak: 0.1, end: 0.2}", "end: must not be above the 0.1 that it falls from, got 0.2"),
        ("{type: cosine, peak: 0.1, warmup: 100%}", "warmup: 100% is the whole training of 2 epochs"),
        ("{type: cosine, peak: 0.1, warmup: 2 epochs}", "warmup: 2 epochs is the whole training of 2 epochs"),
        (
            "{type: cosine, peak: 0.1, warmup: 5}",
            "expected a duration such as 5%, 3 epochs or 500 steps, got 5; say of",
        ),
        ("{type: step, start: 0.1, every: 0%}", "every: must be above 0, got 0%"),
        ("{type: linear, start: 0.1}", "type: must be one of cosine, step, exponential, plateau, got 'linear'"),
        (
            "fast",
            "expected a number such as 1e-3, or a schedule such as {type: cosine, peak: 1e-3}, got the text 'fast'",
        ),
    ],
)
def test_schedules_that_cannot_be_followed_are_told(tiny_config, schedule, message):
    with pytest.raises(ConfigError) as caught:
        load_config(tiny_config, [f"optimizer={{type: sgd, learning_rate: {schedule}}}"])
    assert message in caught.value.message


@pytest.mark.parametrize("kind", ["adam", "adamw", "sgd", "rmsprop", "lion", "muon"])
def test_averages_follow_the_weights_and_leave_them_alone(tiny_config, kind):
    import keras

    from imgrec_cli.training.fit import averaged
    from imgrec_cli.training.optimize import averages, optimizer

    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    config = load_config(tiny_config, [f"optimizer={{type: {kind}, learning_rate: 0.05}}", "train.ema=0.95"])
    model.compile(optimizer(config, 1), "mse")
    model.optimizer.build(model.trainable_variables)
    expected = [np.zeros(variable.shape) for variable in model.trainable_variables]
    inputs, targets = np.random.default_rng(0).normal(size=(2, 8, 3)).astype("float32")
    for step in range(40):
        model.fit(inputs, targets[:, :2], batch_size=8, verbose=0, shuffle=False)
        # TensorFlow's ExponentialMovingAverage with num_updates: the first step keeps nothing of the zeros
        keep = min(0.95, step / (9 + step))
        raw = [np.array(variable, np.float64) for variable in model.trainable_variables]
        expected = [keep * average + (1 - keep) * weight for average, weight in zip(expected, raw, strict=True)]
        for average, wanted in zip(averages(model), expected, strict=True):
            np.testing.assert_allclose(np.array(average), wanted, rtol=1e-5, atol=1e-6)
    before = [np.array(variable) for variable in model.trainable_variables]
    with averaged(model):
        for variable, wanted in zip(model.trainable_variables, expected, strict=True):
            np.testing.assert_allclose(np.array(variable), wanted, rtol=1e-5, atol=1e-6)
        assert not np.array_equal(np.array(model.trainable_variables[0]), before[0])
    for variable, value in zip(model.trainable_variables, before, strict=True):
        np.testing.assert_array_equal(np.array(variable), value)


def test_a_long_gradient_is_shortened_and_a_short_one_is_not(tiny_config):
    import keras

    from imgrec_cli.training.optimize import optimizer

    config = load_config(tiny_config, ["optimizer={type: sgd, learning_rate: 1.0, clip_norm: 2.0}"])
    for length, expected in ((10.0, 2.0), (1.0, 1.0)):
        weights = [keras.Variable(np.zeros(2)), keras.Variable(np.zeros(1))]
        gradients = [np.array([3.0, 0.0]) / 5 * length, np.array([4.0]) / 5 * length]
        optimizer(config, 1).apply(list(map(keras.ops.convert_to_tensor, gradients)), weights)
        moved = np.concatenate([-np.array(weight) for weight in weights])
        np.testing.assert_allclose(moved, expected * np.array([0.6, 0, 0.8]), rtol=1e-5)


def test_lion_and_muon_step_as_their_papers_say(tiny_config):
    import keras

    from imgrec_cli.training.optimize import optimizer

    generator = np.random.default_rng(0)
    start, gradients = generator.normal(size=(6, 4)), generator.normal(size=(3, 6, 4))
    config = load_config(tiny_config, ["optimizer={type: lion, learning_rate: 0.01, weight_decay: 0.1}"])
    weight, lion = keras.Variable(start, dtype="float32"), optimizer(config, 1)
    expected, mean = start.copy(), np.zeros((6, 4))
    for gradient in gradients:  # Chen et al. 2023, algorithm 2
        lion.apply([keras.ops.convert_to_tensor(gradient, "float32")], [weight])
        expected = expected - 0.01 * (np.sign(0.9 * mean + 0.1 * gradient) + 0.1 * expected)
        mean = 0.99 * mean + 0.01 * gradient
    np.testing.assert_allclose(np.array(weight), expected, atol=1e-4)

    config = load_config(tiny_config, ["optimizer={type: muon, learning_rate: 0.01, weight_decay: 0}"])
    weight, muon = keras.Variable(start, dtype="float32", name="kernel"), optimizer(config, 1)
    muon.apply([keras.ops.convert_to_tensor(gradients[0], "float32")], [weight])
    # the step is nearly orthogonal: its singular values lie about 1, times Liu et al.'s 0.2 √(longer side)
    step = (start - np.array(weight)) / (0.01 * 0.2 * 6**0.5)
    assert np.abs(np.linalg.svd(step, compute_uv=False) - 1).max() < 0.35
