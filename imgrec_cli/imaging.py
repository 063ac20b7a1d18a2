"""File or bytes → uint8 pixels [height, width, channels]: the one place where formats, colors and depths are settled.

Training, evaluation and prediction all read through this module, so they cannot differ. What it decides:

- The first picture of a JPEG, PNG, WebP, BMP, GIF or TIFF file, and of a HEIC file where the extra `heic` is installed,
  turned upright by its EXIF orientation.
- Palettes are looked up, CMYK and YCbCr become RGB by Pillow's formulas (no color management), transparency is laid
  over white, gray becomes RGB by repetition and RGB becomes gray by ITU-R BT.601.
- Gray images with more than 8 bits (16-bit, 32-bit integer, floating point) are *deep*: `PixelSpec.range` says which
  raw values are black and white; between them the scale is linear, outside it is clipped. Of color with 16 bits per
  channel the high byte is read.
- A picture that is damaged is refused; no pixel is ever invented.
"""

import io
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from imgrec_cli import storage
from imgrec_cli.errors import BadImageError, install_command
from imgrec_cli.storage import File

# numpy and Pillow are imported where they are used: reading a bundle's manifest needs PixelSpec and neither of them.
if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

# Pillow's name of each format that is read, and the endings of its files; it may call a JPEG of several pictures MPO.
SUFFIXES_OF = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "HEIF": (".heic", ".heif"),
}
FORMATS = tuple(name for name in SUFFIXES_OF if name != "HEIF")
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")  # ISO/IEC 23008-12, annex B
MAX_PIXELS = 178_956_970  # where Pillow's own guard against decompression bombs raises
MAX_BYTES = 900_000_000  # of memory that one picture may take on its way to pixels
# What a picture takes at most per pixel, turned and with transparency: measured with Pillow 13 on 100 million pixels.
_BYTES_PER_PIXEL = {"1": 4, "L": 7, "P": 9, "LA": 10, "RGB": 8, "YCbCr": 8, "RGBA": 12, "CMYK": 12, "I;16": 12}
_OTHER_BYTES_PER_PIXEL = 16  # 32 bits per value, and every WebP
DEEP_MODES = ("I;16", "I;16L", "I;16B", "I", "F")

# A picture above this size takes gigabytes on its way to pixels: such pictures are decoded one at a time.
_LARGE_PIXELS = 25_000_000
_one_large_picture = threading.Lock()

_BITS_PER_SAMPLE = 258  # TIFF 6.0, section 8
_PHOTOMETRIC = 262
_WHITE_IS_ZERO = 0
_ORIENTATION = 0x0112  # Exif 2.32, section 4.6.4
_INFLATED_BYTES = 1 << 20  # at once
_STRIP_PIXELS = 30_000  # below the 128 kB above which malloc asks the system
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by color type: PNG 3rd edition, 11.2.1
# First column and row of each pass, and the steps to the next: PNG 3rd edition, 8.1.
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


@dataclass(frozen=True, slots=True)
class PixelSpec:
    """What a model sees of a file: stored in every bundle, as `dataclasses.asdict` in JSON.

    `size` is (height, width). `range` are the raw values shown as 0 and 255; with a high end above 255 it speaks of
    deep images only, and 8-bit images keep their values.
    """

    size: tuple[int, int]
    color: Literal["rgb", "gray"]
    fit: Literal["stretch", "crop", "pad"]
    range: tuple[float, float] = (0, 255)

    @property
    def channels(self) -> int:
        return 3 if self.color == "rgb" else 1

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "PixelSpec":
        """The inverse of `dataclasses.asdict`, also after JSON. Raises KeyError, TypeError or ValueError."""
        (height, width), (low, high) = values["size"], values["range"]
        if values["color"] not in ("rgb", "gray") or values["fit"] not in ("stretch", "crop", "pad") or not low < high:
            raise ValueError(f"not a description of pixels: {values}")
        return cls((int(height), int(width)), values["color"], values["fit"], (low, high))


@dataclass(frozen=True, slots=True)
class Form:
    """What a file's header says: Pillow's names of format and mode, height and width in pixels as stored."""

    format: str
    mode: str
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class Decoded:
    """One file, decoded once.

    `pixels` are uint8 [height, width, channels]. `identity` (16 bytes) is equal for two files whose upright pictures
    are equal pixel by pixel before resizing. `largest` is the largest raw value of a deep image (a float for floating
    point), None for others.
    """

    pixels: "NDArray[np.uint8]"
    identity: bytes
    largest: int | float | None
    form: Form


