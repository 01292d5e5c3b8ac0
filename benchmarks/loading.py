"""What the loader costs beside the decoding that it is for.

    python benchmarks/loading.py [--clips 96] [--epochs 2] [--workers 0 1 2]
    python benchmarks/loading.py --step 100 [--workers 1 2]

Decodes the same random clips (16 frames, stride 4, crop, 224x224) of Kinetics-like files, first in
a plain loop, then through the loader. CPU seconds are those of the process and its workers; the
overhead is what they exceed the plain loop's by.

With --step, nothing is decoded: workers copy ready frames, and between two batches of 32 clips the
training thread sleeps for that many milliseconds, as it would during a GPU's step. The table shows
for how long that thread is kept by the loader. Prints a Markdown table.
"""

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterable
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datamodules import ClipFormat, make_manifest
from datamodules.clips.items import Item
from datamodules.clips.videos import TrainingClips
from datamodules.loading.loader import Loader
from datamodules.loading.sampler import EpochSampler
from hiera_video.commands.decode_rate import write_kinetics_like


def cpu_seconds() -> float:
    """Of this process and of those children that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def measure(batches: Callable[[], Iterable[Any]]) -> tuple[float, float]:
    """Seconds on the clock and of CPU."""
    wall, cpu = time.perf_counter(), cpu_seconds()
    for _ in batches():
        pass
    return time.perf_counter() - wall, cpu_seconds() - cpu


class ReadyClips:
    """A data set of clips that need no work, of 16x224x224."""

    def __init__(self, length: int) -> None:
        self.manifest = make_manifest([f"{i}.mp4" for i in range(length)], [0] * length, ["any"])
        self.item_shape = (1, 16, 224, 224, 3)
        self._frames = torch.randint(256, self.item_shape, dtype=torch.uint8)

    def __getitem__(self, key: tuple[int, int]) -> Item:
        """The same clip for every key."""
        return {"video": self._frames, "label": torch.zeros(1, dtype=torch.int64)}

    def empty(self, index: int) -> Item:
        """Nothing is missing."""
        raise AssertionError(index)


def print_waits(step: float, num_workers: int, batches: int = 20) -> None:
    """Print a row: milliseconds of the training thread for each batch, after the first."""
    clips = ReadyClips(32 * batches)
    loader = Loader(clips, EpochSampler(32 * batches, training=True), 32, num_workers=num_workers)
    iterator, waits = iter(loader), []
    for _ in range(batches):
        start = time.perf_counter()
        batch = next(iterator)
        waits.append(1e3 * (time.perf_counter() - start))
        time.sleep(step / 1e3)
        del batch
    print(f"| {num_workers} | {np.median(waits[1:]):.1f} | {max(waits[1:]):.1f} |", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--clips", type=int, default=96, help="of an epoch")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--step", type=float, help="milliseconds; measure waiting, not decoding")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.step is not None:
        print("| workers | median ms | most |\n|--:|--:|--:|")
        for n in filter(None, arguments.workers):
            print_waits(arguments.step, n)
        return
    with tempfile.TemporaryDirectory() as folder:
        files = [f"{folder}/{i}.mp4" for i in range(16)]
        for i, path in enumerate(files):
            write_kinetics_like(Path(path), i)
        paths = list(islice(cycle(files), arguments.clips))
        manifest = make_manifest(paths, [0] * len(paths), ["any"])
        clip = ClipFormat(16, 4, 30.0, 224, 224)
        clips = TrainingClips(manifest, clip, 1, (0.5, 1.0), (3 / 4, 4 / 3), seed=0)
        sampler = EpochSampler(len(paths), training=True)
        ways: dict[str, Callable[[], Iterable[Any]]] = {
            "decoding alone": lambda: map(clips.__getitem__, sampler)
        }
        for n in arguments.workers:
            ways[f"{n} workers"] = lambda n=n: Loader(clips, sampler, 4, num_workers=n)
        seconds = {way: np.zeros(2) for way in ways}
        for epoch in range(arguments.epochs + 1):
            for way, batches in ways.items():
                sampler.epoch, sampler.used = epoch, 0
                wall_and_cpu = measure(batches)
                seconds[way] += wall_and_cpu if epoch else 0.0  # the first is a warm-up
    count = arguments.clips * arguments.epochs
    print(f"{count} clips, {os.cpu_count()} cores\n")
    print("| | clips / s | clips / CPU s | overhead |\n|---|--:|--:|--:|")
    alone = seconds["decoding alone"][1]
    for way, (wall, cpu) in seconds.items():
        print(f"| {way} | {count / wall:.1f} | {count / cpu:.1f} | {cpu / alone - 1:.1%} |")


if __name__ == "__main__":
    main()
