"""Clips in which a moving square decides the class by its colour, and a network trained on them."""

import functools
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from datamodules.clips.videos import ClipFormat
from hiera_video.augment.basic import Normalize
from hiera_video.models.hiera import Hiera
from hiera_video.models.zoo import create_model

CLIP = ClipFormat(num_frames=4, stride=4, fps=30, height=64, width=64)
CLASSES = ("red", "green", "blue")
SIDE = 20  # of the square, pixels


class Clips(NamedTuple):
    """Clips, their labels, and where their squares are.

    Attributes:
        video: uint8 ``(B, T, H, W, 3)``.
        labels: int64 ``(B,)``.
        square: bool ``(B, T, H, W)``, True within the square while it has a colour.
    """

    video: np.ndarray
    labels: np.ndarray
    square: np.ndarray


def coloured_squares(count: int, seed: int) -> Clips:
    """Draw squares that move over noise, grey but for half of the clip.

    When and where they have a colour says nothing about their class.
    """
    rng = np.random.default_rng(seed)
    frames, height, width, _ = CLIP.shape
    labels = rng.integers(0, len(CLASSES), count)
    video = rng.integers(60, 160, (count, *CLIP.shape), np.uint8)
    square = np.zeros(video.shape[:-1], bool)
    starts = rng.integers(0, 2, count) * frames // 2
    ends = rng.integers(0, [height - SIDE, width - SIDE], (2, count, 2))
    for t in range(frames):
        ys, xs = (ends[0] + (ends[1] - ends[0]) * t // (frames - 1)).T.tolist()
        for i, (y, x) in enumerate(zip(ys, xs, strict=True)):
            where = i, t, slice(y, y + SIDE), slice(x, x + SIDE)
            video[where] = 100
            if starts[i] <= t < starts[i] + frames // 2:
                video[where] = np.where(np.arange(3) == labels[i], 220, 40)
                square[where] = True
    return Clips(video, labels, square)


def untrained(seed: int = 0) -> Hiera:
    """A network of 3 classes with random weights."""
    torch.manual_seed(seed)
    size = CLIP.num_frames, CLIP.height, CLIP.width
    return create_model(
        "hiera_tiny_16x224",
        input_size=size,
        embed_dim=16,
        stages=(1, 1, 1),
        q_pool=2,
        mask_unit_attn=(True, True, False),
        num_classes=len(CLASSES),
        head_init_scale=1.0,
    ).eval()


@functools.cache
def trained(steps: int = 150) -> Hiera:
    """The same network, trained for some seconds; do not change it."""
    model, normalize = untrained(), Normalize()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps, pct_start=0.1)
    for step in range(steps):
        clips = coloured_squares(8, seed=step)
        video = normalize(torch.from_numpy(clips.video).permute(0, 4, 1, 2, 3))  # (B, 3, T, H, W)
        loss = F.cross_entropy(model(video), torch.from_numpy(clips.labels))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    optimizer.zero_grad()
    return model
