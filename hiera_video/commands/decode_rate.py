"""How fast this machine makes training clips of given files."""

import time
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

_ROWS = 1 << 14  # so many that no epoch ends while it is timed
_LEAST_ITEMS = 8  # that are timed, however long they take


def sampled(manifest: Manifest, count: int) -> Manifest:
    """Some videos of a manifest, at random, repeated to a long epoch; found bad ones left out."""
    manifest = manifest.without_bad()
    if not len(manifest):
        raise DatasetError("all videos were found bad when they were prepared")
    order = np.random.default_rng(0).permutation(len(manifest))[:count]
    rows = np.resize(order, max(_ROWS, len(order)))
    return replace(manifest, table=manifest.table.take(rows))


def clips_a_second(data: VideoDataModule, workers: int, seconds: float) -> float:
    """Time a data module's training clips, as its loader gives them.

    Args:
        data: its ``train`` manifest may be one of `sampled`. Changed: items come one by one.
        workers: decoding processes.
        seconds: to measure, after a warm-up.
    """
    data.num_workers, data.batch_size = workers, 1
    items: Any = iter(data.train_dataloader())
    with closing(items):
        for _ in islice(items, 2 + 4 * workers):
            pass
        start, clips = time.perf_counter(), 0
        for number, item in enumerate(items, 1):
            clips += len(item["video"])
            if number >= _LEAST_ITEMS and time.perf_counter() - start > seconds:
                break
        return clips / (time.perf_counter() - start)


def write_kinetics_like(path: Path, seed: int, seconds: int = 10) -> None:
    """Write a file as those of Kinetics are: 340x256, 30 frames a second, H.264, one keyframe.

    The picture is noise on several scales that drifts, with grain of its own in each frame.
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
