"""Confident learning against the paper's formulas in plain loops, and against cleanlab where it is installed."""

import numpy as np
import pytest

from imgrec_cli.dataset.issues import doubtful_order, in_doubt, suggestions
from imgrec_cli.dataset.split import folds


def noisy(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities of a fair model, labels of which a tenth are changed, and which these are."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, 4, 600)
    scores = random.normal(size=(600, 4)) + 3 * np.eye(4)[truth]
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    wrong = random.random(600) < 0.1
    labels = np.where(wrong, (truth + random.integers(1, 4, 600)) % 4, truth)
    return probabilities, labels, wrong


@pytest.mark.parametrize("seed", range(3))
def test_doubt_is_the_papers(seed: int) -> None:
    probabilities, labels, _ = noisy(seed)
    thresholds = [
        np.mean([p[j] for p, label in zip(probabilities, labels, strict=True) if label == j]) for j in range(4)
    ]
    expected = []
    for p, label in zip(probabilities, labels, strict=True):
        above = [(p[j], j) for j in range(4) if p[j] >= thresholds[j]]
        expected.append(bool(above) and max(above)[1] != label)
    assert in_doubt(probabilities, labels).tolist() == expected


def test_order_is_by_margin_with_doubted_labels_first() -> None:
    probabilities, labels, wrong = noisy(0)
    order, doubted = doubtful_order(probabilities, labels)
    margins = [p[label] - max(np.delete(p, label)) for p, label in zip(probabilities, labels, strict=True)]
    assert sorted(order.tolist()) == list(range(600))
    count = doubted.sum()
    assert doubted[order[:count]].all()
    assert np.all(np.diff(np.array(margins)[order[:count]]) >= 0)
    assert np.all(np.diff(np.array(margins)[order[count:]]) >= 0)
    assert wrong[order[: wrong.sum()]].mean() > 0.8
    likely = suggestions(probabilities, labels)
    assert all(likely != labels)
    assert all(probabilities[i, likely[i]] == max(np.delete(probabilities[i], labels[i])) for i in range(600))


@pytest.mark.parametrize("seed", range(3))
def test_the_confident_joint_is_cleanlabs(seed: int) -> None:
    cleanlab = pytest.importorskip("cleanlab", reason="a comparison for who has it")
    probabilities, labels, _ = noisy(seed)
    ours = doubtful_order(probabilities, labels)
    theirs = cleanlab.filter.find_label_issues(
        labels, probabilities, filter_by="confident_learning", return_indices_ranked_by="normalized_margin", n_jobs=1
    )
    assert ours[0][: ours[1].sum()].tolist() == theirs.tolist()


def test_a_class_without_images_is_never_suggested_by_the_joint() -> None:
    probabilities = np.array([[0.1, 0.2, 0.7], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1]])
    assert in_doubt(probabilities, np.array([0, 0, 1])).tolist() == [False, False, False]


def test_folds_are_even_within_classes_and_keep_groups_together() -> None:
    paths = [f"{name}/{index}.png" for name in "ab" for index in range(50)]
    labels = [0] * 50 + [1] * 50
    found = folds(paths, labels, paths, groups=None, seed=0, number=5)
    for label in (0, 1):
        assert np.bincount([f for f, own in zip(found, labels, strict=True) if own == label]).tolist() == [10] * 5
    groups = [str(index // 5) for index in range(100)]
    grouped = folds(paths, labels, paths, groups=groups, seed=0, number=5)
    assert all(len(set(grouped[start : start + 5])) == 1 for start in range(0, 100, 5))
    identities = [*paths[:-1], paths[0]]
    tied = folds(paths, labels, identities, groups=None, seed=0, number=5)
    assert tied[0] == tied[-1]
