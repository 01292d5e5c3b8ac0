"""AVA's annotation files: boxes with actions, person boxes and excluded timestamps.

The files are those that AVA v2.2 and its detectors publish. All errors name the file and the row.
Rows are read as arrays: a million of them take a few seconds.
"""

import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.csv

from datamodules.ava.json_boxes import read_json_rows
from datamodules.errors import DatasetError
from datamodules.manifests.lists import at, read_text
from datamodules.manifests.parquet import pc

NO_ACTION = -1
COLUMNS = ("video", "second", "x1", "y1", "x2", "y2", "action", "score")
_FORMS = "an AVA csv (video,second,x1,y1,x2,y2,action,score) or a json of boxes"
_PICKLES = frozenset((".pkl", ".pickle", ".p"))
_SECONDS = 2**40 / 1e6  # seconds are below that; the metric's keys hold no more
_WHOLE = re.compile(r"([0-9]{1,18})(\.0*)?")


@dataclass(frozen=True)
class BoxTable:
    """Boxes of annotation files, one row for each box and action.

    Attributes:
        file: where they were read.
        names: videos, sorted.
        video: row of ``names``, int64 ``(R,)``.
        second: of the keyframe, int64 ``(R,)``.
        boxes: x1, y1, x2, y2 in shares of the full frame, float64 ``(R, 4)``.
        action: id, or `NO_ACTION`, int64 ``(R,)``.
        score: eighth column: the detector's score, in ground truth the person's number; NaN where
            there is none. float64 ``(R,)``.
        text: the coordinates as they are written, ``(R,)`` strings: equal texts are one box.
        row: of the file, from 1, int64 ``(R,)``.
        empty: video and second of the keyframes that are listed without a box, int64 ``(E, 2)``.
        empty_row: of the file, int64 ``(E,)``.
    """

    file: Path
    names: tuple[str, ...]
    video: np.ndarray
    second: np.ndarray
    boxes: np.ndarray
    action: np.ndarray
    score: np.ndarray
    text: pa.Array
    row: np.ndarray
    empty: np.ndarray
    empty_row: np.ndarray

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.row)

    def where(self, keep: np.ndarray) -> "BoxTable":
        """The rows that a bool mask ``(R,)`` keeps; all keyframes without a box."""
        rows = np.flatnonzero(keep)
        columns = {k: getattr(self, k)[rows] for k in ("video", "second", "boxes", "action")}
        text = self.text.take(pa.array(rows))
        return replace(self, **columns, score=self.score[rows], text=text, row=self.row[rows])

    def without(self, excluded: "frozenset[tuple[str, int]]") -> "BoxTable":
        """The rows and keyframes that are not excluded."""
        if not excluded:
            return self
        ids = {name: i for i, name in enumerate(self.names)}
        pairs = [(ids[name], second) for name, second in excluded if name in ids]
        keys = np.array([keyframe_key(v, s) for v, s in pairs], np.int64)
        kept = self.where(~np.isin(keyframe_key(self.video, self.second), keys))
        empty = ~np.isin(keyframe_key(self.empty[:, 0], self.empty[:, 1]), keys)
        return replace(kept, empty=self.empty[empty], empty_row=self.empty_row[empty])


def keyframe_key(video: Any, second: Any) -> Any:
    """One int64 for a keyframe of a video; seconds are below 2**31."""
    return video * (1 << 31) + second


def _wrong(path: Path, number: int, what: str) -> NoReturn:
    raise DatasetError(f"{at(path, number)}: {what}")


