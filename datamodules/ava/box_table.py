"""Boxes with their actions as one table of arrays, and the key that identifies a keyframe."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn, SupportsInt

import numpy as np
import pyarrow as pa

from datamodules.errors import DatasetError
from datamodules.manifests.lists import at
from datamodules.wording import counted

NO_ACTION = -1
KEYS_PER_VIDEO = 2**40  # the key of a keyframe is its video's number times this, plus microseconds
MAX_VIDEOS = 2**23  # so that all keys fit into int64
MAX_SECOND = KEYS_PER_VIDEO / 1e6  # 12 days


class BoxTable(NamedTuple):
    """Rows of an annotation file in its order: a box with one action, or a keyframe without a box.

    Attributes:
        file: the file that was read.
        names: names of the videos.
        video: index into ``names``, int64 ``(R,)``.
        second: time of the keyframe, float64 ``(R,)``.
        boxes: x1, y1, x2, y2 as fractions of the full frame, float64 ``(R, 4)``; NaN in the row of
            a keyframe without a box.
        action: action id, int64 ``(R,)``; `NO_ACTION` where there is none.
        score: eighth column, float64 ``(R,)``: the score of a detection, or the person id in ground
            truth; NaN where there is none.
        row: line or record in the file, from 1, int64 ``(R,)``.
    """

    file: Path
    names: tuple[str, ...]
    video: np.ndarray
    second: np.ndarray
    boxes: np.ndarray
    action: np.ndarray
    score: np.ndarray
    row: np.ndarray

    @property
    def has_box(self) -> np.ndarray:
        """Rows that hold a box, bool ``(R,)``."""
        return ~np.isnan(self.boxes[:, 0])

    def keys(self) -> np.ndarray:
        """`keyframe_keys` of all rows, int64 ``(R,)``."""
        return keyframe_keys(self.video, self.second)

    def where(self, keep: np.ndarray) -> "BoxTable":
        """The rows that a bool mask ``(R,)`` keeps; `names` stay as they are."""
        if keep.all():
            return self
        rows = np.flatnonzero(keep)
        return BoxTable(self.file, self.names, *(column[rows] for column in self[2:]))

    def of_videos(self, names: Sequence[str]) -> "BoxTable":
        """The rows of the videos ``names``, with `video` as an index into them."""
        index = {name: i for i, name in enumerate(names)}
        numbers = np.array([index.get(name, -1) for name in self.names], np.int64)
        table = self._replace(names=tuple(names), video=numbers[self.video])
        return table.where(table.video >= 0)

    def without(self, excluded: "BoxTable | None") -> "BoxTable":
        """The rows whose keyframes are not in another table; `names` stay as they are."""
        if excluded is None:
            return self
        return self.where(~np.isin(self.keys(), excluded.of_videos(self.names).keys()))


def keyframe_keys(video: np.ndarray, second: np.ndarray) -> np.ndarray:
    """One integer for each pair of video and second; seconds are equal if six decimals are.

    Args:
        video: int ``(n,)`` in [0, `MAX_VIDEOS`).
        second: float or int ``(n,)`` in [0, `MAX_SECOND`).

    Returns:
        int64 ``(n,)``; sorting them sorts by video, then by second.
    """
    microseconds = np.rint(np.asarray(second, np.float64) * 1e6).astype(np.int64)
    return np.asarray(video, np.int64) * KEYS_PER_VIDEO + microseconds


def keyframes_of_keys(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Video int64 ``(n,)`` and second float64 ``(n,)`` of `keyframe_keys`, int64 ``(n,)``."""
    video, microseconds = np.divmod(keys, KEYS_PER_VIDEO)
    return video, microseconds / 1e6


def box_numbers(boxes: np.ndarray) -> np.ndarray:
    """Number the distinct boxes, in the order in which they appear.

    Args:
        boxes: float64 ``(n, 4)``.

    Returns:
        int64 ``(n,)``, equal where all four coordinates are.
    """
    # A hash table over the 32 bytes of each box. Adding 0.0 turns -0.0, of other bytes, into 0.0.
    buffer = pa.py_buffer(np.ascontiguousarray(boxes + 0.0))
    cells = pa.FixedSizeBinaryArray.from_buffers(pa.binary(32), len(boxes), [None, buffer])
    return cells.dictionary_encode().indices.to_numpy().astype(np.int64)


def plain_number(value: float) -> str:
    """A number as text, without exponent and needless zeros: ``902``, ``0.25``."""
    return np.format_float_positional(value, trim="-")


