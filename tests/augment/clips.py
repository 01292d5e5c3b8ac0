"""Clips of several kinds, uint8 ``(3, T, H, W)``, to compare pixels on."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

SHAPES = [(50, 61), (33, 20), (16, 17), (3, 5)]


def clip(kind: str, size: tuple[int, int], frames: int = 3) -> Tensor:
    """`noise`, `smooth`, `dark` (few levels), or `plain` (one or two levels a frame)."""
    random = np.random.default_rng(size[0])
    if kind == "smooth":
        coarse = torch.from_numpy(random.random((3, frames, 4, 5)) * 255)
        return F.interpolate(coarse, size, mode="bicubic").clamp(0, 255).round().to(torch.uint8)
    highest = {"noise": 256, "dark": 9, "plain": 1}[kind]
    pixels = random.integers(0, highest, (3, frames, *size)) + (0 if kind == "noise" else 37)
    if kind == "plain":
        pixels[:, 1, 0, :2] = 200
    return torch.from_numpy(pixels.astype(np.uint8))
