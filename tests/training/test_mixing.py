"""Erasing, mixup and CutMix: what becomes of pictures, and of their labels in the loss."""

import numpy as np
import pytest
from scipy import stats

from imgrec_cli.config import Cutmix, Erase, Mixup

pytestmark = pytest.mark.tf


def test_erasing_covers_the_share_of_the_area_that_was_drawn(images):
    from imgrec_cli.training.mixing import erased

    spec = Erase(type="erase", share=0.5, area=(0.1, 0.3), aspect=(0.5, 2))
    uniform = np.random.default_rng(3).uniform(size=(4, 8)).astype(np.float32)
    uniform[:, 0] = [0.1, 0.9, 0.4, 0.6]
    found = np.asarray(erased(spec, uniform, images))
    np.testing.assert_array_equal(found[1::2], images[1::2])
    for got, image, numbers in zip(found[::2], images[::2], uniform[::2], strict=True):
        covered = (got == 255 * numbers[5:]).all(axis=-1)
        np.testing.assert_array_equal(got[~covered], image[~covered])
        rows, columns = np.flatnonzero(covered.any(axis=1)), np.flatnonzero(covered.any(axis=0))
        assert covered.sum() == len(rows) * len(columns)  # a whole rectangle
        assert covered.mean() == pytest.approx(0.1 + 0.2 * numbers[1], abs=0.03)


def test_mixing_averages_or_cuts_and_says_what_was_kept(images):
    from imgrec_cli.training.mixing import mixed

    specs = [Mixup(type="mixup", share=0.3), Cutmix(type="cutmix", share=0.4)]
    chances = np.array([[0.1], [0.4], [0.6], [0.9]], np.float32)  # mixed, cut, cut, neither
    places = np.array([[0, 0.5, 0.5], [0, 0.5, 0.5], [0, 0.0, 1.0], [0, 0.5, 0.5]], np.float32)
    shares = [np.array([0.7, 0, 0, 0], np.float32), np.array([0, 0.64, 0.64, 0], np.float32)]
    found, kept = map(np.asarray, mixed(specs, [chances, places], shares, images))
    np.testing.assert_allclose(found[0], 0.7 * images[0] + 0.3 * images[3], rtol=1e-5)
    expected = images[1].copy()  # 0.36 of the area is 0.6 of each side: 12 × 18 pixels in the middle
    expected[4:16, 6:24] = images[2][4:16, 6:24]
    np.testing.assert_allclose(found[1], expected, rtol=1e-6)
    expected = images[2].copy()  # at a corner a quarter of that is left
    expected[:6, 21:] = images[1][:6, 21:]
    np.testing.assert_allclose(found[2], expected, rtol=1e-6)
    np.testing.assert_array_equal(found[3], images[3])
    np.testing.assert_allclose(kept, [0.7, 1 - 12 * 18 / 600, 1 - 6 * 9 / 600, 1], rtol=1e-6)


def test_labels_are_mixed_as_the_images_with_weights_and_smoothing(images):
    import tensorflow as tf

    from imgrec_cli.config import Focal
    from imgrec_cli.training.augment import Augment
    from imgrec_cli.training.loss import TrainingLoss

    augment = Augment([Mixup(type="mixup", alpha=1.0, share=1.0)], seed=3)
    weights = np.array([1, 5, 2], np.float32)
    loss = TrainingLoss(Focal(type="focal", label_smoothing=0.2), weights, augment)
    logits = np.random.default_rng(4).normal(size=(4, 3)).astype(np.float32)
    labels = np.array([0, 1, 2, 0])
    values = np.broadcast_to(np.arange(4, dtype=np.float32)[:, None, None, None], images.shape)

    @tf.function
    def step(pixels):
        changed = augment(pixels, training=True)
        return changed, loss(labels, logits)

    changed, found = step(values)
    of_other = (np.asarray(changed)[:, 0, 0, 0] - np.arange(4)) / (np.arange(4)[::-1] - np.arange(4))
    assert ((of_other > 0) & (of_other < 1)).all()
    targets = np.eye(3)[labels] * (1 - of_other[:, None]) + np.eye(3)[labels[::-1]] * of_other[:, None]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    smoothed = 0.8 * targets + 0.2 / 3
    focal = -(smoothed * (1 - probabilities) ** 2 * np.log(probabilities)).sum(axis=1)
    assert float(found) == pytest.approx((focal * (targets @ weights)).mean(), rel=1e-4)
    augment(values, training=False)
    assert float(loss(labels, logits)) != pytest.approx(float(found), rel=1e-3)


@pytest.mark.parametrize("alpha", [0.1, 1.0])
def test_shares_are_distributed_as_beta(alpha):
    from imgrec_cli.training.augment import Augment

    augment = Augment([Mixup(type="mixup", alpha=alpha, share=1.0)], seed=0)
    augment(np.zeros((20_000, 1, 1, 1), np.uint8), training=True)
    points = np.linspace(0.01, 0.99, 50)  # nearer to 1 float32 has few numbers
    found = np.searchsorted(np.sort(np.asarray(augment.kept)), points) / 20_000
    np.testing.assert_allclose(found, stats.beta(alpha, alpha).cdf(points), atol=0.015)
