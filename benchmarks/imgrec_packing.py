"""imgrec in the race `packing`: scan, read, decode and pack a folder into an empty cache, once for each step."""

import argparse
import os
import tempfile
import time
from pathlib import Path

import contestant

from imgrec_cli.config import load_config
from imgrec_cli.dataset import load_dataset
from imgrec_cli.progress import ignore


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("config", type=Path)
    parser.add_argument("--set", action="append", default=[])
    arguments = parser.parse_args()
    config = load_config(arguments.config, arguments.set)
    images = 0

    def run(steps: int) -> float:
        nonlocal images
        for _ in range(steps):
            with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as cache:
                os.environ["IMGREC_CACHE"] = cache
                images = len(load_dataset(config.data, config.image, config.seed, ignore).examples)
                ended = time.perf_counter()
        return ended

    run(1)
    contestant.serve(run, images_per_step=images, warm_up=1, used=contestant.versions("pillow", "numpy"))


if __name__ == "__main__":
    main()
