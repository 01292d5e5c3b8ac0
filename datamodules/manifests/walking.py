"""The files in and below a folder. Hidden files and folders are not among them."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

from datamodules.errors import DatasetError, StorageFailure
from datamodules.suffixes import PICTURES, VIDEOS, Media

Entries = list[os.DirEntry[str]]


def is_hidden(name: str) -> bool:
    """Whether a file or folder has the name of a hidden one, such as macOS's ``._clip.mp4``.

    The folder that a file system has for itself counts as one.
    """
    return name.startswith(".") or name == "lost+found"


def entries(folder: str | Path) -> tuple[Entries, Entries]:
    """The files and the folders in a folder, without hidden ones, each sorted by name.

    A symbolic link to a folder counts as one; a link to nothing counts as a file.

    Raises:
        OSError: there is no such folder, or it cannot be read.
    """
    with os.scandir(folder) as found:
        visible = sorted((e for e in found if not is_hidden(e.name)), key=lambda e: e.name)
    files: Entries = []
    folders: Entries = []
    for entry in visible:
        (folders if _is_folder(entry) else files).append(entry)
    return files, folders


def media_of_folder(folder: Path) -> Media:
    """What a folder is taken to hold: PICTURES if some but no video lies below it, else VIDEOS.

    Beside pictures, animated ones (``.gif``) are not taken for videos.
    """
    suffixes = {os.path.splitext(path)[1].lower() for path in walk_files(folder)}
    if suffixes & (VIDEOS.suffixes - {".gif"}):
        return VIDEOS
    return PICTURES if suffixes & (PICTURES.suffixes - {".gif"}) else VIDEOS


def walk_files(folder: str | Path) -> Iterator[str]:
    """Paths of the files at any depth, folder by folder; none if there is no such folder.

    Symbolic links to folders are followed. A folder that several paths lead to is read once: at its
    own place, if that lies below, else through the first link. Links to folders that ``folder``
    lies in are not followed.

    Raises:
        DatasetError: a folder may not be read.
        StorageFailure: the storage does not give a folder.
    """
    folder = os.fspath(folder)
    seen, links = _ancestors(folder), [folder]  # both grow
    for link in links:
        stack = [link]
        while stack:
            path = stack.pop()
            try:
                if (identity := _identity(path)) in seen:
                    continue
                seen.add(identity)
                files, folders = entries(path)
            except OSError as error:
                if path == folder and isinstance(error, FileNotFoundError | NotADirectoryError):
                    continue
                if error.errno in (errno.EACCES, errno.EPERM):
                    reason = f"{error.strerror}; make the folder readable, or move it away"
                    raise DatasetError(f"{path}: {reason}") from error
                reason = f"{error.strerror}; start again when the storage gives the folder"
                raise StorageFailure(f"{path}: {reason}") from error
            yield from (entry.path for entry in files)
            links += [entry.path for entry in folders if entry.is_symlink()]
            stack += [entry.path for entry in reversed(folders) if not entry.is_symlink()]


def files_below(folder: str | Path) -> list[str]:
    """The paths of `walk_files`, sorted: ``a/x`` before ``a-b/x``."""
    return sorted(walk_files(folder), key=lambda path: path.split(os.sep))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _ancestors(folder: str) -> set[tuple[int, int]]:
    """The folders that a folder lies in: by its path, and by that without links."""
    parents = {*Path(os.path.realpath(folder)).parents, *Path(os.path.abspath(folder)).parents}
    return {_identity(parent) for parent in parents if os.path.isdir(parent)}


def _identity(folder: str | Path) -> tuple[int, int]:
    """What all paths that lead to a folder have in common."""
    state = os.stat(folder)
    return state.st_dev, state.st_ino
