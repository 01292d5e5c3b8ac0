"""AVA's metric from csv files, and how the files fit each other if it is low."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datamodules.ava.annotations import Progress, read_boxes, read_csv, read_excluded
from datamodules.ava.box_table import (
    BoxTable,
    check_boxes,
    check_labelled,
    unused_exclusions,
    why_apart,
)
from hiera_video.metrics.ava_annotations import Annotations, columns_of
from hiera_video.metrics.ava_boxes import DetectedRows
from hiera_video.metrics.ava_results import AVAResults

ProgressLine = Callable[[str, str | None], AbstractContextManager[Progress]]


class Fit(NamedTuple):
    """How predictions and ground truth fit each other, after exclusions.

    Attributes:
        annotated: number of keyframes in the ground truth.
        predicted: number of keyframes in the predictions.
        both: number of keyframes in both.
        apart: why there is none; empty if there is one, or a table has no boxes.
        exclusions: a line if keyframes are to be left out and none of them is there; else empty.
        unknown: of "ground truth" and "predictions", the number of rows of each id that the label
            map lacks.
        never: classes with ground truth and no prediction.
        silent: videos of the ground truth without predictions.
        strange: videos of predictions without ground truth.
        empty: number of predicted boxes without x1 < x2 and y1 < y2, which do not count.
        outside: number of predicted boxes that reach out of [0, 1].
        unscored: number of predicted boxes without a score, which count as if it were 1.
    """

    annotated: int
    predicted: int
    both: int
    apart: str
    exclusions: str
    unknown: dict[str, dict[int, int]]
    never: list[str]
    silent: list[str]
    strange: list[str]
    empty: int
    outside: int
    unscored: int

    def describe(self) -> str:
        """The same in words; what is not worth a line is left out."""
        lines = [
            f"keyframes: {self.annotated:,} in the ground truth, {self.predicted:,} in the "
            f"predictions, {self.both:,} in both"
        ]
        lines += [f"mAP is 0: {self.apart}"] if self.apart else []
        lines += [self.exclusions] if self.exclusions else []
        for name, ids in self.unknown.items():
            if ids:
                listed = ", ".join(f"{i} ({rows:,} rows)" for i, rows in ids.items())
                lines.append(f"{name}: ids that the label map lacks, left out: {listed}")
        if self.never:
            lines.append(f"classes with ground truth and no prediction: {', '.join(self.never)}")
        if self.empty:
            lines.append(f"predicted boxes without x1 < x2 and y1 < y2, left out: {self.empty:,}")
        if self.outside:
            lines.append(
                f"predicted boxes that reach out of [0, 1]: {self.outside:,}; are they in pixels?"
            )
        if self.unscored:
            lines.append(f"predicted boxes without a score, taken as 1: {self.unscored:,}")
        lines += [f"video without predictions: {name}" for name in self.silent]
        lines += [f"video without ground truth: {name}" for name in self.strange]
        return "\n".join(lines)


def evaluate_files(
    ground_truth: Path,
    predictions: Path,
    labels: Mapping[int, str],
    excluded: Path | None = None,
    protocol: str = "official",
    progress_line: ProgressLine = lambda name, unit: nullcontext(lambda done, total: None),
    errors: bool = False,
) -> tuple[AVAResults, Fit]:
    """Evaluate csv files in AVA's format; see `datamodules.ava.annotations`.

    Args:
        ground_truth: csv of boxes within the frame, all with an action.
        predictions: csv of detections, all with an action. Boxes may be empty or reach out of the
            frame. The score of a row of seven columns is 1, as in ActivityNet's code.
        labels: name of each action id that counts; others are left out.
        excluded: csv of keyframes that are left out of both.
        protocol: ``official`` or ``pyslowfast``.
        progress_line: opens a display of some work, by its name and the unit of its amount, None if
            it has none; the display takes the amounts done and in total.
        errors: find the kinds of errors, too.

    Raises:
        DatasetError: a file cannot be read, or a row is wrong; names the file and the row.
    """
    with progress_line(f"read {ground_truth.name}", "MB") as show:
        truth = read_boxes(ground_truth, progress=partial(_in_megabytes, show))
    with progress_line(f"read {predictions.name}", "MB") as show:
        detected = read_csv(predictions, progress=partial(_in_megabytes, show))
    check_boxes(truth)
    for table in (truth, detected):
        check_labelled(table)
    names = sorted({*truth.names, *detected.names})
    out = None if excluded is None else read_excluded(excluded)
    exclusions = unused_exclusions(out, truth)
    truth = truth.of_videos(names).without(out)
    detected = detected.of_videos(names).without(out)
    ids = sorted(labels)
    annotations = Annotations(
        truth.video, truth.second, truth.boxes, truth.action, ids, truth.score
    )
    score, class_names = np.nan_to_num(detected.score, nan=1.0), [labels[i] for i in ids]
    rows = DetectedRows(detected.keys(), detected.boxes, detected.action, score)
    with progress_line("match boxes", None):
        precision = annotations.evaluate_rows(rows, protocol)
        kinds = annotations.errors_of_rows(rows, protocol, class_names) if errors else None
    boxes = annotations.boxes_per_class()
    results = AVAResults(class_names, ids, protocol, precision, boxes, kinds)
    fit = _fit(annotations, truth, detected, rows.keys, results)
    return results, fit._replace(exclusions=exclusions)


def _in_megabytes(show: Progress, done: int, total: int) -> None:
    show(math.ceil(done / 2**20), math.ceil(total / 2**20))


def _fit(
    annotations: Annotations,
    truth: BoxTable,
    detected: BoxTable,
    keys: np.ndarray,
    results: AVAResults,
) -> Fit:
    predicted = np.unique(keys)
    ids = np.unique(detected.action)
    classes = zip(results.class_names, results.action_ids, results.boxes, strict=True)
    annotated_videos = {truth.names[i] for i in np.unique(truth.video)}
    predicted_videos = {detected.names[i] for i in np.unique(detected.video)}
    low, high = detected.boxes[:, :2], detected.boxes[:, 2:]
    both = int((annotations.keyframes_of(predicted) < len(annotations.keys)).sum())
    with_box = [table.where(table.has_box) for table in (truth, detected)]
    is_apart = not both and all(len(table.row) for table in with_box)
    return Fit(
        annotated=len(annotations.keys),
        predicted=len(predicted),
        both=both,
        apart=why_apart(with_box[0], with_box[1], "predictions") if is_apart else "",
        exclusions="",
        unknown={
            "ground truth": _unknown(truth.action, results.action_ids),
            "predictions": _unknown(detected.action, results.action_ids),
        },
        never=[name for name, i, boxes in classes if boxes and i not in ids],
        silent=sorted(annotated_videos - predicted_videos),
        strange=sorted(predicted_videos - annotated_videos),
        empty=int((low >= high).any(axis=1).sum()),
        outside=int(((low < 0) | (high > 1)).any(axis=1).sum()),
        unscored=int((np.isnan(detected.score) & detected.has_box).sum()),
    )


def _unknown(action: np.ndarray, action_ids: Sequence[int]) -> dict[int, int]:
    """Number of rows ``(n,)`` of each id that is no class; rows without a box have id -1."""
    ids, counts = np.unique(action, return_counts=True)
    unknown = (columns_of(ids, action_ids) < 0) & (ids >= 0)
    return dict(zip(ids[unknown].tolist(), counts[unknown].tolist(), strict=True))
