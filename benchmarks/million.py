"""A million tiny images in WebDataset shards: seconds and memory to list, split and index them, and to order an epoch.

    python benchmarks/million.py FOLDER [--images 1000000]

writes the shards into FOLDER the first time (4 GB and some minutes, with the package webdataset), then measures in a
process of its own with an empty cache. No image is decoded: that is the pack's work, image by image.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PER_SHARD = 10_000
CLASSES = 1000


def write_shards(folder: Path, images: int) -> None:
    """Shards of 8×8 gray pictures of noise with KEY.cls, as the package writes them by default."""
    import numpy as np
    import webdataset
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(images // PER_SHARD):
        file = folder / f"train-{shard:06d}.tar"
        if file.exists():
            continue
        random = np.random.default_rng(shard)
        with webdataset.TarWriter(str(file.with_suffix(".part"))) as writer:
            for number in range(shard * PER_SHARD, (shard + 1) * PER_SHARD):
                stream = io.BytesIO()
                Image.fromarray(random.integers(0, 256, (8, 8), np.uint8)).save(stream, "PNG")
                label = int(random.integers(CLASSES))
                writer.write({"__key__": f"{number:09d}", "png": stream.getvalue(), "cls": str(label)})
        file.with_suffix(".part").rename(file)


def measure(pattern: str) -> dict[str, float]:
    """Seconds of every step in this process, and its peak memory in bytes."""
    from imgrec_cli.config import Data
    from imgrec_cli.dataset import plan, scan
    from imgrec_cli.dataset.digests import Files
    from imgrec_cli.machine import peak_memory_bytes
    from imgrec_cli.training.input import order

    found: dict[str, float] = {}
    begin = time.perf_counter()

    def told(name: str) -> None:
        nonlocal begin
        found[name] = round(time.perf_counter() - begin, 2)
        found[f"{name} peak MB"] = round(peak_memory_bytes() / 1e6)
        begin = time.perf_counter()

    data = Data(folder=pattern)
    listing = scan(data)
    told("scan")
    examples, _ = plan(listing, data, 0)
    told("split")
    images = sum(example.split == "train" for example in examples)
    del examples
    told("count")
    files = Files([example.file for example in listing.examples], "a million")
    # any digest does: these are remembered by the files' names, sizes and times
    files.remember([f"{row:032x}" for row in range(len(files.paths))])
    told("index")
    paths = files.paths
    del files
    again = Files(paths, "a million").known_digests()
    if again is None or again[-1] != f"{len(paths) - 1:032x}":
        raise SystemExit("the index does not say what was written into it")
    told("index read")
    order(0, 1, images)
    told("epoch order")
    found["images"] = len(listing.examples)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    pattern = str(arguments.folder / f"train-{{000000..{arguments.images // PER_SHARD - 1:06d}}}.tar")
    if arguments.measure:
        print(json.dumps(measure(pattern)))
        return
    write_shards(arguments.folder, arguments.images)
    with tempfile.TemporaryDirectory() as cache:
        for what in ("shards never seen", "shards seen before"):
            done = subprocess.run(
                [sys.executable, __file__, *sys.argv[1:], "--measure"],
                env={**os.environ, "IMGREC_CACHE": cache},
                capture_output=True,
                text=True,
                check=True,
            )
            print(what, done.stdout.strip())


if __name__ == "__main__":
    main()
