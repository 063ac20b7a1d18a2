"""Whole programs from their start: accuracy after each epoch, and cost by number of images."""

import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from race import Contestant, Failed, Process


def arrays_file(folder: Path, size: int, mode: str, file: Path) -> None:
    """Write all images below train/ and test/ of `folder` to an npz: uint8 [N, size, size, C] and int64 labels [N].

    Decoded by Pillow alone, in `mode` L or RGB, so that the peers do not depend on how imgrec reads images.
    """
    arrays: dict[str, Any] = {}
    for split in ("train", "test"):
        pixels, labels = [], []
        for label, name in enumerate(sorted(path for path in (folder / split).iterdir() if path.is_dir())):
            for path in sorted(name.iterdir()):
                with Image.open(path) as opened:
                    image = opened.convert(mode)
                if image.size != (size, size):
                    image = image.resize((size, size), Image.Resampling.BILINEAR)
                pixels.append(np.asarray(image).reshape(size, size, -1))
                labels.append(label)
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = np.stack(pixels), np.array(labels)
    np.savez(file, **arrays)


def photographs(source: Path, count: int, folder: Path) -> None:
    """Save `count` pictures of `source` (class folders of JPEG files) as 500×375 JPEG of quality 90 below `folder`."""
    files = sorted(source.glob("*/*.jpg"))
    for number in range(count):
        file = files[number % len(files)]
        target = folder / file.parent.name / f"{number:06}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(file) as opened:
            image = opened.convert("RGB").resize((500, 375), Image.Resampling.BICUBIC)
        image.putpixel((0, 0), (number % 256, number // 256 % 256, 0))  # no two files alike
        image.save(target, quality=90)


def epochs(
    contestant: Contestant, count: int, python: str, environment: Mapping[str, str], enough: float = 1.0
) -> list[tuple[float, float]]:
    """Seconds from process start and test accuracy after each epoch, up to `count` or an accuracy of `enough`."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        started = time.perf_counter()
        own_cache = {**environment, "IMGREC_CACHE": folder}
        process = Process(contestant, python, own_cache, Path(folder) / "log")
        reached: list[tuple[float, float]] = []
        try:
            while len(reached) < count and (not reached or reached[-1][1] < enough):
                answer = process.answer()
                if "epoch" in answer:
                    reached.append((time.perf_counter() - started, answer["accuracy"]))
        except Failed as failure:
            raise SystemExit(f"{contestant.name} failed:\n{failure}") from None
        finally:
            process.end()
    return reached


def growth(
    config: Path, settings: Sequence[str], fashion: Path, images: int, environment: Mapping[str, str]
) -> dict[str, float]:
    """What imgrec_growth.py measures on the first `images` training images of `fashion`, an equal number per class."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        data = Path(folder) / "data"
        for source in sorted(path for path in (fashion / "train").iterdir() if path.is_dir()):
            (data / source.name).mkdir(parents=True)
            for file in sorted(source.iterdir())[: images // 10]:
                shutil.copy(file, data / source.name)
        arguments = [str(config), "--set", f"data.folder={data}", "--set", "train.epochs=1"]
        arguments += [part for setting in settings for part in ("--set", setting)]
        contestant = Contestant(f"{images} images", "imgrec_growth.py", arguments, ours=True)
        own_cache = {**environment, "IMGREC_CACHE": str(Path(folder) / "cache")}
        process = Process(contestant, sys.executable, own_cache, Path(folder) / "log")
        try:
            return process.answer()
        except Failed as failure:
            raise SystemExit(f"{contestant.name} failed:\n{failure}") from None
        finally:
            process.end()
