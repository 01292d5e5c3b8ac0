"""Where the videos of an annotation file are on disk; some may be missing."""

import os
import re
import unicodedata
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from datamodules.errors import DatasetError
from datamodules.manifests.lists import Row, at
from datamodules.manifests.walking import entries
from datamodules.suffixes import VIDEO_SUFFIXES, VIDEOS
from datamodules.wording import counted

# Takes an annotation file (for messages) and its rows; returns each row's video, None if missing.
Find = Callable[[Path, Sequence[Row]], list[str | None]]


class MissingVideo(NamedTuple):
    """A video that an annotation file names but that does not exist.

    Attributes:
        split: the split, as the configuration names it.
        video: its path relative to the root, possibly without a suffix.
        file: the annotation file.
        row: line or record of that file.
    """

    split: str
    video: str
    file: str
    row: int


def missing_videos(
    split: str, file: Path, root: str | Path, rows: Sequence[Row]
) -> list[MissingVideo]:
    """Rows without a video as the list of missing videos has them."""
    base = os.path.abspath(root)
    return [MissingVideo(split, os.path.relpath(r.video, base), str(file), r.number) for r in rows]


def describe_missing(
    file: Path,
    missing: Sequence[MissingVideo],
    rows: int,
    folders: Sequence[str | Path],
    noun: str = VIDEOS.noun,
) -> str:
    """How many videos are missing, of how many rows, where, and the first of them.

    Args:
        file: the annotation file.
        missing: at least one.
        rows: of the file.
        folders: that relative paths were looked up in.
        noun: what the message calls the files.
    """
    places = " and ".join(os.path.abspath(folder) for folder in folders)
    return (
        f"{file}: {len(missing)} of {counted(rows, noun)} "
        f"{'is' if len(missing) == 1 else 'are'} missing in {places}, the first in row "
        f"{missing[0].row}: {missing[0].video}"
    )


def find_by_path(source: Path, rows: Sequence[Row]) -> list[str | None]:
    """The path of each row's video, None if there is no such file; lists each folder once.

    Raises:
        DatasetError: a folder cannot be read, or a row names a folder.
    """
    files_in: dict[str, dict[str, bool]] = {}
    paths: list[str | None] = []
    for row in rows:
        folder, name = os.path.split(row.video)
        if folder not in files_in:
            files_in[folder] = _entries(folder)
        is_folder = files_in[folder].get(name)
        if is_folder:
            raise DatasetError(
                f"{at(source, row.number)}: {row.video} is a folder; list video files (folders of "
                "pictures are read for AVA only)"
            )
        paths.append(None if is_folder is None else row.video)
    return paths


def find_by_stem(
    source: Path, rows: Sequence[Row], without: Collection[str] = ()
) -> list[str | None]:
    """The path of each row's video, whatever its suffix; None if there is no such file.

    A file is in the row's folder or in one of its subfolders. The names of subfolders need not
    equal the labels, as the tools that create them change spaces and punctuation. Lists each folder
    once.

    Args:
        source: the annotation file, for messages.
        rows: their ``video`` has no suffix.
        without: names of subfolders that are left out.

    Raises:
        DatasetError: a folder does not exist, or a row has several files and not exactly one of
            them is in the folder of its label.
    """
    folders: dict[str, dict[str, list[str]]] = {}
    paths: list[str | None] = []
    for row in rows:
        folder, stem = os.path.split(row.video)
        if folder not in folders:
            folders[folder] = _files_by_stem(folder, without)
        files = folders[folder].get(stem, [])
        if len(files) > 1:
            files = [f for f in files if _plain(os.path.dirname(f)) == _plain(row.label)] or files
        if len(files) > 1:
            one, two = (os.path.join(folder, file) for file in sorted(files)[:2])
            raise DatasetError(f"{at(source, row.number)}: two files, {one} and {two}; remove one")
        paths.append(os.path.join(folder, files[0]) if files else None)
    return paths


def _files_by_stem(folder: str, without: Collection[str]) -> dict[str, list[str]]:
    """Video files in a folder and its subfolders, by stem: paths relative to the folder."""
    files: dict[str, list[str]] = {}
    subfolders = [""]  # grows while the first, the folder itself, is listed
    for subfolder in subfolders:
        try:
            found, folders = entries(os.path.join(folder, subfolder))
        except OSError as error:
            raise DatasetError(
                f"{error.filename}: {error.strerror}; set data.videos to the folder of the videos"
            ) from None
        for entry in found:
            stem, suffix = os.path.splitext(entry.name)
            if suffix.lower() in VIDEO_SUFFIXES and entry.is_file():  # not a link to nothing
                files.setdefault(stem, []).append(os.path.join(subfolder, entry.name))
        if not subfolder:
            subfolders += [entry.name for entry in folders if entry.name not in without]
    return files


def _entries(folder: str) -> dict[str, bool]:
    """Whether each entry of a folder is a folder, by name; empty if there is no such folder."""
    try:
        with os.scandir(folder) as found:
            return {entry.name: entry.is_dir(follow_symlinks=False) for entry in found}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise DatasetError(f"{folder}: {error.strerror}") from None


def _plain(label: str) -> str:
    """A label as the usual tools write it in the name of a folder."""
    return re.sub(r"[\"'()]", "", unicodedata.normalize("NFC", label)).replace(" ", "_")
