"""Measure how many training clips this machine decodes per second."""

import math
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.base import VideoDataModule
from datamodules.errors import DatasetError
from datamodules.manifests.splits import Manifest
from datamodules.synthetic import write_h264

_ROWS = 1 << 14  # of an epoch that does not end while it is timed
_MIN_ITEMS = 8  # timed, however long they take


def sampled(manifest: Manifest, count: int) -> Manifest:
    """Draw ``count`` videos that are not known to be bad, and repeat them to make a long epoch.

    Raises:
        DatasetError: all videos are known to be bad.
    """
    manifest = manifest.without_bad()
    if not len(manifest):
        raise DatasetError("`prepare` found that all videos are bad")
    order = np.random.default_rng(0).permutation(len(manifest))[:count]
    rows = np.resize(order, max(_ROWS, len(order)))
    return replace(manifest, table=manifest.table.take(rows))


def clips_a_second(
    data: VideoDataModule,
    workers: int,
    seconds: float,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> float:
    """Time the training loader of a data module.

    Args:
        data: the data module; its ``num_workers`` and ``batch_size`` are overwritten. Its ``train``
            manifest should come from `sampled`, so that the epoch does not end.
        workers: decoding processes.
        seconds: how long to measure, after a warm-up.
        progress: called with the seconds that have been measured and their total.

    Returns:
        Clips per second.
    """
    data.num_workers, data.batch_size = workers, 1
    items: Any = iter(data.train_dataloader())
    with closing(items):
        for _ in islice(items, 2 + 4 * workers):
            pass
        start, clips = time.perf_counter(), 0
        for number, item in enumerate(items, 1):
            clips += len(item["video"])
            measured = time.perf_counter() - start
            progress(min(int(measured), math.ceil(seconds)), math.ceil(seconds))
            if number >= _MIN_ITEMS and measured > seconds:
                break
        return clips / (time.perf_counter() - start)


def write_kinetics_like(path: Path, seed: int, seconds: int = 10) -> None:
    """Write a file like those of Kinetics: 340x256 pixels, 30 fps, H.264, one keyframe.

    It shows drifting noise on several scales, with new grain in each frame.
    """
    rng = np.random.default_rng(seed)
    picture = np.zeros((640, 960, 3), np.float32)
    for scale in (64, 16, 4):
        noise = rng.normal(0, 1, (640 // scale, 960 // scale, 3)).repeat(scale, 0).repeat(scale, 1)
        picture += noise * scale**0.4
    picture = 128 + 14 * picture
    steps = np.cumsum(rng.integers(-2, 4, (seconds * 30, 2)), axis=0) % (300, 500)
    frames = [picture[y : y + 256, x : x + 340] for y, x in steps]
    grain = rng.normal(0, 3, (len(frames), 256, 340, 1)).astype(np.float32)
    write_h264(path, (np.stack(frames) + grain).clip(0, 255).astype(np.uint8))