def read_boxes(path: str | Path, images: str | Path | None = None) -> BoxTable:
    """Read ground truth or person boxes, whose form the file's suffix tells.

    A csv has no header and the columns video, second, x1, y1, x2, y2, action, score. The last one
    may be absent; in ground truth it is the person's number. In person boxes the action may be
    empty. A row of two columns is a keyframe without a box (AVA-Kinetics). A json is a list of
    objects ``image_id``, ``bbox`` (x, y, width, height in pixels) and ``score``, with a list of
    images ``id``, ``movie``, ``timestamp``, ``width``, ``height`` (AlphAction).

    Values are not judged here, see `check_boxes`.

    Args:
        path: the file.
        images: for a json, the json with the list ``images``; None: it holds that itself.

    Raises:
        DatasetError: not readable, or another form; names the file and the row.
    """
    path = Path(path)
    if path.suffix.lower() in _PICKLES:
        raise DatasetError(f"{path}: pickles are not read, as they can run code; expected {_FORMS}")
    if path.suffix.lower() == ".json":
        rows = read_json_rows(path, None if images is None else Path(images))
        columns = dict(zip(COLUMNS, map(list, zip(*rows, strict=True)), strict=True))
        return _table(path, pa.table(columns), np.arange(1, len(rows) + 1), [])
    return _table(path, *_csv_rows(path, read_text(path)))


def read_excluded(path: str | Path) -> frozenset[tuple[str, int]]:
    """Video and second of the keyframes that an ``excluded_timestamps`` csv lists.

    Raises:
        DatasetError: a row is not ``video,second``.
    """
    path = Path(path)
    lines = [(n, x.strip()) for n, x in enumerate(read_text(path).splitlines(), 1) if x.strip()]
    return frozenset(_keyframe(path, number, line) for number, line in lines)


def check_boxes(table: BoxTable, action_ids: Iterable[int], unlabelled: bool = False) -> None:
    """See that boxes lie within the frame and have known actions.

    Args:
        table: the boxes.
        action_ids: that are known.
        unlabelled: boxes may be without an action, as those of a detector.

    Raises:
        DatasetError: the first row that is wrong, and how.
    """
    x1, y1, x2, y2 = table.boxes.T
    for bad, what in (
        (~((table.boxes >= 0) & (table.boxes <= 1)).all(axis=1), "is not within [0, 1]"),
        (~((x1 < x2) & (y1 < y2)), "is empty; expected x1 < x2 and y1 < y2"),
    ):
        if bad.any():
            i = int(bad.argmax())
            _wrong(table.file, int(table.row[i]), f"the box {table.text[i]} {what}")
    ids = list(action_ids)
    known = np.array([NO_ACTION, *ids] if unlabelled else ids, np.int64)
    if (unknown := ~np.isin(table.action, known)).any():
        i = int(unknown.argmax())
        what = f"action id {table.action[i]} is not in the label map"
        if table.action[i] == NO_ACTION:
            what = "no action id; a keyframe without persons is a row video,second"
        elif len(ids) == 60:
            what += " of the 60 classes that are evaluated; use that of all 80"
        _wrong(table.file, int(table.row[i]), what)


def check_score(table: BoxTable) -> None:
    """See that person boxes have a score in [0, 1].

    Raises:
        DatasetError: the first row that has none.
    """
    if (bad := ~((table.score >= 0) & (table.score <= 1))).any():
        i = int(bad.argmax())
        _wrong(table.file, int(table.row[i]), "expected a person score in [0, 1] as eighth column")


def _csv_rows(path: Path, text: str) -> tuple[pa.Table, np.ndarray, list[tuple[int, str]]]:
    """Rows of seven or eight columns with their numbers, and the lines of other rows."""
    lines = [line.strip() for line in text.split("\n")]
    commas = [line.count(",") for line in lines]
    columns = 7 if next((n for n in commas if n > 1), 0) == 6 else 8
    names = COLUMNS[:columns]
    short: list[tuple[int, str]] = []
    for number, (line, count) in enumerate(zip(lines, commas, strict=True), 1):
        if count != columns - 1 and line:
            if count != 1:
                expected = ",".join(names)
                _wrong(path, number, f"expected {expected} (no header), not {line[:80]!r}")
            short.append((number, line))
        elif "\r" in line:
            _wrong(path, number, "a carriage return within the row")
    rows = [i for i, count in enumerate(commas) if count == columns - 1]
    if not rows:
        return (
            pa.table({name: pa.array([], pa.string()) for name in names}),
            np.empty(0, int),
            short,
        )
    table = pyarrow.csv.read_csv(
        io.BytesIO("\n".join([lines[i] for i in rows]).encode()),
        pyarrow.csv.ReadOptions(column_names=names, block_size=1 << 28),
        pyarrow.csv.ParseOptions(quote_char=False),
        pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
    )
    return table.combine_chunks(), np.array(rows) + 1, short


