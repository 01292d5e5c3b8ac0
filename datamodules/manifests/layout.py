"""How the lines of a list are laid out: what separates their cells, and what each cell is."""

import csv
import re
from collections.abc import Sequence
from typing import NamedTuple

from datamodules.errors import DatasetError
from datamodules.manifests.lists import is_media
from datamodules.suffixes import EITHER

# Names of columns in lower case, without spaces and punctuation. Where a header has several names
# of one kind, the first in this order counts.
PATH_NAMES = (
    *("path", "paths", "filepath", "videopath", "clippath", "fullpath", "relativepath", "relpath"),
    *("filename", "file", "files", "fname", "videofile", "videofilename", "videoname"),
    *("video", "videos", "vid", "clip", "clips", "clipname", "name", "videoid", "clipid"),
    *("image", "images", "imagepath", "imagefile", "imagename", "imageid", "img", "picture"),
)
LABEL_NAMES = (
    *("label", "labels", "class", "classes", "classname", "labelname", "category"),
    *("categoryname", "action", "actionname", "activity", "target", "targets", "tag", "y"),
    *("labelid", "classid", "categoryid", "actionid", "targetid", "labelindex", "classindex"),
    *("labelidx", "classidx", "labelnumber", "classnumber"),
)
SPLIT_NAMES = ("split", "subset", "partition", "usage", "fold")
DELIMITERS = (",", "\t", ";")
_SAMPLE = 1000  # lines that decide on the layout
_SUFFIXES = "|".join(re.escape(suffix) for suffix in sorted(EITHER.suffixes))
_NAMES_MEDIA = re.compile(rf"(?:{_SUFFIXES})(?![^\s,;\"])", re.IGNORECASE)
_MEDIA_AND_MORE = re.compile(rf"(.*(?:{_SUFFIXES}))\s+(\S.*)", re.IGNORECASE)


class Layout(NamedTuple):
    """What the cells of a line are.

    Attributes:
        delimiter: between cells: a comma, a tab or a semicolon; a space: the first cell is a path,
            which may contain spaces itself; empty: the line is a path.
        cells: number of cells of a line.
        path: index of the path.
        label: index of the label; None: videos have no labels.
        split: index of the name of the split; None: there is none.
        has_header: the first line names the columns.
    """

    delimiter: str
    cells: int = 2
    path: int = 0
    label: int | None = 1
    split: int | None = None
    has_header: bool = False

    def split_line(self, line: str) -> list[str]:
        """The cells of a line, stripped; their number may be wrong."""
        if not self.delimiter:
            return _whole(line)
        if self.delimiter != " ":
            return _csv_cells(line, self.delimiter)
        return line.split(maxsplit=1) if self.path else _path_and_more(line)


def find_layout(lines: Sequence[str]) -> Layout:
    """The layout of a list, which its header tells, or else most of its first lines.

    Args:
        lines: without empty lines and comments; at least one.

    Raises:
        DatasetError: the header does not say which column is the path, or which the label.
    """
    for delimiter in (*DELIMITERS, " "):
        cells = lines[0].split() if delimiter == " " else _csv_cells(lines[0], delimiter)
        if _is_header(cells, delimiter):
            return _named_layout(cells, delimiter)
    sample = lines[:_SAMPLE]
    votes = {d: sum(_fits(line, d) for line in sample) for d in (*DELIMITERS, " ", "")}
    best = max(votes, key=lambda delimiter: votes[delimiter])  # of equals, the first
    if not votes[best]:
        best = _layout_without_suffixes(sample)
    return Layout(best) if best else Layout(best, cells=1, label=None)


def names_media(line: str) -> bool:
    """Whether the path of a video or a picture ends anywhere in a line."""
    return _NAMES_MEDIA.search(line) is not None


def _is_header(cells: Sequence[str], delimiter: str) -> bool:
    names = [_plain(cell) for cell in cells]
    if any(is_media(cell) or cell.isdecimal() or "/" in cell for cell in cells):
        return False
    if len(cells) == 1:
        return delimiter != " " and names[0] in PATH_NAMES
    known = [name in (*PATH_NAMES, *LABEL_NAMES) for name in names]
    return all(known) if delimiter == " " else any(known)


def _named_layout(cells: Sequence[str], delimiter: str) -> Layout:
    """The layout that a header describes."""
    names = [_plain(cell) for cell in cells]
    path, label, split = (
        next((names.index(name) for name in known if name in names), None)
        for known in (PATH_NAMES, LABEL_NAMES, SPLIT_NAMES)
    )
    listed = ", ".join(cells)
    if path is None:
        raise DatasetError(
            f"the header has no column for the path (path, file, video ...), only: {listed}"
        )
    if label is None and len(cells) > 1:
        raise DatasetError(
            f"the header has no column for the label (label, class ...), only: {listed}; if the "
            "classes are unknown, keep only the column of the paths"
        )
    if delimiter == " " and len(cells) > 2:
        raise DatasetError(f"{len(cells)} columns ({listed}); separate them by commas")
    delimiter = delimiter if len(cells) > 1 else ""
    return Layout(delimiter, len(cells), path, label, split, has_header=True)


def _fits(line: str, delimiter: str) -> bool:
    """Whether a line has a video where this delimiter would have it (or the label: swapped)."""
    if not delimiter:
        return is_media(_whole(line)[0])
    if delimiter == " ":
        return _MEDIA_AND_MORE.fullmatch(line.strip()) is not None
    cells = _csv_cells(line, delimiter)
    return len(cells) > 1 and (is_media(cells[0]) or is_media(cells[-1]))


def _layout_without_suffixes(lines: Sequence[str]) -> str:
    """The delimiter of a list of files whose names do not tell that they are videos."""
    for delimiter in DELIMITERS:
        if all(len(_csv_cells(line, delimiter)) == 2 for line in lines):
            return delimiter
    return " " if all(line.split()[-1].isdecimal() for line in lines) else DELIMITERS[0]


def _whole(line: str) -> list[str]:
    """A line that is one cell, with or without quotes."""
    line = line.strip()
    cells = _csv_cells(line, ",") if line.startswith('"') else []
    return cells if len(cells) == 1 else [line]


def _csv_cells(line: str, delimiter: str) -> list[str]:
    """Cells of a line of a CSV file; none if it is not one."""
    if '"' not in line:  # nearly always, and quick
        return [cell.strip() for cell in line.split(delimiter)]
    try:
        cells = next(csv.reader([line], delimiter=delimiter, skipinitialspace=True))
    except csv.Error:  # such as a carriage return in the line
        return []
    return [cell.strip() for cell in cells]


def _path_and_more(line: str) -> list[str]:
    """A path, which may contain spaces, and the words behind it."""
    cells = line.rsplit(maxsplit=1)
    if is_media(cells[0]):  # nearly always, and quick
        return cells
    match = _MEDIA_AND_MORE.fullmatch(line.strip())
    return [match[1], *match[2].split()] if match else cells


def _plain(name: str) -> str:
    """The name of a column in lower case, without spaces and punctuation."""
    return re.sub(r"[^a-z0-9]", "", name.lower())
