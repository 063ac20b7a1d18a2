"""Plain PyTorch on tensors in memory: peer (c) of document-004. A random permutation per epoch, no loader."""

import argparse
import time

import contestant
import numpy as np
import torch
import torch_models
import torch_step


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--arrays", required=True, help="npz with uint8 images and labels of train and test")
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--precision", choices=["float32", "bfloat16"], required=True)
    arguments = parser.parse_args()
    arrays = np.load(arguments.arrays)
    images = torch.from_numpy(arrays["train_images"]).permute(0, 3, 1, 2).float().div_(255)
    labels = torch.from_numpy(arrays["train_labels"]).long()
    update = torch_step.step(torch_models.document_004(int(labels.max()) + 1), arguments.precision)

    def run(steps: int) -> float:
        for batch in torch.randperm(len(images))[: steps * arguments.batch].split(arguments.batch):
            update(images[batch], labels[batch])
        return time.perf_counter()

    contestant.serve(run, images_per_step=arguments.batch, warm_up=50, used=contestant.versions("torch", "numpy"))


if __name__ == "__main__":
    main()
