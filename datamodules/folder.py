"""Videos in class folders or listed in a text file."""

from collections.abc import Sequence

from datamodules.base import VideoDataModule
from datamodules.manifests.splits import Manifest, list_split


class VideoFolderDataModule(VideoDataModule):
    """Video files below one root, of any data set.

    A split is the name of one of these, relative to ``root``:

    - a folder with one folder of videos for each class;
    - a text file: CSV ``path,label`` or lines ``path label`` as PySlowFast writes them, with paths
      relative to ``root``;
    - a manifest that ``prepare`` wrote, or its folder.

    The arguments are those of `VideoDataModule`.
    """

    def list_split(self, split: str, class_names: Sequence[str] | None) -> Manifest:
        """The videos of a split; see `datamodules.manifests.splits.list_split`."""
        return list_split(self.source_of(split), self.root, class_names)
