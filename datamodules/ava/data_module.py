"""AVA: actions of persons in boxes, once a second of a video, as published or one's own."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from datamodules.annotated import AnnotatedVideoDataModule
from datamodules.arguments import check_positive, check_short_side
from datamodules.ava.annotations import (
    BoxTable,
    check_boxes,
    check_score,
    read_boxes,
    read_excluded,
)
from datamodules.ava.clips import EvaluationKeyframes, TrainingKeyframes
from datamodules.ava.keyframes import (
    GroundTruth,
    KeyframeManifest,
    ground_truth_of,
    make_keyframes,
)
from datamodules.ava.label_map import read_label_map
from datamodules.ava.tables import (
    Scored,
    SplitTables,
    check_seconds,
    durations,
    evaluation_sources,
    first_rows,
    locate_videos,
    of_videos,
    training_sources,
)
from datamodules.manifests.lists import NO_LABEL, Row, inside
from datamodules.manifests.splits import DatasetError, Manifest, make_manifest

EVAL_BOXES = ("predicted", "ground_truth")
SPLITS = ("train", "val", "test")


class AVADataModule(AnnotatedVideoDataModule):
    """Keyframes of videos with boxes of persons and their actions, in AVA's format.

    Batches are those of detection: ``video`` uint8 ``(B, 3, T, H, W)``, ``seed``, ``video_id`` (row
    of `video_names`) and ``second`` int64 ``(B,)``; of all boxes ``boxes`` float32 ``(N, 4)`` as
    the model sees them, ``box_clip`` int64 ``(N,)``, ``box_labels`` float32 ``(N, classes)`` (zeros
    where unknown), ``box_score`` float32 ``(N,)`` and ``boxes_original`` float32 ``(N, 4)`` of the
    full frame. ``skipped`` counts, in training, keyframes whose crop kept no box. The ``video_id``
    of a `Failure` is a row of the manifest, which is one keyframe.

    A split is a name such as ``train``, of which ``ava_train_v2.2.csv`` is looked for in
    ``annotations``, ``labels`` and the root, or the path of a csv, relative to ``root``. Other
    files are looked for in the same folders.

    Training is on ground truth and on the detector's boxes together. Evaluation is on the
    detector's boxes, while `ground_truth` has everything there is to find.

    Args:
        root: folder of the data set.
        train: training split.
        val: validation split.
        test: split for `test`; AVA publishes no annotation of its test split.
        videos: folder of the videos, relative to ``root``: files named by their id, or a folder for
            each with its frames, named ``<id>_000001.jpg`` and so on (PySlowFast).
        frame_rate: pictures a second of such folders.
        timestamp_offset: second of the annotation at which the videos begin: 0 for whole movies,
            900 for the usual 15 minutes cut out of them, and PySlowFast's frames.
        annotations: folder of the annotation files, relative to ``root``; None: one of the usual
            places.
        label_map: names of the action ids in the annotation, a pbtxt.
        eval_label_map: a pbtxt with the actions that are evaluated; None: all of them.
        excluded: of each split, the csv of its excluded timestamps, or None.
        person_boxes: of each split, the csv or json of a detector's boxes, or None. Those of
            training need labels.
        person_box_images: for AlphAction's json, the json that has its list of images.
        min_person_score: least score of a detector's box.
        eval_boxes: ``predicted``, or ``ground_truth`` for an evaluation that no detector limits.
        num_frames: frames of a clip.
        stride: a clip takes every ``stride``-th frame of a video of ``fps``, around the keyframe.
        fps: nominal frame rate that ``stride`` counts in.
        size: height and width of a clip, pixels.
        batch_size: keyframes in a training batch of one process.
        repeats: random crops of one keyframe in a training batch.
        short_side: range of the random length of the short side before the training crop.
        box_jitter: move the sides of training boxes at random, by up to these shares of width and
            height, inwards by half of that; None: leave them.
        eval_batch_size: keyframes in an evaluation batch of one process.
        eval_short_side: pixels to which the short side is scaled in evaluation; None: ``size`` just
            fits in.
        eval_pad: instead of the centre crop of ``size``, evaluate the whole picture, padded to this
            height and width, multiples of 32.
        missing_videos: CSV file to write that lists the videos that are missing.
        max_missing_share: share of a split's videos, in [0, 1], that may be missing.
        num_workers: decoding processes for each training process.
        decode_timeout: seconds that a worker may take for one keyframe before it is ended.
        bad_videos: CSV file that lists the videos that cannot be decoded.
        killed_videos: CSV file that lists the videos that hung or crashed the decoder.
        max_bad_share: share of an epoch's keyframes that may fail and be replaced in training.
        stop_on_kill: stop when a worker hangs or dies.
        seed: seed of order and of every random choice.
    """

    action_ids: tuple[int, ...] = ()
    evaluated_action_ids: tuple[int, ...] = ()

    def __init__(
        self,
        root: str | Path,
        train: str | None = "train",
        val: str | None = "val",
        test: str | None = "val",
        *,
        videos: str = "videos",
        frame_rate: float = 30.0,
        timestamp_offset: float = 0.0,
        annotations: str | None = None,
        label_map: str = "ava_action_list_v2.2.pbtxt",
        eval_label_map: str | None = None,
        excluded: Mapping[str, str | None] | None = None,
        person_boxes: Mapping[str, str | None] | None = None,
        person_box_images: str | None = None,
        min_person_score: float = 0.8,
        eval_boxes: str = "predicted",
        num_frames: int = 16,
        stride: int = 4,
        fps: float = 30.0,
        size: tuple[int, int] = (224, 224),
        batch_size: int = 8,
        repeats: int = 1,
        short_side: tuple[int, int] = (256, 320),
        box_jitter: tuple[float, float] | None = None,
        eval_batch_size: int = 4,
        eval_short_side: int | None = None,
        eval_pad: tuple[int, int] | None = None,
        missing_videos: str | Path | None = None,
        max_missing_share: float = 0.0,
        num_workers: int = 0,
        decode_timeout: float = 60.0,
        bad_videos: str | Path | None = None,
        killed_videos: str | Path | None = None,
        max_bad_share: float = 0.01,
        stop_on_kill: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(
            root,
            train,
            val,
            test,
            annotations=annotations,
            missing_videos=missing_videos,
            max_missing_share=max_missing_share,
            num_frames=num_frames,
            stride=stride,
            fps=fps,
            size=size,
            batch_size=batch_size,
            repeats=repeats,
            eval_batch_size=eval_batch_size,
            val_views=(1, 1),
            test_views=(1, 1),
            num_workers=num_workers,
            decode_timeout=decode_timeout,
            bad_videos=bad_videos,
            killed_videos=killed_videos,
            max_bad_share=max_bad_share,
            stop_on_kill=stop_on_kill,
            seed=seed,
        )
        check_positive(frame_rate=frame_rate)
        for key, value in (("frame_rate", frame_rate), ("timestamp_offset", timestamp_offset)):
            if not math.isfinite(value):
                raise ValueError(f"{key} must be a finite number, not {value}")
        check_short_side(short_side, max(size))
        if not 0 <= min_person_score <= 1:
            raise ValueError(f"min_person_score must be in [0, 1], not {min_person_score}")
        if eval_boxes not in EVAL_BOXES:
            raise ValueError(f"eval_boxes must be {' or '.join(EVAL_BOXES)}, not {eval_boxes!r}")
        if box_jitter is not None and not _are_two_shares(box_jitter, most=0.5):
            raise ValueError(
                f"box_jitter must be [width, height], each in [0, 0.5], not {box_jitter}"
            )
        if eval_pad is not None and (len(eval_pad) != 2 or any(n < 1 or n % 32 for n in eval_pad)):
            raise ValueError(f"eval_pad must be two multiples of 32, not {list(eval_pad)}")
        least = max(size) if eval_pad is None else 1
        if eval_short_side is not None and eval_short_side < least:
            raise ValueError(f"eval_short_side must be at least {least}, not {eval_short_side}")
        for name, files in (("excluded", excluded), ("person_boxes", person_boxes)):
            if unknown := sorted(set(files or {}) - set(SPLITS)):
                raise ValueError(f"{name} has {unknown[0]!r}; expected {', '.join(SPLITS)}")
        self.videos, self.frame_rate, self.timestamp_offset = videos, frame_rate, timestamp_offset
        self.label_map, self.eval_label_map = label_map, eval_label_map
        self.excluded, self.person_boxes = dict(excluded or {}), dict(person_boxes or {})
        self.person_box_images, self.min_person_score = person_box_images, min_person_score
        self.eval_boxes, self.short_side, self.box_jitter = eval_boxes, short_side, box_jitter
        self.eval_short_side, self.eval_pad = eval_short_side, eval_pad

    def video_names(self, split: str) -> tuple[str, ...]:
        """Names of the videos of ``train``, ``val`` or ``test`` by ``video_id``."""
        return self.keyframes(split).video_names

    def ground_truth(self, split: str) -> GroundTruth:
        """All ground truth of ``train``, ``val`` or ``test``, also of videos that are missing."""
        return self.keyframes(split).ground_truth

    def keyframes(self, split: str) -> KeyframeManifest:
        """The keyframes of ``train``, ``val`` or ``test``, read once."""
        self.find_class_names()
        manifest = self._manifest(split)
        assert isinstance(manifest, KeyframeManifest)
        return manifest

    def find_class_names(self) -> None:
        """Set class names and action ids, in the order of their columns, from the label map.

        Raises:
            DatasetError: a label map is missing or wrong, or that of evaluation has other names.
        """
        if self.action_ids:
            return
        file = self.annotation("label_map", self.label_map)
        names = read_label_map(file)
        evaluated = names
        if self.eval_label_map is not None:
            other = self.annotation("eval_label_map", self.eval_label_map)
            evaluated = read_label_map(other)
            for action, name in evaluated.items():
                if names.get(action) != name:
                    raise DatasetError(f"{other}: {file} has no action {action}, {name!r}")
        self.class_names, self.action_ids = tuple(names.values()), tuple(names)
        self.evaluated_action_ids = tuple(evaluated)

    def annotation_file(self, split: str) -> str:
        """``ava_train_v2.2.csv``, of any version."""
        return rf"ava_{split}_v\d\.\d\.csv"

    def annotation(self, key: str, name: str) -> Path:
        """A file that a setting names, in the root or a folder of annotations.

        Raises:
            DatasetError: it is not there.
        """
        places = [self.root / name, *(folder / name for folder in self.annotation_folders())]
        found = next((place for place in places if place.is_file()), None)
        if found is None:
            folders = ", ".join(str(folder) for folder in self.annotation_folders())
            raise DatasetError(f"data.{key}={name}: no such file in {self.root} or {folders}")
        return found

    def source(self, name: str) -> Path:
        """The csv of ground truth of ``train``, ``val`` or ``test``."""
        return self.source_of(self._named(name))

    def truth_file(self, name: str) -> Path:
        """As `source`.

        Raises:
            DatasetError: it is not there.
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
        """Boxes of a detector, not judged."""
        images = self.person_box_images
        if file.suffix.lower() != ".json" or images is None:
            return read_boxes(file)
        return read_boxes(file, self.annotation("person_box_images", images))

    def read_excluded(self, name: str) -> frozenset[tuple[str, int]]:
        """Excluded keyframes of ``train``, ``val`` or ``test``."""
        file = self.excluded.get(name)
        return read_excluded(self.annotation(f"excluded.{name}", file)) if file else frozenset()

    def tables(self, name: str) -> SplitTables:
        """Read and judge the annotation of ``train``, ``val`` or ``test``, but not its videos.

        Raises:
            DatasetError: a file is missing or wrong; names the file and the row.
        """
        self.find_class_names()
        excluded = self.read_excluded(name)
        truth = read_boxes(self.truth_file(name))
        check_boxes(truth, self.action_ids)
        file, persons = self.person_box_file(name), None
        if file is not None:
            persons = self.read_person_boxes(file)
            check_boxes(persons, self.action_ids, unlabelled=True)
            check_score(persons)
            persons = persons.without(excluded)
        return SplitTables(truth.without(excluded), persons, excluded)

    def find_videos(self, names: Sequence[str], rows: Mapping[str, int], file: Path) -> list[str]:
        """Path of each video, a file or else a folder of frames; empty where it is missing.

        Args:
            names: of the videos.
            rows: of their first mention in the file, for messages.
            file: the annotation.

        Raises:
            DatasetError: a name is none of a file, or a video is there twice.
        """
        folder = inside(os.path.abspath(self.root), self.videos, "data.videos")
        return locate_videos(folder, names, rows, file)

    def read_split(self, name: str) -> Manifest:
        """The videos of ``train``, ``val`` or ``test`` that are there, each once, unlabelled."""
        return self.list_split(self._named(name), None)

    def list_split(self, split: str, class_names: Sequence[str] | None) -> Manifest:
        """The videos of a split that are there, each once, unlabelled.

        Raises:
            DatasetError: the split is missing or wrong, or too many of its videos are missing.
        """
        file = self.source_of(split)
        paths = [path for path in self._paths(split, read_boxes(file)) if path]
        return make_manifest(paths, [NO_LABEL] * len(paths), (), os.path.abspath(self.root))

    def _paths(self, split: str, truth: BoxTable) -> list[str]:
        """Paths of a split's videos; counts, lists and judges what is not there."""
        rows = first_rows(truth)
        paths = self.find_videos(truth.names, rows, truth.file)
        folder = os.path.join(os.path.abspath(self.root), self.videos)
        named = [Row(rows[name], os.path.join(folder, name), "") for name in truth.names]
        self._note_missing(split, truth.file, named, [path or None for path in paths])
        return paths

    def _read(self, name: str) -> Manifest:
        """The keyframes of a split."""
        tables = self.tables(name)
        truth = tables.truth
        names = truth.names
        paths = self._paths(self._named(name), truth)
        persons = None if tables.persons is None else of_videos(tables.persons, names)
        lengths = durations(paths, self.frame_rate)
        for table in (truth, persons):
            if table is not None:
                check_seconds(table, names, lengths, self.timestamp_offset)
        sources = self.sources(name, truth, persons)
        keyframes = make_keyframes(sources, names, self.action_ids)
        there = np.array([bool(path) for path in paths], bool)
        rows = np.flatnonzero(there[keyframes.video])
        if not len(rows):
            raise DatasetError(
                f"{truth.file}: no keyframe is left to load; see what is wrong with: "
                "hiera-video check --config ..."
            )
        columns = [paths[video] for video in keyframes.video[rows].tolist()]
        manifest = make_manifest(
            columns, [NO_LABEL] * len(rows), self.class_names or (), os.path.abspath(self.root)
        )
        return KeyframeManifest(
            manifest.table.append_column("keyframe", pa.array(rows)),
            manifest.class_names,
            manifest.root,
            keyframes=keyframes,
            ground_truth=ground_truth_of(truth),
            video_names=names,
        )

    def sources(self, name: str, truth: BoxTable, persons: BoxTable | None) -> list[Scored]:
        """The boxes that ``train``, ``val`` or ``test`` loads, with their person scores.

        Raises:
            DatasetError: the detector's boxes are missing, or teach nothing.
        """
        if name == "train":
            return training_sources(truth, persons, self.min_person_score)
        predicted = self.eval_boxes == "predicted"
        return evaluation_sources(name, truth, persons, self.min_person_score, predicted)

    def training_clips(self, manifest: Manifest) -> Any:
        """What training loads: random crops of keyframes' clips."""
        assert isinstance(manifest, KeyframeManifest)
        assert self.short_side is not None
        return TrainingKeyframes(
            manifest,
            self.clip,
            self.repeats,
            self.seed,
            self.timestamp_offset,
            self.frame_rate,
            self.short_side,
            self.box_jitter,
        )

    def evaluation_views(self, manifest: Manifest, split: str) -> Any:
        """What evaluation loads: keyframes' clips."""
        assert isinstance(manifest, KeyframeManifest)
        return EvaluationKeyframes(
            manifest,
            self.clip,
            self.seed,
            self.timestamp_offset,
            self.frame_rate,
            self.eval_short_side,
            self.eval_pad,
        )


def _are_two_shares(values: Sequence[float], most: float) -> bool:
    return np.shape(values) == (2,) and all(0 <= share <= most for share in values)
