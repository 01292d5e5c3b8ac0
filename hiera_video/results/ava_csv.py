"""AVA's csv files of ground truth, detections and excluded keyframes, read and written fast.

No header; ``video,second,x1,y1,x2,y2,action id`` and, as eighth column, the person's id in ground
truth and the score in detections. A row of two columns names a keyframe without boxes. Seconds may
have decimals (AVA-Kinetics) and leading zeros; two are the same if six decimals are.
"""

import math
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.csv

from datamodules.errors import DatasetError
from datamodules.manifests.lists import at
from hiera_video.metrics.ava import DetectedBoxes
from hiera_video.metrics.ava_matching import SECONDS, keyframe_keys

BLOCK = 1 << 26  # bytes that are read at once
SIDES = ("x1", "y1", "x2", "y2")
COLUMNS = ("video", "second", *SIDES, "action id", "score")
_TYPES = {
    **dict.fromkeys(COLUMNS, pa.float64()),
    "video": pa.dictionary(pa.int32(), pa.string()),
    "action id": pa.int64(),
}
_UNFIT = re.compile('[,"\r\n\ud800-\udfff]')  # in the name of a video
_ABSENT = {**dict.fromkeys(SIDES, math.nan), "action id": -1, "score": 1.0}


class AVARows(NamedTuple):
    """Rows of a file, in its order.

    Attributes:
        file: where they are from.
        videos: names.
        video: int64 ``(n,)``, place in ``videos``.
        second: float64 ``(n,)``.
        box: float64 ``(n, 4)``: x1, y1, x2, y2; NaN in a row of two columns.
        action_id: int64 ``(n,)``; -1 in a row of two columns.
        score: float64 ``(n,)``, the eighth column; 1 where there is none.
        row: int64 ``(n,)``, of the file, from 1.
    """

    file: Path
    videos: tuple[str, ...]
    video: np.ndarray
    second: np.ndarray
    box: np.ndarray
    action_id: np.ndarray
    score: np.ndarray
    row: np.ndarray

    def keys(self) -> np.ndarray:
        """`keyframe_keys` of all rows."""
        return keyframe_keys(self.video, self.second)

    def where(self, which: np.ndarray) -> "AVARows":
        """Some of the rows."""
        columns = (self.video, self.second, self.box, self.action_id, self.score, self.row)
        return AVARows(self.file, self.videos, *(values[which] for values in columns))

    def renamed(self, videos: dict[str, int]) -> "AVARows":
        """With other numbers for the videos, those of ``videos``, which new names are added to."""
        numbers = [videos.setdefault(name, len(videos)) for name in self.videos]
        video = np.array(numbers, np.int64)[self.video] if len(self.video) else self.video
        return self._replace(video=video, videos=tuple(videos))


def read_ava_csv(path: str | Path, widths: Collection[int] = (2, 7, 8)) -> AVARows:
    """Read a file; six million rows take seconds.

    Values are checked for being finite numbers; see `check_ground_truth` for more.

    Args:
        path: the file.
        widths: numbers of columns that rows may have: (2,) of excluded keyframes.

    Raises:
        DatasetError: not readable, or a row is wrong; names the file and the row.
    """
    path, nothing = Path(path), np.zeros(0, np.int64)
    tables, rows = [_table(b"", path, nothing)], [nothing]
    try:
        for block, first in _blocks(path):
            for lines, text in _by_width(block, first, widths, path):
                tables.append(_table(text, path, lines))
                rows.append(lines)
    except OSError as error:
        raise DatasetError(f"{path}: not readable ({error.strerror or error})") from None
    table = pa.concat_tables(tables).unify_dictionaries().combine_chunks()
    row = np.concatenate(rows)
    video = table["video"].combine_chunks()
    found = AVARows(
        path,
        tuple(video.dictionary.to_pylist()),
        video.indices.to_numpy().astype(np.int64),
        table["second"].to_numpy(),
        np.stack([table[side].to_numpy() for side in SIDES], axis=1),
        table["action id"].to_numpy(),
        table["score"].to_numpy(),
        row,
    )
    if (row[1:] < row[:-1]).any():
        found = found.where(np.argsort(row))
    _check_numbers(found)
    return found


