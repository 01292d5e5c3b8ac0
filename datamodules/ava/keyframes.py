"""Keyframes of a split with the boxes in them, as arrays that forked workers share."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from datamodules.ava.box_table import NO_ACTION, BoxTable, box_numbers, keyframes_of_keys
from datamodules.manifests.splits import Manifest


@dataclass(frozen=True)
class Keyframes:
    """Keyframes, sorted by video and second.

    The boxes of keyframe k are rows ``offsets[k]`` to ``offsets[k + 1]`` of ``boxes``, ``labels``
    and ``score``.

    Attributes:
        video: index into the split's video names, int64 ``(K,)``.
        second: float64 ``(K,)``.
        offsets: int64 ``(K + 1,)``.
        boxes: x1, y1, x2, y2 as fractions of the full frame, float32 ``(M, 4)``.
        labels: multi-hot, bool ``(M, classes)``.
        score: of the person in [0, 1], 1 for ground truth, float32 ``(M,)``.
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


@dataclass(frozen=True, kw_only=True)
class KeyframeManifest(Manifest):
    """Keyframes of one split as a manifest: each row is a keyframe with the path of its video.

    Attributes:
        keyframes: keyframes and boxes; the table's column ``keyframe`` is an index into them.
        ground_truth: rows of the whole split after exclusions, also of missing videos.
        video_names: names of the split's videos, also of missing ones.
    """

    keyframes: Keyframes
    ground_truth: BoxTable
    video_names: tuple[str, ...]


def make_keyframes(
    sources: Sequence[tuple[BoxTable, np.ndarray]], action_ids: Sequence[int]
) -> Keyframes:
    """Group rows of one box and one action by keyframe, and there by box.

    Equal boxes of a keyframe become one, with all their actions and the highest of their scores.
    The boxes of a keyframe keep the order of the files. Rows without a box are left out.

    Args:
        sources: tables of the same videos, each with the person score of its rows, ``(R,)``.
        action_ids: id of each column of the labels; all actions of the tables are among them.
    """
    tables = [table for table, _ in sources]
    has_box = np.concatenate([table.has_box for table in tables])

    def column(parts: Sequence[np.ndarray]) -> np.ndarray:
        """One column of all tables, without the rows that have no box; R rows are left."""
        return np.concatenate(parts)[has_box]

    boxes, action = column([t.boxes for t in tables]), column([t.action for t in tables])
    keys, keyframe = np.unique(column([t.keys() for t in tables]), return_inverse=True)
    number = box_numbers(boxes)
    # One integer for each pair of keyframe and box. Sorting them sorts the M boxes by keyframe and
    # within it by number, which counts boxes in the order in which they appear.
    pairs = keyframe * (number.max(initial=0) + 1) + number  # (R,)
    _, first, box = np.unique(pairs, return_index=True, return_inverse=True)  # (M,) and (R,)
    class_of_id = np.zeros(max(action_ids, default=0) + 1, np.int64)
    class_of_id[list(action_ids)] = np.arange(len(action_ids))
    labels = np.zeros((len(first), len(action_ids)), bool)
    labelled = action != NO_ACTION
    labels[box[labelled], class_of_id[action[labelled]]] = True
    score = np.zeros(len(first), np.float32)
    np.maximum.at(score, box, column([score for _, score in sources]))
    video, second = keyframes_of_keys(keys)
    return Keyframes(
        video=video,
        second=second,
        offsets=np.searchsorted(keyframe[first], np.arange(len(keys) + 1)),
        boxes=boxes[first].astype(np.float32),
        labels=labels,
        score=score,
    )
