"""What ``prepare`` and ``check`` work on: a folder, a list, a manifest, or a configuration."""

import argparse
import math
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from hiera_video.errors import UsageError


def _cores() -> int:
    """Cores that this process may use: of the machine, its affinity, its container's quota."""
    here = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if here else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(cores, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no such control group, or "max"
        return cores


CORES = _cores()


class Split(NamedTuple):
    """Videos to work on.

    Attributes:
        name: for the progress line.
        source: the folder or file that names them.
        folder: where they go, below --out.
        read: gives their manifest, from an earlier `prepare` where there is one.
        list: gives it from what is there without that.
        missing: gives the videos that an annotation names and the disk lacks, after reading.
        diagnose: gives what there is to say about the annotation, if anything.
    """

    name: str
    source: Path
    folder: str
    read: Callable[[], Any]
    list: Callable[[], Any]
    missing: Callable[[], Sequence[Any]] = tuple
    diagnose: Callable[[], Sequence[Any]] = tuple


def add_source(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that name the videos."""
    parser.add_argument("words", nargs="*", metavar="SOURCE", help="folder, list or manifest file")
    parser.add_argument(
        "--config", metavar="NAME", help="all splits of a configuration; key=value words may follow"
    )
    parser.add_argument(
        "--root", type=Path, help="folder that a list's paths start from; default: the list's"
    )


def add_work(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of decoding in processes."""
    parser.add_argument(
        "--processes", type=int, default=CORES, help=f"that decode; default {CORES}, the cores"
    )
    parser.add_argument(
        "--hang-seconds",
        type=float,
        default=60.0,
        metavar="S",
        help="without a frame after which a file is bad; default 60",
    )


def splits(arguments: argparse.Namespace) -> list[Split]:
    """What SOURCE or --config stands for."""
    if arguments.processes < 1 or arguments.hang_seconds <= 0:
        raise UsageError("--processes and --hang-seconds must be positive")
    if not arguments.config:
        if len(arguments.words) != 1:
            raise UsageError("expected one SOURCE (a folder, list or manifest), or --config NAME")
        source = Path(arguments.words[0]).expanduser()
        root = arguments.root or (source if source.is_dir() else source.parent)
        from datamodules.manifests.splits import list_split, read_split

        read, list_ = (partial(f, source, root, None) for f in (read_split, list_split))
        return [Split(source.name, source, "", read, list_)]
    out = getattr(arguments, "out", None)
    from hiera_video.running.compose import data_module

    data = data_module(arguments.config, arguments.words, out and out / "missing_videos.csv")
    data.prepare_data()
    data.find_class_names()
    names: dict[str, list[str]] = {}  # that a split is used by
    for name, split in data.splits.items():
        if split is not None:
            names.setdefault(split, []).append(name)
    found: dict[str, Split] = {}
    for name, split in data.splits.items():
        if split is not None and split not in found:
            found[split] = Split(
                name,
                data.source(name),
                data.prepared_name(name),
                partial(data.read_split, name),
                partial(data.list_split, split, data.class_names),
                partial(_missing, data, split),
                partial(data.diagnose, names[split]),
            )
    return list(found.values())


def _missing(data: Any, split: str) -> list[Any]:
    return [video for video in data.missing if video.split == split]
