"""Which part of an image speaks for a class: occlusion maps from the bundle alone, and drawing maps over the image."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from imgrec_cli.atomic import replacing
from imgrec_cli.classifier import Classifier, Unreadable
from imgrec_cli.errors import BadImageError
from imgrec_cli.imaging import load_pixels
from imgrec_cli.progress import Advance, Listener, ignore

if TYPE_CHECKING:
    from PIL.Image import Image

CELLS = 7  # places of the patch along each side
LEAST_SHOWN = 320  # pixels: smaller images are enlarged by a whole factor when they are drawn
_STRONGEST = 0.7  # how much of the image the strongest place hides
# Five steps of the colour map "inferno", which keeps its order for colour-blind people and in gray.
_COLORS = np.array([[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]], np.float32)

Pixels = NDArray[np.uint8]
Map = NDArray[np.float32]


def occlusion(classifier: Classifier, pixels: Pixels, label: int) -> Map:
    """How much the logarithm of a class's probability falls where a patch hides the image: float32 [7, 7], 0 to 1.

    `pixels` uint8 [H, W, C] as the classifier sees them, `label` the class's index. The patch is as large as two steps
    and has the image's mean colour (Zeiler and Fergus 2014, section 4.2). All zero where no place matters.
    """
    height, width = pixels.shape[:2]
    hidden = np.repeat(pixels[None], CELLS * CELLS, axis=0)
    mean = pixels.mean(axis=(0, 1))
    for place in range(CELLS * CELLS):
        row, column = divmod(place, CELLS)
        top, bottom = _patch(row, height)
        left, right = _patch(column, width)
        hidden[place, top:bottom, left:right] = mean
    before = classifier.scores(pixels[None])[0, label]
    after = classifier.scores(hidden)[:, label]
    return normalised((np.log(max(before, 1e-12)) - np.log(np.maximum(after, 1e-12))).reshape(CELLS, CELLS))


def _patch(place: int, side: int) -> tuple[int, int]:
    """First and last pixel (not included) of the patch about the middle of one of the places along a side."""
    middle, half = (place + 0.5) * side / CELLS, max(side / CELLS, 0.5)
    return max(0, round(middle - half)), min(side, max(round(middle + half), round(middle - half) + 1))


def normalised(values: NDArray[np.floating]) -> Map:
    """What is positive, with 1 for the largest; all zero where nothing is."""
    positive = np.maximum(values, 0)
    peak = float(positive.max())
    return np.asarray(positive / peak if peak > 0 else positive, np.float32)


def overlay(pixels: Pixels, strength: Map) -> "Image":
    """The image uint8 [H, W, C] with a map float32 [h, w], 0 to 1, drawn over it, as an RGB picture.

    Strong places glow, others show the image in gray. Small images are enlarged by a whole factor.
    """
    from PIL import Image

    height, width, channels = pixels.shape
    factor = max(1, -(-LEAST_SHOWN // max(height, width)))
    picture = Image.fromarray(pixels[..., 0] if channels == 1 else pixels).convert("L").convert("RGB")
    size = (width * factor, height * factor)
    base = np.asarray(picture.resize(size, Image.Resampling.NEAREST), np.float32)
    smooth = np.asarray(Image.fromarray(strength).resize(size, Image.Resampling.BICUBIC)).clip(0, 1)
    steps = np.linspace(0, 1, len(_COLORS))
    colors = np.stack([np.interp(smooth, steps, _COLORS[:, channel]) for channel in range(3)], axis=-1)
    share = (_STRONGEST * smooth)[..., None]
    return Image.fromarray(np.rint(base * (1 - share) + colors * share).astype(np.uint8))


class MapsOfImages(Protocol):
    """What explains from inside the network, where Keras is installed: `training.gradcam.GradCam`."""

    def maps(self, pixels: Pixels, labels: NDArray[np.int64]) -> Map: ...


@dataclass(frozen=True, slots=True)
class Explanation:
    """A picture that was written: of which image, for which class with which probability, by which method."""

    image: Path
    file: Path
    class_name: str
    confidence: float
    method: str


def explain_files(
    classifier: Classifier,
    images: Sequence[Path],
    folder: Path,
    class_name: str | None,
    inside: MapsOfImages | None,
    on_event: Listener = ignore,
) -> list[Explanation | Unreadable]:
    """Write `<name>-explained.png` for every image into `folder`; by occlusion where nothing looks `inside`.

    Images of one name get a number. Explains the answered class where no `class_name` is given.
    """
    folder.mkdir(parents=True, exist_ok=True)
    done: list[Explanation | Unreadable] = []
    taken: set[Path] = set()
    for image in images:
        try:
            pixels = load_pixels(image, classifier.manifest.pixels)
        except BadImageError as error:
            done.append(Unreadable(str(image), error.message))
            continue
        scores = classifier.scores(pixels[None])
        label = int(classifier.decided(scores)[0]) if class_name is None else classifier.class_names.index(class_name)
        strength = inside.maps(pixels[None], np.array([label]))[0] if inside else occlusion(classifier, pixels, label)
        names = (f"{image.stem}-explained{number}.png" for number in ("", *range(2, len(images) + 2)))
        file = next(folder / name for name in names if folder / name not in taken)
        taken.add(file)
        with replacing(file) as stream:
            overlay(pixels, strength).save(stream, "PNG")
        method = "Grad-CAM" if inside else "occlusion"
        done.append(Explanation(image, file, classifier.class_names[label], float(scores[0, label]), method))
        on_event(Advance("explaining", len(done), len(images)))
    return done
