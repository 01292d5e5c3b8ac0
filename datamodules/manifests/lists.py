"""Annotation files: their rows, the ids of their labels, and where their videos are on disk."""

import csv
import logging
import os
import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from datamodules.errors import DatasetError

log = logging.getLogger(__name__)

VIDEO_SUFFIXES = frozenset(
    (
        *(".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".f4v", ".mj2"),
        *(".mkv", ".webm", ".avi", ".divx", ".wmv", ".asf", ".flv"),
        *(".mpg", ".mpeg", ".mpe", ".m1v", ".m2v", ".vob", ".ts", ".mts", ".m2ts"),
        *(".mxf", ".dv", ".ogv", ".ogm", ".rm", ".rmvb", ".nut", ".ivf"),
        *(".gif", ".y4m", ".h264", ".264", ".hevc", ".h265", ".265"),
    )
)
NO_LABEL = -1  # label id of a video whose class is unknown


class Row(NamedTuple):
    """One video of an annotation file.

    Attributes:
        number: line of the file, or number of the JSON record, from 1.
        video: absolute path; for `find_by_stem`, without suffix; the file may be in a subfolder.
        label: name or id of its class; empty if unknown.
    """

    number: int
    video: str
    label: str


class MissingVideo(NamedTuple):
    """A video that an annotation file names but that does not exist.

    Attributes:
        split: the split, as the configuration names it.
        video: its path relative to the root, possibly without a suffix.
        file: the annotation file.
        row: line or record of that file.
    """

    split: str
    video: str
    file: str
    row: int


def at(source: Path, number: int) -> str:
    """Name a row of an annotation file, for messages."""
    return f"{source}, {'record' if source.suffix.lower() == '.json' else 'row'} {number}"


def read_text(source: Path) -> str:
    """Read a text file in UTF-8, with or without a byte order mark; line ends stay as they are.

    Raises:
        DatasetError: the file cannot be read or is not UTF-8.
    """
    try:
        return source.read_bytes().decode("utf-8-sig")
    except (UnicodeDecodeError, OSError) as error:
        raise DatasetError(f"{source}: not a readable text file ({error})") from None


def read_list(source: Path, root: Path) -> list[Row]:
    """Read a CSV ``path,label`` (header optional), or lines ``path label`` or ``path``.

    Args:
        source: the file.
        root: folder to which its paths are relative and which none may leave.

    Raises:
        DatasetError: a row is wrong, or there is none; names the file and the row.
    """
    all_lines = read_text(source).split("\n")
    lines = [(n, line.strip()) for n, line in enumerate(all_lines, 1) if line.strip()]
    texts = [line for _, line in lines]
    split = _split_csv if _looks_like_csv(texts) else _split_list
    unlabelled = all(len(_split_csv(line)) == 1 for line in texts) and split is _split_csv
    base = os.path.abspath(root)
    rows = []
    for number, line in lines:
        cells = [cell.strip() for cell in split(line)]
        if number == lines[0][0] and cells in (["path", "label"], ["path"]):
            continue
        path, label = [*cells, ""] if unlabelled else cells if len(cells) == 2 else ("", "")
        if not path or not (label or (unlabelled and _is_video(path))):
            raise DatasetError(
                f"{at(source, number)}: expected 'path,label' or 'path id', or in all rows only "
                f"the path of a video, not {line!r}"
            )
        video = inside(base, path, at(source, number))
        if video == base:
            raise DatasetError(f"{at(source, number)}: expected the path of a video, not {path!r}")
        rows.append(Row(number, video, label))
    if not rows:
        raise DatasetError(f"{source}: no rows; expected lines 'path,label' or 'path label'")
    return rows


def _split_csv(line: str) -> list[str]:
    """Cells of a line; none if it is not CSV."""
    try:
        return next(csv.reader([line]))
    except csv.Error:  # such as a carriage return in the line
        return []


def _split_list(line: str) -> list[str]:
    """The path, which may contain spaces, and the label."""
    return line.rsplit(maxsplit=1)


def _looks_like_csv(lines: Sequence[str]) -> bool:
    """Whether lines are CSV and not a list, whose lines end with a space and an id.

    The file's suffix does not tell them apart: PySlowFast's lists are called .csv, too.
    """
    cells = [_split_csv(line) for line in lines]
    if all(len(c) == 2 and _is_video(c[0]) for c in cells):
        return True  # with labels such as "class 1"
    ends = [_split_list(line) for line in lines]
    ends_in_id = [len(e) == 2 and e[1].isdecimal() and not e[0].endswith(",") for e in ends]
    # A line that is possible only in a list makes the file a list; then the other lines are wrong.
    is_list = any(ok and _is_video(e[0]) for ok, e in zip(ends_in_id, ends, strict=True))
    return not (is_list or all(ends_in_id))


def _is_video(path: str) -> bool:
    return os.path.splitext(path)[1].lower() in VIDEO_SUFFIXES


def inside(base: str, path: str, where: str) -> str:
    """Absolute path of a video; does not touch the disk, as there may be a million rows.

    Args:
        base: absolute path of the root.
        path: of the video, absolute or relative to the root.
        where: file and row, for the message.

    Raises:
        DatasetError: the path leaves the root.
    """
    joined = os.path.normpath(os.path.join(base, path))
    if os.path.commonpath([base, joined]) != base:
        raise DatasetError(f"{where}: {path!r} lies outside data.root={base}; set a higher root")
    return joined


def unique_rows(source: Path, rows: Sequence[Row]) -> list[Row]:
    """Keep one row of each video; the number of those left out is logged.

    Raises:
        DatasetError: a video has two labels.
    """
    first: dict[str, Row] = {}
    for row in rows:
        earlier = first.setdefault(row.video, row)
        if earlier.label != row.label:
            raise DatasetError(
                f"{at(source, row.number)}: {row.video} is {row.label!r}, and "
                f"{earlier.label!r} in {at(source, earlier.number).rpartition(', ')[2]}"
            )
    if repeated := len(rows) - len(first):
        log.warning(f"{source}: repeats {repeated} of its {len(rows)} rows; each is used once")
    return list(first.values())


def label_ids(
    source: Path, rows: Sequence[Row], class_names: Sequence[str] | None
) -> tuple[list[int], tuple[str, ...]]:
    """Label ids of rows, and the name of each id.

    Args:
        source: the file of the rows, for messages.
        rows: all have a label, or none has.
        class_names: the known classes in the order of their ids. None: `class_names_of` the rows.

    Returns:
        The id of each row, and the classes. If no row has a label, all ids are -1, and there are no
        classes.

    Raises:
        DatasetError: a label is not one of the classes.
    """
    if not any(row.label for row in rows):
        return [NO_LABEL] * len(rows), ()
    names = class_names_of(source, rows) if class_names is None else tuple(class_names)
    ids = {name: i for i, name in enumerate(names)}
    if all(row.label.isdecimal() for row in rows) and not all(row.label in ids for row in rows):
        ids = {str(i): i for i in range(len(names))}  # this file has ids in place of names
    return [_label_id(row.label, ids, at(source, row.number)) for row in rows], names


def class_names_of(source: Path, rows: Sequence[Row]) -> tuple[str, ...]:
    """The classes of rows, sorted; where labels are ids, the name of each id is the id itself.

    Raises:
        DatasetError: an id is too large for a class.
    """
    labels = {row.label for row in rows if row.label}
    if not labels or not all(label.isdecimal() for label in labels):
        return tuple(sorted(labels))
    highest = max(map(int, labels))
    if highest > 100_000:
        raise DatasetError(f"{source}: label id {highest} is too large for a class id")
    return tuple(map(str, range(highest + 1)))


def _label_id(label: str, ids: Mapping[str, int], where: str) -> int:
    if label in ids:
        return ids[label]
    raise DatasetError(f"{where}: label {label!r} is not one of the {len(ids)} known classes")


def find_by_path(source: Path, rows: Sequence[Row]) -> list[str | None]:
    """The path of each row's video, None if there is no such file; lists each folder once.

    Raises:
        DatasetError: a folder cannot be read.
    """
    names_in: dict[str, set[str]] = {}
    paths: list[str | None] = []
    for row in rows:
        folder, name = os.path.split(row.video)
        if folder not in names_in:
            names_in[folder] = _names(folder)
        paths.append(row.video if name in names_in[folder] else None)
    return paths


def find_by_stem(
    source: Path, rows: Sequence[Row], without: Collection[str] = ()
) -> list[str | None]:
    """The path of each row's video, whatever its suffix; None if there is no such file.

    A file is in the row's folder or in one of its subfolders. The names of subfolders need not
    equal the labels, as the tools that create them change spaces and punctuation. Lists each folder
    once.

    Args:
        source: the annotation file, for messages.
        rows: their ``video`` has no suffix.
        without: names of subfolders that are left out.

    Raises:
        DatasetError: a folder does not exist, or a row has several files and not exactly one of
            them is in the folder of its label.
    """
    folders: dict[str, dict[str, list[str]]] = {}
    paths: list[str | None] = []
    for row in rows:
        folder, stem = os.path.split(row.video)
        if folder not in folders:
            folders[folder] = _files_by_stem(folder, without)
        files = folders[folder].get(stem, [])
        if len(files) > 1:
            files = [f for f in files if _plain(os.path.dirname(f)) == _plain(row.label)] or files
        if len(files) > 1:
            one, two = (os.path.join(folder, file) for file in sorted(files)[:2])
            raise DatasetError(f"{at(source, row.number)}: two files, {one} and {two}; remove one")
        paths.append(os.path.join(folder, files[0]) if files else None)
    return paths


def _files_by_stem(folder: str, without: Collection[str]) -> dict[str, list[str]]:
    """Video files in a folder and its subfolders, by stem: paths relative to the folder."""
    files: dict[str, list[str]] = {}
    subfolders = [""]  # grows while the first, the folder itself, is listed
    for subfolder in subfolders:
        try:
            with os.scandir(os.path.join(folder, subfolder)) as entries:
                for entry in entries:
                    stem, suffix = os.path.splitext(entry.name)
                    if suffix.lower() in VIDEO_SUFFIXES and entry.is_file():
                        files.setdefault(stem, []).append(os.path.join(subfolder, entry.name))
                    elif subfolder or entry.name.startswith(".") or entry.name in without:
                        continue
                    elif entry.is_dir():
                        subfolders.append(entry.name)
        except OSError as error:
            raise DatasetError(
                f"{error.filename}: {error.strerror}; set data.videos to the folder of the videos"
            ) from None
    return files


def _names(folder: str) -> set[str]:
    """Names in a folder; none if it does not exist."""
    try:
        return set(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return set()
    except OSError as error:
        raise DatasetError(f"{folder}: {error.strerror}") from None


def _plain(label: str) -> str:
    """A label as the usual tools write it in the name of a folder."""
    return re.sub(r"[\"'()]", "", unicodedata.normalize("NFC", label)).replace(" ", "_")
