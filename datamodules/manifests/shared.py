"""Videos that training shares with the splits that are to judge it."""

import os
from collections.abc import Mapping
from functools import cache

from datamodules.manifests.manifest import Manifest
from datamodules.manifests.parquet import pc
from datamodules.manifests.splits import TRAINING_FOLDERS
from datamodules.suffixes import VIDEOS
from datamodules.wording import counted

_SHOWN = 3  # paths in a message


def shared_videos(manifests: Mapping[str, Manifest], noun: str = VIDEOS.noun) -> list[str]:
    """Warnings of videos that are in the training split and in another one, too.

    Two paths are the same video if they lead to the same file, through symbolic links or not. Two
    files with the same content (hard links, too), or of the same name, are two videos.

    Args:
        manifests: the splits by name; that of training is ``train`` or ``training``.
        noun: what the warnings call the files, as in `Media`.

    Returns:
        One line for each of the others that shares videos with it.
    """
    training = next((name for name in TRAINING_FOLDERS if name in manifests), None)
    if training is None or len(manifests) == 1:
        return []
    trained_on = set(_files(manifests[training]).values())
    warnings = []
    for name, manifest in manifests.items():
        paths = _files(manifest) if name != training else {}
        if shared := [path for path, file in paths.items() if file in trained_on]:
            full = (os.path.join(manifest.root, path) for path in shared[:_SHOWN])
            first = [os.path.relpath(path, manifest.root or "/") for path in full]
            warnings.append(
                f"{len(shared)} of the {counted(len(paths), noun)} of {name} "
                f"{'is' if len(shared) == 1 else 'are'} in {training}, too: "
                f"{', '.join(first)}{', ...' if len(shared) > _SHOWN else ''}; leave them out of "
                f"one of the two, or the numbers of {name} will be too good"
            )
    return warnings


def _files(manifest: Manifest) -> dict[str, str]:
    """The file that each path leads to; a list may repeat a video, and has a row for each keyframe.

    As ``os.path.realpath``, which asks the disk once a file; this asks once a folder.
    """

    @cache
    def resolved(folder: str) -> tuple[str, set[str]]:
        """The real path of a folder, and the names of links in it."""
        real = os.path.realpath(os.path.join(manifest.root, folder))
        try:
            with os.scandir(real) as entries:
                return real, {entry.name for entry in entries if entry.is_symlink()}
        except OSError:  # of packed videos, whose paths are but names
            return real, set()

    def target(link: str) -> str:
        folder, name = os.path.split(os.path.join(os.path.dirname(link), os.readlink(link)))
        real, links = resolved(folder)
        return os.path.realpath(link) if name in links or not name else f"{real}/{name}"

    files = {}
    for path in pc.unique(manifest.table["path"]).to_pylist():
        folder, slash, name = path.rpartition("/")
        real, links = resolved(folder + slash)
        files[path] = target(f"{real}/{name}") if name in links else f"{real}/{name}"
    return files