def load_pixels(source: File | bytes | BinaryIO, spec: PixelSpec, max_pixels: int = MAX_PIXELS) -> "NDArray[np.uint8]":
    """Pixels uint8 [height, width, channels], 0 to 255, of an image file or its bytes.

    Raises BadImageError, with the reason and without the file's name, for everything that is no intact picture, and
    for a picture of more than `max_pixels`, of which nothing is decoded.
    """
    with _opened(source, spec, max_pixels) as (image, _):
        return _pixels(_upright(image), spec)


def decode(source: File | bytes | BinaryIO, spec: PixelSpec) -> Decoded:
    """What `load_pixels` gives, and what splitting and the choice of a range need to know, from one decoding."""
    with _opened(source, spec) as (image, form):
        picture = _upright(image)
        return Decoded(_pixels(picture, spec), _identity(picture), _largest(picture), form)


def survey(source: File | bytes | BinaryIO) -> tuple[bytes, int | float | None, Form]:
    """`identity`, `largest` and `form` of `decode`, for when the range is not known yet. Raises BadImageError."""
    with _opened(source, None) as (image, form):
        picture = _upright(image)
        return _identity(picture), _largest(picture), form


def thumbnail(source: File, side: int) -> bytes:
    """A WebP file of the upright picture, at most `side` pixels high and wide, without any metadata.

    A deep image is shown from its smallest to its largest value. Raises BadImageError.
    """
    import numpy as np
    from PIL import Image

    with _opened(source, PixelSpec((side, side), "rgb", "stretch")) as (image, _):
        picture = _upright(image)
        if isinstance(picture, _Deep):
            low, high = float(picture.values.min()), float(picture.values.max())
            values = (picture.values.astype(np.float32) - low) * (255 / max(high - low, 1e-9))
            picture = Image.fromarray(np.where(picture.white, 255, values.clip(0, 255)).astype(np.uint8))
        small = picture.convert("RGB")
        small.thumbnail((side, side), Image.Resampling.BILINEAR)
        stream = io.BytesIO()
        small.save(stream, "WEBP", quality=80)
        return stream.getvalue()


def header(source: File | bytes | BinaryIO) -> tuple[tuple[int, int], bool, bool]:
    """(height, width) as stored, whether the picture is gray, and whether it has more than 8 bits; no pixel is decoded.

    Raises BadImageError.
    """
    with _opened(source, None) as (image, _):
        deep = image.mode in DEEP_MODES
        return (image.height, image.width), deep or image.mode in ("1", "L", "LA"), deep


def upright_size(source: File) -> tuple[int, int]:
    """(height, width) of the picture as `load_pixels` turns it; it is decoded for that. Raises BadImageError."""
    with _opened(source, None) as (image, form):
        image.load()  # the EXIF block of a PNG may stand behind its pixels
        return (form.width, form.height) if _orientation(image) >= 5 else (form.height, form.width)


def open_file(file: File) -> BinaryIO:
    """An image file opened for reading. Raises BadImageError where there is none, or a folder, a pipe or a device;
    UnreachableError and DataError where it lies behind a URL that cannot be read."""
    try:
        return storage.open_file(file)
    except (OSError, ValueError) as error:
        raise BadImageError(_reason(error)) from error


@contextmanager
def _opened(
    source: File | bytes | BinaryIO, spec: PixelSpec | None, max_pixels: int = MAX_PIXELS
) -> Iterator[tuple["Image.Image", Form]]:
    """The image behind `source`, header checked, not yet decoded; all failures in the block become BadImageErrors."""
    from PIL import Image

    if isinstance(source, Path | str):
        source = open_file(source)
    stream = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        with stream:
            head = stream.read(12)
            if not head:
                raise BadImageError("the file is empty")
            formats = FORMATS
            if head[4:8] == b"ftyp" and head[8:] in _HEIF_BRANDS:
                formats = _heif()
            image = Image.open(stream, formats=formats)
            pixels = image.width * image.height
            if pixels > MAX_PIXELS:  # again, because a program may have switched Pillow's guard off
                raise Image.DecompressionBombError
            if pixels > max_pixels:
                raise BadImageError(f"{image.width}×{image.height}: more than {max_pixels / 1e6:g} million pixels")
            if not pixels:
                raise BadImageError("the picture has no pixels")
            form = Form(image.format or "", image.mode, image.height, image.width)
            if spec is not None:
                _draft(image, spec)
            kind = "WebP" if image.format == "WEBP" else f"mode {image.mode}"
            most = MAX_BYTES // _BYTES_PER_PIXEL.get("" if kind == "WebP" else image.mode, _OTHER_BYTES_PER_PIXEL)
            if image.width * image.height > most:
                raise BadImageError(f"more than {most // 1_000_000} million pixels of {kind}")
            with _one_large_picture if image.width * image.height > _LARGE_PIXELS else nullcontext():
                yield image, form
    except BadImageError:
        raise
    except Exception as error:  # Pillow's decoders raise nearly everything: struct.error, RecursionError, KeyError, …
        raise BadImageError(_reason(error)) from error


