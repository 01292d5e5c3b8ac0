"""The annotation of a split of AVA, judged together with its videos."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datamodules.ava.annotations import NO_ACTION, BoxTable
from datamodules.ava.clips import open_video
from datamodules.errors import DatasetError, VideoDecodeError
from datamodules.manifests.lists import Row, at, find_by_stem
from datamodules.video.frame_folder import holds_pictures

log = logging.getLogger(__name__)

Scored = tuple[BoxTable, np.ndarray]  # boxes, and the person score of each, float32 (R,)


class SplitTables(NamedTuple):
    """The annotation of a split.

    Attributes:
        truth: ground truth, without what is excluded.
        persons: boxes of a detector, without what is excluded; None where there are none.
        excluded: keyframes.
    """

    truth: BoxTable
    persons: BoxTable | None
    excluded: frozenset[tuple[str, int]]


def training_sources(truth: BoxTable, persons: BoxTable | None, min_score: float) -> list[Scored]:
    """The boxes to train on: the ground truth's, and a detector's above a score.

    Raises:
        DatasetError: the detector's have no actions.
    """
    if persons is None:
        return [_certain(truth)]
    if len(persons) and (persons.action == NO_ACTION).all():
        raise DatasetError(
            f"{persons.file}: has no actions, and would teach that nobody does anything; "
            "set data.person_boxes.train to a file with labels, or null"
        )
    return [_certain(truth), _confident(persons, min_score)]


def evaluation_sources(
    name: str, truth: BoxTable, persons: BoxTable | None, min_score: float, predicted: bool
) -> list[Scored]:
    """The boxes to evaluate: a detector's above a score if ``predicted``, or the ground truth's.

    Raises:
        DatasetError: there is no detector's file.
    """
    if not predicted:
        return [_certain(truth)]
    if persons is None:
        raise DatasetError(
            f"data.person_boxes.{name} is null: set it to a detector's boxes, or "
            "data.eval_boxes=ground_truth"
        )
    return [_confident(persons, min_score)]


def _certain(table: BoxTable) -> Scored:
    return table, np.ones(len(table), np.float32)


def _confident(persons: BoxTable, min_score: float) -> Scored:
    kept = persons.where(persons.score >= min_score)
    return kept, kept.score.astype(np.float32)


def first_rows(table: BoxTable) -> dict[str, int]:
    """Row of the file at which each video is named first."""
    video, row = np.append(table.video, table.empty[:, 0]), np.append(table.row, table.empty_row)
    first = np.full(len(table.names), np.iinfo(np.int64).max)
    np.minimum.at(first, video, row)
    return {
        name: row if named else 1  # all its rows are excluded
        for name, row, named in zip(
            table.names, first.tolist(), np.isin(np.arange(len(first)), video), strict=True
        )
    }


def locate_videos(
    folder: str, names: Sequence[str], rows: Mapping[str, int], file: Path
) -> list[str]:
    """Path of each video, a file or else a folder of frames; empty where it is missing.

    Args:
        folder: of the videos.
        names: of the videos.
        rows: of their first mention in the file, for messages.
        file: the annotation.

    Raises:
        DatasetError: a name is none of a file, or a video is there twice.
    """
    for name in names:
        # The csv files of results have no quotes.
        if name in (".", "..") or not set('/\0,"\r\n').isdisjoint(name):
            raise DatasetError(f"{at(file, rows[name])}: {name!r} is no name of a video")
    wanted = [Row(rows[name], os.path.join(folder, name), "") for name in names]
    pictures = {name for name in names if holds_pictures(os.path.join(folder, name))}
    paths = []
    files = find_by_stem(file, wanted, without=pictures)
    for name, row, path in zip(names, wanted, files, strict=True):
        if path and name in pictures:
            raise DatasetError(
                f"{at(file, row.number)}: a file and a folder of pictures, {path} and {row.video}; "
                "remove one"
            )
        filled = not path and os.path.isdir(row.video) and os.listdir(row.video)
        paths.append(path or (row.video if filled else ""))
    return paths


def durations(paths: Sequence[str], frame_rate: float) -> np.ndarray:
    """Seconds of each video, float64 ``(V,)``; NaN where it is missing or cannot be opened."""
    return np.array([_duration(path, frame_rate) for path in paths])


def _duration(path: str, frame_rate: float) -> float:
    if not path:
        return np.nan
    try:
        with open_video(path, frame_rate) as file:
            return file.duration
    except VideoDecodeError:  # noted when it is loaded, and found by `check`
        return np.nan


def check_seconds(
    table: BoxTable, names: Sequence[str], lengths: np.ndarray, offset: float
) -> None:
    """See that keyframes, with and without boxes, lie within their videos.

    Args:
        table: boxes of the named videos.
        names: of the videos.
        lengths: of the named videos, seconds; NaN: not known.
        offset: second of the annotation at which they begin.

    Raises:
        DatasetError: the first row that does not.
    """
    length = dict(zip(names, lengths.tolist(), strict=True))
    video = np.append(table.video, table.empty[:, 0])
    second = np.append(table.second, table.empty[:, 1])
    row = np.append(table.row, table.empty_row)
    ends = np.array([length[name] for name in table.names])[video]
    outside = (second < offset) | (second - offset > ends)  # nothing is greater than NaN
    outside &= ~np.isnan(ends)
    if outside.any():
        i = int(np.where(outside, row, np.iinfo(np.int64).max).argmin())
        raise DatasetError(
            f"{at(table.file, int(row[i]))}: second {second[i]} is not within the "
            f"video {table.names[video[i]]}, which has {offset:g} to {offset + ends[i]:g}; is "
            f"data.timestamp_offset={offset:g} right?"
        )


def of_videos(table: BoxTable, names: Sequence[str]) -> BoxTable:
    """The boxes of some videos; the number of others is logged."""
    known = np.isin(np.array(table.names, object), np.array(names, object))
    kept = table.where(known[table.video])
    if others := int((~known).sum()):
        log.warning(f"{table.file}: {others} of its videos are not in the ground truth; left out")
    ids = np.cumsum(known) - 1
    of_known = known[kept.empty[:, 0]]
    empty = kept.empty[of_known]
    return replace(
        kept,
        names=tuple(name for name, keep in zip(table.names, known, strict=True) if keep),
        video=ids[kept.video],
        empty=np.stack([ids[empty[:, 0]], empty[:, 1]], axis=1),
        empty_row=kept.empty_row[of_known],
    )
