"""Suffixes by which files of videos and of pictures are told apart."""

import os
from collections.abc import Iterable
from typing import NamedTuple

VIDEO_SUFFIXES = frozenset(
    (
        *(".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".f4v", ".mj2"),
        *(".mkv", ".webm", ".avi", ".divx", ".wmv", ".asf", ".flv"),
        *(".mpg", ".mpeg", ".mpe", ".m1v", ".m2v", ".vob", ".ts", ".mts", ".m2ts"),
        *(".mxf", ".dv", ".ogv", ".ogm", ".rm", ".rmvb", ".nut", ".ivf"),
        *(".gif", ".y4m", ".h264", ".264", ".hevc", ".h265", ".265"),
    )
)
PICTURE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff")
)


class Media(NamedTuple):
    """The kind of file that a data set is made of.

    Attributes:
        noun: what messages call such files, in the plural.
        suffixes: of such files, in lower case.
    """

    noun: str
    suffixes: frozenset[str]

    def has(self, path: str | os.PathLike[str]) -> bool:
        """Whether a path has the suffix of such a file."""
        return os.path.splitext(path)[1].lower() in self.suffixes


VIDEOS = Media("videos", VIDEO_SUFFIXES)
PICTURES = Media("images", PICTURE_SUFFIXES)
EITHER = Media("videos or images", VIDEO_SUFFIXES | PICTURE_SUFFIXES)


def kind_of(paths: Iterable[str]) -> Media:
    """The kind of files that all have: PICTURES by their suffixes, else VIDEOS; EITHER if mixed."""
    suffixes = tuple(PICTURE_SUFFIXES)
    pictures = {path.lower().endswith(suffixes) for path in paths}
    if len(pictures) == 2:
        return EITHER
    return PICTURES if True in pictures else VIDEOS
