"""Boxes that were detected on AVA's keyframes, and their scores."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from datamodules.ava.box_table import MAX_SECOND, MAX_VIDEOS, keyframes_of_keys


class DetectedBoxes(NamedTuple):
    """Boxes with a score for each class, sorted by video, second and box.

    Attributes:
        video: number of the video, int64 ``(n,)``.
        second: time of the keyframe, float64 ``(n,)``.
        boxes: x1, y1, x2, y2 in [0, 1] of the full frame, float32 ``(n, 4)``.
        scores: float32 ``(n, classes)``.
    """

    video: np.ndarray
    second: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray


class DetectedRows(NamedTuple):
    """Rows with one box, one action and one score each, as in AVA's files.

    Attributes:
        keys: keyframe, int64 ``(n,)``, from `keyframe_keys`.
        box: x1, y1, x2, y2, float64 ``(n, 4)``; boxes without area do not count.
        action_id: int64 ``(n,)``; rows whose id is not a class's do not count.
        score: float ``(n,)``, not NaN.
    """

    keys: np.ndarray
    box: np.ndarray
    action_id: np.ndarray
    score: np.ndarray


def sorted_boxes(keys: np.ndarray, boxes: np.ndarray, scores: np.ndarray) -> DetectedBoxes:
    """Sort boxes by keyframe and coordinates; equal boxes become one, with their greatest scores.

    Args:
        keys: int64 ``(n,)``, from `keyframe_keys`.
        boxes: float32 ``(n, 4)``.
        scores: float32 ``(n, classes)``.
    """
    order = np.lexsort((*boxes.T[::-1], keys))
    keys, boxes, scores = keys[order], boxes[order], scores[order]
    is_new = np.ones(len(keys), bool)
    is_new[1:] = (keys[1:] != keys[:-1]) | (boxes[1:] != boxes[:-1]).any(axis=1)
    if not is_new.all():
        scores = np.maximum.reduceat(scores, np.flatnonzero(is_new), axis=0)
        keys, boxes = keys[is_new], boxes[is_new]
    return DetectedBoxes(*keyframes_of_keys(keys), boxes, scores)


def decimal_boxes(boxes: np.ndarray) -> np.ndarray:
    """Boxes ``(n, 4)`` as float64; a float32 becomes the shortest decimal that it stands for."""
    if boxes.dtype != np.float32:
        return np.asarray(boxes, np.float64)
    flat = pa.array(boxes.reshape(-1)).cast(pa.string()).cast(pa.float64())
    return flat.to_numpy(zero_copy_only=False).reshape(boxes.shape)


def check_keyframes(video: np.ndarray, second: np.ndarray) -> None:
    """Raise a ValueError if numbers of videos or seconds are out of range."""
    if len(video) and not (np.min(video) >= 0 and np.max(video) < MAX_VIDEOS):
        raise ValueError(f"numbers of videos must be in [0, {MAX_VIDEOS})")
    if len(second) and not (np.min(second) >= 0 and np.max(second) < MAX_SECOND):
        raise ValueError(f"seconds must be in [0, {MAX_SECOND:.0f})")
