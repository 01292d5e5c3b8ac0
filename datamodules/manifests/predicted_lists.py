"""Lists of videos to predict: where their relative paths start is found out."""

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from datamodules.errors import DatasetError
from datamodules.manifests.finding import Find, describe_missing, find_by_path, missing_videos
from datamodules.manifests.lists import Row
from datamodules.manifests.manifest import Manifest
from datamodules.manifests.splits import locate
from datamodules.manifests.text_lists import read_list
from datamodules.suffixes import kind_of

log = logging.getLogger(__name__)

# Takes a file and the folder that its relative paths start from.
ReadRows = Callable[[Path, Path], tuple[list[Row], Find]]


class Located(NamedTuple):
    """The videos of a list.

    Attributes:
        manifest: those that exist; the others are in its ``missing``.
        rows: of the list.
        folders: that relative paths were looked up in: the one with videos; all, if none has any.
    """

    manifest: Manifest
    rows: list[Row]
    folders: list[str]


def read_paths(file: Path, root: Path) -> tuple[list[Row], Find]:
    """The rows of a list, whose paths may lead anywhere."""
    return read_list(file, root, may_leave=True), find_by_path


def locate_list(file: Path, roots: Sequence[str | Path], read: ReadRows = read_paths) -> Located:
    """Find the videos of a list below the first of several folders that has any of them.

    Args:
        file: the list.
        roots: folders that its relative paths may start from, at least one.
        read: reads it.

    Raises:
        DatasetError: the list is wrong; names the file and the row.
    """
    folders = list(dict.fromkeys(os.path.abspath(root) for root in roots))
    for root in folders:
        rows, find = read(file, Path(root))
        manifest = locate(file, "/", rows, find, None)
        if len(manifest) or root == folders[-1]:
            return Located(manifest, rows, [root] if len(manifest) else folders)
    raise ValueError("expected at least one root")


def list_to_predict(file: Path, roots: Sequence[str | Path]) -> Manifest:
    """The videos of a list, as in `locate_list`; how many are missing is logged.

    Raises:
        DatasetError: the list is wrong, or none of its videos exists.
    """
    manifest, rows, folders = locate_list(file, roots)
    if manifest.missing:
        missing = missing_videos("", file, folders[-1], manifest.missing)
        noun = kind_of(row.video for row in rows).noun
        message = describe_missing(file, missing, len(rows), folders, noun)
        if not len(manifest):
            raise DatasetError(message)
        log.warning(message)
    return manifest
