"""Detections written as a csv file of AVA, which any tool can evaluate."""

import re
from collections.abc import Collection, Sequence
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.csv

from datamodules.ava.annotations import COLUMNS
from datamodules.errors import DatasetError
from hiera_video.metrics.ava_boxes import DetectedBoxes

BLOCK = 1 << 26  # bytes that are made at once, about
_UNFIT = re.compile('[,"\r\n\ud800-\udfff]')  # in the name of a video


def write_ava_csv(
    file: BinaryIO, videos: Sequence[str], detected: DetectedBoxes, action_ids: Collection[int]
) -> None:
    """Write a row for each box and class, without a header.

    Rows are in the order of ``detected``: video, second (four digits), x1, y1, x2, y2 (in [0, 1] of
    the full frame), action id, score. Numbers are the shortest that stand for the same float32, so
    evaluating the file gives the same result as the metric.

    Args:
        file: open for bytes.
        videos: name of each number in ``detected.video``.
        detected: boxes and scores.
        action_ids: id of each column of scores.

    Raises:
        DatasetError: see `check_names`.
    """
    check_names(videos)
    names, ids = pa.array(list(videos), pa.string()), pa.array(list(action_ids), pa.int64())
    step = max(1, BLOCK // (100 * max(1, len(ids))))  # boxes; a row has up to 100 bytes
    options = pyarrow.csv.WriteOptions(include_header=False, quoting_style="none")
    for begin in range(0, len(detected.video), step):
        part = DetectedBoxes(*(values[begin : begin + step] for values in detected))
        row = np.repeat(np.arange(len(part.video)), len(ids))
        seconds = pa.array([f"{s:04.0f}" if s % 1 == 0 else f"{s:.6f}" for s in part.second])
        columns = (
            names.take(pa.array(part.video)).take(row),
            seconds.take(row),
            *(pa.array(side).cast(pa.string()).take(row) for side in part.boxes.T),
            ids.take(np.tile(np.arange(len(ids)), len(part.video))),
            pa.array(np.ascontiguousarray(part.scores).reshape(-1)),
        )
        table = pa.table(dict(zip(COLUMNS, columns, strict=True)))
        pyarrow.csv.write_csv(table, file, options)


def check_names(videos: Sequence[str]) -> None:
    """Check that a csv can name videos: AVA's files have no quotes around a name.

    Raises:
        DatasetError: a name has a comma, a quote or a line break, or is not text.
    """
    for name in videos:
        if _UNFIT.search(name):
            raise DatasetError(
                f"a csv cannot name the video {name!r}: rename it, without commas, double quotes, "
                "line breaks and bytes that are not UTF-8"
            )
