"""What is hostile or broken costs a bounded time and memory, and one clear line; the campaigns run more of the same."""

import io
import struct
import sys
import zlib
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imgrec_cli.config import load_config, parse_config
from imgrec_cli.errors import BadImageError, ConfigError
from imgrec_cli.imaging import PixelSpec, load_pixels, survey

RGB = PixelSpec((8, 8), "rgb", "stretch")

# Pillow warns above half of its own limit
pytestmark = pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")


@pytest.fixture(scope="module")
def fuzz(root):
    spec = spec_from_file_location("fuzz", root / "tests" / "campaigns" / "fuzz.py")
    module = module_from_spec(spec)
    sys.modules["fuzz"] = module
    spec.loader.exec_module(module)
    return module


def test_mutated_configs_are_read_or_refused(fuzz):
    outcomes = [fuzz.config_case(1, number) for number in range(60)]
    assert set(outcomes) == {"read", "refused"}


@pytest.mark.filterwarnings("ignore")  # Pillow warns of odd files
def test_mutated_images_are_read_or_refused(fuzz):
    outcomes = [fuzz.image_case(1, number) for number in range(300)]
    assert set(outcomes) == {"read", "refused"}


def png(width: int, height: int, depth: int, color: int) -> bytes:
    """A PNG of a few bytes that claims any size."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("width", "height", "depth", "color", "message"),
    [
        (65536, 65536, 8, 2, "more than 178 million pixels"),
        (100_000, 100_000, 8, 0, "more than 178 million pixels"),
        (12_000, 12_000, 8, 2, "more than 112 million pixels of mode RGB"),
        (12_000, 12_000, 8, 6, "more than 75 million pixels of mode RGBA"),
        (12_000, 12_000, 16, 0, "more than 75 million pixels of mode I;16"),
        (2**31 - 1, 2**31 - 1, 16, 6, "more than 178 million pixels"),
    ],
)
def test_pictures_that_claim_too_much_are_refused_by_their_header(width, height, depth, color, message):
    with pytest.raises(BadImageError) as caught:
        load_pixels(png(width, height, depth, color), RGB)
    assert caught.value.message == message


@pytest.mark.parametrize("size", [(100_000, 1), (1, 100_000), (100_000, 40)])
def test_a_picture_of_an_odd_shape_is_read(size):
    stream = io.BytesIO()
    Image.new("L", size, 77).save(stream, "PNG")
    assert (load_pixels(stream.getvalue(), RGB) == 77).all()
    survey(stream.getvalue())


def test_a_large_jpeg_is_read_where_its_detail_need_not_be():
    stream = io.BytesIO()
    Image.new("RGB", (11_000, 10_900), "white").save(stream, "JPEG", quality=10)
    assert load_pixels(stream.getvalue(), RGB).min() > 250
    with pytest.raises(BadImageError, match="more than 112 million pixels of mode RGB"):
        survey(stream.getvalue())


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "{a: " * 40_000,
        "- " * 90_000,
        "a: &a [x, x]\n" + "".join(f"b{i}: &b{i} [*a, *a]\n" for i in range(1000)),
        "".join(f"key{i}: 1\n" for i in range(5_000)),
        "a: 1\n" * 5_000,
        "!" * 100_000,
        "model: {type: layers, layers: [" + "{type: con}," * 3_000 + "]}\n",
    ],
    ids=["brackets", "braces", "dashes", "aliases", "keys", "one key", "tags", "layers"],
)
def test_yaml_bombs_are_told_in_a_few_lines(text):
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "bomb.yaml", Path())
    lines = caught.value.message.splitlines()
    assert len(lines) <= 51
    assert all(line.startswith(("bomb.yaml:", "and ")) for line in lines)
    assert max(map(len, lines)) < 1000


def test_a_config_without_end_is_not_read_to_the_end(tmp_path):
    zero = Path("/dev/zero")
    if not zero.exists():
        pytest.skip("needs /dev/zero")
    with pytest.raises(ConfigError, match="is larger than 200 kB, so it is no config"):
        load_config(zero)


@pytest.mark.parametrize("name", ["model.keras", "weights.pt", "saved_model.pb"])
def test_weights_that_can_carry_code_are_not_loaded(tmp_path, name):
    from imgrec_cli.config import check_weights

    (tmp_path / name).write_bytes(b"PK")
    text = f"data: {{folder: x}}\nimage: {{size: [32, 32]}}\nmodel: {{type: backbone, name: resnet50, weights: {name}}}"
    with pytest.raises(ConfigError, match=r"not a \.h5 file") as caught:
        check_weights(parse_config(text, "c.yaml", tmp_path))
    assert "can carry code" in caught.value.hint


def test_standard_error_belongs_to_imgrec_alone(root, tmp_path):
    """libtiff writes lines of its own for a damaged file; the user sees the one that names it."""
    import subprocess

    stream = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    Image.fromarray(noise).save(stream, "TIFF", compression="tiff_deflate")
    content = bytearray(stream.getvalue())
    content[200:260] = bytes(60)
    (tmp_path / "bad.tif").write_bytes(content)
    bundle = root / "tests" / "fixtures" / "bundle-1"
    done = subprocess.run(
        [sys.executable, "-m", "imgrec_cli", "predict", "-m", str(bundle), str(tmp_path / "bad.tif")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 3
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"not read: {tmp_path / 'bad.tif'}: damaged: ")
