"""Cut `data/fashion-mini` from Fashion-MNIST's own files, or write the whole data set as folders of PNG files.

    python data/make_fashion_mini.py                    # the 800 images that this repository ships
    python data/make_fashion_mini.py --full FOLDER      # all 70,000 images, for measurements

The choice is fixed: the first images of each class in the original order. A file's name is its index there.
"""

import argparse
import gzip
import hashlib
import struct
from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

CLASSES = (
    "t_shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle_boot",
)  # in the order of the original labels 0 to 9
FILES = {"train": "train", "test": "t10k"}
MINI = {"train": 60, "test": 20}  # images per class
SHA256 = {  # of the unpacked files: Debian's .gz differ from those at the source, which are compressed otherwise
    "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Array of a gzipped IDX file of bytes: `[N]` labels or `[N, H, W]` pixels."""
    content = gzip.decompress(path.read_bytes())
    if hashlib.sha256(content).hexdigest() != SHA256[path.name]:
        raise SystemExit(f"{path}: not the file of Fashion-MNIST that this sample was cut from")
    rank = content[3]
    shape = struct.unpack_from(f">{rank}I", content, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)


def write_split(source: Path, split: str, target: Path, per_class: int | None) -> Counter[str]:
    """Write the first `per_class` images of each class (all where None) and return how many each class has."""
    images = read_idx(source / f"{FILES[split]}-images-idx3-ubyte.gz")
    labels = read_idx(source / f"{FILES[split]}-labels-idx1-ubyte.gz")
    written: Counter[str] = Counter()
    for name in CLASSES:
        (target / split / name).mkdir(parents=True)
    for index, (pixels, label) in enumerate(zip(images, labels, strict=True)):
        name = CLASSES[label]
        if per_class is None or written[name] < per_class:
            Image.fromarray(pixels).save(target / split / name / f"{index:05d}.png", optimize=per_class is not None)
            written[name] += 1
    return written


def main() -> None:
    parser = argparse.ArgumentParser(description="Write Fashion-MNIST as one folder of PNG files per class.")
    parser.add_argument(
        "--source",
        type=Path,
        default=Path("/usr/share/datasets/fashion-mnist"),
        help="folder of the four .gz files; the default is where Debian's package dataset-fashion-mnist puts them",
    )
    parser.add_argument("--full", type=Path, metavar="FOLDER", help="write all images there, not the small sample here")
    arguments = parser.parse_args()
    target: Path = arguments.full or Path(__file__).parent / "fashion-mini"
    for split in FILES:
        if (target / split).exists():
            raise SystemExit(f"{target / split} exists already: remove it first, nothing is written over")
    for split in FILES:
        written = write_split(arguments.source, split, target, None if arguments.full else MINI[split])
        print(f"{target / split}: {written.total()} images in {len(written)} classes")


if __name__ == "__main__":
    main()
