"""A cache of its own for every test, small picture files, and data sets of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from imgrec_cli.config.images import Data, Image
from imgrec_cli.dataset import Dataset, load_dataset, pack
from imgrec_cli.imaging import PixelSpec
from imgrec_cli.progress import Event, Note

MakeImage = Callable[..., Path]
SMALL = Image(size=(6, 5))


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("IMGREC_CACHE", str(folder))
    return folder


@pytest.fixture
def tree(tmp_path: Path) -> Callable[..., Path]:
    """Writes empty files: scanning opens none of them."""

    def write(*names: str) -> Path:
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return tmp_path

    return write


@pytest.fixture
def make_image(tmp_path: Path) -> MakeImage:
    """make_image("cat/1.png") writes a picture of noise below tmp_path, another one for every `seed` or name."""

    def make(name: str, seed: int | None = None, size: tuple[int, int] = (9, 7), deep: int = 0) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        random = np.random.default_rng(list(name.encode()) if seed is None else seed)
        if deep:
            pixels = random.integers(0, deep + 1, size, np.uint16)
            pixels[0, 0] = deep
        else:
            pixels = random.integers(0, 256, (*size, 3), np.uint8)
        Pillow.fromarray(pixels).save(path)
        return path

    return make


@pytest.fixture
def folder(tmp_path: Path, make_image: MakeImage) -> Path:
    """Twenty cats and twenty dogs."""
    for name in ("cat", "dog"):
        for index in range(20):
            make_image(f"data/{name}/{index}.png")
    return tmp_path / "data"


@pytest.fixture
def load() -> Callable[..., tuple[Dataset, list[Event]]]:
    """load(folder, image, seed, **data) gives the data set of a folder, and what was told on the way."""

    def loaded(folder: Path, image: Image | None = None, seed: int = 0, **data: Any) -> Any:
        events: list[Event] = []
        return load_dataset(Data(folder=str(folder), **data), image or SMALL, seed, events.append), events

    return loaded


@pytest.fixture
def packed_anew() -> Callable[[list[Event]], bool]:
    """Whether what was told says that a pack was made."""
    return lambda events: any(isinstance(event, Note) and event.text.startswith("packing ") for event in events)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[PixelSpec]:
    """Grows by one for every decoding."""
    calls: list[PixelSpec] = []
    real = pack.decode

    def counting(source: Any, spec: PixelSpec) -> Any:
        calls.append(spec)
        return real(source, spec)

    monkeypatch.setattr(pack, "decode", counting)
    return calls
