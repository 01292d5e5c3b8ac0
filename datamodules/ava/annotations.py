"""Readers of AVA's annotation files: ground truth, detections and excluded keyframes.

A csv has no header and the columns ``video,second,x1,y1,x2,y2,action`` and, if there is an eighth,
the person id in ground truth or the score in detections. AVA publishes files of seven and of eight
columns; rows of both may be mixed. A row of two columns names a keyframe without a box. Action and
eighth column may be empty. Seconds may have leading zeros and decimals (AVA-Kinetics).

A csv is read in blocks, parsed by PyArrow: six million rows take seconds.
"""

import os
import re
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.csv

from datamodules.ava.box_table import MAX_SECOND, NO_ACTION, BoxTable, fail, plain_number
from datamodules.ava.json_boxes import read_json_rows
from datamodules.errors import DatasetError
from datamodules.manifests.parquet import pc

Progress = Callable[[int, int], None]  # of what is done, and in total

BLOCK = 1 << 26  # bytes that are read at once
SIDES = ("x1", "y1", "x2", "y2")
COLUMNS = ("video", "second", *SIDES, "action", "score")
_TYPES = dict.fromkeys(COLUMNS, pa.float64()) | {"video": pa.dictionary(pa.int32(), pa.string())}
_OPTIONAL = ("action", "score")  # cells of these columns may be empty
_FORMS = f"an AVA csv ({','.join(COLUMNS)}) or a json of boxes"
_PICKLES = frozenset((".pkl", ".pickle", ".p"))


