"""Lists of videos and their labels: text files, of the kinds that people and other tools write."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from datamodules.errors import DatasetError
from datamodules.manifests.layout import Layout, find_layout, names_media
from datamodules.manifests.lists import Row, at, inside, is_media, read_text

FORMS = "'path,label', 'path id' or, in all rows, the path alone"
_LINE_END = re.compile(r"\r\n?|\n")
_SEVERAL_IDS = re.compile(r"\d+(\s*[\s,;|]\s*\d+)+")


def read_list(source: Path, root: Path, may_leave: bool = False) -> list[Row]:
    """Read a list: a CSV file, or lines ``path label`` as PySlowFast writes them.

    A header may name the columns, in any order and any usual spelling; other columns are ignored.
    Without one, lines are ``path,label`` (or with a tab or a semicolon), ``path label`` or, in all
    lines, ``path`` alone. Lines that begin with # are comments; one that may be a row, as there is
    no blank after its #, is an error.

    Args:
        source: the file.
        root: folder to which its paths are relative.
        may_leave: whether paths may leave the root.

    Raises:
        DatasetError: a row is wrong or leaves the root, or there is none; names the file and the
            row.
    """
    lines, comments = [], []
    for number, line in enumerate(_LINE_END.split(read_text(source)), 1):
        if line.strip():
            (comments if line.lstrip()[0] == "#" else lines).append((number, line))
    if not lines:
        raise DatasetError(f"{source}: no rows; expected lines {FORMS}")
    try:
        layout = find_layout([line for _, line in lines])
    except DatasetError as error:
        raise DatasetError(f"{at(source, lines[0][0])}: {error}") from None
    header = lines[0][1].strip() if layout.has_header else None
    lines = lines[layout.has_header :]
    if not lines:
        raise DatasetError(f"{source}: no rows below its header")
    base = os.path.abspath(root)
    rows, splits = [], set()
    for number, line in lines:
        if line.strip() == header:
            raise DatasetError(
                f"{at(source, number)}: the header again; a list has one, at its top"
            )
        cells = layout.split_line(line)
        if fault := _fault(cells, line.strip(), layout):
            raise DatasetError(f"{at(source, number)}: {fault}")
        path = cells[layout.path]
        if may_leave:
            video = os.path.normpath(os.path.join(base, path))
        else:
            video = inside(base, path, f"{source}, row {number}")
        if video == base:
            raise DatasetError(f"{at(source, number)}: {path!r} is not a file")
        rows.append(Row(number, video, "" if layout.label is None else cells[layout.label]))
        if layout.split is not None:
            splits.add(cells[layout.split])
    if len(splits) > 1:
        raise DatasetError(
            f"{source}: its rows are of several splits ({', '.join(sorted(splits))}); write a file "
            "for each"
        )
    _check_first(source, rows, lines[0][1], layout)
    _check_comments(source, comments, layout, names_media(lines[0][1]))
    return rows


def _fault(cells: Sequence[str], line: str, layout: Layout) -> str:
    """What is wrong with a row; empty if nothing is."""
    if len(cells) != layout.cells:
        return _wrong_number(cells, line, layout)
    path = cells[layout.path]
    if layout.label is None:
        return "" if is_media(path) else f"expected the path of a video, not {line!r}"
    label = cells[layout.label]
    if not path or not label:
        return f"expected a path and a label, not {line!r}"
    if is_media(label):
        shown = f"the label {label!r} is the name of a video"
        if is_media(path):
            return f"{shown}, and so is the path {path!r}"
        return f"{shown}, and the path is {path!r}; write the path first, or a header label,path"
    if label[0] not in "-0123456789":  # of most names; a pattern costs time
        return ""
    if _SEVERAL_IDS.fullmatch(label):
        return f"several labels ({label}); a video has one class here"
    if re.fullmatch(r"-\d+", label):
        return f"label {label} is not the id of a class; list videos of unknown class without any"
    if layout.delimiter == " " and not is_media(path) and path.split()[-1].isdecimal():
        return (
            f"{line!r} looks like a folder of frames, their number and a label; list video files, "
            "with commas if there are spaces in their names"
        )
    return ""


def _wrong_number(cells: Sequence[str], line: str, layout: Layout) -> str:
    if layout.has_header:
        return f"expected {layout.cells} cells, as in the header, not {len(cells)}: {line!r}"
    if len(cells) > 2 and is_media(cells[0]):
        return (
            f"{len(cells) - 1} values after the path, not one label: {line!r}; a video has one "
            "class, and other columns need a header"
        )
    return f"expected {FORMS}, not {line!r}"


def _check_first(source: Path, rows: Sequence[Row], line: str, layout: Layout) -> None:
    """See that the first row is not a header with unknown names, which would become a class."""
    if layout.has_header or is_media(rows[0].video):
        return
    if any(is_media(row.video) for row in rows):
        raise DatasetError(
            f"{at(source, rows[0].number)}: neither a video nor a header such as path,label: "
            f"{line.strip()!r}"
        )


def _check_comments(
    source: Path, comments: Sequence[tuple[int, str]], layout: Layout, have_suffixes: bool
) -> None:
    """See that no comment may be a row, whose path or label begins with #.

    Args:
        source: the file.
        comments: number and text of each line that begins with #.
        layout: of the rows.
        have_suffixes: whether the rows' paths can be told by their suffixes.
    """
    for number, line in comments:
        if re.match(r"\s*#+(\s|$)", line):
            continue
        if names_media(line) or not (have_suffixes or _fault(layout.split_line(line), "", layout)):
            raise DatasetError(
                f"{at(source, number)}: a comment or a row? {line.strip()!r}; write '# ' before a "
                "comment, quotes around a label that begins with #, and ./ before such a path"
            )
