"""Videos in class folders or listed in a text file."""

import csv
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only

from datamodules.base import VideoDataModule
from datamodules.errors import DatasetError
from datamodules.files import atomic_file
from datamodules.manifests.finding import (
    Find,
    MissingVideo,
    describe_missing,
    find_by_path,
    missing_videos,
)
from datamodules.manifests.labels import class_names_of
from datamodules.manifests.lists import Row, rows_by_video
from datamodules.manifests.manifest import Manifest
from datamodules.manifests.parquet import find_manifest
from datamodules.manifests.predicted_lists import locate_list, read_paths
from datamodules.manifests.splits import list_split, locate
from datamodules.manifests.text_lists import read_list

log = logging.getLogger(__name__)


class VideoFolderDataModule(VideoDataModule):
    """Video files below one root, of any data set.

    A split is the name of one of these, relative to ``root``:

    - a folder with one folder of videos for each class;
    - a text file: CSV ``path,label`` or lines ``path label`` as PySlowFast writes them, with paths
      relative to ``root``; see `datamodules.manifests.text_lists.read_list`;
    - a manifest that ``prepare`` wrote, or its folder.

    Listed videos that do not exist are left out, counted, and listed in a file.

    Args:
        *args: see `VideoDataModule`.
        missing_videos: CSV file to which the missing videos are written, with the columns split,
            video, file and row; None: they are only counted.
        max_missing_share: share of a split's listed videos, in [0, 1], that may be missing.
        **kwargs: see `VideoDataModule`.
    """

    def __init__(
        self,
        *args,
        missing_videos: str | Path | None = None,
        max_missing_share: float = 0.01,
        **kwargs,
    ) -> None:
        super().__init__(*args, **kwargs)
        if not 0 <= max_missing_share <= 1:
            raise ValueError(f"max_missing_share must be in [0, 1], not {max_missing_share}")
        self.missing_videos = None if missing_videos is None else Path(missing_videos)
        self.max_missing_share = max_missing_share
        self._list_root: Path | None = None  # while a list to predict is read

    def read_annotation(self, file: Path) -> tuple[list[Row], Find]:
        """The rows of a list or annotation file, and the function that finds their videos.

        In this class, the file is a list of paths; subclasses also read published formats.

        Raises:
            DatasetError: the file is wrong; names the file and the row.
        """
        if self._list_root is not None:
            return read_paths(file, self._list_root)
        return read_list(file, self.root), find_by_path

    def list_to_predict(self, file: Path) -> Manifest:
        """The videos of a list or annotation file among those to predict.

        Raises:
            DatasetError: the file is wrong, or none of its videos exists.
        """
        roots = [self.predict_root] if self.predict_root else [file.parent, self.root]
        split = os.path.abspath(file)
        manifest, rows, folders = locate_list(Path(split), roots, self._rows_to_predict)
        self._note_missing(split, file, manifest.missing, len(rows), folders)
        return manifest

    def _rows_to_predict(self, file: Path, root: Path) -> tuple[list[Row], Find]:
        """The rows of an annotation file or, with paths that start from ``root``, of a list."""
        self._list_root = root
        try:
            rows, find = self.read_annotation(file)
        finally:
            self._list_root = None
        return self.counted_rows(file, rows), find

    def counted_rows(self, file: Path, rows: list[Row]) -> list[Row]:
        """The rows that count: here all, as a list may repeat a video to show it more often.

        Raises:
            DatasetError: a video has two labels.
        """
        rows_by_video(file, rows)
        return rows

    def list_split(self, split: str, class_names: Sequence[str] | None) -> Manifest:
        """The videos of a split that exist, from its list, annotation file or class folders.

        Raises:
            DatasetError: the split is missing, empty or wrong, or too many of its videos are
                missing; names the file and the row.
        """
        file = self.source_of(split)
        if not file.is_file():
            return list_split(file, self.root, class_names, self.media)
        rows, find = self.read_annotation(file)
        return self.locate_rows(split, file, rows, find, class_names)

    def locate_rows(
        self,
        split: str,
        file: Path,
        rows: list[Row],
        find: Find,
        class_names: Sequence[str] | None,
    ) -> Manifest:
        """The videos of an annotation's rows; missing ones are left out, counted and listed.

        Args:
            split: as the configuration names it.
            file: the annotation, for messages.
            rows: its rows.
            find: finds their videos.
            class_names: as in `list_split`.

        Raises:
            DatasetError: a label is wrong, or too many videos are missing.
        """
        rows = self.counted_rows(file, rows)
        manifest = locate(file, self.root, rows, find, class_names)
        self._note_missing(split, file, manifest.missing, len(rows), [self.root])
        return manifest

    def list_class_names(self, name: str) -> tuple[str, ...]:
        """As in the base class, but without looking for listed videos."""
        source = self.source(name)
        if source.is_file() and not find_manifest(source):
            return self.annotated_classes(source)
        return super().list_class_names(name)

    def annotated_classes(self, file: Path) -> tuple[str, ...]:
        """Classes that a list or annotation names, in the order of their ids; empty if none."""
        return class_names_of(self.read_annotation(file)[0])

    def _note_missing(
        self,
        split: str,
        file: Path,
        missing_rows: Sequence[Row],
        num_rows: int,
        folders: Sequence[str | Path],
    ) -> None:
        """Record the missing videos in `missing` and in the CSV file.

        Args:
            split: as the configuration names it; the path of a list to predict.
            file: the annotation, for messages.
            missing_rows: its rows whose video does not exist.
            num_rows: all of its rows.
            folders: that relative paths were looked up in.

        Raises:
            DatasetError: too many are missing. In a list to predict, that is only logged: there is
                no accuracy that they would change.
        """
        missing = missing_videos(split, file, folders[-1], missing_rows)
        self.missing = [m for m in self.missing if m.split != split] + missing
        self._write_missing()
        if not missing:
            return
        message = describe_missing(file, missing, num_rows, folders, self.media.noun)
        share = len(missing) / num_rows
        listed = f"; listed in {self.missing_videos}" if self.missing_videos else ""
        is_split = split in self.splits.values()
        too_many = share > self.max_missing_share and is_split
        if too_many or len(missing) == num_rows:
            if too_many:
                message += f" ({share:.1%}, and data.max_missing_share={self.max_missing_share:g})"
                listed = listed or "; `hiera-video check` lists them"
            elif not is_split:
                message += "; data.root=DIR names another folder"
            raise DatasetError(f"{message}{listed}")
        log.warning(f"{message} ({share:.2%}){listed}")

    @rank_zero_only
    def _write_missing(self) -> None:
        path = self.missing_videos
        if path is None or not (self.missing or path.exists()):
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            atomic_file(path) as temporary,
            open(temporary, "w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(MissingVideo._fields)
            writer.writerows(self.missing)
