"""Disturbances are what they are called, and stronger ones disturb more."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageOps

from imgrec_cli import stress
from imgrec_cli.evaluation import LabelledImage
from imgrec_cli.imaging import PixelSpec, load_pixels


@pytest.fixture(params=[(24, 24, 3), (20, 32, 1)])
def pixels(request):
    height, width, channels = request.param
    rows, columns = np.mgrid[:height, :width]
    base = 128 + 60 * np.sin(rows / 3.0) + 50 * np.cos(columns / 4.0)
    return np.repeat(base[..., None], channels, axis=2).astype(np.uint8)


@pytest.mark.parametrize("kind", stress.CHANGES)
def test_every_kind_keeps_the_form_and_differs(kind, pixels):
    for level in range(5):
        changed = stress.CHANGES[kind](pixels, level, 1)
        assert (changed.shape, changed.dtype) == (pixels.shape, np.uint8)
        assert (changed != pixels).any()
        np.testing.assert_array_equal(changed, stress.CHANGES[kind](pixels, level, 1))


@pytest.mark.parametrize("kind", ["noise", "blur", "JPEG", "brightness", "contrast"])
def test_strength_rises(kind, pixels):
    change = stress.CHANGES[kind]
    gaps = [np.abs(change(pixels, level, 0).astype(int) - pixels).mean() for level in range(5)]
    assert gaps[0] < gaps[2] < gaps[4]


def test_rotation_is_about_the_centre_and_by_the_angle():
    square = np.zeros((41, 41, 1), np.uint8)
    square[20, 30] = 255  # ten pixels to the right
    turned = stress._warped(square, 90.0, 1.0)[..., 0]
    assert np.unravel_index(turned.argmax(), turned.shape) in [(10, 20), (30, 20)]
    larger = stress._warped(square, 0.0, 2.0)[..., 0]
    assert np.unravel_index(larger.argmax(), larger.shape) == (20, 40)


@pytest.mark.parametrize("level", range(5))
def test_orientation_is_what_exif_would_have_put_right(level):
    upright = np.arange(36, dtype=np.uint8).reshape(6, 6, 1) * 7
    stored = Image.fromarray(stress.orientation(upright, level, 0)[..., 0])
    exif = Image.Exif()
    exif[0x0112] = stress.ORIENTATIONS[level]
    stream = BytesIO()
    stored.save(stream, "PNG", exif=exif)
    with Image.open(stream) as read:
        np.testing.assert_array_equal(np.asarray(ImageOps.exif_transpose(read)), upright[..., 0])


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
def test_another_kernel_is_near_the_usual_one(fit, tmp_path):
    picture = Image.radial_gradient("L").resize((90, 60))
    picture.save(tmp_path / "x.png")
    spec = PixelSpec((24, 24), "rgb", fit)
    usual = load_pixels(tmp_path / "x.png", spec).astype(int)
    image = LabelledImage("x.png", tmp_path / "x.png", 0)
    for level in range(5):
        found = stress.resampled(image, spec, level)
        assert found.shape == (24, 24, 3)
        assert np.abs(found - usual).mean() < 8


@pytest.mark.parametrize("format_", ["JPEG", "PNG"])
@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_another_kernel_sees_a_turned_photograph_as_the_usual_one_does(fit, format_, tmp_path):
    upright = Image.radial_gradient("L").resize((60, 120))
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side
    file = tmp_path / "x"
    upright.transpose(Image.Transpose.ROTATE_90).save(
        file, format_, exif=exif, **({"quality": 95} if format_ == "JPEG" else {})
    )
    spec = PixelSpec((24, 24), "gray", fit)
    usual = load_pixels(file, spec).astype(int)
    found = stress.resampled(LabelledImage("x", file, 0), spec, 3)  # the box kernel
    assert np.abs(found - usual).mean() < 3


@pytest.mark.tf
def test_a_run_is_judged_under_disturbance_and_keeps_the_result(imgrec, tiny_run):
    import json

    done = imgrec("evaluate", "-m", tiny_run, "--stress", "--format", "json")
    assert done.code == 0
    found = json.loads(done.out)["result"]["stress"]
    assert [kind["name"] for kind in found["kinds"]] == [*stress.CHANGES, "resampling"]
    assert found["images"] == 6
    first = found["kinds"][0]
    assert first["mean_drop"] == pytest.approx(np.mean([level["drop"] for level in first["levels"]]))
    assert json.loads((tiny_run / "evaluation" / "test" / "stress.json").read_text()) == found