def span(table: BoxTable) -> str:
    """The seconds from the first to the last row, as text."""
    if not len(table.row):
        return "no seconds"
    first, last = plain_number(table.second.min()), plain_number(table.second.max())
    return f"seconds {first} to {last}"


def why_apart(truth: BoxTable, boxes: BoxTable, noun: str) -> str:
    """Why two tables have no keyframe in common, neither of them empty.

    Args:
        truth: ground truth.
        boxes: predictions, or boxes of a person detector.
        noun: what the text calls these.
    """
    one, other = (table.names[int(table.video[0])] for table in (truth, boxes))
    used = [{table.names[i] for i in np.unique(table.video)} for table in (truth, boxes)]
    if not (common := sorted(used[0] & used[1])):
        return f"no video has the same name: {one!r} in the ground truth, {other!r} in the {noun}"
    truth, boxes = truth.of_videos(common), boxes.of_videos(common)
    return f"the seconds differ: {span(truth)} in the ground truth, {span(boxes)} in the {noun}"


def unused_exclusions(excluded: BoxTable | None, truth: BoxTable) -> str:
    """A line about excluded keyframes if there are some, and the ground truth has none of them."""
    if excluded is None or not len(excluded.row):
        return ""
    if np.isin(excluded.of_videos(truth.names).keys(), truth.keys()).any():
        return ""
    number = counted(len(np.unique(excluded.keys())), "keyframes")
    return f"excluded: 0 of {number} in the ground truth; {excluded.file}"


def check_boxes(table: BoxTable) -> None:
    """Check that boxes lie within the frame and have an area.

    Raises:
        DatasetError: names the first row that is wrong.
    """
    x1, y1, x2, y2 = table.boxes.T
    outside = ((table.boxes < 0) | (table.boxes > 1)).any(axis=1)
    for wrong, what in (
        (outside, "is not within [0, 1]"),
        ((x1 >= x2) | (y1 >= y2), "is empty; expected x1 < x2 and y1 < y2"),
    ):
        if wrong.any():
            i = int(wrong.argmax())
            box = ",".join(plain_number(side) for side in table.boxes[i])
            fail(table.file, table.row[i], f"the box {box} {what}")


def check_labelled(table: BoxTable) -> None:
    """Check that all boxes have an action.

    Raises:
        DatasetError: names the first row without one.
    """
    if (wrong := table.has_box & (table.action == NO_ACTION)).any():
        row = table.row[wrong.argmax()]
        fail(table.file, row, "no action id; a keyframe without persons is a row video,second")


def check_actions(table: BoxTable, action_ids: Collection[int]) -> None:
    """Check that the label map has all actions of the table.

    Args:
        table: the boxes; those without an action are fine.
        action_ids: ids of the label map.

    Raises:
        DatasetError: names the first row with another id.
    """
    unknown = ~np.isin(table.action, [NO_ACTION, *action_ids])
    if unknown.any():
        i = int(unknown.argmax())
        what = f"action id {table.action[i]} is not in the label map"
        if len(action_ids) == 60:
            what += " of the 60 evaluated classes; use the map of all 80"
        fail(table.file, table.row[i], what)


def check_scores(table: BoxTable) -> None:
    """Check that all boxes have a score in [0, 1].

    Raises:
        DatasetError: names the first row without one.
    """
    wrong = table.has_box & ~((table.score >= 0) & (table.score <= 1))
    if wrong.any():
        row = table.row[wrong.argmax()]
        fail(table.file, row, "expected a person score in [0, 1] as eighth column")


def check_no_person_ids(table: BoxTable) -> None:
    """Check that the table is no ground truth, whose eighth column numbers persons.

    Raises:
        DatasetError: its rows have actions, and whole numbers in place of scores.
    """
    score, has_actions = table.score, (table.action != NO_ACTION).any()
    if has_actions and (score % 1 == 0).all() and (score != 1).any():
        raise DatasetError(
            f"{table.file}: its eighth column looks like the person ids of a ground truth; write 1 "
            "there as the person's score"
        )


def check_whole_seconds(table: BoxTable) -> None:
    """Check that all keyframes are at whole seconds.

    Raises:
        DatasetError: names the first row that is not.
    """
    if (wrong := table.second % 1 != 0).any():
        i = int(wrong.argmax())
        fail(table.file, table.row[i], f"expected a whole second, not {table.second[i]:g}")


def fail(file: Path, row: SupportsInt, what: str) -> NoReturn:
    """Raise a `DatasetError` that names a row of a file."""
    raise DatasetError(f"{at(file, int(row))}: {what}")
