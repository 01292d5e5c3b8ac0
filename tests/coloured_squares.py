"""Clips in which a moving square decides the class by its colour, and networks that learn it."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from datamodules.clips.format import ClipFormat
from hiera_video.augment.basic import Normalize
from hiera_video.models.action_detector import HieraActionDetector
from hiera_video.models.hiera import Hiera
from hiera_video.models.zoo import create_detector, create_model

CLIP = ClipFormat(num_frames=4, stride=4, fps=30, height=64, width=64)
CLASSES = ("red", "green", "blue")
SIDE = 20  # of the square, pixels
STEPS = 150  # of training


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


def boxes_of(clips: Clips) -> torch.Tensor:
    """Boxes around the squares while they have their colour, float32 ``(B, 4)`` in [0, 1]."""
    height, width = clips.square.shape[2:]
    seen = clips.square.any(axis=1)
    boxes = []
    for one in seen:
        rows, columns = one.nonzero()
        boxes.append([columns.min() / width, rows.min() / height])
        boxes[-1] += [(columns.max() + 1) / width, (rows.max() + 1) / height]
    return torch.tensor(boxes, dtype=torch.float32)


def far_from(boxes: torch.Tensor) -> torch.Tensor:
    """Boxes of the size of a square in the opposite corners, where there is nothing."""
    corner = torch.where(boxes[:, :2] + boxes[:, 2:] > 1, 0.02, 0.67)  # (B, 2)
    return torch.cat([corner, corner + SIDE / CLIP.width], dim=1)


def untrained(create: Callable[..., Hiera] = create_model, seed: int = 0) -> Any:
    """A network of 3 classes with random weights: a classifier, or with `create_detector` another.

    Its last map has 2 x 4 x 4 places.
    """
    torch.manual_seed(seed)
    return create(
        "hiera_tiny_16x224",
        input_size=(CLIP.num_frames, CLIP.height, CLIP.width),
        embed_dim=16,
        stages=(1, 1, 1),
        q_pool=2,
        mask_unit_attn=(True, True, False),
        num_classes=len(CLASSES),
        head_init_scale=1.0,
    ).eval()


@functools.cache
def trained() -> Hiera:
    """A classifier of the colour, trained for some seconds; do not change it.

    Half of the training clips have no colour and no class. Else a network may know a class as
    neither of the others, for which no place speaks.
    """

    def loss_of(model: Any, video: torch.Tensor, clips: Clips) -> torch.Tensor:
        labels = torch.from_numpy(clips.labels)
        labels[len(labels) // 2 :] = len(CLASSES)  # half of the clips lose their colour
        square = torch.from_numpy(clips.square)[:, None]
        square[: len(labels) // 2] = False
        wanted = F.one_hot(labels, len(CLASSES) + 1)[:, :-1].float()
        return F.binary_cross_entropy_with_logits(model(video.masked_fill(square, 0)), wanted)

    return _trained(create_model, loss_of)


@functools.cache
def trained_detector() -> HieraActionDetector:
    """A detector whose action is the colour of the square in a box, if there is one."""

    def loss_of(model: Any, video: torch.Tensor, clips: Clips) -> torch.Tensor:
        boxes, labels = boxes_of(clips), torch.from_numpy(clips.labels)
        wanted = F.one_hot(labels, len(CLASSES)).float()
        both = torch.cat([boxes, far_from(boxes)])
        logits = model(video, both, torch.arange(len(boxes)).repeat(2))
        return F.binary_cross_entropy_with_logits(
            logits, torch.cat([wanted, torch.zeros_like(wanted)])
        )

    return _trained(create_detector, loss_of)


def _trained(create: Callable[..., Hiera], loss_of: Callable[..., torch.Tensor]) -> Any:
    model, normalize = untrained(create), Normalize()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, STEPS, pct_start=0.1)
    for step in range(STEPS):
        clips = coloured_squares(8, seed=step)
        video = normalize(torch.from_numpy(clips.video).permute(0, 4, 1, 2, 3))  # (B, 3, T, H, W)
        optimizer.zero_grad()
        loss_of(model, video, clips).backward()
        optimizer.step()
        schedule.step()
    optimizer.zero_grad()
    return model
