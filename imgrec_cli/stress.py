"""Labelled images under disturbance: nine kinds at five strengths, and what is left of the accuracy."""

import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from imgrec_cli.classifier import Classifier
from imgrec_cli.errors import BadImageError, DataError
from imgrec_cli.evaluation import LabelledImage
from imgrec_cli.imaging import PixelSpec, load_pixels, upright_size
from imgrec_cli.machine import available_cores
from imgrec_cli.progress import Advance, Listener, ignore

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_IMAGES = 500
LARGEST_SIDE = 2000  # pixels of an image that is resized by another kernel

# The five strengths of each kind; docs/stress.md says what they mean.
NOISE = (0.02, 0.05, 0.1, 0.15, 0.25)  # standard deviation, of the 0 to 1 range
BLUR = (0.003, 0.006, 0.012, 0.02, 0.035)  # standard deviation, of the longer side
LEAST_BLUR = 0.4  # pixels, times the strength: in small images a share of the side is less than a pixel
JPEG_QUALITY = (80, 50, 30, 15, 5)
BRIGHTNESS = (1.1, 1.25, 1.5, 1.75, 2.0)  # factor, or its inverse
CONTRAST = (0.85, 0.7, 0.5, 0.35, 0.2)  # factor
ROTATION = (5.0, 10.0, 20.0, 30.0, 45.0)  # degrees to either side
SCALE = (1.05, 1.1, 1.25, 1.5, 2.0)  # factor, or its inverse
KERNELS = ("LANCZOS", "BICUBIC", "HAMMING", "BOX", "NEAREST")  # in place of the bilinear one
ORIENTATIONS = (2, 3, 4, 6, 8)  # of EXIF, not applied

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Stress:
    """Accuracy of `images` images undisturbed, and by kind at each of the five strengths."""

    split: str
    images: int
    accuracy: float
    kinds: dict[str, list[float]]

    def as_dict(self) -> dict[str, Any]:
        """The figures as plain values for JSON; a drop is the accuracy lost, in shares of 1."""
        return {
            "split": self.split,
            "images": self.images,
            "accuracy": self.accuracy,
            "kinds": [
                {
                    "name": name,
                    "levels": [{"accuracy": value, "drop": self.accuracy - value} for value in values],
                    "mean_drop": self.accuracy - sum(values) / len(values),
                }
                for name, values in self.kinds.items()
            ],
        }


def _picture(pixels: Pixels) -> "Image":
    from PIL import Image

    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def _pixels(picture: "Image", like: Pixels) -> Pixels:
    return np.asarray(picture).reshape(like.shape)


def _clipped(values: NDArray[np.floating]) -> Pixels:
    return np.asarray(np.rint(values).clip(0, 255), np.uint8)


def noise(pixels: Pixels, level: int, index: int) -> Pixels:
    """Gaussian noise on every value."""
    random = np.random.Generator(np.random.Philox(key=[index, level]))
    return _clipped(pixels + random.normal(0, 255 * NOISE[level], pixels.shape))


def blur(pixels: Pixels, level: int, index: int) -> Pixels:
    """Gaussian blur."""
    from PIL import ImageFilter

    radius = max(LEAST_BLUR * (level + 1), BLUR[level] * max(pixels.shape[:2]))
    return _pixels(_picture(pixels).filter(ImageFilter.GaussianBlur(radius)), pixels)


def jpeg(pixels: Pixels, level: int, index: int) -> Pixels:
    """Saved as JPEG of a low quality and read again."""
    from PIL import Image

    stream = io.BytesIO()
    _picture(pixels).save(stream, "JPEG", quality=JPEG_QUALITY[level])
    with Image.open(stream) as picture:
        return _pixels(picture, pixels)


def brightness(pixels: Pixels, level: int, index: int) -> Pixels:
    """Brighter by a factor, every second image darker."""
    factor = BRIGHTNESS[level] if index % 2 else 1 / BRIGHTNESS[level]
    return _clipped(pixels.astype(np.float32) * factor)


def contrast(pixels: Pixels, level: int, index: int) -> Pixels:
    """All values nearer to the image's mean."""
    mean = pixels.mean()
    return _clipped(mean + CONTRAST[level] * (pixels - mean))


def rotation(pixels: Pixels, level: int, index: int) -> Pixels:
    """Turned about the centre, to the left and to the right by turns; the corners repeat the edge."""
    return _warped(pixels, ROTATION[level] * (1 if index % 2 else -1), 1.0)


def scale(pixels: Pixels, level: int, index: int) -> Pixels:
    """Enlarged, every second image made smaller; the border repeats the edge."""
    return _warped(pixels, 0.0, SCALE[level] if index % 2 else 1 / SCALE[level])


