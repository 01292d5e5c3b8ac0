"""The files that ``prepare`` and ``check`` read: a folder, list, manifest or configuration."""

import argparse
import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from hiera_video.errors import UsageError


def _cores() -> int:
    """Number of cores that the machine, the affinity and the container's quota allow."""
    has_affinity = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(cores, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no such control group, or "max"
        return cores


CORES = _cores()


class Split(NamedTuple):
    """One split of a data set, or all of it.

    Attributes:
        name: for the progress line.
        source: the folder or file that lists the videos.
        folder: subfolder of --out to write to.
        read: returns the manifest, the one that `prepare` wrote if there is one.
        list: returns a manifest made anew from the source.
        missing: returns the videos that are annotated but not on the disk; to be called after
            ``read``.
        diagnose: returns findings about the annotation.
        uses: names that its videos have in `shared_lines`: all of a split that is to train and to
            evaluate, but one of a split that is for validation and test.
        noun: what messages call the files; None: as their suffixes say.
        labelled: those of ``train`` and ``val`` that read it and need labels.
    """

    name: str
    source: Path
    folder: str
    read: Callable[[], Any]
    list: Callable[[], Any]
    missing: Callable[[], Sequence[Any]] = tuple
    diagnose: Callable[[], Sequence[Any]] = tuple
    uses: Sequence[str] = ()
    noun: str | None = None
    labelled: Sequence[str] = ()


def add_source(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that select the videos."""
    parser.add_argument("words", nargs="*", metavar="SOURCE", help="folder, list or manifest file")
    parser.add_argument(
        "--config", metavar="NAME", help="all splits of a configuration; key=value may follow"
    )
    parser.add_argument(
        "--root", type=Path, help="folder that a list's paths are relative to; default: the list's"
    )


def add_work(parser: argparse.ArgumentParser) -> None:
    """Add the arguments for decoding in several processes."""
    parser.add_argument(
        "--processes", type=int, default=CORES, help=f"for decoding; default {CORES}, one per core"
    )
    parser.add_argument(
        "--hang-seconds",
        type=float,
        default=60.0,
        metavar="S",
        help="seconds without a frame after which a file is bad; default 60",
    )


def splits(arguments: argparse.Namespace) -> list[Split]:
    """The splits that SOURCE or --config stands for.

    Raises:
        UsageError: wrong usage, or there is no such source.
    """
    if arguments.processes < 1 or arguments.hang_seconds <= 0:
        raise UsageError("--processes and --hang-seconds must be positive")
    if arguments.config:
        return _configured_splits(arguments)
    if len(arguments.words) != 1:
        raise UsageError("expected one SOURCE (a folder, list or manifest), or --config NAME")
    from datamodules.manifests.parquet import find_manifest
    from datamodules.manifests.splits import class_folders, split_folders
    from datamodules.manifests.walking import media_of_folder
    from datamodules.suffixes import VIDEOS

    source = Path(arguments.words[0]).expanduser()
    if not source.exists():
        raise UsageError(f"{source}: no such folder or file; --config NAME takes a configuration")
    folders = [] if not source.is_dir() or find_manifest(source) else split_folders(source)
    media = media_of_folder(source) if source.is_dir() else VIDEOS
    if not folders:
        root = arguments.root or (source if source.is_dir() else source.parent)
        return [_split(source, root, media)]
    if others := sorted(set(class_folders(source)) - {folder.name for folder in folders}):
        print(f"{source} holds splits; left out: {', '.join(others)}")
    names = _class_names(folders[0])
    return [_split(folder, folder, media, folder.name, names) for folder in folders]


def _split(
    source: Path,
    root: Path,
    media: Any,
    folder: str = "",
    class_names: Sequence[str] | None = None,
) -> Split:
    """The split in a folder, which is searched for files of a kind, or in a list or manifest."""
    from datamodules.manifests.finding import missing_videos
    from datamodules.manifests.splits import list_split, read_split

    read = cache(partial(read_split, source, root, class_names, media))
    return Split(
        source.name,
        source,
        folder,
        read,
        partial(list_split, source, root, class_names, media),
        lambda: missing_videos(source.name, source, root, read().missing),
        uses=[source.name],
    )


def _class_names(folder: Path) -> Sequence[str] | None:
    """Classes of a folder of class folders or of its manifest; None if it has none."""
    from datamodules.manifests.parquet import find_manifest, read_manifest
    from datamodules.manifests.splits import class_folders

    manifest = find_manifest(folder)
    names = read_manifest(manifest)[1].class_names if manifest else class_folders(folder)
    return names or None


def _configured_splits(arguments: argparse.Namespace) -> list[Split]:
    from datamodules.errors import AnnotationError
    from hiera_video.running.compose import data_and_task

    out = getattr(arguments, "out", None)
    missing = out and out / "missing_videos.csv"
    data, task = data_and_task(arguments.config, arguments.words, missing)
    labelled = {"train", "val"} if getattr(task, "needs_labels", False) else set()
    data.prepare_data()
    with suppress(AnnotationError):  # which reading the split tells, or its diagnosis
        data.find_class_names()
    users: dict[str, list[str]] = {}  # train, val or test may use the same split
    for name, split in data.splits.items():
        if split is not None:
            users.setdefault(split, []).append(name)
    return [
        Split(
            names[0],
            data.source(names[0]),
            data.prepared_name(names[0]),
            cache(partial(data.read_split, names[0])),
            partial(data.list_split, split, data.class_names),
            partial(_missing, data, split),
            partial(data.diagnose, names),
            names if names[0] == "train" else names[:1],
            data.media.noun,
            [name for name in names if name in labelled],
        )
        for split, names in users.items()
    ]


def _missing(data: Any, split: str) -> list[Any]:
    return [video for video in data.missing if video.split == split]


def noun_of(manifest: Any) -> str:
    """What messages call the files of a manifest: ``videos``, ``images`` or both."""
    from datamodules.suffixes import kind_of

    return kind_of(manifest.table["path"].to_pylist()).noun


def shared_lines(manifests: Mapping[str, Any], noun: str) -> list[str]:
    """Which files of the training split are in other splits, too."""
    from datamodules.manifests.shared import shared_videos

    return [f"warning: {warning}" for warning in shared_videos(manifests, noun)]


def class_lines(name: str, manifest: Any) -> list[str]:
    """How many files the classes of a split have, and what is suspicious about that."""
    from datamodules.manifests.labels import class_report

    counts, names = manifest.class_counts(), manifest.class_names
    line, warnings = class_report(name, counts, names, noun_of(manifest))
    return [line, *(f"warning: {warning}" for warning in warnings)] if line else []