def _keyframe(path: Path, number: int, line: str) -> tuple[str, int]:
    """Video and second of a line ``video,second``."""
    video, _, text = (cell.strip() for cell in line.partition(","))
    if not video or not (second := _WHOLE.fullmatch(text)):
        _wrong(path, number, f"expected video,second with a whole second, not {line[:80]!r}")
    if int(second[1]) >= _SECONDS:
        _wrong(path, number, f"second {text} is not in [0, {_SECONDS:.0f}]")
    return video, int(second[1])


def _table(
    path: Path,
    rows: pa.Table,
    numbers: np.ndarray,
    short: Sequence[tuple[int, str]],
) -> BoxTable:
    """Columns of text as numbers, and lines without a box; the videos of all of them, sorted."""
    keyframes = [_keyframe(path, number, line) for number, line in short]
    if not len(numbers) + len(keyframes):
        raise DatasetError(f"{path}: no rows; expected {_FORMS}")
    cells = {
        name: pc.utf8_trim_whitespace(rows[name]).combine_chunks() for name in rows.schema.names
    }
    cells.setdefault("score", pa.array([""] * len(numbers), pa.string()))
    places = [cells[name] for name in ("x1", "y1", "x2", "y2")]
    boxes = [_numbers(path, numbers, name, cells[name]) for name in ("x1", "y1", "x2", "y2")]
    second = _numbers(path, numbers, "second", cells["second"], whole=True)
    if (far := (second < 0) | (second >= _SECONDS)).any():
        i = int(far.argmax())
        _wrong(path, int(numbers[i]), f"second {second[i]:.0f} is not in [0, {_SECONDS:.0f}]")
    action = _numbers(path, numbers, "action", cells["action"], empty=NO_ACTION, whole=True)
    score = _numbers(path, numbers, "score", cells["score"], empty=np.nan)
    encoded = cells["video"].dictionary_encode()
    if (nameless := pc.equal(pc.utf8_length(cells["video"]), 0).to_numpy(False)).any():
        _wrong(path, int(numbers[nameless.argmax()]), "the video is empty")
    found = np.array(encoded.dictionary.to_pylist(), object)
    names = sorted({*found.tolist(), *(video for video, _ in keyframes)})
    ids = {name: i for i, name in enumerate(names)}
    id_of = np.array([ids[name] for name in found], np.int64)
    empty = np.array([(ids[name], second) for name, second in keyframes], np.int64)
    return BoxTable(
        file=path,
        names=tuple(names),
        video=id_of[encoded.indices.to_numpy()],
        second=second.astype(np.int64),
        boxes=np.stack(boxes, axis=1),
        action=action.astype(np.int64),
        score=score,
        text=pc.binary_join_element_wise(*places, ","),
        row=numbers,
        empty=empty.reshape(-1, 2),
        empty_row=np.array([number for number, _ in short], np.int64),
    )


def _numbers(
    path: Path,
    rows: np.ndarray,
    name: str,
    cells: pa.Array,
    empty: float | None = None,
    whole: bool = False,
) -> np.ndarray:
    """A column as float64 ``(R,)``; ``empty`` stands for cells without text."""
    blank = pc.equal(pc.utf8_length(cells), 0)
    text = cells if empty is None else pc.if_else(blank, pa.scalar(str(empty)), cells)
    try:
        values = pc.cast(text, pa.float64()).to_numpy()
        bad = ~np.isfinite(values) if empty is None else np.isinf(values)
        if whole:
            bad |= (values % 1 != 0) | (np.abs(values) >= 1 << 31)
    except pa.ArrowInvalid:
        values, bad = np.empty(0), np.array([not _is_number(x) for x in text.to_pylist()])
    if bad.any():
        i = int(bad.argmax())
        kind = "whole number" if whole else "number"
        _wrong(path, int(rows[i]), f"{name} is no {kind}: {cells[i].as_py()[:40]!r}")
    return values


def _is_number(text: str) -> bool:
    try:
        return bool(pc.cast(pa.scalar(text), pa.float64()).is_valid)
    except pa.ArrowInvalid:
        return False
