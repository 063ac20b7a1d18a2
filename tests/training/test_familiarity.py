"""Unfamiliarity against its definition in float64, and in what is shipped."""

import numpy as np
import pytest

pytestmark = pytest.mark.tf


def training_images(seed: int, images: int = 300, width: int = 20, classes: int = 3):
    generator = np.random.default_rng(seed)
    labels = np.arange(images) % classes
    centres = 5 + np.random.default_rng(7).normal(0, 1, (classes, width))
    features = centres[labels] + generator.normal(0, 0.3, (images, width)) * np.linspace(0.1, 1, width)
    return features.astype(np.float32), generator.normal(0, 2, (images, classes)).astype(np.float32), labels


def by_definition(features, logits, labels, new_features, new_logits, axes):
    """Squared Mahalanobis distance by a covariance whose smallest directions share one variance, plus energy."""

    def unit(values):
        return values.astype(np.float64) / np.linalg.norm(values.astype(np.float64), axis=1, keepdims=True)

    means = np.stack([unit(features)[labels == label].mean(axis=0) for label in range(3)])
    within = unit(features) - means[labels]
    variances, vectors = np.linalg.eigh(within.T @ within / len(within))
    variances = variances + 0.1 * variances.mean()
    variances[:-axes] = variances[:-axes].mean()
    inverse = vectors @ np.diag(1 / variances) @ vectors.T

    def distance(values):
        away = unit(values)[:, None] - means
        return np.sqrt(np.einsum("ncd,de,nce->nc", away, inverse, away).min(axis=1) / values.shape[1])

    def energy(values):
        return -np.log(np.exp(values.astype(np.float64)).sum(axis=1))

    result = 0
    for measure, known, new in ((distance, features, new_features), (energy, logits, new_logits)):
        result = result + (measure(new) - measure(known).mean()) / measure(known).std()
    return result


def test_unfamiliarity_is_what_it_is_said_to_be():
    from imgrec_cli.training.familiarity import Unfamiliarity

    features, logits, labels = training_images(0)
    layer = Unfamiliarity()
    layer.build([(None, 20), (None, 3)])
    layer.learn(features, logits, labels)
    new_features, new_logits, _ = training_images(1)
    new_features[:50] += np.random.default_rng(2).normal(0, 3, (50, 20))
    found = np.asarray(layer([new_features, new_logits]))
    expected = by_definition(features, logits, labels, new_features, new_logits, axes=10)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
    assert np.median(found[:50]) > np.quantile(found[50:], 0.99)


def test_units_that_never_fire_and_single_images_do_no_harm():
    from imgrec_cli.training.familiarity import Unfamiliarity

    features, logits, labels = training_images(0, images=3)
    features[:, 5:] = 0
    layer = Unfamiliarity()
    layer.build([(None, 20), (None, 3)])
    layer.learn(features, logits, labels)
    assert np.isfinite(np.asarray(layer([features + 1, logits]))).all()


def test_what_is_shipped_measures_it_and_keeps_most_of_validation(tiny_run):
    import json

    from imgrec_cli.classifier import Classifier

    classifier = Classifier.load(tiny_run)
    assert classifier.manifest.unfamiliar_above is not None
    noise = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 1)).astype(np.uint8)
    _, unfamiliarity = classifier.outputs(noise)
    assert (unfamiliarity > classifier.manifest.unfamiliar_above).all()
    figures = json.loads((tiny_run / "evaluation" / "test" / "metrics.json").read_text())
    assert figures["unfamiliar"]["above"] == classifier.manifest.unfamiliar_above


def test_which_images_are_looked_at_follows_from_the_seed_and_keeps_every_class(monkeypatch, tiny_config):
    from imgrec_cli.config import load_config
    from imgrec_cli.dataset import load_dataset
    from imgrec_cli.training import familiarity

    config = load_config(tiny_config)
    dataset = load_dataset(config.data, config.image, config.seed)
    assert len(familiarity.sample(config, dataset, "train")) == len(dataset.rows("train"))
    monkeypatch.setattr(familiarity, "FEWEST_IMAGES", 6)
    monkeypatch.setattr(familiarity, "FEATURE_FLOP", 1.0)
    chosen = familiarity.sample(config, dataset, "train")
    assert len(chosen) == 6
    assert set(dataset.labels("train")[chosen]) == {0, 1, 2}
    np.testing.assert_array_equal(chosen, familiarity.sample(config, dataset, "train"))
