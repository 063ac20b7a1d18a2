"""Figures against scikit-learn."""

import numpy as np
import pytest
from sklearn import metrics as reference

from imgrec_cli.metrics.summary import confusion_matrix, cross_entropy, summarize, top_k_accuracy


@pytest.fixture(params=[0, 1, 2])
def predictions(request):
    generator = np.random.default_rng(request.param)
    classes = 7
    probabilities = generator.dirichlet(np.full(classes, 0.3), size=200)
    # class 6 never occurs, class 5 is never predicted: the undefined cases
    labels = generator.integers(0, classes - 1, 200)
    probabilities[:, 5] = 0
    return probabilities / probabilities.sum(axis=1, keepdims=True), labels


def test_summary_agrees_with_scikit_learn(predictions):
    probabilities, labels = predictions
    predicted = probabilities.argmax(axis=1)
    summary = summarize(probabilities, labels)
    assert summary.images == 200
    assert summary.accuracy == pytest.approx(reference.accuracy_score(labels, predicted), abs=1e-12)
    expected = reference.precision_recall_fscore_support(labels, predicted, labels=range(7), zero_division=0)
    for column, name in enumerate(("precision", "recall", "f1", "support")):
        assert [getattr(scores, name) for scores in summary.classes] == pytest.approx(expected[column], abs=1e-12)
    for average in ("macro", "weighted"):
        p, r, f, _ = reference.precision_recall_fscore_support(labels, predicted, average=average, zero_division=0)
        ours = getattr(summary, average)
        assert (ours.precision, ours.recall, ours.f1) == pytest.approx((p, r, f), abs=1e-12)
    recalls = reference.recall_score(labels, predicted, labels=np.unique(labels), average="macro", zero_division=0)
    assert summary.balanced_accuracy == pytest.approx(recalls, abs=1e-12)
    assert summary.mcc == pytest.approx(reference.matthews_corrcoef(labels, predicted), abs=1e-12)
    assert summary.kappa == pytest.approx(reference.cohen_kappa_score(labels, predicted), abs=1e-12)
    expected_confusion = reference.confusion_matrix(labels, predicted, labels=range(7))
    np.testing.assert_array_equal(summary.confusion, expected_confusion)


def test_top_k_agrees_with_scikit_learn(predictions):
    probabilities, labels = predictions
    for k in (1, 3, 5):
        expected = reference.top_k_accuracy_score(labels, probabilities, k=k, labels=range(7))
        assert top_k_accuracy(probabilities, labels, k) == pytest.approx(expected, abs=1e-12)


def test_summary_names_only_the_top_k_that_say_something():
    assert summarize(np.eye(3), np.arange(3)).top_k == {}
    assert list(summarize(np.eye(4), np.arange(4)).top_k) == [3]
    assert list(summarize(np.eye(6), np.arange(6)).top_k) == [3, 5]


def test_cross_entropy_agrees_with_scikit_learn(predictions):
    probabilities, labels = predictions
    certain = probabilities.astype(np.float64) + 1e-6  # so that neither side has anything to clip
    certain /= certain.sum(axis=1, keepdims=True)
    expected = reference.log_loss(labels, certain, labels=range(7))
    assert cross_entropy(certain, labels) == pytest.approx(expected, abs=1e-9)


def test_confusion_rows_are_the_true_class():
    matrix = confusion_matrix(np.array([0, 0, 1]), np.array([1, 1, 1]), 2)
    assert matrix.tolist() == [[0, 2], [0, 1]]


def test_agreement_is_zero_where_one_class_is_all_there_is():
    summary = summarize(np.array([[0.9, 0.1], [0.8, 0.2]]), np.array([0, 0]))
    assert (summary.accuracy, summary.mcc, summary.kappa) == (1, 0, 0)


def test_answers_may_differ_from_the_most_probable_classes():
    summary = summarize(np.array([[0.6, 0.4], [0.6, 0.4]]), np.array([0, 1]), np.array([1, 1]))
    assert (summary.accuracy, summary.confusion.tolist()) == (0.5, [[0, 1], [0, 1]])
