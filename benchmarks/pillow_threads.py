"""The floor under packing: a thread per core decodes JPEG files with Pillow and resizes them, and keeps nothing."""

import argparse
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import contestant
import numpy as np
from PIL import Image


def decode(file: Path) -> int:
    with Image.open(file) as image:
        return int(np.asarray(image.convert("RGB").resize((150, 150), Image.Resampling.BILINEAR)).size)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=Path, required=True)
    arguments = parser.parse_args()
    files = sorted(arguments.images.glob("*/*.jpg"))

    def run(steps: int) -> float:
        for _ in range(steps):
            with ThreadPoolExecutor(contestant.cores()) as pool:
                list(pool.map(decode, files))
        return time.perf_counter()

    contestant.serve(run, images_per_step=len(files), warm_up=1, used=contestant.versions("pillow"))


if __name__ == "__main__":
    main()
