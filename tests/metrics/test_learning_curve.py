"""The learning curve's classifier against scikit-learn, and what it says of data whose answer is known."""

import numpy as np
import pytest
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import LeaveOneOut, cross_val_predict
from sklearn.preprocessing import StandardScaler

from imgrec_cli.metrics.learning_curve import (
    STRENGTHS,
    Point,
    gain_from_doubling,
    learning_curve,
    ridge_classifier,
)


def blobs(seed: int, images: int, width: int, classes: int = 3):
    generator = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(0, 1, (classes, width))
    labels = np.arange(images) % classes
    return centres[labels] + generator.normal(0, 1.5, (images, width)), labels


@pytest.mark.parametrize(("images", "width"), [(90, 10), (40, 60)])
def test_the_classifier_is_scikit_learns_at_the_best_strength(images, width):
    features, labels = blobs(0, images, width)
    test_features, _ = blobs(1, 200, width)
    scaler = StandardScaler().fit(features)
    x, targets = scaler.transform(features), np.eye(3)[labels]

    def left_out_error(strength: float) -> float:
        from sklearn.linear_model import Ridge

        # the features are scaled once for all, only the mean of each fold is taken away
        model = Ridge(alpha=strength * images)
        return float(((cross_val_predict(model, x, targets, cv=LeaveOneOut()) - targets) ** 2).mean())

    errors = [left_out_error(strength) for strength in STRENGTHS]
    model = RidgeClassifier(alpha=STRENGTHS[int(np.argmin(errors))] * images).fit(x, labels)
    expected = model.predict(scaler.transform(test_features))
    found = ridge_classifier(features, labels, test_features, 3)
    assert (found == expected).mean() == 1


def test_more_images_help_where_there_are_few():
    features, labels = blobs(0, 960, 40)
    test_features, test_labels = blobs(1, 600, 40)
    points = learning_curve(features, labels, test_features, test_labels, 3, seed=0)
    assert [point.images for point in points] == [60, 120, 240, 480, 960]
    assert points[0].accuracy < points[-1].accuracy
    assert points[0].lowest <= points[0].accuracy <= points[0].highest
    gain = gain_from_doubling(points)
    assert gain is not None
    assert 0 <= gain < 0.1


def test_gain_follows_the_power_law():
    points = [Point(n, 1 - n**-0.5, 0, 1, np.zeros(2)) for n in (100, 200, 400)]
    assert gain_from_doubling(points) == pytest.approx(400**-0.5 - 800**-0.5)
    assert gain_from_doubling(points[:2]) is None


def test_a_class_with_one_image_is_kept():
    features, labels = blobs(0, 31, 5)
    points = learning_curve(features, np.where(np.arange(31) == 0, 2, labels % 2), features, labels, 3, seed=0)
    assert points[0].images >= 3
