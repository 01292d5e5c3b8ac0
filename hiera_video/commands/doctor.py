"""The command ``doctor``: what this machine can do."""

import argparse
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hiera_video.commands.sources import CORES
from hiera_video.errors import UsageError

RATES = (50, 100, 200, 500, 1000)  # clips a second, in the table


def run(words: Sequence[str]) -> None:
    """Run the command.

    Raises:
        UsageError: wrong usage or input.
    """
    parser = argparse.ArgumentParser(
        "hiera-video doctor",
        usage="%(prog)s [--config NAME [key=value ...]] [...]",
        description="Measure how fast this machine makes the training clips of a configuration, "
        "from files of its own (of 340x256 that are written for it, if there are none), and say "
        "how many workers it needs.",
    )
    add = parser.add_argument
    add("words", nargs="*", metavar="key=value", help="of the configuration")
    add("--config", default="folder/finetune", metavar="NAME", help="default: folder/finetune")
    add("--clips-per-second", type=float, metavar="RATE", help="that the training takes")
    add("--seconds", type=float, default=10.0, help="to measure, each of two times; default 10")
    add("--files", type=int, default=64, help="to read, at random; default 64")
    arguments = parser.parse_intermixed_args(words)
    if arguments.files < 1 or arguments.seconds <= 0 or (arguments.clips_per_second or 1) <= 0:
        raise UsageError("--files, --seconds and --clips-per-second must be positive")
    from hiera_video.commands.decode_rate import clips_a_second
    from hiera_video.running.compose import data_module

    data = data_module(arguments.config, arguments.words)
    with tempfile.TemporaryDirectory() as folder:
        described = _sample(data, arguments.files, Path(folder))
        one = clips_a_second(data, 1, arguments.seconds)
        all_ = clips_a_second(data, CORES, arguments.seconds) if CORES > 1 else one
    clip = data.clip
    print(f"{arguments.config}: {described}")
    spacing = f"stride {clip.stride}" if clip.sampling == "clip" else "one of each segment"
    print(
        f"clips of {clip.num_frames} frames, {spacing}, {clip.width}x{clip.height}, "
        f"{data.repeats} of each opened file"
    )
    print(f"one worker: {one:.1f} clips a second; {CORES} workers: {all_:.1f} (measured)")
    print("\nclips / s  workers")
    for rate in [arguments.clips_per_second] if arguments.clips_per_second else RATES:
        workers = math.ceil(rate / (all_ / CORES))
        note = f"more than the {CORES} cores here" if workers > CORES else ""
        print(f"{rate:9.6g}  {workers:7d}  {note}".rstrip())
    if all_ < (arguments.clips_per_second or 0):
        print(
            "\nThis machine cannot keep up. `hiera-video prepare --transcode` makes decoding "
            "cheaper; data.repeats=2 opens each file for two clips."
        )


def _sample(data: Any, count: int, folder: Path) -> str:
    """Put some files into the data module's training split; returns what they are."""
    from datamodules.manifests.splits import make_manifest
    from hiera_video.commands.decode_rate import sampled, write_kinetics_like

    data.prepare_data()
    source = None if data.splits["train"] is None else data.source("train")
    exists = source is not None and source.exists()
    if exists or data.unit != "videos":  # keyframes need their annotation
        manifest = data.training_manifest()
        described = f"{min(count, len(manifest))} of the {len(manifest)} {data.unit} of {source}"
    else:
        paths = [str(folder / f"{i}.mp4") for i in range(2)]
        for i, path in enumerate(paths):
            write_kinetics_like(Path(path), i)
        manifest = make_manifest(paths, [0] * len(paths), ["any"])
        described = f"there is no {source}; written for this: 10 s of 340x256, one keyframe each"
    data.manifests["train"] = sampled(manifest, count)
    return described
