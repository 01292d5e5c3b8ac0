"""AVA: actions of persons in boxes, once a second of a video, as published or one's own."""

import logging
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from datamodules.arguments import check_numbers, check_short_side
from datamodules.ava.box_table import BoxTable
from datamodules.ava.clips import EvaluationKeyframes, TrainingKeyframes
from datamodules.ava.diagnosis import diagnose_all, why_zero
from datamodules.ava.files import AVAFiles
from datamodules.ava.keyframes import KeyframeManifest, make_keyframes
from datamodules.ava.tables import check_seconds, of_split, video_durations
from datamodules.errors import DatasetError
from datamodules.manifests.splits import Manifest, make_manifest

log = logging.getLogger(__name__)


class AVADataModule(AVAFiles):
    """Keyframes of videos with boxes of persons and their actions, in AVA's format.

    A batch is a dict with, for its B clips, ``video`` uint8 ``(B, 3, T, H, W)``, and ``seed``
    and ``video_id`` (row of `video_names`) int64 ``(B,)``, ``second`` float64 ``(B,)``; for their N
    boxes ``boxes`` float32 ``(N, 4)`` in the frame as the model sees it, ``box_clip`` int64
    ``(N,)``, ``box_labels`` float32 ``(N, classes)`` (zeros where unknown), ``box_score`` float32
    ``(N,)`` and ``boxes_original`` float32 ``(N, 4)`` in the full frame. In training,
    ``skipped`` counts the keyframes whose crop kept no box. In a `Failure`, ``video_id`` is a row
    of the manifest, which is one keyframe. All keys stand in docs/extending.md, "The batch".

    Training uses ground truth and the detector's boxes together. Evaluation uses the detector's
    boxes alone, while `ground_truth` has every box that there is to find.

    Args:
        *args: see `AVAFiles`.
        short_side: least and greatest pixels of the random short side before the training crop.
        box_jitter: greatest random shift of the sides of a training box, in shares of its width and
            height, each in [0, 0.5]; inwards at most half of that. None: no shift.
        eval_short_side: pixels to which the short side is scaled in evaluation; None: ``size`` just
            fits in.
        eval_pad: height and width, multiples of 32, to which the whole picture is padded in
            evaluation, instead of the centre crop of ``size``.
        **kwargs: see `AVAFiles`, `AnnotatedVideoDataModule` and `VideoDataModule`, with keyframes
            in place of videos. The arguments in `REFUSED` are refused: a clip lies around its
            keyframe, and the classes are those of the label map.
    """

    # Arguments of the base classes that mean nothing here.
    REFUSED = frozenset(
        {
            "class_names",
            "crop_ratio",
            "crop_scale",
            "eval_crop",
            "num_classes",
            "predict",
            "sampling",
            "test_views",
            "val_views",
        }
    )
    unit = "keyframes"

    def __init__(
        self,
        *args,
        short_side: tuple[int, int] = (256, 320),
        box_jitter: tuple[float, float] | None = None,
        eval_short_side: int | None = None,
        eval_pad: tuple[int, int] | None = None,
        **kwargs,
    ) -> None:
        if refused := sorted(kwargs.keys() & self.REFUSED):
            raise TypeError(
                f"AVADataModule.__init__() got an unexpected keyword argument {refused[0]!r}"
            )
        kwargs |= {"val_views": (1, 1), "test_views": (1, 1)}
        super().__init__(*args, **kwargs)
        crop = max(self.clip.height, self.clip.width)
        check_short_side(short_side, crop)
        if box_jitter is not None and not _are_two_shares(box_jitter, most=0.5):
            raise ValueError(
                f"box_jitter must be [width, height], each in [0, 0.5], not {box_jitter}"
            )
        if eval_pad is not None:
            check_numbers("eval_pad", eval_pad, "height, width", multiple=32)
        least = crop if eval_pad is None else 1
        if eval_short_side is not None and eval_short_side < least:
            raise ValueError(f"eval_short_side must be at least {least}, not {eval_short_side}")
        self.short_side, self.box_jitter = short_side, box_jitter
        self.eval_short_side, self.eval_pad = eval_short_side, eval_pad

    def video_names(self, split: str) -> tuple[str, ...]:
        """Names of the videos of ``train``, ``val`` or ``test`` by ``video_id``."""
        return self.keyframes(split).video_names

    def ground_truth(self, split: str) -> BoxTable:
        """All ground truth of ``train``, ``val`` or ``test``, also of missing videos."""
        return self.keyframes(split).ground_truth

    def keyframes(self, split: str) -> KeyframeManifest:
        """The keyframes of ``train``, ``val`` or ``test``, read once."""
        self.find_class_names()
        manifest = self._manifest(split)
        assert isinstance(manifest, KeyframeManifest)
        return manifest

    def diagnose(self, splits: Sequence[str]) -> Sequence[Any]:
        """See `datamodules.ava.diagnosis`: what is wrong with the annotation, and what it holds."""
        return diagnose_all(self, splits)

    def _read(self, name: str) -> Manifest:
        """The keyframes of a split."""
        truth, persons = self.tables(name)
        why = ""
        if persons is not None and name != "train" and self.eval_boxes == "predicted":
            why = why_zero(truth, persons, self.min_person_score)
        paths = self._paths(self._named(name), truth)
        persons = None if persons is None else of_split(persons, truth)
        durations = video_durations(paths, self.frame_rate)
        for table in (truth, persons):
            if table is not None:
                check_seconds(table, durations, self.timestamp_offset)
        keyframes = make_keyframes(self.sources(name, truth, persons), self.action_ids)
        exists = np.array([bool(path) for path in paths], bool)
        rows = np.flatnonzero(exists[keyframes.video])
        if why and persons is not None:
            if not len(keyframes.video):
                raise DatasetError(f"{persons.file}: no keyframe is left to load: {why}")
            log.warning(f"{name}: mAP will be 0: {why}; {persons.file}")
        if not len(rows):
            raise DatasetError(
                f"{truth.file}: no keyframe is left to load; see what is wrong with: "
                "hiera-video check --config ..."
            )
        manifest = make_manifest(
            [paths[video] for video in keyframes.video[rows].tolist()],
            class_names=self.class_names or (),
            root=os.path.abspath(self.root),
        )
        return KeyframeManifest(
            manifest.table.append_column("keyframe", pa.array(rows)),
            manifest.class_names,
            manifest.root,
            keyframes=keyframes,
            ground_truth=truth,
            video_names=truth.names,
        )

    def training_clips(self, manifest: Manifest) -> Any:
        """The clips that training loads: random crops around keyframes."""
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
        """The clips that evaluation loads, one for each keyframe."""
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
