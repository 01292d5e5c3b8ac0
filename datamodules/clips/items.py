"""What a loader loads: items, each with the clips of one video."""

from typing import Any, Protocol

from datamodules.manifests.splits import Manifest

Item = dict[str, Any]


class NothingToLearn(Exception):
    """The random crop of a training item keeps nothing to learn from; the next one is taken."""


class ClipDataset(Protocol):
    """Clips of videos, by (epoch, index).

    Attributes:
        manifest: the videos.
        item_shape: greatest shape of an item's ``video``: ``(clips, T, H, W, 3)``.
    """

    manifest: Manifest
    item_shape: tuple[int, ...]

    def __getitem__(self, key: tuple[int, int]) -> Item:
        """The clips of one video; VideoDecodeError if it cannot be decoded.

        In training, NothingToLearn where the item is to be skipped; then items have ``skipped``.
        """
        ...

    def empty(self, index: int) -> Item:
        """The item of a video that cannot be decoded: no clips."""
        ...
