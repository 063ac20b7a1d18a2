"""Near duplicates: the search against all pairs, the hash against SciPy, the judgement on changed pictures."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.fft import dctn

from imgrec_cli.dataset.near import BITS_APART, candidates, hashes, near_duplicates, small_gray


def test_candidates_are_all_pairs_within_reach() -> None:
    random = np.random.default_rng(0)
    looks = random.integers(0, 2**64, 400, np.uint64)
    changed = looks[:200].copy()
    for index in range(200):  # at most nine bits, so that some are beyond reach
        for bit in random.choice(64, random.integers(0, 10), replace=False):
            changed[index] ^= np.uint64(1) << np.uint64(bit)
    every = np.concatenate([looks, changed])
    apart = np.bitwise_count(every[:, None] ^ every[None])
    expected = np.argwhere(np.triu(apart <= BITS_APART, 1))
    np.testing.assert_array_equal(candidates(every), expected)


def test_the_hash_is_that_of_the_cosine_transform() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 48, 64, 3), np.uint8)
    frequencies = dctn(small_gray(pixels).astype(np.float64), axes=(1, 2))[:, 1:9, 1:9].reshape(20, 64)
    bits = frequencies > np.median(frequencies, axis=1, keepdims=True)
    np.testing.assert_array_equal(hashes(pixels), np.packbits(bits, axis=1).view(np.uint64)[:, 0])


def test_small_gray_is_the_mean_over_areas() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), np.uint8)
    means = pixels.mean(axis=3).reshape(2, 32, 2, 32, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(small_gray(pixels), means, rtol=1e-5)


def changes(image: Image.Image) -> dict[str, Image.Image]:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=75)
    return {
        "again as JPEG": Image.open(stream),
        "at 70 % of the size": image.resize(
            (int(image.width * 0.7), int(image.height * 0.7)), Image.Resampling.BICUBIC
        ),
        "darker": image.point(lambda value: int(value * 0.9)),
    }


def smooth(seed: int) -> Image.Image:
    random = np.random.default_rng(seed)
    return Image.fromarray(random.integers(0, 256, (9, 12, 3), np.uint8)).resize((160, 120), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("change", ["again as JPEG", "at 70 % of the size", "darker"])
def test_changed_pictures_are_found_and_others_are_not(change: str) -> None:
    originals = [smooth(seed) for seed in range(60)]
    images = [*originals, *(changes(original)[change] for original in originals[:20])]
    pixels = np.stack([np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR)) for image in images])
    pairs = near_duplicates(pixels, hashes(pixels), np.arange(len(images)))
    assert {tuple(pair) for pair in pairs.tolist()} == {(index, 60 + index) for index in range(20)}


def test_alike_clothes_are_not_near_duplicates(root: Path) -> None:
    files = sorted((root / "data" / "fashion-mini").rglob("*.png"))
    pixels = np.stack([np.asarray(Image.open(file))[..., None] for file in files])
    assert len(near_duplicates(pixels, hashes(pixels), np.arange(len(files)))) == 0


def test_flat_pictures_are_left_alone() -> None:
    random = np.random.default_rng(0)
    pixels = np.full((300, 28, 28, 1), 200, np.uint8)
    pixels[:, :2, :2, 0] += random.integers(0, 3, (300, 2, 2)).astype(np.uint8)
    assert len(near_duplicates(pixels, hashes(pixels), np.arange(300))) == 0
