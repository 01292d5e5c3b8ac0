"""The command ``doctor``: what a training needs of a machine, in memory and decoding workers."""

import argparse
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datamodules.wording import counted
from hiera_video.commands.sources import CORES
from hiera_video.errors import UsageError
from hiera_video.terminal import progress_line

RATES = (50, 100, 200, 500, 1000)  # clips per second, in the table


def run(words: Sequence[str]) -> None:
    """Print the memory and the workers that a training needs, and the measured clips per second.

    Raises:
        UserError: wrong usage or input.
    """
    arguments = _parser().parse_intermixed_args(words)
    target = arguments.clips_per_second
    if arguments.files < 1 or arguments.seconds <= 0 or (target or 1) <= 0:
        raise UsageError("--files, --seconds and --clips-per-second must be positive")
    if arguments.devices < 1 or (arguments.memory or 1) <= 0:
        raise UsageError("--devices and --memory must be positive")
    from hiera_video.commands.memory_report import memory_report
    from hiera_video.running.compose import data_module

    data = data_module(arguments.config, arguments.words)
    with progress_line("estimate the memory", None):
        report = memory_report(
            arguments.config, arguments.words, arguments.memory, arguments.devices
        )
    print(report, end="\n\n", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        files = _sample(data, arguments.files, Path(folder))
        one_worker = all_cores = _measured(data, 1, arguments.seconds)
        if CORES > 1:
            all_cores = _measured(data, CORES, arguments.seconds)
    clip = data.clip
    spacing = "one of each segment" if clip.sampling == "segments" else f"stride {clip.step:g}"
    print(f"{arguments.config}: {files}")
    print(
        f"clips of {counted(clip.num_frames, 'frames')}, {spacing}, {clip.width}x{clip.height}, "
        f"{data.repeats} of each opened file"
    )
    print(
        f"one worker: {one_worker:.1f} clips a second; {counted(CORES, 'workers')}: "
        f"{all_cores:.1f} (measured)"
    )
    print("\nclips / s  workers")
    for rate in [target] if target else RATES:
        workers = math.ceil(rate / (all_cores / CORES))
        note = f"more than the {CORES} cores here" if workers > CORES else ""
        print(f"{rate:9.6g}  {workers:7d}  {note}".rstrip())
    if all_cores < (target or 0):
        print(
            "\nThis machine cannot keep up. `hiera-video prepare --transcode` makes decoding "
            "cheaper; data.repeats=2 takes two clips from each opened file."
        )


def _measured(data: Any, workers: int, seconds: float) -> float:
    from hiera_video.commands.decode_rate import clips_a_second

    name = "1 worker" if workers == 1 else f"{workers} workers"
    with progress_line(f"measure {name}", "seconds") as progress:
        return clips_a_second(data, workers, seconds, progress)


def _sample(data: Any, count: int, folder: Path) -> str:
    """Choose files for the training split of a data module; write some if there are none.

    Args:
        data: its ``train`` manifest is replaced.
        count: number of files.
        folder: where to write files.

    Returns:
        What the files are, for the report.
    """
    from datamodules.manifests.splits import make_manifest
    from hiera_video.commands.decode_rate import sampled, write_kinetics_like

    data.prepare_data()
    source = None if data.splits["train"] is None else data.source("train")
    exists = source is not None and source.exists()
    if exists or data.unit != "videos":  # keyframes need their annotation
        manifest = data.training_manifest()
        files = (
            f"{min(count, len(manifest))} of the {counted(len(manifest), data.unit)} of {source}"
        )
    else:
        paths = [folder / f"{i}.mp4" for i in range(2)]
        with progress_line("write videos", None):
            for i, path in enumerate(paths):
                write_kinetics_like(path, i)
        manifest = make_manifest([str(path) for path in paths], [0] * len(paths), ["any"])
        files = f"there is no {source}; written for this: 10 s of 340x256, one keyframe each"
    data.manifests["train"] = sampled(manifest, count)
    return files


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "hiera-video doctor",
        usage="%(prog)s [--config NAME [key=value ...]] [...]",
        description="Estimate the memory that the training of a configuration needs on a device. "
        "Measure how fast this machine makes its clips, and say how many workers it needs. Without "
        "files, it writes videos of 340x256 pixels; pictures and annotated data must be there.",
    )
    add = parser.add_argument
    add("words", nargs="*", metavar="key=value", help="change the configuration")
    add("--config", default="folder/finetune", metavar="NAME", help="default: folder/finetune")
    add("--clips-per-second", type=float, metavar="RATE", help="rate that the training needs")
    add(
        "--seconds", type=float, default=10.0, help="length of each of two measurements; default 10"
    )
    add("--files", type=int, default=64, help="number of files to read, at random; default 64")
    add("--memory", type=float, metavar="GIB", help="of a device; default: this GPU's, or 80")
    add("--devices", type=int, default=1, metavar="N", help="devices that train; default 1")
    return parser