def _warped(pixels: Pixels, degrees: float, factor: float) -> Pixels:
    from PIL import Image

    height, width = pixels.shape[:2]
    border = max(height, width) // 2 + 1
    padded = _picture(np.pad(pixels, ((border, border), (border, border), (0, 0)), mode="edge"))
    cosine, sine = np.cos(np.radians(degrees)) / factor, np.sin(np.radians(degrees)) / factor
    middle_x, middle_y = width / 2, height / 2
    # from a place in the result to one in the padded picture, whose first pixel reaches from 0 to 1
    start_x = border + middle_x - cosine * middle_x - sine * middle_y
    start_y = border + middle_y + sine * middle_x - cosine * middle_y
    matrix = (cosine, sine, start_x, -sine, cosine, start_y)
    warped = padded.transform((width, height), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)
    return _pixels(warped, pixels)


def orientation(pixels: Pixels, level: int, index: int) -> Pixels:
    """As the camera stored it, had the photograph this EXIF orientation and a reader that ignores it."""
    turned = {
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        6: np.rot90(pixels, 1),
        8: np.rot90(pixels, -1),
    }[ORIENTATIONS[level]]
    height, width = pixels.shape[:2]
    return _pixels(_picture(np.ascontiguousarray(turned)).resize((width, height)), pixels)


CHANGES: dict[str, Callable[[Pixels, int, int], Pixels]] = {
    "noise": noise,
    "blur": blur,
    "JPEG": jpeg,
    "brightness": brightness,
    "contrast": contrast,
    "rotation": rotation,
    "scale": scale,
    "EXIF orientation": orientation,
}
RESAMPLING = "resampling"


def resampled(image: LabelledImage, spec: PixelSpec, level: int) -> Pixels:
    """The file's pixels uint8 [H, W, C] as another resampling kernel makes them. Raises BadImageError."""
    from PIL import Image, ImageOps

    height, width = upright_size(image.file)
    shrunk = min(1.0, LARGEST_SIDE / max(height, width))
    whole_size = (max(1, round(height * shrunk)), max(1, round(width * shrunk)))
    whole = _picture(load_pixels(image.file, PixelSpec(whole_size, spec.color, "stretch", spec.range)))
    kernel = Image.Resampling[KERNELS[level]]
    size = spec.size[::-1]
    if spec.fit == "crop":
        fitted = ImageOps.fit(whole, size, kernel)
    elif spec.fit == "pad":
        fitted = ImageOps.pad(whole, size, kernel)
    else:
        fitted = whole.resize(size, kernel)
    return np.asarray(fitted).reshape(*spec.size, spec.channels)


def stress(classifier: Classifier, images: Sequence[LabelledImage], split: str, on_event: Listener = ignore) -> Stress:
    """Accuracy under every disturbance, on at most 500 of the images, spread evenly over them.

    Geometry and light are changed on the pixels as the model sees them, resampling on the whole file. Files that
    cannot be read are left out. Raises DataError where none can be.
    """
    places = np.unique(np.linspace(0, len(images) - 1, min(MOST_IMAGES, len(images))).astype(int))
    spec = classifier.manifest.pixels
    total, done = 5 * (len(CHANGES) + 1), 0

    with ThreadPoolExecutor(available_cores()) as pool:

        def read(image: LabelledImage) -> Pixels | None:
            try:
                return load_pixels(image.file, spec)
            except BadImageError:
                return None

        chosen = [images[place] for place in places]
        found = [
            (image, pixels) for image, pixels in zip(chosen, pool.map(read, chosen), strict=True) if pixels is not None
        ]
        if not found:
            raise DataError(f"none of the {len(chosen)} images of {split} can be read")
        labels = np.array([image.label for image, _ in found])

        def accuracy(pixels: list[Pixels]) -> float:
            return float((classifier.decided(classifier.scores(np.stack(pixels))) == labels).mean())

        undisturbed = accuracy([pixels for _, pixels in found])
        kinds: dict[str, list[float]] = {}
        for name in (*CHANGES, RESAMPLING):
            for level in range(5):
                if name == RESAMPLING:
                    changed = list(pool.map(lambda pair, level=level: resampled(pair[0], spec, level), found))
                else:
                    change = CHANGES[name]
                    changed = [change(pixels, level, index) for index, (_, pixels) in enumerate(found)]
                kinds.setdefault(name, []).append(accuracy(changed))
                done += 1
                on_event(Advance("disturbing", done, total))
    return Stress(split, len(found), undisturbed, kinds)
