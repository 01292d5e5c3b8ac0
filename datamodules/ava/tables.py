"""Which boxes of a split's annotation are used, and whether its videos fit it."""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from datamodules.ava.box_table import NO_ACTION, BoxTable, fail, plain_number
from datamodules.ava.clips import open_video
from datamodules.errors import DatasetError, VideoDecodeError
from datamodules.manifests.finding import find_by_stem
from datamodules.manifests.lists import Row
from datamodules.manifests.walking import is_hidden
from datamodules.video.frame_folder import holds_pictures

log = logging.getLogger(__name__)

Scored = tuple[BoxTable, np.ndarray]  # R rows, and the person score of each, float32 (R,)


def sources_of(
    name: str, truth: BoxTable, persons: BoxTable | None, min_score: float, eval_boxes: str
) -> list[Scored]:
    """Choose the boxes that a split loads.

    Training takes the ground truth, and detected persons if there are any. Evaluation takes either.

    Args:
        name: ``train``, ``val`` or ``test``.
        truth: ground truth.
        persons: boxes of a person detector; None: there are none.
        min_score: least score of a detected person.
        eval_boxes: ``predicted`` or ``ground_truth``, to evaluate.

    Raises:
        DatasetError: the detected persons are missing, or none of those to train on has an action.
    """
    certain = truth, np.ones(len(truth.row), np.float32)
    if persons is not None:
        kept = persons.where(persons.score >= min_score)
        confident = kept, kept.score.astype(np.float32)
        if name == "train":
            if len(persons.row) and (persons.action == NO_ACTION).all():
                raise DatasetError(
                    f"{persons.file}: has no actions, and would teach that nobody does anything; "
                    "set data.person_boxes.train to a file with labels, or null"
                )
            return [certain, confident]
        if eval_boxes == "predicted":
            return [confident]
    elif name != "train" and eval_boxes == "predicted":
        raise DatasetError(
            f"data.person_boxes.{name} is null: set it to a detector's boxes, or "
            "data.eval_boxes=ground_truth"
        )
    return [certain]


def first_rows(table: BoxTable) -> dict[str, int]:
    """Row of the file at which each video is named first; 1 where all its rows are excluded."""
    first = np.ones(len(table.names), np.int64)
    video, index = np.unique(table.video, return_index=True)
    first[video] = table.row[index]
    return dict(zip(table.names, first.tolist(), strict=True))


def locate_videos(
    folder: str, names: Sequence[str], rows: Mapping[str, int], file: Path
) -> list[str]:
    """Path of each video, a file or else a folder of frames; empty where it is missing.

    Args:
        folder: folder of the videos.
        names: names of the videos.
        rows: row of the file that first names each video, for messages.
        file: the annotation.

    Raises:
        DatasetError: a name cannot be that of a file, or a video has two.
    """
    for name in names:
        # Commas, quotes and line breaks: csv files of results are written without quotes.
        if name in (".", "..") or not set('/\0,"\r\n').isdisjoint(name):
            fail(file, rows[name], f"{name!r} cannot be the name of a video")
    wanted = [Row(rows[name], os.path.join(folder, name), "") for name in names]
    pictures = {name for name in names if holds_pictures(os.path.join(folder, name))}
    paths = []
    files = find_by_stem(file, wanted, without=pictures)
    for name, row, path in zip(names, wanted, files, strict=True):
        if path and name in pictures:
            what = f"a file and a folder of pictures, {path} and {row.video}; remove one"
            fail(file, row.number, what)
        held = os.listdir(row.video) if not path and os.path.isdir(row.video) else ()
        filled = not all(map(is_hidden, held))
        paths.append(path or (row.video if filled else ""))
    return paths


def video_durations(paths: Sequence[str], frame_rate: float) -> np.ndarray:
    """Seconds of each video, float64 ``(V,)``; NaN where it is missing or cannot be opened.

    Args:
        paths: files or folders of frames, ``V`` of them; empty where they are missing.
        frame_rate: pictures a second of folders.
    """
    return np.array([_duration(path, frame_rate) for path in paths])


def _duration(path: str, frame_rate: float) -> float:
    if not path:
        return np.nan
    try:
        with open_video(path, frame_rate) as file:
            return file.duration
    except VideoDecodeError:  # noted when it is loaded, and found by `check`
        return np.nan


def check_seconds(table: BoxTable, durations: np.ndarray, offset: float) -> None:
    """Check that all keyframes lie within their videos.

    Args:
        table: keyframes with and without boxes.
        durations: of each video in ``table.names``, in seconds, float64 ``(V,)``; NaN: unknown.
        offset: second of the annotation at which the videos begin.

    Raises:
        DatasetError: names the first row that lies outside.
    """
    end = offset + durations[table.video]
    outside = ((table.second < offset) | (table.second > end)) & ~np.isnan(end)
    if outside.any():
        i = int(outside.argmax())
        fail(
            table.file,
            table.row[i],
            f"second {plain_number(table.second[i])} is not within the video "
            f"{table.names[table.video[i]]}, which has {offset:g} to {end[i]:g}; is "
            f"data.timestamp_offset={offset:g} right?",
        )


def of_split(persons: BoxTable, truth: BoxTable) -> BoxTable:
    """The person boxes in the videos of the ground truth; the number of other videos is logged."""
    if others := len(set(persons.names) - set(truth.names)):
        log.warning(f"{persons.file}: {others} of its videos are not in the ground truth; left out")
    return persons.of_videos(truth.names)
