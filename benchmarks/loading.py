"""What the loader costs beside the decoding that it is for.

    python benchmarks/loading.py [--clips 96] [--epochs 2] [--workers 0 1 2]

Decodes the same random clips (16 frames, stride 4, crop, 224x224) of Kinetics-like files, first in
a plain loop, then through the loader. CPU seconds are those of the process and its workers; the
overhead is what they exceed the plain loop's by. Prints a Markdown table.
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
from datamodules.clips.videos import TrainingClips
from datamodules.loading.loader import EpochSampler, Loader
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


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--clips", type=int, default=96, help="of an epoch")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
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
