"""Data sets whose videos are named by annotation files; some of the videos may be missing."""

import csv
import logging
import os
import re
from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only

from datamodules.base import VideoDataModule
from datamodules.errors import DatasetError
from datamodules.files import atomic_file
from datamodules.manifests.lists import (
    MissingVideo,
    Row,
    class_names_of,
    find_by_path,
    label_ids,
    read_list,
    unique_rows,
)
from datamodules.manifests.parquet import find_manifest
from datamodules.manifests.splits import Manifest, list_split, make_manifest

log = logging.getLogger(__name__)

# Takes an annotation file (for messages) and its rows; returns each row's video, None if missing.
Find = Callable[[Path, Sequence[Row]], list[str | None]]


class AnnotatedVideoDataModule(VideoDataModule):
    """Videos that annotation files name.

    A split is a name such as ``train``, whose annotation file is searched for, or the path of an
    annotation file, a list or a folder of class folders, relative to ``root``.

    Published videos disappear over the years, so annotated videos may be missing. They are left
    out, counted, and listed in a file.

    Args:
        root: folder of the data set; all named videos must lie in it.
        train: training split.
        val: validation split.
        test: test split; by default the validation split, on which results are published.
        *args: see `VideoDataModule`.
        annotations: folder of the annotation files, relative to ``root``; None: ``annotations``,
            ``labels`` and ``root`` are searched.
        num_classes: number of classes that the annotation must have; None: any, as in a subset.
        missing_videos: CSV file to which the missing videos are written, with the columns split,
            video, file and row; None: they are only counted.
        max_missing_share: share of a split's videos, in [0, 1], that may be missing.
        **kwargs: see `VideoDataModule`.
    """

    def __init__(
        self,
        root: str | Path,
        train: str | None = "train",
        val: str | None = "val",
        test: str | None = "val",
        *args,
        annotations: str | None = None,
        num_classes: int | None = None,
        missing_videos: str | Path | None = None,
        max_missing_share: float = 0.05,
        **kwargs,
    ) -> None:
        super().__init__(root, train, val, test, *args, **kwargs)
        if not 0 <= max_missing_share <= 1:
            raise ValueError(f"max_missing_share must be in [0, 1], not {max_missing_share}")
        self.annotations, self.num_classes = annotations, num_classes
        self.missing_videos = None if missing_videos is None else Path(missing_videos)
        self.max_missing_share = max_missing_share
        if self.class_names is not None:
            self._check_num_classes(self.class_names, "data.class_names")

    @abstractmethod
    def annotation_file(self, split: str) -> str:
        """Regular expression for the names of a split's annotation files."""

    def annotation_folders(self) -> list[Path]:
        """The folders in which annotation files are searched for."""
        folders = [self.annotations] if self.annotations else ["annotations", "labels", "."]
        return [self.root / folder for folder in folders]

    def read_annotation(self, file: Path) -> tuple[list[Row], Find]:
        """The rows of an annotation file, and the function that finds their videos.

        In this class, the file is a list of paths; subclasses also read published formats.

        Raises:
            DatasetError: the file is wrong; names the file and the row.
        """
        return read_list(file, self.root), find_by_path

    def source_of(self, split: str) -> Path:
        """The annotation file or folder that a split's name or path stands for.

        Raises:
            DatasetError: several files match.
        """
        if (self.root / split).is_file():
            return self.root / split
        pattern = re.compile(self.annotation_file(re.escape(split)), re.IGNORECASE)
        files = [
            folder / name
            for folder in self.annotation_folders()
            if folder.is_dir()
            for name in sorted(os.listdir(folder))
            if pattern.fullmatch(name)
        ]
        if len(files) > 1:
            raise DatasetError(
                f"{files[0]} and {files[1]} are both annotations of the split {split!r}; set the "
                "split to the path of one of them"
            )
        if not files and self.annotations is not None:
            raise DatasetError(
                f"{self.annotation_folders()[0]}: no annotation of the split {split!r} here; set "
                "data.annotations to its folder, or to null to search the usual ones"
            )
        return files[0] if files else self.root / split

    def list_split(self, split: str, class_names: Sequence[str] | None) -> Manifest:
        """The videos of a split that exist, from its annotation file, list or class folders.

        Raises:
            DatasetError: the split is missing, empty or wrong, or too many of its videos are
                missing; names the file and the row.
        """
        file = self.source_of(split)
        if not file.exists():
            places = ", ".join(str(folder) for folder in self.annotation_folders())
            raise DatasetError(
                f"{file}: no such folder or file, and no annotation of it in {places}; set "
                "data.root, data.annotations or the split's name"
            )
        if file.is_dir():
            return list_split(file, self.root, class_names)
        rows, find = self.read_annotation(file)
        rows = unique_rows(file, rows)
        labels, names = label_ids(file, rows, class_names)
        paths = find(file, rows)
        self._note_missing(split, file, rows, paths)
        existing = [(path, label) for path, label in zip(paths, labels, strict=True) if path]
        paths, labels = zip(*existing, strict=True)
        return make_manifest(paths, labels, names, os.path.abspath(self.root))

    def list_class_names(self, name: str) -> tuple[str, ...]:
        """As in the base class, but without looking for the videos.

        Raises:
            DatasetError: the number of classes is not `num_classes`.
        """
        source = self.source(name)
        if source.is_file() and not find_manifest(source):
            names = self.annotated_classes(source)
        else:
            names = super().list_class_names(name)
        if names:
            self._check_num_classes(names, str(source))
        return names

    def annotated_classes(self, file: Path) -> tuple[str, ...]:
        """Classes that an annotation file names, in the order of their ids; empty if unlabelled."""
        return class_names_of(file, self.read_annotation(file)[0])

    def _check_num_classes(self, names: Sequence[str], source: str) -> None:
        if self.num_classes not in (None, len(names)):
            raise DatasetError(
                f"{source}: {len(names)} classes, not {self.num_classes}; set "
                "data.num_classes=null for a subset"
            )

    def _note_missing(
        self, split: str, file: Path, rows: Sequence[Row], paths: Sequence[str | None]
    ) -> None:
        """Record the missing videos in `missing` and in the CSV file.

        Raises:
            DatasetError: too many are missing.
        """
        base = os.path.abspath(self.root)
        missing = [
            MissingVideo(split, os.path.relpath(row.video, base), str(file), row.number)
            for row, path in zip(rows, paths, strict=True)
            if path is None
        ]
        self.missing = [m for m in self.missing if m.split != split] + missing
        self._write_missing()
        if not missing:
            return
        first, share = missing[0], len(missing) / len(rows)
        message = (
            f"{file}: {len(missing)} of {len(rows)} videos are missing, the first in row "
            f"{first.row}: {first.video}"
        )
        listed = f"; listed in {self.missing_videos}" if self.missing_videos else ""
        if share > self.max_missing_share or len(missing) == len(rows):
            if share > self.max_missing_share:
                message += f" ({share:.1%}, and data.max_missing_share={self.max_missing_share:g})"
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
