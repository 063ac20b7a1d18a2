"""Occlusion points at what matters, and pictures show it, for a classifier whose reasons are known."""

import numpy as np
import pytest
from PIL import Image

from imgrec_cli.explanation import LEAST_SHOWN, explain_files, normalised, occlusion, overlay
from imgrec_cli.imaging import PixelSpec


class Spot:
    """Says `bright` the surer the brighter one corner of the image is."""

    class_names = ("dark", "bright")

    class manifest:
        pixels = PixelSpec((28, 21), "gray", "stretch")

    def __init__(self, random: int | None = None) -> None:
        self.weights = np.zeros((28, 21))
        self.weights[:8, :6] = 1
        if random is not None:
            self.weights = np.random.default_rng(random).random((28, 21))

    def scores(self, pixels):
        value = (pixels[..., 0] * self.weights).sum(axis=(1, 2)) / (255 * self.weights.sum())
        bright = 1 / (1 + np.exp(-10 * (value - 0.5)))
        return np.stack([1 - bright, bright], axis=1).astype(np.float32)

    def decided(self, scores):
        return scores.argmax(axis=1)


@pytest.fixture
def picture():
    pixels = np.zeros((28, 21, 1), np.uint8)
    pixels[:8, :6] = 255
    return pixels


def test_occlusion_finds_the_corner_that_decides(picture):
    found = occlusion(Spot(), picture, 1)
    assert found.shape == (7, 7)
    assert found.max() == 1
    assert found[:2, :2].min() > 0.1
    assert found[3:, 3:].max() == 0


def test_another_model_gives_another_map(picture):
    assert np.abs(occlusion(Spot(), picture, 1) - occlusion(Spot(random=0), picture, 1)).max() > 0.3


def test_nothing_matters_where_nothing_changes(picture):
    assert (normalised(np.full((3, 3), -1.0)) == 0).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_the_strongest_place_glows(channels):
    pixels = np.full((20, 10, channels), 60, np.uint8)
    strength = np.zeros((4, 2), np.float32)
    strength[0, 0] = 1
    drawn = overlay(pixels, strength)
    assert drawn.mode == "RGB"
    assert min(drawn.size) >= LEAST_SHOWN // 2
    assert drawn.size == (10 * 16, 20 * 16)
    shown = np.asarray(drawn).astype(int)
    assert shown[2, 2].sum() > shown[-2, -2].sum() + 100


def test_pictures_of_one_name_do_not_replace_each_other(picture, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        Image.fromarray(picture[..., 0]).save(tmp_path / folder / "x.png")
    done = explain_files(Spot(), [tmp_path / "a" / "x.png", tmp_path / "b" / "x.png"], tmp_path / "out", None, None)
    assert [one.file.name for one in done] == ["x-explained.png", "x-explained2.png"]
    assert [(one.class_name, one.method) for one in done] == [("bright", "occlusion")] * 2
    assert all(one.file.is_file() for one in done)


def test_a_bad_image_has_its_reason_and_the_others_are_explained(picture, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"")
    Image.fromarray(picture[..., 0]).save(tmp_path / "good.png")
    bad, good = explain_files(Spot(), [tmp_path / "bad.png", tmp_path / "good.png"], tmp_path / "out", None, None)
    assert (bad.source, bad.reason) == (str(tmp_path / "bad.png"), "the file is empty")
    assert good.file.is_file()
