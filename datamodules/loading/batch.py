"""Items put together to a batch."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from datamodules.clips.items import Item
from datamodules.loading.item_workers import check_frames

Batch = dict[str, Any]


def gather(
    items: Iterable[Item], shape: tuple[int, ...], pin_memory: bool = False
) -> tuple[list[Item], Tensor]:
    """Copy the clips of items to one place.

    Args:
        items: each with ``video`` uint8 ``(n, T, H, W, 3)``, which is copied before the next item
            is taken.
        shape: shape of all their clips together, ``(B, T, H, W, 3)``, if none are missing.
        pin_memory: put the copy in page-locked memory.

    Returns:
        The items, with ``clips``, their number of clips, in place of ``video``; and all clips,
        uint8 ``(clips, T, H, W, 3)``.
    """
    frames = torch.empty(shape, dtype=torch.uint8, pin_memory=pin_memory)
    counted, clips = [], 0
    for item in items:
        video = item.pop("video")
        check_frames(video, shape[1:], len(frames) - clips)
        frames[clips : clips + len(video)] = video
        counted.append(item | {"clips": len(video)})
        clips += len(video)
    return counted, frames[:clips]


def join_items(items: list[Item], frames: Tensor) -> Batch:
    """Make a batch of items: their tensors are joined along the first axis.

    ``failed`` is a list. ``box_clip``, the index of each box's clip, refers to the clips of the
    item in an item, and to the clips of the batch in the batch.

    Args:
        items: with ``clips``, the number of clips of each.
        frames: the clips of all items, uint8 ``(B, T, H, W, 3)``.

    Returns:
        The batch, with ``video`` uint8 ``(B, 3, T, H, W)``: a view with channels last in memory, as
        moving the axes copies nothing.
    """
    columns: dict[str, list[Any]] = {}
    clips = 0
    for item in items:
        for key, value in item.items():
            columns.setdefault(key, []).append(value + clips if key == "box_clip" else value)
        clips += item["clips"]
    del columns["clips"]
    batch: Batch = {
        key: [x for value in values for x in value] if key == "failed" else torch.cat(values)
        for key, values in columns.items()
    }
    batch["video"] = frames.permute(0, 4, 1, 2, 3)  # (B, 3, T, H, W)
    return batch
