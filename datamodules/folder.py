"""Videos in class folders or listed in a text file."""

from collections.abc import Sequence

from datamodules.base import VideoDataModule
from datamodules.manifests.splits import Manifest, list_split


class VideoFolderDataModule(VideoDataModule):
    """Video files under one root, of any data set.

    A split is the name of a folder with one folder of videos a class, or of a text file: CSV
    ``path,label`` or lines ``path label`` as PySlowFast writes them (paths relative to ``root``),
    or of a manifest file or a folder that holds one, from ``prepare``. The arguments are those of
    `VideoDataModule`.
    """

    def list_split(self, split: str, class_names: Sequence[str] | None) -> Manifest:
        """As `datamodules.manifests.splits.list_split`."""
        return list_split(self.source_of(split), self.root, class_names)