def read_boxes(
    path: str | Path,
    images: str | Path | None = None,
    progress: Progress = lambda done, total: None,
) -> BoxTable:
    """Read ground truth or person boxes; the suffix of the file tells its form.

    A json is AlphAction's: a list of objects ``image_id``, ``bbox`` (x, y, width, height in pixels)
    and ``score``, and a list of images ``id``, ``movie``, ``timestamp``, ``width``, ``height``.
    Any other file is a csv, see `read_csv`.

    Args:
        path: the file.
        images: for a json, the json with the list ``images``; None: ``path`` holds it.
        progress: see `read_csv`.

    Raises:
        DatasetError: the file has no rows or cannot be read; names the file and the row.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix in _PICKLES:
        raise DatasetError(f"{path}: pickles are not read, as they can run code; expected {_FORMS}")
    if suffix == ".json":
        table = _read_json(path, None if images is None else Path(images))
    else:
        table = read_csv(path, progress=progress)
    if not len(table.row):
        raise DatasetError(f"{path}: no rows; expected {_FORMS}")
    return table


def read_excluded(path: str | Path) -> BoxTable:
    """Read an ``excluded_timestamps`` csv, whose rows are ``video,second``.

    Raises:
        DatasetError: the file cannot be read; names the file and the row.
    """
    return read_csv(path, widths=(2,))


def read_csv(
    path: str | Path,
    widths: Collection[int] = (2, 7, 8),
    progress: Progress = lambda done, total: None,
) -> BoxTable:
    """Read a csv file, which may be empty.

    Numbers are checked to be finite, seconds and actions to be in their range. Boxes may lie
    anywhere: see the checks of `box_table`.

    Args:
        path: the file.
        widths: how many columns a row may have.
        progress: called with the bytes that are read and the size of the file, if that is large.

    Raises:
        DatasetError: the file cannot be read; names the file and the row.
    """
    path = Path(path)
    tables, rows = [_empty_table(0)], [np.zeros(0, np.int64)]
    try:
        for block, first in _blocks(path, progress):
            for text, numbers in _by_width(block, first, widths, path):
                tables.append(_parsed_or_fail(text, numbers, path))
                rows.append(numbers)
    except OSError as error:
        raise DatasetError(f"{path}: not readable ({error.strerror or error})") from None
    table = pa.concat_tables(tables).unify_dictionaries().combine_chunks()
    video = table["video"].combine_chunks()
    return _checked(
        BoxTable(
            path,
            tuple(video.dictionary.to_pylist()),
            video.indices.to_numpy(),
            table["second"].to_numpy(),
            np.stack([table[side].to_numpy() for side in SIDES], axis=1),
            table["action"].to_numpy(),
            table["score"].to_numpy(),
            np.concatenate(rows),
        )
    )


def _read_json(path: Path, images: Path | None) -> BoxTable:
    names, second, boxes, score = zip(*read_json_rows(path, images), strict=True)
    number = np.arange(len(names))
    return _checked(
        BoxTable(
            path,
            names,
            number,
            np.array(second),
            np.array(boxes),
            np.full(len(names), np.nan),
            np.array(score),
            number + 1,
        )
    )


def _checked(table: BoxTable) -> BoxTable:
    """Check the values of a table as it was read, and bring it into its final form.

    Args:
        table: ``names`` may have spaces around them, and be repeated; ``action`` is float64, NaN
            where there is none; rows of one width may come before those of another.
    """
    if (table.row[1:] < table.row[:-1]).any():
        order = np.argsort(table.row)
        table = BoxTable(table.file, table.names, *(column[order] for column in table[2:]))
    stripped = [name.strip() for name in table.names]
    names = tuple(sorted(set(stripped)))
    index = {name: i for i, name in enumerate(names)}
    video = np.array([index[name] for name in stripped], np.int64)[table.video]
    second, action = table.second, np.where(np.isnan(table.action), NO_ACTION, table.action)
    out_of_range = (second < 0) | (second >= MAX_SECOND)
    for values, wrong, what in (
        (second, out_of_range, f"second {{}} is not in [0, {MAX_SECOND:.0f}]"),
        (action, (action % 1 != 0) | (action >= 2**31), "action {} is not a whole number"),
        (action, action < NO_ACTION, "action {} is below 0"),
        (video, np.isin(video, [index.get("", -1)]), "the name of the video is empty"),
    ):
        if wrong.any():
            i = int(wrong.argmax())
            fail(table.file, table.row[i], what.format(plain_number(values[i])))
    return table._replace(names=names, video=video, action=action.astype(np.int64))


def _blocks(path: Path, progress: Progress) -> Iterator[tuple[bytes, int]]:
    """Blocks of whole lines, each with the number of its first line, from 1."""
    first, rest = 1, b""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if file.read(3) != b"\xef\xbb\xbf":  # byte order mark
            file.seek(0)
        while data := file.read(BLOCK):
            lines, newline, after = data.rpartition(b"\n")
            if newline:
                block = rest + lines + newline
                yield block, first
                first, rest = first + block.count(b"\n"), after
            else:
                rest += after
            if size > BLOCK:
                progress(file.tell(), size)
    if rest:
        yield rest + b"\n", first


def _by_width(
    block: bytes, first: int, widths: Collection[int], path: Path
) -> Iterator[tuple[bytes, np.ndarray]]:
    """The lines of a block, apart for each number of columns, with their line numbers."""
    text = np.frombuffer(block, np.uint8)
    ends = np.flatnonzero(text == ord("\n"))
    starts = np.r_[0, ends[:-1] + 1]
    columns = np.add.reduceat(text == ord(","), starts, dtype=np.int64) + 1
    for i in np.flatnonzero(~np.isin(columns, list(widths))):
        line = block[starts[i] : ends[i]].decode("utf-8", "replace").strip()
        if line:
            names = ",".join(COLUMNS[: max(widths)])
            fail(path, first + i, f"expected {names} (no header), not {line[:80]!r}")
    for width in widths:
        if (chosen := columns == width).any():
            lines = block if chosen.all() else text[np.repeat(chosen, ends + 1 - starts)].tobytes()
            yield lines, first + np.flatnonzero(chosen)


def _parsed_or_fail(text: bytes, numbers: np.ndarray, path: Path) -> pa.Table:
    """Lines of one width as a table of all columns, empty where the lines lack a column."""
    try:
        table = _parsed(text, len(numbers))
    except pa.ArrowInvalid:
        _fail_at_first([line + b"\n" for line in text.split(b"\n")[:-1]], numbers, path)
    for name in table.column_names[1:]:
        wrong = pc.invert(pc.fill_null(pc.is_finite(table[name]), name in _OPTIONAL))
        if pc.any(wrong).as_py():
            i = pc.index(wrong, True).as_py()
            value = table[name][i].as_py()
            what = "is empty" if value is None else f"is not a finite number: {value}"
            fail(path, numbers[i], f"{name} {what}")
    missing = _empty_table(len(numbers)).select(COLUMNS[table.num_columns :])
    for name in missing.column_names:
        table = table.append_column(name, missing[name])
    return table


def _empty_table(rows: int) -> pa.Table:
    return pa.table({name: pa.nulls(rows, kind) for name, kind in _TYPES.items()})


def _parsed(text: bytes, rows: int) -> pa.Table:
    names = COLUMNS[: text[: text.index(b"\n")].count(b",") + 1]
    table = pyarrow.csv.read_csv(
        pa.BufferReader(text),
        # One row in one thread, so that its first wrong cell is named, and not that of any thread.
        pyarrow.csv.ReadOptions(column_names=names, use_threads=rows > 1),
        convert_options=pyarrow.csv.ConvertOptions(column_types=_TYPES, null_values=["", " "]),
    )
    if table.num_rows != rows:  # a quoted cell went on in the next line
        raise pa.ArrowInvalid("a quote is not closed")
    return table


def _fail_at_first(lines: list[bytes], numbers: np.ndarray, path: Path) -> NoReturn:
    """Name the first line that cannot be parsed, found by bisection, and its problem."""
    while len(lines) > 1:
        half = len(lines) // 2
        try:
            _parsed(b"".join(lines[:half]), half)
        except pa.ArrowInvalid:
            lines, numbers = lines[:half], numbers[:half]
        else:
            lines, numbers = lines[half:], numbers[half:]
    problem = ""
    try:
        _parsed(lines[0], 1)
    except pa.ArrowInvalid as error:
        problem = str(error)
    text = lines[0].decode("utf-8", "replace").strip()
    what = f"quotes are not around whole cells: {text[:80]!r}"
    if "\r" in text:
        what = "a carriage return within the row"
    elif match := re.search(r"column #(\d)", problem):
        name, cell = COLUMNS[int(match[1])], text.split(",")[int(match[1])]
        kind = "text in UTF-8" if name == "video" else "a number"
        what = f"{name} is not {kind}: {cell[:40]!r}"
    fail(path, numbers[0], what)
