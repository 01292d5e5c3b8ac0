"""AVA's annotation files: boxes with actions, person boxes, excluded timestamps and label maps.

The files are those that AVA v2.2 and its detectors publish. All errors name the file and the row.
Rows are read as arrays: a million of them take a few seconds.
"""

import io
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.csv

from datamodules.annotations import at, read_text
from datamodules.manifest_file import DatasetError, pc

NO_ACTION = -1
COLUMNS = ("video", "second", "x1", "y1", "x2", "y2", "action", "score")
_FORMS = "an AVA csv (video,second,x1,y1,x2,y2,action,score) or a json of boxes"
_PICKLES = frozenset((".pkl", ".pickle", ".p"))
_FIELD = re.compile(r"""(\w+)\s*:\s*("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[\w.+-]+)""")


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
        return replace(kept, empty=self.empty[empty])


def keyframe_key(video: Any, second: Any) -> Any:
    """One int64 for a keyframe of a video; seconds are below 2**31."""
    return video * (1 << 31) + second


def read_label_map(path: str | Path) -> dict[int, str]:
    """Names of action ids from a label map in text form (pbtxt), in the order of the ids.

    Both published maps are read: ``ava_action_list_v2.2.pbtxt`` with ``label { name: "..."
    label_id: 1 label_type: ... }`` (80 classes), and the one ``..._for_activitynet_2019.pbtxt``
    with ``item { name: "..." id: 1 }`` (the 60 that are evaluated).

    Raises:
        DatasetError: it is no such file, an id is no positive number, or an id or a name is there
            twice.
    """
    path = Path(path)
    names: dict[int, str] = {}
    entry: dict[str, str] | None = None
    for number, line in enumerate(read_text(path).splitlines(), 1):
        text = _without_comment(line)
        opened, closed = _FIELD.sub("", text).count("{"), _FIELD.sub("", text).count("}")
        if opened:
            entry = {}
        if entry is not None:
            entry |= {key: value.strip("\"'") for key, value in _FIELD.findall(text)}
        elif text.strip():
            _wrong(path, number, f"expected 'item {{' or 'label {{', not {line.strip()!r}")
        if closed and entry is not None:
            _add_entry(names, entry, path, number)
            entry = None
    if entry is not None or not names:
        raise DatasetError(f"{path}: is no label map; expected item {{ name: ... id: ... }}")
    return dict(sorted(names.items()))


def _without_comment(line: str) -> str:
    """A line of a pbtxt up to a ``#`` that is not within quotes."""
    return re.sub(r"""("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|#.*""", r"\1", line)


def _add_entry(names: dict[int, str], entry: dict[str, str], path: Path, number: int) -> None:
    name, text = entry.get("name", ""), entry.get("label_id", entry.get("id", ""))
    if not name or not text.isdecimal() or int(text) < 1:
        _wrong(path, number, "expected a name and a positive id before '}'")
    if int(text) in names or name in names.values():
        _wrong(path, number, f"id {text} or name {name!r} is there twice")
    names[int(text)] = name


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
        return _table(path, *_json_columns(path, images), np.empty(0, object), np.empty(0))
    text = read_text(path)
    rows, numbers, short = _csv_rows(path, text)
    return _table(path, rows, numbers, *_keyframes(path, short))


def read_excluded(path: str | Path) -> frozenset[tuple[str, int]]:
    """Video and second of the keyframes that an ``excluded_timestamps`` csv lists.

    Raises:
        DatasetError: a row is not ``video,second``.
    """
    path = Path(path)
    lines = [(n, x.strip()) for n, x in enumerate(read_text(path).splitlines(), 1) if x.strip()]
    videos, seconds = _keyframes(path, lines)
    return frozenset(zip(videos.tolist(), seconds.tolist(), strict=True))


