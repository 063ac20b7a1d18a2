"""Photographs that lie on their side and images with 12 bits: the same pixels and answers as their plain copies."""

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.tf

SHAPES = ("circle", "cross", "square")


def turned(picture: Image.Image) -> tuple[Image.Image, Image.Exif]:
    """The picture as a phone held upright stores it: lying on its side, with EXIF orientation 6 to turn it back."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return picture.transpose(Image.Transpose.ROTATE_90), exif


@pytest.fixture
def drawn(tiny_config):
    """drawn(shape, number): one of the tiny data set's pictures."""
    return lambda shape, number: Image.open(tiny_config.parent / "shapes" / shape / f"{number:02d}.png")


@pytest.fixture
def twins(tmp_path, drawn):
    """Two folders with the same pictures: upright, and on their side with EXIF orientation 6."""
    for shape in SHAPES:
        for seed in range(12):
            picture = drawn(shape, seed).resize((16, 24))
            for name, (image, exif) in {"upright": (picture, None), "phone": turned(picture)}.items():
                folder = tmp_path / name / shape
                folder.mkdir(parents=True, exist_ok=True)
                image.save(folder / f"{seed:02d}.png", exif=exif)
    return tmp_path / "upright", tmp_path / "phone"


def test_a_phone_photo_is_trained_on_and_answered_like_its_upright_copy(twins, tiny_config, tiny_run, tmp_path):
    from imgrec_cli.classifier import Classifier
    from imgrec_cli.config import load_config
    from imgrec_cli.dataset import load_dataset

    datasets = []
    for folder in twins:
        config = load_config(tiny_config, [f"data.folder={folder}"])
        datasets.append(load_dataset(config.data, config.image, config.seed))
    upright, phone = datasets
    assert [example.path for example in upright.examples] == [example.path for example in phone.examples]
    np.testing.assert_array_equal(upright.pixels, phone.pixels)
    classifier = Classifier.load(tiny_run)
    for ours, theirs in zip(upright.examples[:5], phone.examples[:5], strict=True):
        assert classifier.predict(ours.file).ranking == classifier.predict(theirs.file).ranking


def test_12_bits_in_a_16_bit_tiff_train_and_predict_at_full_contrast(tiny_config, drawn, tmp_path):
    from imgrec_cli.api import train
    from imgrec_cli.classifier import Classifier
    from imgrec_cli.imaging import load_pixels

    for shape in SHAPES:
        folder = tmp_path / "deep" / shape
        folder.mkdir(parents=True)
        for seed in range(12):
            values = np.asarray(drawn(shape, seed)).astype(np.float64) / 255 * 4095
            Image.fromarray(values.round().astype(np.uint16)).save(folder / f"{seed:02d}.tif")
    run = train(tiny_config, [f"data.folder={tmp_path / 'deep'}", "train.epochs=1"], runs=tmp_path / "runs")
    classifier = Classifier.load(run.folder)
    assert classifier.manifest.pixels.range == (0, 4095)
    deep = load_pixels(tmp_path / "deep" / "cross" / "03.tif", classifier.manifest.pixels)
    plain = np.asarray(drawn("cross", 3))[..., None]
    assert np.abs(deep.astype(int) - plain.astype(int)).max() <= 1
    assert classifier.predict(tmp_path / "deep" / "cross" / "03.tif").label in SHAPES
