"""Augmentation against scipy's interpolation and the formulas in float64."""

import numpy as np
import pytest
from scipy import ndimage

from imgrec_cli.config import (
    Brightness,
    ChannelShift,
    Contrast,
    Crop,
    Fill,
    Flip,
    Rotate,
    Shear,
    Shift,
    Zoom,
)

pytestmark = pytest.mark.tf

HEIGHT, WIDTH = 20, 30
SPECS = [
    Rotate(type="rotate", degrees=40),
    Shift(type="shift", height=0.2, width=0.1),
    Shear(type="shear", degrees=20),
    Zoom(type="zoom", range=(0.8, 1.3)),
    Crop(type="crop", area=(0.5, 0.9)),
    Flip(type="flip", axis="horizontal"),
    Flip(type="flip", axis="vertical"),
]


def reference_matrix(spec, uniform):
    """The matrices in float64, result → source on (x, y, 1) about the centre."""

    def between(low, high, share):
        return low + (high - low) * share

    m = np.eye(3)
    match spec:
        case Rotate():
            a = np.deg2rad(between(-spec.degrees, spec.degrees, uniform[0]))
            m[:2, :2] = [[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]
        case Shift():
            m[1, 2] = between(-spec.height, spec.height, uniform[0]) * HEIGHT
            m[0, 2] = between(-spec.width, spec.width, uniform[1]) * WIDTH
        case Shear():
            a = np.deg2rad(between(-spec.degrees, spec.degrees, uniform[0]))
            m[:2, :2] = [[1, -np.sin(a)], [0, np.cos(a)]]
        case Zoom():
            m[1, 1], m[0, 0] = (between(*spec.range, share) for share in uniform)
        case Crop():
            area = between(*spec.area, uniform[0])
            aspect = np.exp(between(np.log(spec.aspect[0]), np.log(spec.aspect[1]), uniform[1]))
            w, h = min(np.sqrt(area * aspect), 1), min(np.sqrt(area / aspect), 1)
            m[0, 0], m[1, 1] = w, h
            m[0, 2], m[1, 2] = (1 - w) * (uniform[2] - 0.5) * WIDTH, (1 - h) * (uniform[3] - 0.5) * HEIGHT
        case Flip(axis="horizontal"):
            m[0, 0] = -1 if uniform[0] < 0.5 else 1
        case Flip():
            m[1, 1] = -1 if uniform[0] < 0.5 else 1
    return m


def reference_warp(image, matrix, mode, value=0.0):
    """scipy's bilinear warp of one float64 image with a centred (x, y) matrix."""
    centre = np.array([(HEIGHT - 1) / 2, (WIDTH - 1) / 2])
    in_rows_and_columns = matrix[:2, :2][::-1, ::-1]
    offset = centre + matrix[:2, 2][::-1] - in_rows_and_columns @ centre
    return np.stack(
        [
            ndimage.affine_transform(
                image[..., c].astype(np.float64), in_rows_and_columns, offset, order=1, mode=mode, cval=value
            )
            for c in range(image.shape[-1])
        ],
        axis=-1,
    )


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.type}-{getattr(spec, 'axis', '')}")
def test_each_step_equals_its_formula(images, spec):
    from imgrec_cli.training.augment import draws, matrix, warp

    uniform = np.random.default_rng(1).uniform(size=(4, draws(spec, 3))).astype(np.float32)
    fill = Fill(type="fill", mode="nearest")
    warped = np.asarray(warp(images, matrix(spec, uniform, HEIGHT, WIDTH), fill))
    for image, numbers, got in zip(images, uniform, warped, strict=True):
        expected = reference_warp(image, reference_matrix(spec, numbers.astype(np.float64)), "nearest")
        np.testing.assert_allclose(got, expected, atol=0.05)


def test_a_whole_chain_is_one_warp_of_the_product(images):
    from imgrec_cli.training.augment import draws, matrix, warp

    generator = np.random.default_rng(2)
    uniforms = [generator.uniform(size=(4, draws(spec, 3))).astype(np.float32) for spec in SPECS[:4]]
    product = np.eye(3, dtype=np.float32)
    for spec, uniform in zip(SPECS[:4], uniforms, strict=True):
        product = product @ np.asarray(matrix(spec, uniform, HEIGHT, WIDTH))
    warped = np.asarray(warp(images, product, Fill(type="fill", mode="nearest")))
    for position, image in enumerate(images):
        expected = np.eye(3)
        for spec, uniform in zip(SPECS[:4], uniforms, strict=True):
            expected = expected @ reference_matrix(spec, uniform[position].astype(np.float64))
        np.testing.assert_allclose(warped[position], reference_warp(image, expected, "nearest"), atol=0.1)


@pytest.mark.parametrize(
    ("mode", "theirs"), [("nearest", "nearest"), ("constant", "grid-constant"), ("reflect", "reflect")]
)
def test_fill_modes_agree_with_scipy(images, mode, theirs):
    from imgrec_cli.training.augment import warp

    shifted = np.eye(3, dtype=np.float32)
    shifted[0, 2], shifted[1, 2] = 7.25, -6.5
    got = np.asarray(
        warp(images, np.tile(shifted, (4, 1, 1)), Fill(type="fill", mode=mode, value=9 if mode == "constant" else 0))
    )
    expected = np.stack([reference_warp(image, shifted.astype(np.float64), theirs, 9.0) for image in images])
    np.testing.assert_allclose(got, expected, atol=0.05)