def check_ground_truth(rows: AVARows) -> None:
    """See that boxes lie within the frame, with x1 < x2 and y1 < y2.

    Raises:
        DatasetError: the file has no rows, or one is not such.
    """
    if not len(rows.row):
        raise DatasetError(f"{rows.file}: no rows; expected {','.join(COLUMNS)}")
    low, high = rows.box[:, :2], rows.box[:, 2:]
    for wrong, what in (
        ((low < 0) | (high > 1), "a box that is not within [0, 1] of the frame"),
        (low >= high, "a box without x1 < x2 and y1 < y2"),
    ):
        _first_wrong(rows, np.any(wrong, axis=1), what)


def write_ava_csv(
    file: BinaryIO,
    videos: Sequence[str],
    detected: DetectedBoxes,
    action_ids: Collection[int],
) -> None:
    """Write detections, a row for each box and class, so that any tool can evaluate them.

    Rows are in the order of ``detected``: video, second (four digits), x1, y1, x2, y2 (in [0, 1] of
    the full frame), action id, score; no header. Numbers are the shortest that stand for the same
    float32, so that evaluating the file gives what the metric gives.

    Args:
        file: open for bytes.
        videos: name of each number in ``detected.video``.
        detected: boxes and scores.
        action_ids: of the columns of scores.

    Raises:
        DatasetError: see `check_names`.
    """
    check_names(videos)
    ids = pa.array(list(action_ids), pa.int64())
    names = pa.array(list(videos), pa.string())
    step = max(1, BLOCK // (100 * max(1, len(ids))))
    options = pyarrow.csv.WriteOptions(include_header=False, quoting_style="none")
    for begin in range(0, len(detected.video), step):
        some = DetectedBoxes(*(values[begin : begin + step] for values in detected))
        row = np.repeat(np.arange(len(some.video)), len(ids))
        seconds = pa.array([f"{s:04.0f}" if s % 1 == 0 else f"{s:.6f}" for s in some.second])
        columns: list[Any] = [names.take(pa.array(some.video)).take(row), seconds.take(row)]
        columns += [pa.array(side).cast(pa.string()).take(row) for side in some.boxes.T]
        columns.append(ids.take(np.tile(np.arange(len(ids)), len(some.video))))
        columns.append(pa.array(np.ascontiguousarray(some.scores).reshape(-1)))
        table = pa.table(dict(zip(COLUMNS, columns, strict=True)))
        pyarrow.csv.write_csv(table, file, options)


def check_names(videos: Sequence[str]) -> None:
    """See that a csv can name videos: AVA's files have no quotes around a name.

    Raises:
        DatasetError: a name has a comma, a quote or a line break, or is no text.
    """
    for name in videos:
        if _UNFIT.search(name):
            raise DatasetError(
                f"a csv cannot name the video {name!r}: rename it, without commas, double quotes, "
                "line breaks and bytes that are not UTF-8"
            )


def _blocks(path: Path) -> Iterator[tuple[bytes, int]]:
    """Whole lines, and the number of the first."""
    first, rest = 1, b""
    with open(path, "rb") as file:
        if file.read(3) != b"\xef\xbb\xbf":  # a byte order mark
            file.seek(0)
        while more := file.read(BLOCK):
            whole, newline, after = more.rpartition(b"\n")
            if newline:
                block = rest + whole + newline
                yield block, first
                first, rest = first + block.count(b"\n"), after
            else:
                rest += after
    if rest:
        yield rest + b"\n", first


def _by_width(
    block: bytes, first: int, widths: Collection[int], path: Path
) -> Iterator[tuple[np.ndarray, bytes]]:
    """Lines that have as many columns as each other, and their numbers."""
    text = np.frombuffer(block, np.uint8)
    ends = np.flatnonzero(text == ord("\n"))
    starts = np.r_[0, ends[:-1] + 1]
    columns = np.add.reduceat(text == ord(","), starts, dtype=np.int64) + 1
    length = ends - starts
    blank = (length == 0) | ((length == 1) & (text[starts] == ord("\r")))
    lines = first + np.arange(len(starts))
    if (wrong := ~blank & ~np.isin(columns, list(widths))).any():
        i = int(wrong.argmax())
        line = block[starts[i] : ends[i]].decode("utf-8", "replace").strip()
        names = ",".join(COLUMNS[: max(widths)])
        _wrong(path, int(lines[i]), f"expected {names} (no header), not {line[:80]!r}")
    for width in np.unique(columns[~blank]):
        here = ~blank & (columns == width)
        mask = np.repeat(here, length + 1)
        yield lines[here], block if here.all() else text[mask].tobytes()


def _table(text: bytes, path: Path, lines: np.ndarray) -> pa.Table:
    """Lines of one width as numbers; columns that they lack are filled up."""
    if not text:
        return pa.table({name: pa.array([], _TYPES[name]) for name in COLUMNS})
    try:
        table = _parsed(text)
    except pa.ArrowInvalid:
        _explain(text, path, lines)
    for name in COLUMNS[table.num_columns :]:
        table = table.append_column(name, pa.array(np.full(len(lines), _ABSENT[name])))
    return table


def _parsed(text: bytes) -> pa.Table:
    names = COLUMNS[: text[: text.index(b"\n")].count(b",") + 1]
    return pyarrow.csv.read_csv(
        pa.BufferReader(text),
        pyarrow.csv.ReadOptions(column_names=names),
        convert_options=pyarrow.csv.ConvertOptions(column_types=_TYPES, null_values=[]),
    )


def _explain(text: bytes, path: Path, numbers: np.ndarray) -> NoReturn:
    """Raise for the first line that can't be parsed."""
    lines = [line + b"\n" for line in text.split(b"\n")[:-1]]
    low, high = 0, len(lines)
    while True:
        middle = (low + high + 1) // 2
        try:
            _parsed(b"".join(lines[low:middle]))
            low = middle
        except pa.ArrowInvalid as error:
            high = middle
            if high - low == 1:
                what = str(error)
                break
    line = lines[low].decode("utf-8", "replace").strip()
    if "\r" in line:
        what = "a carriage return within the row"
    elif found := re.search(r"column #(\d)", what):
        name, cell = COLUMNS[int(found[1])], line.split(",")[int(found[1])]
        kind = {"action id": "whole number", "video": "text in UTF-8"}.get(name, "number")
        what = f"{name} is no {kind}: {cell[:40]!r}"
    _wrong(path, int(numbers[low]), what)


def _check_numbers(rows: AVARows) -> None:
    second, boxed = rows.second, rows.action_id >= 0
    if rows.videos and "" in rows.videos:
        _first_wrong(rows, rows.video == rows.videos.index(""), "no name of a video")
    _first_wrong(rows, ~((second >= 0) & (second < SECONDS)), "a second that is none")
    whole = np.asarray(np.isfinite(rows.box).all(1) & np.isfinite(rows.score))
    two = np.isnan(rows.box).all(1) & (rows.action_id == -1)
    _first_wrong(rows, ~whole & ~two, "a number that is not finite")
    _first_wrong(rows, ~boxed & ~two, "an action id below 0")


def _first_wrong(rows: AVARows, wrong: Any, what: str) -> None:
    if wrong.any():
        _wrong(rows.file, int(rows.row[wrong.argmax()]), f"has {what}")


def _wrong(path: Path, number: int, what: str) -> NoReturn:
    raise DatasetError(f"{at(path, number)}: {what}")
