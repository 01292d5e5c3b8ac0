"""What the files of a data set in AVA's format say: its classes, boxes and videos."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from datamodules.annotated import AnnotatedVideoDataModule
from datamodules.arguments import check_positive
from datamodules.ava.annotations import read_boxes, read_excluded
from datamodules.ava.box_table import (
    BoxTable,
    check_actions,
    check_boxes,
    check_labelled,
    check_scores,
)
from datamodules.ava.label_map import read_label_map
from datamodules.ava.tables import Scored, first_rows, locate_videos, sources_of
from datamodules.errors import DatasetError
from datamodules.manifests.lists import Row, inside
from datamodules.manifests.splits import Manifest, make_manifest
from datamodules.manifests.splitting import SPLITS
from datamodules.processes import in_first_process

EVAL_BOXES = ("predicted", "ground_truth")


class AVAFiles(AnnotatedVideoDataModule):
    """Finds and reads the files of a data set in AVA's format, for `AVADataModule`.

    A split is a name such as ``train``, for which ``ava_train_v2.2.csv`` is looked for in
    ``annotations``, ``labels`` and the root, or the path of a csv, relative to ``root``. The other
    files are looked for in the same folders.

    Args:
        *args: ``root`` and, if given, the splits, as in `VideoDataModule`. AVA publishes no
            annotation of its test split, so ``test`` is ``val`` by default.
        videos: folder of the videos, relative to ``root``: files named by their id, or one folder
            for each with its frames, named ``<id>_000001.jpg`` and so on (PySlowFast).
        frame_rate: pictures a second in such folders.
        timestamp_offset: second of the annotation at which the videos begin: 0 for whole movies,
            900 for the usual 15 minutes cut out of them, and for PySlowFast's frames.
        label_map: pbtxt file that names the action ids of the annotation.
        eval_label_map: pbtxt file of the actions that are evaluated; None: all of them.
        excluded: for each split, the csv of its excluded timestamps, or None.
        person_boxes: for each split, the csv or json of a detector's boxes, or None. Those of
            training need labels.
        person_box_images: for AlphAction's json, the json that has its list of images.
        min_person_score: least score of a detector's box, in [0, 1].
        eval_boxes: ``predicted``, or ``ground_truth`` for an evaluation without the detector's
            errors.
        max_missing_share: share of a split's videos, in [0, 1], that may be missing.
        **kwargs: see `AnnotatedVideoDataModule` and `VideoDataModule`.
    """

    action_ids: tuple[int, ...] = ()
    evaluated_action_ids: tuple[int, ...] = ()

    def __init__(
        self,
        *args,
        videos: str = "videos",
        frame_rate: float = 30.0,
        timestamp_offset: float = 0.0,
        label_map: str = "ava_action_list_v2.2.pbtxt",
        eval_label_map: str | None = None,
        excluded: Mapping[str, str | None] | None = None,
        person_boxes: Mapping[str, str | None] | None = None,
        person_box_images: str | None = None,
        min_person_score: float = 0.8,
        eval_boxes: str = "predicted",
        max_missing_share: float = 0.0,
        **kwargs,
    ) -> None:
        super().__init__(*args, max_missing_share=max_missing_share, **kwargs)
        check_positive(frame_rate=frame_rate)
        for key, value in (("frame_rate", frame_rate), ("timestamp_offset", timestamp_offset)):
            if not math.isfinite(value):
                raise ValueError(f"{key} must be a finite number, not {value}")
        if not 0 <= min_person_score <= 1:
            raise ValueError(f"min_person_score must be in [0, 1], not {min_person_score}")
        if eval_boxes not in EVAL_BOXES:
            raise ValueError(f"eval_boxes must be {' or '.join(EVAL_BOXES)}, not {eval_boxes!r}")
        for name, files in (("excluded", excluded), ("person_boxes", person_boxes)):
            if unknown := sorted(set(files or {}) - set(SPLITS)):
                raise ValueError(f"{name} has {unknown[0]!r}; expected {', '.join(SPLITS)}")
        self.videos, self.frame_rate, self.timestamp_offset = videos, frame_rate, timestamp_offset
        self.label_map, self.eval_label_map = label_map, eval_label_map
        self.excluded, self.person_boxes = dict(excluded or {}), dict(person_boxes or {})
        self.person_box_images, self.min_person_score = person_box_images, min_person_score
        self.eval_boxes = eval_boxes

    def find_class_names(self) -> None:
        """Set class names and action ids, in the order of their columns, from the label map.

        Raises:
            DatasetError: a label map is missing or wrong, or the two give an id different names.
        """
        if not self.action_ids:
            names, self.evaluated_action_ids = in_first_process(self.trainer, self._read_label_maps)
            self.class_names, self.action_ids = tuple(names.values()), tuple(names)

    def _read_label_maps(self) -> tuple[dict[int, str], tuple[int, ...]]:
        """The name of each action, and the ids of those that are evaluated."""
        file = self.annotation("label_map", self.label_map)
        names = read_label_map(file)
        evaluated = names
        if self.eval_label_map is not None:
            other = self.annotation("eval_label_map", self.eval_label_map)
            evaluated = read_label_map(other)
            for action, name in evaluated.items():
                if names.get(action) != name:
                    raise DatasetError(f"{other}: {file} has no action {action}, {name!r}")
        return names, tuple(evaluated)

    def annotation_file(self, split: str) -> str:
        """``ava_train_v2.2.csv``, of any version."""
        return rf"ava_{split}_v\d\.\d\.csv"

    def annotation(self, key: str, name: str) -> Path:
        """Path of the file that a setting names, in the root or a folder of annotations.

        Raises:
            DatasetError: there is no such file.
        """
        places = [self.root / name, *(folder / name for folder in self.annotation_folders())]
        file = next((place for place in places if place.is_file()), None)
        if file is None:
            folders = ", ".join(str(folder) for folder in self.annotation_folders())
            raise DatasetError(f"data.{key}={name}: no such file in {self.root} or {folders}")
        return file

    def source(self, name: str) -> Path:
        """The csv of ground truth of ``train``, ``val`` or ``test``."""
        return self.source_of(self._named(name))

    def truth_file(self, name: str) -> Path:
        """As `source`, but see that the file exists.

        Raises:
            DatasetError: there is no such file.
        """
        if (file := self.source(name)).is_file():
            return file
        places = ", ".join(str(folder) for folder in self.annotation_folders())
        raise DatasetError(f"{file}: no such file, and no ava_*.csv of that split in {places}")

    def person_box_file(self, name: str) -> Path | None:
        """The detector's boxes of ``train``, ``val`` or ``test``, if they are configured."""
        file = self.person_boxes.get(name)
        return None if file is None else self.annotation(f"person_boxes.{name}", file)

    def read_person_boxes(self, file: Path) -> BoxTable:
        """Read the boxes of a person detector, without checks of their values."""
        images = self.person_box_images
        if file.suffix.lower() != ".json" or images is None:
            return read_boxes(file)
        return read_boxes(file, self.annotation("person_box_images", images))

    def read_excluded(self, name: str) -> BoxTable | None:
        """Excluded keyframes of ``train``, ``val`` or ``test``, if there are any."""
        file = self.excluded.get(name)
        return read_excluded(self.annotation(f"excluded.{name}", file)) if file else None

    def tables(self, name: str) -> tuple[BoxTable, BoxTable | None]:
        """Read and check ground truth and person boxes of ``train``, ``val`` or ``test``.

        Excluded keyframes are left out. Whether the videos exist is not checked.

        Raises:
            DatasetError: a file is missing or wrong; names the file and the row.
        """
        self.find_class_names()
        excluded = self.read_excluded(name)
        truth = read_boxes(self.truth_file(name))
        check_boxes(truth)
        check_labelled(truth)
        check_actions(truth, self.action_ids)
        file, persons = self.person_box_file(name), None
        if file is not None:
            persons = self.read_person_boxes(file)
            check_boxes(persons)
            check_actions(persons, self.action_ids)
            check_scores(persons)
            persons = persons.without(excluded)
        return truth.without(excluded), persons

    def find_videos(self, names: Sequence[str], rows: Mapping[str, int], file: Path) -> list[str]:
        """Path of each video, a file or else a folder of frames; empty where it is missing.

        Args:
            names: names of the videos.
            rows: row of the file that first names each video, for messages.
            file: the annotation.

        Raises:
            DatasetError: a name cannot be that of a file, or a video has two.
        """
        folder = inside(os.path.abspath(self.root), self.videos, "data.videos")
        return locate_videos(folder, names, rows, file)

    def read_split(self, name: str) -> Manifest:
        """The videos of ``train``, ``val`` or ``test`` that exist, each once, without labels."""
        return self.list_split(self._named(name), None)

    def list_split(self, split: str, class_names: Sequence[str] | None) -> Manifest:
        """The videos of a split that exist, each once, without labels.

        Raises:
            DatasetError: the split is missing or wrong, or too many of its videos are missing.
        """
        file = self.source_of(split)
        paths = [path for path in self._paths(split, read_boxes(file)) if path]
        return make_manifest(paths, root=os.path.abspath(self.root))

    def _paths(self, split: str, truth: BoxTable) -> list[str]:
        """Paths of a split's videos; missing ones are counted, listed and refused if too many."""
        rows = first_rows(truth)
        paths = self.find_videos(truth.names, rows, truth.file)
        folder = os.path.join(os.path.abspath(self.root), self.videos)
        named = [Row(rows[name], os.path.join(folder, name), "") for name in truth.names]
        missing = [row for row, path in zip(named, paths, strict=True) if not path]
        self._note_missing(split, truth.file, missing, len(named), [self.root])
        return paths

    def sources(self, name: str, truth: BoxTable, persons: BoxTable | None) -> list[Scored]:
        """The boxes that ``train``, ``val`` or ``test`` loads; see `tables.sources_of`."""
        return sources_of(name, truth, persons, self.min_person_score, self.eval_boxes)
