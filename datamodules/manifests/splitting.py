"""Class folders without splits -> the folders ``train``, ``val`` and ``test``."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from datamodules.errors import DatasetError
from datamodules.manifests.splits import class_folders, split_folders
from datamodules.manifests.walking import files_below
from datamodules.suffixes import EITHER, VIDEOS

SPLITS: tuple[str, ...] = ("train", "val", "test")


def split_folder(
    source: str | Path,
    target: str | Path,
    shares: Sequence[float] = (0.7, 0.15, 0.15),
    seed: int = 0,
) -> dict[str, int]:
    """Divide a folder of class folders into the splits that ``data.root`` expects.

    Each class is divided in the same shares, at random. The new folders hold symbolic links, so
    nothing is copied. Clips that were cut from one recording look alike: if they come into
    different splits, the accuracy is too high. Divide such clips by hand.

    Args:
        source: has a folder of videos, at any depth, for each class; or of pictures.
        target: gets ``train/<class>/*``, ``val/<class>/*`` and ``test/<class>/*``. What an earlier
            call of the same source wrote there is replaced.
        shares: of the training, validation and test split. They are scaled to a sum of 1, and each
            split has at least one video of each class.
        seed: of the choice; the same videos and seed give the same splits.

    Returns:
        The number of videos in each split.

    Raises:
        DatasetError: there are no class folders, or they are splits; a class has fewer than three
            videos, or ``target`` holds other files.
        ValueError: ``shares`` are not three positive numbers.
    """
    if len(shares) != len(SPLITS) or min(shares) <= 0:
        raise ValueError(f"shares must be three positive numbers, not {shares}")
    source, target = Path(source).absolute(), Path(target)
    names = class_folders(source) if source.is_dir() else ()
    if not names:
        raise DatasetError(f"{source}: no class folders; expected one folder of videos per class")
    if splits := [folder.name for folder in split_folders(source)]:
        raise DatasetError(
            f"{source}: {', '.join(splits)} are splits, not classes; it is divided already"
        )
    rng, cuts = np.random.default_rng(seed), np.cumsum(shares)[:-1] / sum(shares)
    links: dict[Path, Path] = {}
    counts: dict[str, int] = dict.fromkeys(SPLITS, 0)
    for name in names:
        files = [Path(path) for path in files_below(source / name) if EITHER.has(path)]
        videos = list(filter(VIDEOS.has, files)) or files  # pictures may lie beside videos
        if len(videos) < len(SPLITS):
            raise DatasetError(
                f"{source / name}: a class needs at least three {EITHER.noun} to be split"
            )
        first = min(max(1, round(cuts[0] * len(videos))), len(videos) - 2)  # of the val split
        second = min(max(first + 1, round(cuts[1] * len(videos))), len(videos) - 1)
        shuffled = [videos[i] for i in rng.permutation(len(videos))]
        parts = shuffled[:first], shuffled[first:second], shuffled[second:]
        for split, part in zip(SPLITS, parts, strict=True):
            counts[split] += len(part)
            links |= {target / split / video.relative_to(source): video for video in part}
    _remove_links(target, source)
    for link, video in links.items():
        link.parent.mkdir(parents=True, exist_ok=True)
        os.symlink(video, link)
    return counts


def _remove_links(target: Path, source: Path) -> None:
    """Remove what an earlier call wrote, with its folders; refuse anything else."""
    earlier = [path for split in SPLITS for path in (target / split).rglob("*")]

    def is_ours(path: Path) -> bool:
        return path.readlink().is_relative_to(source) if path.is_symlink() else path.is_dir()

    if kept := [path for path in earlier if not is_ours(path)]:
        raise DatasetError(
            f"{min(kept)}: not a link of an earlier split of {source}; name an empty folder"
        )
    for path in sorted(earlier, reverse=True):  # what is in a folder comes before the folder
        path.unlink() if path.is_symlink() else path.rmdir()
