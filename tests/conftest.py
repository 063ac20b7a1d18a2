"""What several tests share: a cache of their own, a tiny data set that is drawn, and a run trained on it once."""

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

ROOT = Path(__file__).parents[1]
SHAPES = ("circle", "cross", "square")
TINY_CONFIG = """\
version: 1
data: {folder: shapes}
image: {size: [16, 16], color: gray}
model:
  type: layers
  layers:
    - {type: conv, filters: 4, activation: relu}
    - {type: pool}
    - {type: flatten}
train: {batch_size: 8, epochs: 2}
"""


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Packs go to a temporary folder, also those of processes that a test starts; never to the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("IMGREC_CACHE", str(folder))
        yield folder


# Python loads a module of this name by itself at start; an audit hook sees every socket of Python code in the process,
# and also writes down attempts whose error somebody swallows.
GUARD = """\
import os, sys

def refuse(event, arguments):
    if event in {"socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.gethostbyname"}:
        with open(os.environ["REFUSED"], "a") as record:
            record.write(f"{event} {arguments[-1:]!r}\\n")
        raise OSError(f"refused by the test: {event}")
    if event == "import" and arguments[0].split(".")[0] in os.environ.get("NOT_INSTALLED", "").split():
        raise ImportError(f"refused by the test: {arguments[0]}")

sys.addaudithook(refuse)
"""


@pytest.fixture(scope="session")
def sockets_refused() -> Callable[[Path], dict[str, str]]:
    """Gives the environment for Python processes that cannot connect: a guard is written into `folder`, and what they
    try into its `attempts.txt`. Packages named in NOT_INSTALLED cannot be imported there either."""

    def environment(folder: Path) -> dict[str, str]:
        (folder / "guard").mkdir()
        (folder / "guard" / "sitecustomize.py").write_text(GUARD, encoding="utf-8")
        paths = [str(folder / "guard"), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "REFUSED": str(folder / "attempts.txt")}

    return environment


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's folder."""
    return ROOT


def draw(shape: str, seed: int) -> Image.Image:
    """A 16×16 gray picture of a circle, a cross or a square, its place and brightness from `seed`."""
    random = np.random.default_rng([SHAPES.index(shape), seed])
    left, top = (int(value) for value in random.integers(1, 6, 2))
    ink = int(random.integers(150, 256))
    picture = Image.new("L", (16, 16), int(random.integers(0, 60)))
    pen = ImageDraw.Draw(picture)
    box = (left, top, left + 8, top + 8)
    if shape == "circle":
        pen.ellipse(box, outline=ink, width=2)
    elif shape == "cross":
        pen.line(box, fill=ink, width=2)
        pen.line((left, top + 8, left + 8, top), fill=ink, width=2)
    else:
        pen.rectangle(box, fill=ink)
    return picture


@pytest.fixture(scope="session")
def tiny_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config file beside its data: three classes of twelve drawn 16×16 pictures. Tests only read them."""
    folder = tmp_path_factory.mktemp("tiny")
    for shape in SHAPES:
        (folder / "shapes" / shape).mkdir(parents=True)
        for seed in range(12):
            draw(shape, seed).save(folder / "shapes" / shape / f"{seed:02d}.png")
    config = folder / "tiny.yaml"
    config.write_text(TINY_CONFIG, encoding="utf-8")
    return config


@pytest.fixture(scope="session")
def tiny_run(tiny_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on the tiny data, trained once a session. Tests may add evaluations, nothing else."""
    pytest.importorskip("tensorflow", reason="training needs the `train` extra")
    from imgrec_cli.api import train

    return train(tiny_config, runs=tmp_path_factory.mktemp("runs")).folder


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


@pytest.fixture
def imgrec(monkeypatch, capsys) -> Callable[..., Outcome]:
    """Run `imgrec WORDS…` in this process."""
    from imgrec_cli.cli import main

    def run(*words: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["imgrec", *map(str, words)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run
