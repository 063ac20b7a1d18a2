"""Pixels of every format, mode and depth against values computed with numpy; every damage against its reason."""

import io
import json
import os
import random
import struct
import subprocess
import sys
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from imgrec_cli.errors import BadImageError
from imgrec_cli.imaging import PixelSpec, decode, load_pixels, survey

Array = NDArray[Any]
NOISE = np.random.default_rng(0).integers(0, 256, (12, 20, 3), np.uint8)
ORIENTATION = 0x0112


def encoded(image: Image.Image | Array, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(stream, kind, **options)
    return stream.getvalue()


def spec_for(array: Array, color: str = "rgb", **changes: Any) -> PixelSpec:
    return PixelSpec(**{"size": array.shape[:2], "color": color, "fit": "stretch", **changes})


def over_white(color: Array, alpha: Array) -> Array:
    share = alpha.astype(float)[..., None] / 255
    return color * share + 255 * (1 - share)


def triangle_resize(values: Array, length: int, axis: int) -> Array:
    """Antialiased bilinear in float64: a triangle two target pixels wide, or two source pixels if these are larger."""
    source = values.shape[axis]
    scale = source / length
    support = max(scale, 1.0)
    centres = (np.arange(length) + 0.5) * scale
    weights = np.maximum(0, 1 - np.abs(np.arange(source) + 0.5 - centres[:, None]) / support)
    weights /= weights.sum(axis=1, keepdims=True)
    return np.moveaxis(np.tensordot(weights, values.astype(float), (1, axis)), 0, axis)


# --- formats ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("WEBP", {"lossless": True}),
    ],
)
def test_lossless_formats_keep_every_pixel(kind: str, options: dict[str, Any]) -> None:
    pixels = load_pixels(encoded(NOISE, kind, **options), spec_for(NOISE))
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, NOISE)


def test_jpeg_pixels() -> None:
    flat = np.full((16, 16, 3), (200, 100, 50), np.uint8)
    pixels = load_pixels(encoded(flat, "JPEG", quality=95), spec_for(flat))
    assert np.abs(pixels.astype(int) - flat).max() <= 2


@pytest.mark.parametrize(("kind", "options"), [("GIF", {}), ("WEBP", {"lossless": True}), ("TIFF", {}), ("PNG", {})])
def test_the_first_picture_of_several_is_read(kind: str, options: dict[str, Any]) -> None:
    first, second = Image.new("RGB", (6, 4), (255, 0, 0)), Image.new("RGB", (6, 4), (0, 0, 255))
    data = encoded(first, kind, save_all=True, append_images=[second], **options)
    assert load_pixels(data, PixelSpec((4, 6), "rgb", "stretch"))[0, 0].tolist() == [255, 0, 0]


def test_the_first_picture_of_an_mpo_is_read() -> None:
    first, second = Image.new("RGB", (16, 16), (250, 0, 0)), Image.new("RGB", (16, 16), (0, 0, 250))
    data = encoded(first, "MPO", save_all=True, append_images=[second])
    red, _, blue = load_pixels(data, PixelSpec((16, 16), "rgb", "stretch"))[0, 0].tolist()
    assert red > 245
    assert blue < 5


def test_a_path_reads_as_its_bytes_whatever_it_is_called(tmp_path: Path) -> None:
    file = tmp_path / "a picture – 写真.JPG"
    file.write_bytes(encoded(NOISE, "PNG"))
    np.testing.assert_array_equal(load_pixels(file, spec_for(NOISE)), NOISE)


# --- orientation ------------------------------------------------------------------------------------

