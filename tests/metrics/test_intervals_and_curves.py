"""Intervals against SciPy, areas under curves against scikit-learn."""

import numpy as np
import pytest
from scipy.stats import binomtest, bootstrap
from sklearn import metrics as reference

from imgrec_cli.metrics.curves import curve
from imgrec_cli.metrics.intervals import f1_interval, wilson


@pytest.mark.parametrize(("hits", "trials"), [(0, 5), (5, 5), (1, 3), (37, 40), (800, 1000)])
def test_wilson_agrees_with_scipy(hits, trials):
    expected = binomtest(hits, trials).proportion_ci(method="wilson")
    assert wilson(hits, trials) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_nothing_tried_says_nothing():
    assert wilson(0, 0) == (0.0, 1.0)


def test_f1_interval_is_wilsons_for_the_share_that_f1_is_a_function_of():
    low, high = binomtest(60, 60 + 12 + 20).proportion_ci(method="wilson")
    assert f1_interval(60, 12, 20) == pytest.approx((2 * low / (1 + low), 2 * high / (1 + high)), abs=1e-6)


def test_f1_interval_is_near_the_bootstrap():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 500)
    predicted = np.where(generator.random(500) < 0.8, labels, 1 - labels)
    resampled = bootstrap(
        (labels, predicted),
        lambda truth, answers: reference.f1_score(truth, answers),
        paired=True,
        vectorized=False,
        n_resamples=1000,
        method="percentile",
        rng=1,
    ).confidence_interval
    counts = reference.confusion_matrix(labels, predicted)
    found = f1_interval(int(counts[1, 1]), int(counts[0, 1]), int(counts[1, 0]))
    assert found == pytest.approx((resampled.low, resampled.high), abs=0.02)


@pytest.mark.parametrize("decimals", [1, 6])  # with many ties, and with none
def test_curves_agree_with_scikit_learn(decimals):
    generator = np.random.default_rng(decimals)
    positive = generator.random(300) < 0.2
    scores = np.round(generator.normal(0, 1, 300) + positive, decimals)
    found = curve(scores, positive)
    assert found is not None
    assert found.auc == pytest.approx(reference.roc_auc_score(positive, scores), abs=1e-6)
    assert found.average_precision == pytest.approx(reference.average_precision_score(positive, scores), abs=1e-6)
    rates, recalls, _ = reference.roc_curve(positive, scores, drop_intermediate=False)
    np.testing.assert_allclose(found.false_positive_rate, rates, atol=1e-6)
    np.testing.assert_allclose(found.recall, recalls, atol=1e-6)
    precisions, at_recalls, _ = reference.precision_recall_curve(positive, scores)
    np.testing.assert_allclose(found.precision[::-1], precisions, atol=1e-6)
    np.testing.assert_allclose(found.recall[::-1], at_recalls, atol=1e-6)


def test_there_is_no_curve_of_one_kind_alone():
    assert curve(np.array([0.1, 0.2]), np.array([True, True])) is None
    assert curve(np.array([0.1, 0.2]), np.array([False, False])) is None