def _heif() -> tuple[str, ...]:
    """The format of phones' photos, which a package of its own reads for Pillow.

    Raises BadImageError where the package that can is not installed."""
    try:
        import pillow_heif
    except ImportError:
        raise BadImageError(f"a HEIC photo, and pillow-heif is not installed ({install_command('heic')})") from None
    pillow_heif.register_heif_opener()
    return ("HEIF",)


def _reason(error: Exception) -> str:
    from PIL import Image, UnidentifiedImageError

    match error:
        case UnidentifiedImageError():
            return "not a JPEG, PNG, WebP, BMP, GIF or TIFF image, or its header is damaged"
        case Image.DecompressionBombError():
            return f"more than {MAX_PIXELS // 1_000_000} million pixels"
        case MemoryError():
            return "too large for the memory of this machine"
        case OSError(strerror=str(text)):
            return text[:1].lower() + text[1:]
    return f"damaged: {str(error) or type(error).__name__}"


def _draft(image: "Image.Image", spec: PixelSpec) -> None:
    """Let the JPEG decoder skip detail that no pixel will show; other formats are left as they are.

    It may halve the picture only while at least twice the wanted size is left in both directions, so that the
    antialiased resize still averages two or more pixels: the result moves by about one gray level, and a large
    photograph decodes several times faster.
    """
    if image.format not in ("JPEG", "MPO"):  # asking a PNG for its EXIF block before `load` would hide damaged pixels
        return
    height, width = spec.size
    if _orientation(image) >= 5:  # lies on its side
        height, width = width, height
    image.draft(None, (2 * width, 2 * height))


