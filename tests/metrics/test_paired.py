"""The paired tests against SciPy, the figures against scikit-learn."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as reference

from imgrec_cli.metrics.intervals import t_interval, welch
from imgrec_cli.metrics.paired import bootstrap_p, holm, mcnemar, percentile_interval, resampled, tallies


@pytest.mark.parametrize(
    ("only_first", "only_second"), [(0, 0), (0, 1), (3, 3), (2, 9), (15, 48), (480, 520), (3, 40000)]
)
def test_mcnemar_is_the_binomial_test_of_those_that_differ(only_first, only_second):
    trials = only_first + only_second
    expected = stats.binomtest(only_first, trials).pvalue if trials else 1.0
    assert mcnemar(only_first, only_second) == pytest.approx(expected, rel=1e-9)
    assert mcnemar(only_second, only_first) == mcnemar(only_first, only_second)


def test_holm_raises_each_p_value_by_the_tests_that_are_left():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]


def answers(generator, labels, classes, right):
    return np.where(generator.random(len(labels)) < right, labels, generator.integers(0, classes, len(labels)))


def test_figures_are_those_of_scikit_learn():
    generator = np.random.default_rng(1)
    labels = generator.choice(5, 300, p=[0.5, 0.3, 0.15, 0.05, 0.0])
    predicted = answers(generator, labels, 4, 0.7)
    (found,) = tallies(labels, [predicted], 5)
    options = {"zero_division": 0, "labels": np.unique(np.concatenate([labels, predicted]))}
    expected = {
        "accuracy": reference.accuracy_score(labels, predicted),
        "balanced_accuracy": reference.balanced_accuracy_score(labels, predicted),
        "mcc": reference.matthews_corrcoef(labels, predicted),
        "kappa": reference.cohen_kappa_score(labels, predicted),
        "macro.f1": reference.f1_score(labels, predicted, average="macro", **options),
        "macro.precision": reference.precision_score(labels, predicted, average="macro", **options),
        "weighted.recall": reference.recall_score(labels, predicted, average="weighted", **options),
    }
    assert {name: float(found.figure(name)) for name in expected} == pytest.approx(expected)
    assert float(found.figure("f1", 3)) == pytest.approx(reference.f1_score(labels == 3, predicted == 3))
    assert float(found.figure("recall", 4)) == 0.0  # no such image


def test_the_paired_bootstrap_is_scipys():
    generator = np.random.default_rng(2)
    labels = generator.integers(0, 3, 250)
    first, second = answers(generator, labels, 3, 0.6), answers(generator, labels, 3, 0.75)

    def difference(labels, first, second):
        return reference.f1_score(labels, second, average="macro") - reference.f1_score(labels, first, average="macro")

    expected = stats.bootstrap(
        (labels, first, second),
        difference,
        paired=True,
        vectorized=False,
        n_resamples=1500,
        method="percentile",
        rng=np.random.default_rng(3),
    ).confidence_interval
    one, other = resampled(labels, [first, second], 3)
    spread = other.figure("macro.f1") - one.figure("macro.f1")
    assert percentile_interval(spread) == pytest.approx((expected.low, expected.high), abs=0.012)
    assert bootstrap_p(spread) < 0.05
    assert bootstrap_p(np.zeros(100)) == 1.0


def test_equal_models_are_rarely_called_different():
    generator = np.random.default_rng(4)
    found = 0
    for trial in range(200):
        labels = generator.integers(0, 2, 100)
        one, other = (answers(generator, labels, 2, 0.6) for _ in range(2))
        tested = resampled(labels, [one, other], 2, seed=trial)
        found += bootstrap_p(tested[1].figure("macro.f1") - tested[0].figure("macro.f1")) < 0.05
    assert found <= 22  # 5 % of 200 and three standard deviations


@pytest.mark.parametrize("values", [[0.8, 0.9], [0.81, 0.84, 0.79, 0.9, 0.85], list(np.linspace(0, 1, 40))])
def test_t_interval_is_scipys(values):
    expected = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
    assert t_interval(values) == pytest.approx(expected, abs=1e-9)


def test_one_value_has_no_interval():
    with pytest.raises(ValueError, match="no spread"):
        t_interval([0.5])


def test_welch_is_scipys():
    first, second = [0.8, 0.82, 0.79, 0.81, 0.8], [0.84, 0.8, 0.9]
    expected = stats.ttest_ind(second, first, equal_var=False)
    p, interval = welch(first, second)
    assert p == pytest.approx(expected.pvalue, rel=1e-4)
    assert interval == pytest.approx(tuple(expected.confidence_interval()), abs=1e-5)
    assert welch([0.5, 0.5], [0.5, 0.5])[0] == 1.0
