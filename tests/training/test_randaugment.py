"""RandAugment's operations against their formulas in float64."""

import numpy as np
import pytest

from imgrec_cli.config import RandAugment

pytestmark = pytest.mark.tf


def randaugment_of(operation, side=1):
    """Numbers that draw one operation for every image."""
    from imgrec_cli.training.randaugment import OPERATIONS

    return np.tile(
        [[(OPERATIONS.index(operation) + 0.5) / len(OPERATIONS), 0.75 if side > 0 else 0.25]], (4, 1)
    ).astype(np.float32)


@pytest.mark.parametrize("side", [-1, 1])
@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        ("identity", lambda image, s: image),
        ("autocontrast", lambda image, s: autocontrast(image)),
        ("brightness", lambda image, s: image * (1 + 0.54 * s)),
        ("color", lambda image, s: gray(image) + (1 + 0.54 * s) * (image - gray(image))),
        ("contrast", lambda image, s: gray(image).mean() + (1 + 0.54 * s) * (image - gray(image).mean())),
        ("posterize", lambda image, s: np.floor(image / 4) * 4),  # 2.4 bits are 2
        ("solarize", lambda image, s: np.where(image >= 102, 255 - image, image)),
        ("rotate", lambda image, s: image),
    ],
)
def test_randaugment_s_values_equal_their_formulas(images, operation, expected, side):
    from imgrec_cli.training.randaugment import values

    spec = RandAugment(type="randaugment", operations=1, magnitude=6)
    found = np.asarray(values(spec, randaugment_of(operation, side), images))
    for image, got in zip(images, found, strict=True):
        np.testing.assert_allclose(got, np.clip(expected(image.astype(np.float64), side), 0, 255), atol=1e-3)


def gray(image):
    return (image @ [0.299, 0.587, 0.114])[..., None]


def autocontrast(image):
    low, high = image.min(axis=(0, 1)), image.max(axis=(0, 1))
    return (image - low) * 255 / (high - low)


@pytest.mark.parametrize("side", [-1, 1])
def test_randaugment_s_matrices_equal_their_formulas(side):
    from imgrec_cli.training.randaugment import matrices

    spec = RandAugment(type="randaugment", operations=1, magnitude=5)
    angle = side * np.deg2rad(15)
    expected = {
        "rotate": [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]],
        "shear_x": [[1, 0.15 * side, 0], [0, 1, 0], [0, 0, 1]],
        "shear_y": [[1, 0, 0], [0.15 * side, 1, 0], [0, 0, 1]],
        "translate_x": [[1, 0, 0.225 * 30 * side], [0, 1, 0], [0, 0, 1]],
        "translate_y": [[1, 0, 0], [0, 1, 0.225 * 20 * side], [0, 0, 1]],
        "solarize": np.eye(3),
    }
    for operation, matrix in expected.items():
        (found,) = matrices(spec, randaugment_of(operation, side), 20, 30)
        np.testing.assert_allclose(found[0], matrix, atol=1e-5)