def check_boxes(table: BoxTable, action_ids: Iterable[int]) -> None:
    """See that boxes lie within the frame and have known actions.

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
    known = np.array([NO_ACTION, *action_ids])
    if (unknown := ~np.isin(table.action, known)).any():
        i = int(unknown.argmax())
        what = f"action id {table.action[i]} is not in the label map"
        if len(known) == 61:
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


def _keyframes(path: Path, lines: Sequence[tuple[int, str]]) -> tuple[np.ndarray, np.ndarray]:
    """Videos (object) and seconds (int64) of lines ``video,second``."""
    videos, seconds = [], []
    for number, line in lines:
        video, _, second = line.partition(",")
        if not video.strip() or not second.strip().isdecimal():
            _wrong(path, number, f"expected video,second with a whole second, not {line[:80]!r}")
        videos.append(video.strip())
        seconds.append(int(second))
    return np.array(videos, object), np.array(seconds, np.int64)


def _table(
    path: Path,
    rows: pa.Table,
    numbers: np.ndarray,
    empty_videos: np.ndarray,
    empty_seconds: np.ndarray,
) -> BoxTable:
    """Columns of text as numbers; the videos of all rows, sorted."""
    if not len(numbers) + len(empty_videos):
        raise DatasetError(f"{path}: no rows; expected {_FORMS}")
    cells = {
        name: pc.utf8_trim_whitespace(rows[name]).combine_chunks() for name in rows.schema.names
    }
    cells.setdefault("score", pa.array([""] * len(numbers), pa.string()))
    places = [cells[name] for name in ("x1", "y1", "x2", "y2")]
    boxes = [_numbers(path, numbers, name, cells[name]) for name in ("x1", "y1", "x2", "y2")]
    second = _numbers(path, numbers, "second", cells["second"], whole=True)
    action = _numbers(path, numbers, "action", cells["action"], empty=NO_ACTION, whole=True)
    score = _numbers(path, numbers, "score", cells["score"], empty=np.nan)
    encoded = cells["video"].dictionary_encode()
    if (nameless := pc.equal(pc.utf8_length(cells["video"]), 0).to_numpy(False)).any():
        _wrong(path, int(numbers[nameless.argmax()]), "the video is empty")
    found = np.array(encoded.dictionary.to_pylist(), object)
    names = sorted({*found.tolist(), *empty_videos.tolist()})
    ids = {name: i for i, name in enumerate(names)}
    id_of = np.array([ids[name] for name in found], np.int64)
    empty = np.array([ids[name] for name in empty_videos], np.int64)
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
        empty=np.stack([empty, empty_seconds.astype(np.int64)], axis=1),
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


def _json_columns(path: Path, images: str | Path | None) -> tuple[pa.Table, np.ndarray]:
    """AlphAction's boxes, in pixels, as the columns of a csv; and the numbers of their records."""
    content = _load(path)
    if isinstance(content, dict):
        records, listed = content.get("annotations"), content.get("images")
    else:
        records, listed = content, None
    source = Path(images) if images is not None else path
    if images is not None:
        more = _load(source)
        listed = more.get("images") if isinstance(more, dict) else None
    if not isinstance(records, list) or not records:
        raise DatasetError(f"{path}: expected a list of image_id, bbox and score")
    if not isinstance(listed, list):
        raise DatasetError(
            f"{source}: expected a list 'images' with id, movie, timestamp, width and height; set "
            "data.person_box_images to the json that has it"
        )
    known = {}
    for number, image in enumerate(listed, 1):
        try:
            size = float(image["width"]), float(image["height"])
            known[image["id"]] = str(image["movie"]), str(int(image["timestamp"])), *size
        except (KeyError, TypeError, ValueError) as error:
            _wrong(
                source, number, f"an image without id, movie, timestamp, width, height ({error})"
            )
    rows = []
    for number, record in enumerate(records, 1):
        try:
            movie, second, width, height = known[record["image_id"]]
            x, y, w, h = map(float, record["bbox"])
            score = float(record["score"])
        except (KeyError, TypeError, ValueError) as error:
            _wrong(path, number, f"expected image_id, bbox [x, y, w, h] and score ({error!r})")
        box = x / width, y / height, (x + w) / width, (y + h) / height
        # Boxes of a detector end at the border to within a rounding.
        cut = (min(max(value, 0.0), 1.0) if -0.01 < value < 1.01 else value for value in box)
        rows.append((movie, second, *map(repr, cut), "", repr(score)))
    columns = dict(zip(COLUMNS, map(list, zip(*rows, strict=True)), strict=True))
    return pa.table(columns), np.arange(1, len(rows) + 1)


def _load(path: Path) -> Any:
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(f"{path}: not JSON ({error})") from None