def _orientation(image: "Image.Image") -> int:
    """EXIF orientation, 1 to 8; 1 where there is none or the EXIF block is damaged, which is no fault of the pixels."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:
        return 1
    return value if value in range(1, 9) else 1


@dataclass(frozen=True, slots=True)
class _Deep:
    """Raw gray values [height, width], upright; `white` marks the transparent ones, whose raw value means nothing."""

    values: "NDArray[np.uint16] | NDArray[np.int32] | NDArray[np.float32]"
    white: "NDArray[np.bool_]"


def _upright(image: "Image.Image") -> "Image.Image | _Deep":
    """Decode: an upright picture of mode L or RGB without transparency, or the raw values of a deep one."""
    import numpy as np
    from PIL import Image

    stream: Any = getattr(image, "fp", None)  # `load` forgets it
    image.load()
    if image.format == "PNG":
        _refuse_short_png(image, stream)
    _refuse_misread_tiff(image)
    transparent = image.info.get("transparency")
    turn = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }.get(_orientation(image))  # Pillow has turned TIFF itself, and its orientation reads 1 by now
    if turn is not None:
        image = image.transpose(turn)
    if image.mode in DEEP_MODES:
        values = np.asarray(image)
        values = values.astype(values.dtype.newbyteorder("="), copy=False)
        if not np.isfinite(values).all():
            raise BadImageError("holds values that are not finite numbers")
        return _Deep(values, np.zeros(values.shape, bool) if transparent is None else values == transparent)
    if image.has_transparency_data:
        wanted = "LA" if image.mode in ("1", "L", "LA", "La") else "RGBA"
        see_through = image if image.mode == wanted else image.convert(wanted)
        image = Image.new(see_through.mode[:-1], see_through.size, "white")
        image.paste(see_through, mask=see_through)
    return image if image.mode in ("L", "RGB") else image.convert("L" if image.mode == "1" else "RGB")


def _refuse_short_png(image: "Image.Image", stream: BinaryIO) -> None:
    """Raise BadImageError for a PNG whose compressed data ends in good order before the last row.

    Pillow leaves the missing rows at zero. Only a picture whose last pixel is zero can lack some: its data are counted.
    """
    last: Any = image.getpixel((image.width - 1, image.height - 1))
    interlaced = "interlace" in image.info  # its missing rows lie between the others
    if not interlaced and (any(last) if isinstance(last, tuple) else last):
        return
    stream.seek(16)  # behind the signature and the head of the first chunk
    width, height, bits, color_type = struct.unpack(">IIBB", stream.read(10))
    bits *= _PNG_CHANNELS[color_type]
    missing = 0
    for left, top, step_x, step_y in _ADAM7 if interlaced else ((0, 0, 1, 1),):
        columns, rows = -((left - width) // step_x), -((top - height) // step_y)
        missing += rows * (1 + (columns * bits + 7) // 8) if columns else 0  # a filter byte before each row
    inflate = zlib.decompressobj()
    place = 33
    while missing > 0:
        stream.seek(place)
        head = stream.read(8)
        if len(head) < 8:
            raise BadImageError("damaged: its data end before the last row")
        length, name = struct.unpack(">I4s", head)
        place += 12 + length
        data = stream.read(length) if name == b"IDAT" else b""
        while data and missing > 0:
            missing -= len(inflate.decompress(data, _INFLATED_BYTES))
            data = inflate.unconsumed_tail


def _refuse_misread_tiff(image: "Image.Image") -> None:
    """Raise BadImageError for TIFF files that Pillow decodes without an error and yet not right."""
    tags: Any = getattr(image, "tag_v2", {})
    if max(tags.get(_BITS_PER_SAMPLE, (8,))) <= 8:
        return
    if image.mode in DEEP_MODES:
        if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
            raise BadImageError("TIFF with more than 8 bits where 0 is white; save it with 0 as black")
        return
    extremes: Any = image.convert("RGB").getextrema()
    if max(high for _, high in extremes) < 128:
        # Only the high byte is read: almost black where samples use 12 of the 16 bits. PNG needs no such check, as its
        # samples fill the range by definition (PNG 3rd edition, 12.4).
        raise BadImageError("16-bit color TIFF that uses only the low values; scale it to 8 bits per channel")


def _identity(picture: "Image.Image | _Deep") -> bytes:
    """XXH3, 128 bits: nobody gains by two pictures taken for one, and BLAKE2b would be a quarter of all packing."""
    from xxhash import xxh3_128

    if isinstance(picture, _Deep):
        digest = xxh3_128(f"{picture.values.dtype} {picture.values.shape} ".encode())
        digest.update(picture.values.data if picture.values.flags.c_contiguous else picture.values.tobytes())
        digest.update(picture.white.tobytes())
        return digest.digest()
    digest = xxh3_128(f"{picture.mode} {picture.size} ".encode())
    # In strips that stay in the processor's cache: memory for a whole picture comes anew from the system each time.
    rows = max(1, _STRIP_PIXELS // picture.width)
    for top in range(0, picture.height, rows):
        strip = picture.crop((0, top, picture.width, min(top + rows, picture.height)))
        digest.update(strip.tobytes())
    return digest.digest()


def _largest(picture: "Image.Image | _Deep") -> int | float | None:
    if not isinstance(picture, _Deep):
        return None
    shown = picture.values[~picture.white]
    largest: int | float = shown.max().item() if shown.size else 0
    return largest


def _pixels(picture: "Image.Image | _Deep", spec: PixelSpec) -> "NDArray[np.uint8]":
    import numpy as np
    from PIL import Image

    low, high = spec.range
    if isinstance(picture, _Deep):
        gray = picture.values.astype(np.float32)  # then changed in place: it is the largest part of the memory
        gray -= np.float32(low)
        gray *= np.float32(255 / (high - low))
        gray[picture.white] = 255
        gray.clip(0, 255, out=gray)
        # The resize works on floating point: rounding comes once, at the end.
        image = _fitted(Image.fromarray(gray), spec)
        pixels = np.rint(np.asarray(image)).astype(np.uint8)
        return np.repeat(pixels[..., None], spec.channels, axis=2)
    if high <= 255 and (low, high) != (0, 255):
        scale = [round(min(max((value - low) * 255 / (high - low), 0), 255)) for value in range(256)]
        picture = picture.point(scale * len(picture.getbands()))
    if spec.color == "gray":
        picture = picture.convert("L")
    picture = _fitted(picture, spec)
    if spec.color == "rgb":
        picture = picture.convert("RGB")
    return np.asarray(picture).reshape(*spec.size, spec.channels)


def _fitted(image: "Image.Image", spec: PixelSpec) -> "Image.Image":
    """Resized by an antialiased triangle filter over all pixels covered; a picture that fits already is not touched."""
    from PIL import Image

    height, width = spec.size
    if image.size == (width, height):
        return image
    if spec.fit == "pad":
        scale = min(width / image.width, height / image.height)
        inner = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        if inner != image.size:
            image = image.resize(inner, Image.Resampling.BILINEAR)
        padded = Image.new(image.mode, (width, height))
        padded.paste(image, ((width - inner[0]) // 2, (height - inner[1]) // 2))
        return padded
    box = None
    if spec.fit == "crop":
        scale = min(image.width / width, image.height / height)
        # Whole numbers at the left and top: where the scale is 1 the cut pixels stay as they are.
        left, top = int((image.width - width * scale) / 2), int((image.height - height * scale) / 2)
        box = (left, top, min(left + width * scale, image.width), min(top + height * scale, image.height))
    return image.resize((width, height), Image.Resampling.BILINEAR, box)
