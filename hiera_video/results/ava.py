"""AVA's numbers from csv files, and why they are low where the files do not fit each other."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hiera_video.metrics.ava import Annotations, columns_of
from hiera_video.metrics.ava_results import AVAResults
from hiera_video.results.ava_csv import AVARows, check_ground_truth, read_ava_csv


class Fit(NamedTuple):
    """How predictions and ground truth fit each other, after exclusions.

    Attributes:
        annotated: keyframes that the ground truth names.
        predicted: keyframes that predictions name.
        both: keyframes that both name.
        unknown: rows of ids that the label map lacks, of the ground truth and of predictions.
        never: names of classes with ground truth that no prediction has.
        silent: videos of the ground truth without predictions.
        strange: videos of predictions without ground truth.
        empty: predicted boxes without x1 < x2 and y1 < y2, which do not count.
        outside: predicted boxes that reach out of [0, 1].
    """

    annotated: int
    predicted: int
    both: int
    unknown: dict[str, dict[int, int]]
    never: list[str]
    silent: list[str]
    strange: list[str]
    empty: int
    outside: int

    def describe(self) -> str:
        """What there is to know, a line each."""
        lines = [
            f"keyframes: {self.annotated:,} in the ground truth, {self.predicted:,} in the "
            f"predictions, {self.both:,} in both"
        ]
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
        lines += [f"video without predictions: {name}" for name in self.silent]
        lines += [f"video without ground truth: {name}" for name in self.strange]
        return "\n".join(lines)


def evaluate_files(
    ground_truth: Path,
    predictions: Path,
    labels: Mapping[int, str],
    excluded: Path | None = None,
    protocol: str = "official",
) -> tuple[AVAResults, Fit]:
    """Evaluate csv files of AVA.

    Args:
        ground_truth: csv.
        predictions: csv; boxes may be empty or reach out of the frame, and ids may be unknown.
        labels: name of each action id that counts.
        excluded: csv of keyframes that are left out of both.
        protocol: ``official`` or ``pyslowfast``.

    Raises:
        DatasetError: a file cannot be read, or a row is wrong; names the file and the row.
    """
    videos: dict[str, int] = {}
    truth = read_ava_csv(ground_truth)
    check_ground_truth(truth)
    truth = truth.renamed(videos)
    found = read_ava_csv(predictions).renamed(videos)
    if excluded is not None:
        out = np.unique(read_ava_csv(excluded, widths=(2,)).renamed(videos).keys())
        truth = truth.where(~np.isin(truth.keys(), out))
        found = found.where(~np.isin(found.keys(), out))
    ids = sorted(labels)
    annotations = Annotations(
        truth.video, truth.second, truth.box, truth.action_id, ids, truth.score
    )
    keys = found.keys()
    precision = annotations.evaluate_rows(keys, found.box, found.action_id, found.score, protocol)
    boxes = annotations.boxes_per_class()
    results = AVAResults([labels[i] for i in ids], ids, protocol, precision, boxes)
    return results, _fit(annotations, truth, found, keys, results)


def _fit(
    annotations: Annotations, truth: AVARows, found: AVARows, keys: np.ndarray, results: AVAResults
) -> Fit:
    predicted = np.unique(keys)
    ids = np.unique(found.action_id)
    names = zip(results.class_names, results.action_ids, results.boxes, strict=True)
    in_truth, in_found = set(truth.video.tolist()), set(np.unique(found.video).tolist())
    videos = list(dict.fromkeys([*truth.videos, *found.videos]))
    return Fit(
        annotated=len(annotations.keys),
        predicted=len(predicted),
        both=int((annotations.keyframes_of(predicted) < len(annotations.keys)).sum()),
        unknown={
            "ground truth": _unknown(truth.action_id, results.action_ids),
            "predictions": _unknown(found.action_id, results.action_ids),
        },
        never=[name for name, i, boxes in names if boxes and i not in ids],
        silent=sorted(videos[i] for i in in_truth - in_found),
        strange=sorted(videos[i] for i in in_found - in_truth),
        empty=int((found.box[:, :2] >= found.box[:, 2:]).any(1).sum()),
        outside=int(((found.box < 0) | (found.box > 1)).any(1).sum()),
    )


def _unknown(action_id: np.ndarray, action_ids: Any) -> dict[int, int]:
    """Rows of each id that is no class; -1 is that of rows without a box."""
    here, counts = np.unique(action_id, return_counts=True)
    unknown = (columns_of(here, action_ids) < 0) & (here >= 0)
    return dict(zip(here[unknown].tolist(), counts[unknown].tolist(), strict=True))
