"""COCO: objects in pictures, with boxes, classes and masks, as published or one's own."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from lightning.pytorch.utilities import rank_zero_only

from datamodules.annotated import AnnotatedVideoDataModule
from datamodules.arguments import check_numbers, check_range
from datamodules.coco.annotations import (
    CocoAnnotations,
    CocoManifest,
    differing_categories,
    ground_truth,
    read_coco,
)
from datamodules.coco.pictures import EvaluationPictures, TrainingPictures
from datamodules.coco.segmentation import has_mask
from datamodules.errors import DatasetError
from datamodules.manifests.finding import find_by_path
from datamodules.manifests.lists import Row, at, inside
from datamodules.manifests.splits import Manifest, make_manifest
from datamodules.processes import in_first_process
from datamodules.suffixes import PICTURES
from datamodules.wording import counted

log = logging.getLogger(__name__)

MULTIPLE = 32  # of the size of pictures, for whole mask units


class CocoDataModule(AnnotatedVideoDataModule):
    """Pictures with boxes, classes and masks of objects, in COCO's format.

    A batch is a dict with, for its B pictures, ``video`` uint8 ``(B, 3, 1, H, W)``, each picture in
    the upper left corner of grey padding; ``picture_size`` and ``original_size`` int64 ``(B, 2)``,
    height and width of the picture in the batch and in its file; ``seed`` and ``video_id`` (row of
    the annotation's ``images``) int64 ``(B,)``. In training, it has N objects: ``boxes`` float32
    ``(N, 4)``, ``box_clip`` and ``box_labels`` (from 1 on) int64 ``(N,)``, and ``masks`` uint8
    ``(N, H, W / 8)``; see `TrainingPictures`.

    A split is a name such as ``train2017``, for which ``instances_train2017.json`` is looked for in
    ``annotations`` and the root, or the path of a json file, relative to ``root``.

    Args:
        root: folder of the data set.
        train: training split.
        val: validation split.
        test: test split; by default the validation split, as COCO publishes no annotation of its
            test split.
        images: folder of the pictures, relative to ``root``; ``{split}`` stands for the name of the
            split, or of its json file without the suffix. File names may have folders of their own.
        size: height and width of a picture in a batch, pixels, multiples of 32.
        scale: least and greatest factor of the large-scale jitter in training; with 1 a picture
            just fits in.
        keep_empty: train also on pictures without objects.
        max_missing_share: share of a split's pictures, in [0, 1], that may be missing.
        **kwargs: see `AnnotatedVideoDataModule` and `VideoDataModule`, with pictures in place of
            videos. The arguments in `REFUSED` are refused: a picture is no clip, and the classes
            are those of the annotation.
    """

    # Arguments of the base classes that mean nothing here.
    REFUSED = frozenset(
        {
            "class_names",
            "crop_ratio",
            "crop_scale",
            "fps",
            "num_frames",
            "predict",
            "repeats",
            "sampling",
            "short_side",
            "stride",
            "test_views",
            "val_views",
        }
    )
    unit = "pictures"
    media = PICTURES
    category_ids: tuple[int, ...] = ()

    def __init__(
        self,
        root: str | Path,
        train: str | None = "train2017",
        val: str | None = "val2017",
        test: str | None = "val2017",
        *,
        images: str = "{split}",
        size: tuple[int, int] = (1024, 1024),
        scale: tuple[float, float] = (0.1, 2.0),
        keep_empty: bool = False,
        max_missing_share: float = 0.0,
        **kwargs,
    ) -> None:
        if refused := sorted(kwargs.keys() & self.REFUSED):
            raise TypeError(
                f"CocoDataModule.__init__() got an unexpected keyword argument {refused[0]!r}"
            )
        check_numbers("size", size, "height, width", multiple=MULTIPLE)
        check_range("scale", scale)
        one_frame: dict[str, Any] = {"num_frames": 1, "stride": 1, "fps": 1.0, "size": tuple(size)}
        views: dict[str, Any] = {"val_views": (1, 1), "test_views": (1, 1)}
        kwargs |= {"max_missing_share": max_missing_share, **one_frame, **views}
        super().__init__(root, train, val, test, **kwargs)
        self.images, self.scale, self.keep_empty = images, scale, keep_empty
        self._annotations: dict[str, CocoAnnotations] = {}

    def annotation_file(self, split: str) -> str:
        """``instances_train2017.json``."""
        return rf"instances_{split}\.json"

    def source(self, name: str) -> Path:
        """The json file of ``train``, ``val`` or ``test``."""
        return self.source_of(self._named(name))

    def truth_file(self, name: str) -> Path:
        """As `source`, but see that the file exists.

        Raises:
            DatasetError: there is no such file.
        """
        return self._existing(self._named(name))

    def image_folder(self, name: str) -> Path:
        """Folder of the pictures of ``train``, ``val`` or ``test``."""
        return self._folder(self._named(name))

    def find_class_names(self) -> None:
        """Set class names and category ids from the first split that exists.

        Raises:
            DatasetError: its annotation is missing or wrong.
        """
        if not self.category_ids:
            categories = in_first_process(self.trainer, self._read_categories)
            self.class_names, self.category_ids = categories

    def _read_categories(self) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """Names and ids of the categories."""
        annotations = self._read_annotations(self._named(self.first_split()))
        return annotations.class_names, annotations.category_ids

    def first_split(self) -> str:
        """Which of ``train``, ``val`` and ``test`` sets the categories of all.

        Raises:
            DatasetError: there is none.
        """
        for name, split in self.splits.items():
            if split:
                return name
        raise DatasetError("data.train, data.val and data.test are all null")

    def differing_categories(self, categories: Mapping[int, str]) -> str:
        """How categories, names by id, differ from those of `first_split`; empty if they do not."""
        first = self.first_split()
        others = dict(zip(self.category_ids, self.class_names or (), strict=True))
        return differing_categories(categories, others, f"{first}, {self.source(first)}")

    def ground_truth(self, split: str) -> dict[str, Any]:
        """The content of the json file of ``train``, ``val`` or ``test``, for evaluation.

        Raises:
            DatasetError: see `datamodules.coco.annotations.ground_truth`.
        """
        file = self.truth_file(split)
        truth = ground_truth(file)
        if lacking := [a["id"] for a in truth["annotations"] if not has_mask(a)]:
            rank_zero_only(log.warning)(
                f"{file}: {len(lacking):,} of {counted(len(truth['annotations']), 'annotations')} "
                f"without a mask, such as {lacking[0]}, so that masks are not evaluated"
            )
        return truth

    def diagnose(self, splits: Sequence[str]) -> Sequence[Any]:
        """See `datamodules.coco.diagnosis`: what is wrong with the annotation, and what it has."""
        from datamodules.coco.diagnosis import diagnose  # which reads this class

        return [diagnose(self, splits[0])]

    def read_split(self, name: str) -> Manifest:
        """The pictures of ``train``, ``val`` or ``test`` that exist."""
        return self.list_split(self._named(name), None)

    def list_split(self, split: str, class_names: Sequence[str] | None) -> CocoManifest:
        """The pictures of a split that exist.

        Raises:
            DatasetError: the annotation is missing or wrong, or too many pictures are missing.
        """
        annotations = self._read_annotations(split)
        file, base = Path(annotations.file), os.path.abspath(self.root)
        folder = os.path.relpath(self._folder(split), self.root)
        rows = [
            Row(number, inside(base, os.path.join(folder, name), at(file, number)), "")
            for number, name in enumerate(annotations.file_name.to_pylist(), 1)
        ]
        paths = find_by_path(file, rows)
        missing = [row for row, path in zip(rows, paths, strict=True) if path is None]
        self._note_missing(split, file, missing, len(rows), [self.root])
        present = [number for number, path in enumerate(paths) if path is not None]
        videos = [rows[number].video for number in present]
        manifest = make_manifest(videos, class_names=annotations.class_names, root=base)
        table = manifest.table.append_column("image", pa.array(present, pa.int64()))
        return CocoManifest(table, manifest.class_names, manifest.root, annotations=annotations)

    def training_clips(self, manifest: Manifest) -> Any:
        """The pictures that training loads, with their objects."""
        assert isinstance(manifest, CocoManifest)
        return TrainingPictures(manifest, self._size(), self.seed, self.scale)

    def evaluation_views(self, manifest: Manifest, split: str) -> Any:
        """The pictures that evaluation loads."""
        assert isinstance(manifest, CocoManifest)
        return EvaluationPictures(manifest, self._size(), self.seed)

    def _read(self, name: str) -> Manifest:
        """The pictures of a split; of ``train`` those that have objects."""
        self.find_class_names()
        manifest = self.list_split(self._named(name), None)
        annotations = manifest.annotations
        categories = dict(zip(annotations.category_ids, annotations.class_names, strict=True))
        if difference := self.differing_categories(categories):
            raise DatasetError(f"{annotations.file}: {difference}")
        if name != "train" or self.keep_empty:
            return manifest
        rows = manifest.table["image"].to_numpy()
        left = np.flatnonzero(annotations.num_objects()[rows] > 0)
        if not len(left):
            raise DatasetError(f"{annotations.file}: no picture has objects to learn from")
        return replace(manifest, table=manifest.table.take(left))

    def _read_annotations(self, split: str) -> CocoAnnotations:
        if split not in self._annotations:
            self._annotations[split] = read_coco(self._existing(split))
        return self._annotations[split]

    def _existing(self, split: str) -> Path:
        file = self.source_of(split)
        if not file.is_file():
            places = ", ".join(str(folder) for folder in self.annotation_folders())
            raise DatasetError(
                f"{file}: no such file, and no instances_{split}.json in {places}; set data.root, "
                "data.annotations or the split's name"
            )
        return file

    def _folder(self, split: str) -> Path:
        name = Path(split).stem if split.endswith(".json") else split
        return self.root / self.images.replace("{split}", name)

    def _size(self) -> tuple[int, int]:
        return self.clip.height, self.clip.width
