"""Keyframes of videos with the boxes in them, as arrays that forked workers share."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from datamodules.ava.annotations import NO_ACTION, BoxTable, keyframe_key
from datamodules.manifests.splits import Manifest


@dataclass(frozen=True)
class Keyframes:
    """Keyframes in the order of their videos and seconds; the boxes of keyframe k are
    ``offsets[k]`` to ``offsets[k + 1]``.

    Attributes:
        video: row of the split's video names, int64 ``(K,)``.
        second: int64 ``(K,)``.
        offsets: int64 ``(K + 1,)``.
        boxes: x1, y1, x2, y2 in shares of the full frame, float32 ``(M, 4)``.
        labels: multi-hot, bool ``(M, classes)``.
        score: of the person, 1 for ground truth, float32 ``(M,)``.
    """

    video: np.ndarray
    second: np.ndarray
    offsets: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    score: np.ndarray

    def __len__(self) -> int:
        """Number of keyframes."""
        return len(self.video)


class GroundTruth(NamedTuple):
    """All ground truth of a split after exclusions, also of videos that cannot be decoded.

    Attributes:
        video: row of the split's video names, int64 ``(R,)``; a row is a box with one action.
        second: of the keyframe, float64 ``(R,)``.
        boxes: x1, y1, x2, y2 in shares of the full frame, float64 ``(R, 4)``.
        action: id, int64 ``(R,)``.
        person: number of the person, NaN where there is none, float64 ``(R,)``.
        empty_video: videos of the keyframes that are listed without a box, int64 ``(E,)``.
        empty_second: and their seconds, float64 ``(E,)``.
    """

    video: np.ndarray
    second: np.ndarray
    boxes: np.ndarray
    action: np.ndarray
    person: np.ndarray
    empty_video: np.ndarray
    empty_second: np.ndarray


@dataclass(frozen=True, kw_only=True)
class KeyframeManifest(Manifest):
    """Keyframes of one split as a manifest: a row is a keyframe, and its path that of its video.

    Attributes:
        keyframes: with their boxes; column ``keyframe`` of the table is the row there.
        ground_truth: of the whole split.
        video_names: of the whole split, also of videos that are missing.
    """

    keyframes: Keyframes
    ground_truth: GroundTruth
    video_names: tuple[str, ...]


def ground_truth_of(table: BoxTable) -> GroundTruth:
    """The rows of a ground-truth file, all with an action, and its keyframes without a box."""
    second, empty = table.second.astype(np.float64), table.empty
    return GroundTruth(
        table.video,
        second,
        table.boxes,
        table.action,
        table.score,
        empty[:, 0],
        empty[:, 1].astype(np.float64),
    )


def make_keyframes(
    sources: Sequence[tuple[BoxTable, np.ndarray]],
    names: Sequence[str],
    action_ids: Sequence[int],
) -> Keyframes:
    """Join rows of boxes to keyframes; boxes are one if all their coordinates are written alike.

    Args:
        sources: tables, each with the person scores of its rows, ``(R,)``.
        names: videos; each table's are among them.
        action_ids: of the columns of the labels; they hold all actions of the tables.
    """
    ids = {name: i for i, name in enumerate(names)}
    rows = [np.array([ids[name] for name in table.names], np.int64) for table, _ in sources]
    tables = [table for table, _ in sources]
    video = np.concatenate([row[t.video] for row, t in zip(rows, tables, strict=True)])
    keys = keyframe_key(video, np.concatenate([t.second for t in tables]))
    frames, first, frame = np.unique(keys, return_index=True, return_inverse=True)
    text = pa.concat_arrays([t.text for t in tables]).dictionary_encode()
    # Codes count texts as they appear, so that a keyframe's boxes keep the order of the file.
    codes = frame * max(1, len(text.dictionary)) + text.indices.to_numpy()
    boxes, example, box = np.unique(codes, return_index=True, return_inverse=True)
    action = np.concatenate([t.action for t in tables])
    column = np.zeros(max([0, *action_ids]) + 1, np.int64)
    column[np.array(action_ids, np.int64)] = np.arange(len(action_ids))
    labelled = action != NO_ACTION
    labels = np.zeros((len(boxes), len(action_ids)), bool)
    labels[box[labelled], column[action[labelled]]] = True
    score = np.zeros(len(boxes), np.float32)
    np.maximum.at(score, box, np.concatenate([score for _, score in sources]))
    return Keyframes(
        video=video[first],
        second=np.concatenate([t.second for t in tables])[first],
        offsets=np.searchsorted(frame[example], np.arange(len(frames) + 1)),
        boxes=np.concatenate([t.boxes for t in tables])[example].astype(np.float32),
        labels=labels,
        score=score,
    )
