"""Plain PyTorch on JPEG files: peer (c). DataLoader with a worker per core, augmentation with grid_sample."""

import argparse
import math
import random
import time
from collections.abc import Iterator
from pathlib import Path

import contestant
import numpy as np
import torch
import torch_models
import torch_step
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, Sampler


class Files(Dataset[tuple[Tensor, int]]):
    """Photographs below class folders as uint8 [3, size, size]; `crop`: of a random part of 0.7 to 1 of the area."""

    def __init__(self, folder: Path, size: int, crop: bool) -> None:
        classes = sorted(path for path in folder.iterdir() if path.is_dir())
        self.files = [(file, label) for label, path in enumerate(classes) for file in sorted(path.iterdir())]
        self.classes, self.size, self.crop = len(classes), size, crop

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        file, label = self.files[index]
        with Image.open(file) as opened:
            image = opened.convert("RGB")
        box = crop_box(*image.size) if self.crop else None
        pixels = np.asarray(image.resize((self.size, self.size), Image.Resampling.BILINEAR, box=box))
        return torch.from_numpy(pixels.copy()).permute(2, 0, 1), label


class Order(Sampler[int]):
    """`taken` examples in random order, each as often as any other; the loader's workers live on between rounds."""

    def __init__(self, examples: int) -> None:
        self.examples, self.taken = examples, examples

    def __iter__(self) -> Iterator[int]:
        epochs = -(-self.taken // self.examples)
        return iter(torch.cat([torch.randperm(self.examples) for _ in range(epochs)])[: self.taken].tolist())


def crop_box(width: int, height: int) -> tuple[float, float, float, float]:
    """A random rectangle of 0.7 to 1 of the area and 3:4 to 4:3 of the shape (Szegedy et al. 2015, section 6)."""
    area = random.uniform(0.7, 1.0) * width * height
    aspect = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
    w, h = min(math.sqrt(area * aspect), width), min(math.sqrt(area / aspect), height)
    left, top = random.uniform(0, width - w), random.uniform(0, height - h)
    return left, top, left + w, top + h


def warp(images: Tensor) -> Tensor:
    """The article's whole augmentation as one affine warp of float32 [B, 3, H, W], edges repeated."""
    count = len(images)

    def between(low: float, high: float) -> Tensor:
        return torch.empty(count).uniform_(low, high)

    def matrices(xx: Tensor, xy: Tensor, yx: Tensor, yy: Tensor) -> Tensor:
        return torch.stack([torch.stack([xx, xy], -1), torch.stack([yx, yy], -1)], 1)

    one, zero = torch.ones(count), torch.zeros(count)
    turn, slant = torch.deg2rad(between(-40, 40)), torch.deg2rad(between(-0.2, 0.2))
    flip = torch.where(torch.rand(count) < 0.5, -one, one)
    linear = matrices(turn.cos(), -turn.sin(), turn.sin(), turn.cos()) @ matrices(one, -slant.sin(), zero, slant.cos())
    linear = linear @ matrices(between(0.8, 1.2) * flip, zero, zero, between(0.8, 1.2))
    shift = torch.stack([between(-0.4, 0.4), between(-0.4, 0.4)], -1)[:, :, None]  # the side is 2 long
    grid = functional.affine_grid(torch.cat([linear, shift], 2), list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)


def flip(images: Tensor) -> Tensor:
    """Half of the images mirrored."""
    return torch.where(torch.rand(len(images), 1, 1, 1) < 0.5, images.flip(3), images)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--model", choices=["document-001", "mobilenet_v2", "resnet50"], required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--precision", choices=["float32", "bfloat16"], required=True)
    arguments = parser.parse_args()

    article = arguments.model == "document-001"
    files = Files(arguments.images, 150 if article else 160, crop=not article)
    model = getattr(torch_models, arguments.model.replace("-", "_"))(files.classes)
    update = torch_step.step(model, arguments.precision)
    augment = warp if article else flip

    order = Order(len(files))
    loader = DataLoader(files, arguments.batch, sampler=order, num_workers=contestant.cores(), persistent_workers=True)

    def run(steps: int) -> float:
        order.taken = steps * arguments.batch
        for images, labels in loader:
            update(augment(images.float().div_(255)), labels)
        return time.perf_counter()

    contestant.serve(
        run, images_per_step=arguments.batch, warm_up=3, used=contestant.versions("torch", "pillow", "numpy")
    )


if __name__ == "__main__":
    main()
