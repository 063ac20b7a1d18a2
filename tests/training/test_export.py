"""Every document's network answers from its LiteRT file as it does in Keras."""

from pathlib import Path

import numpy as np
import pytest

from imgrec_cli.bundle import LARGEST_GAP, MODEL, FileRecord, Manifest, Parity
from imgrec_cli.config import load_config
from imgrec_cli.imaging import PixelSpec, load_pixels

pytestmark = pytest.mark.tf

ROOT = Path(__file__).parents[2]
IMAGES = sorted((ROOT / "data" / "fashion-mini" / "test").glob("*/*.png"))[::25]


@pytest.mark.parametrize("name", [f"document-00{number}" for number in range(5)])
def test_the_file_agrees_with_keras_on_every_label(name, tmp_path):
    import keras

    from imgrec_cli.classifier import Classifier
    from imgrec_cli.training.export import convert
    from imgrec_cli.training.model import shipped_model

    keras.utils.set_random_seed(0)
    config = load_config(ROOT / "configs" / f"{name}.yaml")
    spec = PixelSpec(config.image.size, config.image.color, config.image.fit)
    pixels = np.stack([load_pixels(path, spec) for path in IMAGES])
    model = shipped_model(config, 10)
    # of random weights the probabilities are all alike; larger ones tell the classes apart
    model.layers[-2].set_weights([30 * weights for weights in model.layers[-2].get_weights()])
    convert(config, 10, model, tmp_path / MODEL)
    manifest = Manifest(
        name=name,
        created="",
        class_names=[str(number) for number in range(10)],
        pixels=spec,
        files={MODEL: FileRecord.of(tmp_path / MODEL)},
        parity=Parity(0, 0.0, 0, 0),
        versions={},
    )
    expected = np.asarray(model.predict_on_batch(pixels))
    answered = Classifier(tmp_path, manifest).scores(pixels)
    assert np.ptp(expected, axis=0).max() > 0.1
    assert np.abs(answered - expected).max() < LARGEST_GAP
    np.testing.assert_array_equal(answered.argmax(axis=1), expected.argmax(axis=1))
