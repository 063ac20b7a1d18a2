"""Losses against their formulas in float64 and against PyTorch's and scikit-learn's conventions, written out."""

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from imgrec_cli.config import CrossEntropy, Focal, MeanAbsoluteError, load_config
from imgrec_cli.errors import ConfigError

pytestmark = pytest.mark.tf

GENERATOR = np.random.default_rng(0)
LOGITS = GENERATOR.normal(scale=4, size=(50, 6)).astype("float32")
LABELS = GENERATOR.integers(0, 6, 50)


def logarithms(logits):
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def smoothed(smoothing):
    return (1 - smoothing) * np.eye(6)[LABELS] + smoothing / 6


def cross_entropy(targets):
    return -(targets * logarithms(LOGITS)).sum(axis=1)


def absolute_error(targets):
    return np.abs(targets - np.exp(logarithms(LOGITS))).mean(axis=1)


def focal(targets, gamma):
    return -(targets * (1 - np.exp(logarithms(LOGITS))) ** gamma * logarithms(LOGITS)).sum(axis=1)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(
    ("spec", "formula"),
    [
        (CrossEntropy(type="cross_entropy"), cross_entropy),
        (MeanAbsoluteError(type="mean_absolute_error"), absolute_error),
        (Focal(type="focal"), lambda targets: focal(targets, 2)),
        (Focal(type="focal", gamma=0.5), lambda targets: focal(targets, 0.5)),
        (Focal(type="focal", gamma=0.0), cross_entropy),
    ],
    ids=["cross entropy", "mean absolute error", "focal", "focal 0.5", "focal 0"],
)
def test_losses_equal_their_formulas_in_float64(spec, formula, smoothing):
    from imgrec_cli.training.loss import TrainingLoss

    spec = spec.model_copy(update={"label_smoothing": smoothing})
    found = float(TrainingLoss(spec, None, None)(LABELS, LOGITS))
    assert found == pytest.approx(formula(smoothed(smoothing)).mean(), rel=2e-5)


@pytest.mark.parametrize("loss", ["cross_entropy", "mean_absolute_error", "focal"])
def test_losses_of_huge_logits_have_finite_gradients(loss):
    import tensorflow as tf

    from imgrec_cli.config.sections import Config
    from imgrec_cli.training.loss import TrainingLoss

    model = {"type": "layers", "layers": [{"type": "flatten"}]}
    spec = Config.model_validate({"model": model, "loss": {"type": loss}}).loss
    if isinstance(spec, Focal):
        spec = spec.model_copy(update={"gamma": 0.5})
    logits = tf.Variable([[1e4, 0.0, -1e4], [-1e4, 0.0, 1e4], [0.0, 0.0, 0.0]])
    with tf.GradientTape() as tape:
        value = TrainingLoss(spec, None, None)(np.array([0, 0, 2]), logits)
    assert np.isfinite(float(value))
    assert np.isfinite(tape.gradient(value, logits).numpy()).all()


@pytest.mark.parametrize(("temperature", "share"), [(3.0, 0.7), (1.0, 1.0), (20.0, 0.25)])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_teacher_s_share_of_the_loss_is_hinton_s_in_float64(temperature, share, weighted):
    from scipy.special import rel_entr, softmax

    from imgrec_cli.training.loss import Teaching, TrainingLoss

    teacher = GENERATOR.normal(scale=6, size=(50, 6))
    teaching = Teaching(softmax(teacher, axis=1), LABELS, temperature, share)
    places = GENERATOR.permutation(50)[:20]
    weights = np.array([1, 2, 3, 4, 5, 6], np.float32) if weighted else None
    spec = CrossEntropy(type="cross_entropy", label_smoothing=0.1)
    found = float(TrainingLoss(spec, weights, None, teaching)(places, LOGITS[places]))
    answers = softmax(LOGITS.astype(np.float64) / temperature, axis=1)
    divergence = rel_entr(softmax(teacher / temperature, axis=1), answers).sum(axis=1)
    losses = (1 - share) * cross_entropy(smoothed(0.1)) + share * temperature**2 * divergence
    expected = (losses * (weights[LABELS] if weighted else 1))[places].mean()
    assert found == pytest.approx(expected, rel=1e-4)
    right = teaching.accuracy()
    right.update_state(places, LOGITS[places])
    assert float(right.result()) == pytest.approx((LOGITS.argmax(axis=1) == LABELS)[places].mean())


def test_balanced_weights_are_scikit_learn_s_and_given_ones_stand_by_name():
    from imgrec_cli.training.loss import class_weights

    labels = np.array([0] * 7 + [1] * 2 + [2] * 21)
    balanced = CrossEntropy(type="cross_entropy", class_weights="balanced")
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    np.testing.assert_allclose(class_weights(balanced, ["a", "b", "c"], labels), expected, rtol=1e-6)
    given = CrossEntropy(type="cross_entropy", class_weights={"c": 3.0})
    assert class_weights(given, ["a", "b", "c"], labels).tolist() == [1, 1, 3]
    assert class_weights(CrossEntropy(type="cross_entropy"), ["a", "b", "c"], labels) is None


def test_an_image_counts_what_its_class_counts():
    from imgrec_cli.training.loss import TrainingLoss

    weights = np.array([1, 2, 3, 4, 5, 6], np.float32)
    spec = Focal(type="focal", label_smoothing=0.1)
    found = float(TrainingLoss(spec, weights, None)(LABELS, LOGITS))
    assert found == pytest.approx((weights[LABELS] * focal(smoothed(0.1), 2)).mean(), rel=1e-5)


def test_a_weight_for_a_class_that_is_not_there_is_told(tiny_config):
    from imgrec_cli.config import check_class_names

    config = load_config(tiny_config, ["loss={type: cross_entropy, class_weights: {circel: 2}}"])
    with pytest.raises(ConfigError, match=r"loss\.class_weights: no class circel") as caught:
        check_class_names(config, ["circle", "cross"])
    assert caught.value.hint == "did you mean circle?"


def test_training_with_each_loss_and_new_optimizer_learns(tiny_config, tmp_path):
    from imgrec_cli.api import train

    more = {
        "focal": "optimizer={type: muon, learning_rate: 5e-3}",
        "mean_absolute_error": "optimizer={type: lion, learning_rate: 1e-3, clip_norm: 1.0}",
    }
    for loss, optimizer in more.items():
        settings = [
            f"loss={{type: {loss}, class_weights: balanced}}",
            optimizer,
            "train={batch_size: 4, epochs: 8, sampling: balanced, ema: 0.5}",
        ]
        lines = train(tiny_config, settings, runs=tmp_path).read_metrics()
        assert lines[-1]["val/loss"] < lines[0]["val/loss"]
