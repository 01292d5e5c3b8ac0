"""Data sets whose videos are named by annotation files; some of the videos may be missing."""

import os
import re
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path

from datamodules.errors import DatasetError
from datamodules.folder import VideoFolderDataModule
from datamodules.manifests.labels import class_names_of
from datamodules.manifests.lists import Row, unique_rows
from datamodules.manifests.manifest import Manifest
from datamodules.manifests.walking import is_hidden


class AnnotatedVideoDataModule(VideoFolderDataModule):
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
        max_missing_share: share of a split's videos, in [0, 1], that may be missing.
        **kwargs: see `VideoFolderDataModule` and `VideoDataModule`.
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
        max_missing_share: float = 0.05,
        **kwargs,
    ) -> None:
        kwargs |= {"max_missing_share": max_missing_share}
        super().__init__(root, train, val, test, *args, **kwargs)
        self.annotations, self.num_classes = annotations, num_classes
        if self.class_names is not None:
            self._check_num_classes(self.class_names, "data.class_names")

    @abstractmethod
    def annotation_file(self, split: str) -> str:
        """Regular expression for the names of a split's annotation files."""

    def annotation_folders(self) -> list[Path]:
        """The folders in which annotation files are searched for."""
        folders = [self.annotations] if self.annotations else ["annotations", "labels", "."]
        return [self.root / folder for folder in folders]

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
            if pattern.fullmatch(name) and not is_hidden(name)
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
        return super().list_split(split, class_names)

    def counted_rows(self, file: Path, rows: list[Row]) -> list[Row]:
        """One row of each video.

        Raises:
            DatasetError: a video has two labels.
        """
        return unique_rows(file, rows)

    def list_class_names(self, name: str) -> tuple[str, ...]:
        """As in the base class.

        Raises:
            DatasetError: the number of classes is not `num_classes`.
        """
        names = super().list_class_names(name)
        if names:
            self._check_num_classes(names, str(self.source(name)))
        return names

    def annotated_classes(self, file: Path) -> tuple[str, ...]:
        """Classes that an annotation file names, in the order of their ids; empty if unlabelled."""
        return class_names_of(self.read_annotation(file)[0], self.num_classes)

    def _check_num_classes(self, names: Sequence[str], source: str) -> None:
        if self.num_classes not in (None, len(names)):
            raise DatasetError(
                f"{source}: {len(names)} classes, not {self.num_classes}; set "
                "data.num_classes=null for a subset"
            )
