"""The training step of both PyTorch peers: channels_last, fused Adam, float32 or bfloat16 autocast, all cores."""

from collections.abc import Callable

import contestant
import torch
from torch import Tensor, nn
from torch.nn import functional


def step(model: nn.Module, precision: str) -> Callable[[Tensor, Tensor], None]:
    """A function that takes float32 images [B, C, H, W] and labels [B] and updates `model` once."""
    torch.set_num_threads(contestant.cores())
    model.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.Adam(model.parameters(), fused=True)

    def update(images: Tensor, labels: Tensor) -> None:
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            logits = model(images)
        loss = functional.cross_entropy(logits.float(), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return update