# How a camera stores an upright picture under each orientation, from the table in Exif 2.32, section 4.6.4.
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True})])
def test_orientation_gives_the_pixels_of_the_upright_copy(kind: str, options: dict[str, Any], orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored = np.ascontiguousarray(STORED[orientation](NOISE))
    data = encoded(stored, kind, exif=exif, **options)
    np.testing.assert_array_equal(load_pixels(data, spec_for(NOISE)), NOISE)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_deep_images(orientation: int) -> None:
    deep = np.random.default_rng(1).integers(0, 65536, (12, 20), np.uint16)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    spec = spec_for(deep, "gray", range=(0, 65535))
    upright = load_pixels(encoded(deep, "PNG"), spec)
    for kind in ("PNG", "TIFF"):
        data = encoded(np.ascontiguousarray(STORED[orientation](deep)), kind, exif=exif)
        np.testing.assert_array_equal(load_pixels(data, spec), upright)


@pytest.mark.parametrize("orientation", [1, 6, 8, 3])
def test_orientation_of_a_large_jpeg_that_is_decoded_at_a_lower_scale(orientation: int) -> None:
    rows, columns = np.mgrid[0:480, 0:800]
    photo = np.stack([rows * 255 // 479, columns * 255 // 799, (rows + columns) % 256 // 8 * 8], -1).astype(np.uint8)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    spec = PixelSpec((48, 80), "rgb", "stretch")
    upright = load_pixels(encoded(photo, "JPEG", quality=95), spec).astype(int)
    turned = load_pixels(encoded(np.ascontiguousarray(STORED[orientation](photo)), "JPEG", quality=95, exif=exif), spec)
    assert np.abs(turned - upright).mean() < 1


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("block", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\x7f", b"Exif\0\0"])
def test_a_damaged_exif_block_is_no_fault_of_the_pixels(block: bytes) -> None:
    plain = load_pixels(encoded(NOISE, "JPEG"), spec_for(NOISE))
    np.testing.assert_array_equal(load_pixels(encoded(NOISE, "JPEG", exif=block), spec_for(NOISE)), plain)


# --- modes ------------------------------------------------------------------------------------------


def test_gray_is_repeated_for_rgb_and_rgb_is_weighted_for_gray() -> None:
    gray = NOISE[..., 0]
    np.testing.assert_array_equal(load_pixels(encoded(gray, "PNG"), spec_for(gray)), np.stack([gray] * 3, -1))
    np.testing.assert_array_equal(load_pixels(encoded(gray, "PNG"), spec_for(gray, "gray")), gray[..., None])
    luma = NOISE @ np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
    assert np.abs(load_pixels(encoded(NOISE, "PNG"), spec_for(NOISE, "gray"))[..., 0] - luma).max() <= 1


def test_one_bit_is_black_and_white() -> None:
    bits = NOISE[..., 0] > 127
    for kind in ("PNG", "TIFF", "BMP"):
        pixels = load_pixels(encoded(bits, kind), spec_for(bits, "gray"))
        np.testing.assert_array_equal(pixels[..., 0], bits * 255)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_transparency_is_laid_over_white(kind: str) -> None:
    alpha = np.linspace(0, 255, 12 * 20).reshape(12, 20).astype(np.uint8)
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    pixels = load_pixels(encoded(np.dstack([NOISE, alpha]), kind, **options), spec_for(NOISE))
    assert np.abs(pixels - over_white(NOISE, alpha)).max() <= 1


def test_gray_with_transparency_is_laid_over_white() -> None:
    gray, alpha = NOISE[..., :1], NOISE[..., 1]
    image = Image.merge("LA", (Image.fromarray(NOISE[..., 0]), Image.fromarray(alpha)))
    for color in ("rgb", "gray"):
        pixels = load_pixels(encoded(image, "PNG"), spec_for(gray, color))
        assert np.abs(pixels - over_white(gray, alpha)).max() <= 1


def palette_image() -> Image.Image:
    image = Image.fromarray((NOISE[..., 0] % 3).astype(np.uint8))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    return image


def test_palettes_are_looked_up() -> None:
    index = NOISE[..., 0] % 3
    pixels = load_pixels(encoded(palette_image(), "PNG"), spec_for(index))
    np.testing.assert_array_equal(pixels, (np.eye(3) * 255)[index])


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_transparent_palette_entry_is_white(kind: str) -> None:
    index = NOISE[..., 0] % 3
    colors = np.array([[255, 0, 0], [255, 255, 255], [0, 0, 255]])
    pixels = load_pixels(encoded(palette_image(), kind, transparency=1), spec_for(index))
    np.testing.assert_array_equal(pixels, colors[index])


def test_palette_entries_with_alpha_are_laid_over_white() -> None:
    index = NOISE[..., 0] % 3
    pixels = load_pixels(encoded(palette_image(), "PNG", transparency=bytes([0, 128, 255])), spec_for(index))
    expected = over_white(np.eye(3) * 255, np.array([0, 128, 255]))
    assert np.abs(pixels - expected[index]).max() <= 1


def test_a_transparent_color_is_white() -> None:
    array = NOISE.copy()
    array[:3] = (10, 20, 30)
    expected = array.copy()
    expected[:3] = 255
    np.testing.assert_array_equal(
        load_pixels(encoded(array, "PNG", transparency=(10, 20, 30)), spec_for(array)), expected
    )


@pytest.mark.parametrize("kind", ["TIFF", "JPEG"])
def test_cmyk_inks_are_multiplied(kind: str) -> None:
    inks = np.zeros((16, 16, 4), np.uint8)
    inks[..., :] = (40, 120, 200, 60)
    image = Image.frombytes("CMYK", (16, 16), inks.tobytes())
    expected = (255 - inks[..., :3].astype(float)) * (255 - inks[..., 3:].astype(float)) / 255
    tolerance = 1 if kind == "TIFF" else 4
    assert np.abs(load_pixels(encoded(image, kind), spec_for(inks)) - expected).max() <= tolerance


def test_sixteen_bit_color_png_keeps_the_high_byte() -> None:
    samples = np.random.default_rng(2).integers(0, 65536, (6, 5, 3)).astype(">u2")
    raw = b"".join(b"\0" + row.tobytes() for row in samples)
    np.testing.assert_array_equal(
        load_pixels(png_of(5, 6, 16, 2, zlib.compress(raw)), spec_for(samples)), (samples >> 8).astype(np.uint8)
    )


def png_of(width: int, height: int, bits: int, color_type: int, data: bytes, interlace: int = 0) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, interlace)
    palette = chunk(b"PLTE", bytes(48)) if color_type == 3 else b""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + palette + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def tiff_of(samples: Array, photometric: int) -> bytes:
    """An uncompressed little-endian 16-bit TIFF, [height, width] or [height, width, 3] (TIFF 6.0, sections 2 and 6)."""
    height, width = samples.shape[:2]
    channels = samples.size // (height * width)
    body = samples.astype("<u2").tobytes()
    bits_at = 8 + len(body)
    bits = struct.pack(f"<{channels}H", *[16] * channels)
    entries = [
        (256, 3, 1, width),
        (257, 3, 1, height),
        (258, 3, channels, bits_at if channels > 2 else 16),
        (259, 3, 1, 1),
        (262, 3, 1, photometric),
        (273, 4, 1, 8),
        (277, 3, 1, channels),
        (278, 3, 1, height),
        (279, 4, 1, len(body)),
    ]
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    return struct.pack("<2sHI", b"II", 42, bits_at + len(bits)) + body + bits + directory


# --- depth ------------------------------------------------------------------------------------------


def test_twelve_bit_values_in_a_sixteen_bit_tiff_use_the_full_contrast() -> None:
    deep = np.arange(0, 4096, dtype=np.uint16)[:4080].reshape(60, 68)
    pixels = load_pixels(encoded(deep, "TIFF"), spec_for(deep, "gray", range=(0, 4095)))
    np.testing.assert_array_equal(pixels[..., 0], np.rint(deep / 4095 * 255))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "big-endian TIFF"])
def test_values_outside_the_range_are_clipped(kind: str) -> None:
    deep = np.array([[0, 999, 1000], [1500, 2000, 65535]], np.uint16)
    data = encoded(deep.astype(">u2"), "TIFF") if kind == "big-endian TIFF" else encoded(deep, kind)
    pixels = load_pixels(data, spec_for(deep, range=(1000, 2000)))
    assert pixels[..., 0].tolist() == [[0, 0, 0], [128, 255, 255]]
    assert (pixels == pixels[..., :1]).all()


def test_integers_and_floating_point() -> None:
    whole = np.array([[-50, 0, 100_000, 200_000]], np.int32)
    spec = spec_for(whole, "gray", range=(0, 200_000))
    assert load_pixels(encoded(whole, "TIFF"), spec).ravel().tolist() == [0, 0, 128, 255]
    real = np.array([[0.0, 0.25, 1.0, 2.0]], np.float32)
    spec = spec_for(real, "gray", range=(0, 1))
    assert load_pixels(encoded(real, "TIFF"), spec).ravel().tolist() == [0, 64, 255, 255]
    assert survey(encoded(whole, "TIFF"))[1] == 200_000
    largest = survey(encoded(real, "TIFF"))[1]
    assert largest == 2.0
    assert isinstance(largest, float)


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_minus_one_is_a_value_like_others(kind: type) -> None:
    deep = np.array([[-2, -1, 0]], kind)
    decoded = decode(encoded(deep, "TIFF"), spec_for(deep, "gray", range=(-2, 0)))
    assert decoded.pixels.ravel().tolist() == [0, 128, 255]
    assert load_pixels(encoded(deep, "TIFF"), spec_for(deep, "gray", range=(0, 100))).max() == 0
    assert survey(encoded(deep - 1, "TIFF"))[1] == -1


def test_the_transparent_value_of_a_deep_png_is_white_and_not_the_largest() -> None:
    deep = np.array([[100, 60_000, 200]], np.uint16)
    decoded = decode(encoded(deep, "PNG", transparency=60_000), spec_for(deep, "gray", range=(0, 1023)))
    assert decoded.pixels.ravel().tolist() == [25, 255, 50]
    assert decoded.largest == 200


def test_a_range_above_255_speaks_of_deep_images_only() -> None:
    np.testing.assert_array_equal(load_pixels(encoded(NOISE, "PNG"), spec_for(NOISE, range=(0, 4095))), NOISE)


def test_a_range_up_to_255_stretches_8_bit_images_too() -> None:
    pixels = load_pixels(encoded(NOISE, "PNG"), spec_for(NOISE, range=(50, 200)))
    np.testing.assert_array_equal(pixels, np.rint(((NOISE - 50.0) / 150 * 255).clip(0, 255)))


def test_deep_images_are_rounded_once_after_the_resize() -> None:
    deep = np.random.default_rng(3).integers(0, 4096, (40, 60), np.uint16)
    spec = PixelSpec((10, 15), "gray", "stretch", (0, 4095))
    expected = triangle_resize(triangle_resize(deep / 4095 * 255, 15, 1), 10, 0)
    assert np.abs(load_pixels(encoded(deep, "PNG"), spec)[..., 0] - expected).max() <= 0.501


# --- fit --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(6, 9), (5, 31), (24, 40), (12, 7)])
def test_stretch_is_an_antialiased_triangle_filter(size: tuple[int, int]) -> None:
    expected = triangle_resize(triangle_resize(NOISE, size[1], 1), size[0], 0)
    pixels = load_pixels(encoded(NOISE, "PNG"), PixelSpec(size, "rgb", "stretch"))
    assert np.abs(pixels - expected).max() <= 1.5  # one rounding per axis


def test_crop_cuts_the_centre() -> None:
    spec = PixelSpec((12, 12), "rgb", "crop")
    np.testing.assert_array_equal(load_pixels(encoded(NOISE, "PNG"), spec), NOISE[:, 4:16])
    tall = np.ascontiguousarray(NOISE.swapaxes(0, 1))
    np.testing.assert_array_equal(load_pixels(encoded(tall, "PNG"), spec), tall[4:16])
    halved = triangle_resize(triangle_resize(NOISE[:, 4:16], 6, 1), 6, 0)
    pixels = load_pixels(encoded(NOISE, "PNG"), PixelSpec((6, 6), "rgb", "crop"))
    assert np.abs(pixels[1:-1, 1:-1] - halved[1:-1, 1:-1]).max() <= 1.5  # at the cut, outside pixels do not count


def test_pad_adds_black_borders() -> None:
    pixels = load_pixels(encoded(NOISE, "PNG"), PixelSpec((20, 20), "rgb", "pad"))
    np.testing.assert_array_equal(pixels[4:16], NOISE)
    assert not pixels[:4].any()
    assert not pixels[16:].any()
    deep = np.full((4, 8), 4095, np.uint16)
    pixels = load_pixels(encoded(deep, "PNG"), PixelSpec((8, 8), "gray", "pad", (0, 4095)))
    assert pixels[:, 0, 0].tolist() == [0, 0, 255, 255, 255, 255, 0, 0]


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("shape", [(1, 300), (300, 1), (7, 1000), (1, 1)])
def test_every_fit_gives_the_size_for_extreme_shapes(fit: Any, shape: tuple[int, int]) -> None:
    data = encoded(np.full(shape, 77, np.uint8), "PNG")
    assert load_pixels(data, PixelSpec((31, 17), "rgb", fit)).shape == (31, 17, 3)


def test_a_large_jpeg_decoded_at_a_lower_scale_looks_as_if_decoded_in_full() -> None:
    random_colors = np.random.default_rng(4).integers(0, 256, (30, 40, 3), np.uint8)
    photo = Image.fromarray(random_colors).resize((1600, 1200), Image.Resampling.BICUBIC)
    data = encoded(photo, "JPEG", quality=90)
    full = np.asarray(Image.open(io.BytesIO(data))).astype(float)
    expected = triangle_resize(triangle_resize(full, 150, 1), 150, 0)
    gap = np.abs(load_pixels(data, PixelSpec((150, 150), "rgb", "stretch")) - expected)
    assert gap.mean() < 0.6
    assert gap.max() <= 6


# --- identity ---------------------------------------------------------------------------------------


def test_identity_is_that_of_the_upright_picture() -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    turned = np.ascontiguousarray(STORED[6](NOISE))
    same = {
        survey(encoded(NOISE, "PNG"))[0],
        survey(encoded(NOISE, "BMP"))[0],
        survey(encoded(turned, "TIFF", exif=exif))[0],
        decode(encoded(NOISE, "WEBP", lossless=True), PixelSpec((3, 3), "gray", "pad")).identity,
    }
    assert len(same) == 1
    other = NOISE.copy()
    other[-1, -1, -1] ^= 1
    reshaped = NOISE.reshape(20, 12, 3)
    assert len(same | {survey(encoded(array, "PNG"))[0] for array in (other, turned, reshaped)}) == 4


def test_the_same_indices_into_other_palettes_are_other_pictures() -> None:
    image = palette_image()
    first = survey(encoded(image, "PNG"))[0]
    image.putpalette([255, 255, 0, 0, 255, 0, 0, 0, 255])
    assert survey(encoded(image, "PNG"))[0] != first


# --- what is refused --------------------------------------------------------------------------------


def reason_of(source: bytes | Path) -> str:
    with pytest.raises(BadImageError) as caught:
        load_pixels(source, PixelSpec((8, 8), "rgb", "stretch"))
    assert not isinstance(source, Path) or str(source) not in caught.value.message
    return caught.value.message


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_truncated_files_are_refused(kind: str, share: float) -> None:
    picture = np.random.default_rng(5).integers(0, 256, (64, 64, 3), np.uint8)
    data = encoded(picture, kind)
    assert reason_of(data[: int(len(data) * share)])


def test_no_image() -> None:
    assert reason_of(b"") == "the file is empty"
    expected = "not a JPEG, PNG, WebP, BMP, GIF or TIFF image, or its header is damaged"
    for data in (b"\0", b"hello", bytes(1000), b"<svg xmlns='http://www.w3.org/2000/svg'/>"):
        assert reason_of(data) == expected
    assert reason_of(encoded(NOISE, "PPM")) == expected  # Pillow could read it, but it is none of ours


def test_no_file(tmp_path: Path) -> None:
    assert reason_of(tmp_path / "gone.png") == "no such file or directory"
    assert reason_of(tmp_path) == "a folder, not an image"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    assert reason_of(tmp_path / "pipe.png") == "not a regular file"


def test_bombs_are_refused_from_their_header(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = png_of(65536, 65536, 8, 0, zlib.compress(bytes(100)))
    assert reason_of(bomb) == "more than 178 million pixels"
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # as some programs do
    assert reason_of(bomb) == "more than 178 million pixels"


def test_damaged_pixel_data_is_refused_where_asking_for_exif_would_swallow_it() -> None:
    rows = b"".join(b"\0" + bytes([200] * 64) for _ in range(64))
    stream = zlib.compress(rows)
    assert load_pixels(png_of(64, 64, 8, 0, stream), PixelSpec((64, 64), "gray", "stretch")).min() == 200
    damaged = stream[:-4] + bytes(4)  # the checksum
    assert reason_of(png_of(64, 64, 8, 0, damaged)).startswith("damaged: ")
    assert reason_of(png_of(64, 64, 8, 0, stream[:-20])).startswith("damaged: ")


PNG_KINDS = [(8, 2, 24), (8, 6, 32), (1, 0, 1), (4, 3, 4), (16, 0, 16), (8, 4, 16)]


@pytest.mark.parametrize(("bits", "color_type", "bits_per_pixel"), PNG_KINDS)
@pytest.mark.parametrize("value", [0, 255])
@pytest.mark.parametrize("height", [1, 2, 9])
def test_a_png_without_its_last_rows_is_refused(
    bits: int, color_type: int, bits_per_pixel: int, value: int, height: int
) -> None:
    row = b"\0" + bytes([value] * ((13 * bits_per_pixel + 7) // 8))
    spec = PixelSpec((8, 8), "rgb", "stretch")

    def file(rows: int) -> bytes:
        return png_of(13, height, bits, color_type, zlib.compress(row * rows))

    assert load_pixels(file(height), spec).shape == (8, 8, 3)
    for rows in range(1, height):
        assert reason_of(file(rows)) == "damaged: its data end before the last row"


# The passes of a 5×5 picture, written out from PNG 3rd edition, 8.1: columns and rows of each.
@pytest.mark.parametrize("value", [0, 200])
def test_an_interlaced_png_without_its_last_pass_is_refused(value: int) -> None:
    passes = [(1, 1), (1, 1), (2, 1), (1, 2), (3, 1), (2, 3), (5, 2)]
    raw = [(b"\0" + bytes([value] * columns)) * rows for columns, rows in passes]

    def file(number: int) -> bytes:
        return png_of(5, 5, 8, 0, zlib.compress(b"".join(raw[:number])), interlace=1)

    assert (load_pixels(file(7), PixelSpec((5, 5), "gray", "stretch")) == value).all()
    for number in range(1, 7):
        assert reason_of(file(number)).startswith("damaged: ")


def test_a_black_png_of_many_chunks_is_read() -> None:
    black = np.zeros((2000, 700, 3), np.uint8)
    black[:200] = np.random.default_rng(8).integers(0, 256, (200, 700, 3))
    data = encoded(black, "PNG")
    assert data.count(b"IDAT") > 3
    np.testing.assert_array_equal(load_pixels(data, spec_for(black)), black)


def test_not_a_number_is_refused() -> None:
    assert (
        reason_of(encoded(np.array([[0.5, np.nan]], np.float32), "TIFF")) == "holds values that are not finite numbers"
    )


def test_color_tiff_whose_contrast_would_be_lost_is_refused() -> None:
    low = np.random.default_rng(6).integers(0, 4096, (6, 5, 3))
    assert reason_of(tiff_of(low, 2)).startswith("16-bit color TIFF that uses only the low values")
    full = low * 16
    np.testing.assert_array_equal(load_pixels(tiff_of(full, 2), spec_for(full)), full >> 8)


def test_deep_tiff_with_white_as_zero_is_refused() -> None:
    deep = np.arange(12).reshape(3, 4)
    np.testing.assert_array_equal(load_pixels(tiff_of(deep, 1), spec_for(deep, "gray", range=(0, 255)))[..., 0], deep)
    assert reason_of(tiff_of(deep, 0)) == "TIFF with more than 8 bits where 0 is white; save it with 0 as black"


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_random_damage_gives_pixels_or_a_reason(kind: str) -> None:
    draw = random.Random(kind)
    whole = encoded(NOISE, kind)
    spec = PixelSpec((5, 5), "rgb", "crop")
    outcomes = set()
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(draw.randint(1, 8)):
            data[draw.randrange(len(data))] = draw.randrange(256)
        try:
            outcomes.add(load_pixels(bytes(data), spec).shape)
        except BadImageError as error:
            outcomes.add(bool(error.message))
    assert outcomes in ({True, (5, 5, 3)}, {True})


# --- the spec ---------------------------------------------------------------------------------------


def test_a_spec_survives_json() -> None:
    spec = PixelSpec((150, 100), "gray", "pad", (0.0, 4095.0))
    assert PixelSpec.from_dict(json.loads(json.dumps(asdict(spec)))) == spec
    assert spec.channels == 1
    assert PixelSpec((1, 1), "rgb", "crop").channels == 3


@pytest.mark.parametrize("change", [{"color": "grey"}, {"fit": "zoom"}, {"range": [5, 5]}, {"size": [1]}, {"size": 3}])
def test_a_damaged_spec_is_refused(change: dict[str, Any]) -> None:
    values = asdict(PixelSpec((2, 2), "rgb", "crop"))
    with pytest.raises((ValueError, TypeError)):
        PixelSpec.from_dict(values | change)


def test_a_spec_can_be_read_without_numpy_and_pillow() -> None:
    code = "import sys, imgrec_cli.imaging; print(sorted({'numpy', 'PIL', 'pydantic'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
