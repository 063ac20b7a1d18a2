"""A cache of its own for every test, and small picture files."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

MakeImage = Callable[..., Path]


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
        Image.fromarray(pixels).save(path)
        return path

    return make