@pytest.mark.parametrize("axis", ["horizontal", "vertical"])
def test_a_flip_moves_pixels_exactly(images, axis):
    from imgrec_cli.training.augment import matrix, warp

    whole = np.round(images)
    spec = Flip(type="flip", axis=axis)
    got = np.asarray(
        warp(
            whole,
            matrix(spec, np.array([[0.1], [0.9]] * 2, np.float32), HEIGHT, WIDTH),
            Fill(type="fill", mode="nearest"),
        )
    )
    expected = whole.copy()
    expected[::2] = whole[::2, :, ::-1] if axis == "horizontal" else whole[::2, ::-1]
    np.testing.assert_array_equal(got, expected)


def test_a_shift_by_pixels_and_a_flip_only_move_pixels(images):
    from imgrec_cli.training.augment import Augment

    whole = np.round(images)
    specs = [
        Flip(type="flip", axis="horizontal"),
        Shift(type="shift", pixels=2),
        Fill(type="fill", mode="constant", value=7),
    ]
    layer = Augment(specs, seed=0)
    found = set()
    for _ in range(40):
        for before, after in zip(whole, np.asarray(layer(whole, training=True)), strict=True):
            for flipped in (before, before[:, ::-1]):
                padded = np.pad(flipped, ((2, 2), (2, 2), (0, 0)), constant_values=7)
                found |= {
                    (down, right)
                    for down in range(5)
                    for right in range(5)
                    if np.array_equal(after, padded[down : down + HEIGHT, right : right + WIDTH])
                }
    assert found == {(down, right) for down in range(5) for right in range(5)}


def test_zero_strength_is_identity(images):
    from imgrec_cli.training.augment import Augment

    specs = [
        Rotate(type="rotate", degrees=0),
        Shift(type="shift"),
        Shear(type="shear", degrees=0),
        Zoom(type="zoom", range=(1, 1)),
        Crop(type="crop", area=(1, 1), aspect=(1, 1)),
        Brightness(type="brightness", range=(1, 1)),
        Contrast(type="contrast", range=(1, 1)),
        ChannelShift(type="channel_shift", amount=0),
    ]
    whole = np.round(images).astype(np.uint8)
    got = np.asarray(Augment(specs, seed=0)(whole, training=True))
    np.testing.assert_allclose(got, whole, atol=1e-3)


def test_only_training_images_are_changed(images):
    from imgrec_cli.training.augment import Augment

    layer = Augment(SPECS, seed=0)
    np.testing.assert_array_equal(np.asarray(layer(images, training=False)), images)
    assert np.abs(np.asarray(layer(images, training=True)) - images).max() > 1


def test_values_follow_the_formulas_in_order(images):
    from imgrec_cli.training.augment import Gains

    specs = [
        (Brightness(type="brightness", range=(0.5, 1.5)), np.array([[0.1], [0.4], [0.6], [0.9]], np.float32)),
        (Contrast(type="contrast", range=(0.5, 2)), np.array([[0.2], [0.5], [0.7], [1.0]], np.float32)),
        (
            ChannelShift(type="channel_shift", amount=20),
            np.random.default_rng(0).uniform(size=(4, 3)).astype(np.float32),
        ),
        (Contrast(type="contrast", range=(0.5, 2)), np.array([[0.9], [0.1], [0.3], [0.6]], np.float32)),
    ]
    mean = images.mean(axis=(1, 2, 3), keepdims=True)
    gains = Gains(np.ones((4, 1, 1, 1), np.float32), np.zeros((4, 1, 1, 1), np.float32))
    expected = images.astype(np.float64)
    for spec, uniform in specs:
        gains = gains.then(spec, uniform, mean)
        share = uniform.astype(np.float64)[:, None, None, :]
        match spec:
            case Brightness(range=(low, high)):
                expected = expected * (low + (high - low) * share)
            case Contrast(range=(low, high)):
                centre = expected.mean(axis=(1, 2, 3), keepdims=True)
                expected = centre + (expected - centre) * (low + (high - low) * share)
            case ChannelShift(amount=amount):
                expected = expected + (2 * share - 1) * amount
    got = images * np.asarray(gains.gain) + np.asarray(gains.offset)
    np.testing.assert_allclose(got, expected, atol=0.01)


def test_results_stay_between_black_and_white(images):
    from imgrec_cli.training.augment import Augment

    strong = [Brightness(type="brightness", range=(5, 5)), ChannelShift(type="channel_shift", amount=255)]
    got = np.asarray(Augment(strong, seed=0)(images, training=True))
    assert got.min() >= 0
    assert got.max() <= 255


def test_the_same_seed_draws_the_same(images):
    from imgrec_cli.training.augment import Augment

    first, second = (np.asarray(Augment(SPECS, seed=3)(images, training=True)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert np.abs(np.asarray(Augment(SPECS, seed=4)(images, training=True)) - first).max() > 1
