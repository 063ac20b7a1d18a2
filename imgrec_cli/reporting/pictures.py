"""Images of a run as small JPEGs inside the page: bounded in bytes, without what a camera wrote beside them."""

import base64
import io
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from imgrec_cli.errors import BadImageError
from imgrec_cli.explanation import overlay
from imgrec_cli.imaging import PixelSpec, load_pixels
from imgrec_cli.machine import available_cores
from imgrec_cli.storage import File

if TYPE_CHECKING:
    from PIL.Image import Image

LONGEST_SIDE = 120  # pixels
MOST_BYTES = 3_000_000  # of all pictures, as base64


class Pictures:
    """Hands out pictures as data URLs, as the model sees them, until the page has enough bytes.

    An image that cannot be read, or is one too many, is None. `missing` are the paths of those whose file is gone.
    """

    def __init__(self, files: dict[str, File], spec: PixelSpec, *, wanted: bool) -> None:
        self._files, self._spec, self._wanted = files, spec, wanted
        self._pixels: dict[str, NDArray[np.uint8]] = {}
        self._bytes = 0
        self.missing: list[str] = []

    def read(self, paths: Iterable[str]) -> None:
        """Decode images ahead, on several threads."""
        wanted = [path for path in dict.fromkeys(paths) if path not in self._pixels] if self._wanted else []

        def pixels(path: str) -> NDArray[np.uint8] | None:
            try:
                return load_pixels(self._files[path], self._spec) if path in self._files else None
            except BadImageError:
                return None

        with ThreadPoolExecutor(available_cores()) as pool:
            for path, found in zip(wanted, pool.map(pixels, wanted), strict=True):
                if found is None:
                    self.missing.append(path)
                else:
                    self._pixels[path] = found

    def plain(self, path: str) -> str | None:
        """The image itself."""
        from PIL import Image

        if path not in self._pixels:
            return None
        pixels = self._pixels[path]
        return self._url(Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels))

    def explained(self, path: str, strength: NDArray[np.uint8]) -> str | None:
        """The image with a map uint8 [h, w] over it."""
        if path not in self._pixels:
            return None
        return self._url(overlay(self._pixels[path], np.divide(strength, 255, dtype=np.float32)))

    def sheet(self, file: Path) -> str | None:
        """A picture that the run keeps."""
        from PIL import Image

        if not self._wanted or not file.is_file():
            return None
        with Image.open(file) as picture:
            return self._url(picture.convert("RGB"), longest=1280)

    def _url(self, picture: "Image", longest: int = LONGEST_SIDE) -> str | None:
        from PIL import Image

        scale = longest / max(picture.size)
        if scale < 1 or longest == LONGEST_SIDE:
            size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
            picture = picture.resize(size, Image.Resampling.BOX if scale < 1 else Image.Resampling.NEAREST)
        stream = io.BytesIO()
        picture.save(stream, "JPEG", quality=78)
        url = "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
        if self._bytes + len(url) > MOST_BYTES:
            return None
        self._bytes += len(url)
        return url
