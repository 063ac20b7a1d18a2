"""Temperature, calibration error, sets and thresholds against SciPy, scikit-learn and their definitions."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.calibration import calibration_curve
from sklearn.metrics import precision_score, recall_score

from imgrec_cli.metrics.calibration import (
    BINS,
    COVERAGES,
    conformal_limit,
    conformal_limits,
    fit_temperature,
    reliability,
    with_temperature,
)
from imgrec_cli.metrics.decisions import decide, find_thresholds


def overconfident(seed: int, images: int = 400, classes: int = 5, sharpness: float = 3.0):
    """Logits that are `sharpness` times too large, and labels drawn from what they should say."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 2, (images, classes))
    labels = np.array([generator.choice(classes, p=row) for row in softmax(logits, axis=1)])
    return sharpness * logits, labels


def test_temperature_of_probabilities_is_that_of_logits():
    logits, _ = overconfident(0)
    given = with_temperature(softmax(logits, axis=1), 2.5)
    np.testing.assert_allclose(given, softmax(logits / 2.5, axis=1), atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_fitted_temperature_agrees_with_scipy(seed):
    logits, labels = overconfident(seed)

    def loss(temperature: float) -> float:
        return float(-log_softmax(logits / temperature, axis=1)[np.arange(len(labels)), labels].mean())

    expected = minimize_scalar(loss, bounds=(0.1, 10), method="bounded", options={"xatol": 1e-10}).x
    assert fit_temperature(softmax(logits, axis=1), labels) == pytest.approx(expected, abs=1e-5)


def test_a_temperature_is_not_fitted_where_every_answer_is_right():
    assert fit_temperature(np.array([[0.6, 0.4], [0.4, 0.6]]), np.array([0, 1])) == 1


def test_probabilities_rounded_to_zero_stay_finite():
    scores = with_temperature(np.array([[1.0, 0.0]], np.float32), 5.0)
    assert np.isfinite(scores).all()
    assert scores.sum() == pytest.approx(1)


def test_calibration_error_agrees_with_scikit_learn_and_falls_by_the_fit():
    logits, labels = overconfident(1, 2000)
    probabilities = softmax(logits, axis=1)
    found = reliability(probabilities, labels)
    sure, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    accuracy, confidence = calibration_curve(right, sure, n_bins=BINS)
    counts = found.counts[found.counts > 0]
    np.testing.assert_allclose(found.accuracy[found.counts > 0], accuracy, atol=1e-6)
    np.testing.assert_allclose(found.confidence[found.counts > 0], confidence, atol=1e-6)
    assert found.error == pytest.approx((counts * np.abs(accuracy - confidence)).sum() / len(labels), abs=1e-6)
    cooled = with_temperature(probabilities, fit_temperature(probabilities, labels))
    assert reliability(cooled, labels).error < found.error / 3


def test_a_confidence_of_one_lies_in_the_last_bin():
    found = reliability(np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([0, 0]))
    assert (found.counts[-1], found.counts.sum()) == (1, 2)


@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
def test_sets_hold_the_truth_as_often_as_asked(coverage):
    covered = []
    for seed in range(30):
        logits, labels = overconfident(seed, 600)
        probabilities = softmax(logits, axis=1)
        limit = conformal_limit(conformal_limits(probabilities[:300], labels[:300]), coverage)
        covered.append((probabilities[300:][np.arange(300), labels[300:]] >= limit).mean())
    # each side of the split holds 300 images: the mean of 30 has a deviation of about half a percent
    assert np.mean(covered) == pytest.approx(coverage, abs=0.015)


def test_the_limit_is_the_quantile_of_the_definition():
    generator = np.random.default_rng(0)
    probabilities = generator.dirichlet(np.ones(4), 57)
    labels = generator.integers(0, 4, 57)
    misfit = np.sort(1 - probabilities[np.arange(57), labels])
    for coverage, limit in zip(COVERAGES, conformal_limits(probabilities, labels), strict=True):
        rank = int(np.ceil(round(58 * coverage, 9)))
        assert limit == pytest.approx(1 - misfit[rank - 1] if rank <= 57 else 0, abs=1e-12)


def test_too_few_images_promise_nothing():
    assert conformal_limit(conformal_limits(np.array([[0.9, 0.1]]), np.array([0])), 0.9) == 0


def test_a_threshold_moves_the_answer_to_its_class():
    scores = np.array([[0.3, 0.6, 0.1], [0.2, 0.7, 0.1], [0.9, 0.05, 0.05]])
    none = np.array([np.nan, np.nan, np.nan])
    assert decide(scores, none).tolist() == [1, 1, 0]
    assert decide(scores, np.array([0.25, np.nan, np.nan])).tolist() == [0, 1, 0]
    # a high threshold takes the class away where it is not sure enough
    assert decide(scores, np.array([0.95, np.nan, np.nan])).tolist() == [1, 1, 1]
    # of several that are reached, the one exceeded most; where every class has one and none is reached, the largest
    assert decide(scores, np.array([0.25, 0.1, np.nan])).tolist() == [1, 1, 0]
    assert decide(scores, np.array([0.99, 0.99, 0.99])).tolist() == [1, 1, 0]


@pytest.mark.parametrize("seed", range(3))
def test_targets_are_met_where_they_were_sought(seed):
    logits, labels = overconfident(seed, 1000, 4)
    probabilities = softmax(logits, axis=1)
    none = np.full(4, np.nan)
    for wanted in (0.7, 0.95):
        found = find_thresholds(probabilities, labels, none, [("recall", 2, wanted)])
        recall = recall_score(labels, decide(probabilities, found), labels=[2], average=None)[0]
        assert wanted <= recall < wanted + 0.02
        found = find_thresholds(probabilities, labels, none, [("precision", 2, wanted)])
        assert precision_score(labels, decide(probabilities, found), labels=[2], average=None)[0] >= wanted
    both = find_thresholds(probabilities, labels, none, [("recall", 0, 0.8), ("recall", 1, 0.8)])
    recalls = recall_score(labels, decide(probabilities, both), labels=[0, 1], average=None)
    assert (recalls > 0.78).all()


def test_a_precision_that_cannot_be_reached_gets_the_nearest():
    scores = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]])
    found = find_thresholds(scores, np.array([1, 0, 1]), np.full(2, np.nan), [("precision", 0, 0.99)])
    assert found[0] == pytest.approx(0.8)


def test_a_zero_of_coarse_probabilities_is_a_quarter_of_a_step():
    from imgrec_cli.metrics.calibration import without_zeros

    coarse = np.array([[0.0, 64 / 256, 192 / 256], [1.0, 0.0, 0.0]], np.float32)
    found = without_zeros(coarse, 1 / 256)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)
    assert found[0, 0] == pytest.approx(1 / 1024 / (1 + 1 / 1024), rel=1e-5)
    np.testing.assert_allclose(found[0, 1] / found[0, 2], 1 / 3, rtol=1e-5)
    np.testing.assert_array_equal(found.argmax(axis=1), coarse.argmax(axis=1))


@pytest.mark.parametrize("kind", ["recall", "precision"])
def test_a_class_without_images_gets_no_threshold(kind):
    scores = np.array([[0.9, 0.06, 0.04], [0.2, 0.7, 0.1], [0.6, 0.3, 0.1]])
    found = find_thresholds(scores, np.array([0, 1, 0]), np.full(3, np.nan), [(kind, 2, 0.9)])
    assert np.isnan(found).all()
    assert decide(scores, found).tolist() == [0, 1, 0]
