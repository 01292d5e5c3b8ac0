"""What annotation files of all formats have in common: rows that name videos and their labels."""

import json
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from datamodules.errors import DatasetError
from datamodules.suffixes import EITHER

log = logging.getLogger(__name__)

NO_LABEL = -1  # label id of a video whose class is unknown
_SUFFIXES = tuple(EITHER.suffixes)
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class Row(NamedTuple):
    """One video of an annotation file.

    Attributes:
        number: line of the file or number of the JSON record, from 1, as messages name it.
        video: absolute path; for `finding.find_by_stem`, without suffix, and the file may be in a
            subfolder.
        label: name or id of its class; empty if unknown.
    """

    number: int
    video: str
    label: str


def at(source: Path, number: int) -> str:
    """Name a row of an annotation file, for messages."""
    return f"{source}, {'record' if _is_json(source) else 'row'} {number}"


def read_text(source: Path) -> str:
    """Read a text file in UTF-8, with or without a byte order mark; line ends stay as they are.

    Raises:
        DatasetError: the file cannot be read or is not UTF-8.
    """
    try:
        return source.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = error.object.count(b"\n", 0, error.start) + 1
        where = f"{source}, line {number}" if _is_json(source) else at(source, number)
        raise DatasetError(f"{where}: not a readable text file; save it as UTF-8") from None
    except FileNotFoundError:
        raise DatasetError(f"{source}: no such file") from None
    except OSError as error:
        reason = error.strerror or error
        raise DatasetError(f"{source}: not a readable text file ({reason})") from None


def read_json(source: Path) -> Any:
    """Read a JSON file.

    Raises:
        DatasetError: the file cannot be read, or is not JSON.
    """
    text = read_text(source)
    try:
        content = json.loads(text)
        if _SURROGATE.search(text):  # half of a pair is no character: no file can have its name
            json.dumps(content, ensure_ascii=False).encode()
        return content
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{source}: not valid JSON ({error})") from None


def _is_json(source: Path) -> bool:
    return source.suffix.lower() == ".json"


def is_media(path: str) -> bool:
    """Whether a path has the suffix of a video or of a picture."""
    return path.lower().endswith(_SUFFIXES)  # of a million paths: quick


def inside(base: str, path: str, where: str) -> str:
    """Absolute path of a video; does not touch the disk, as there may be a million rows.

    Args:
        base: absolute path of the root.
        path: of the video, absolute or relative to the root.
        where: file and row, for the message.

    Raises:
        DatasetError: the path leaves the root.
    """
    is_normal = path and not (path.startswith(("/", ".")) or "/." in path or "//" in path)
    if is_normal and not path.endswith("/"):  # quick, and enough for nearly all
        return f"{base.rstrip('/')}/{path}"
    joined = os.path.normpath(os.path.join(base, path))
    if os.path.commonpath([base, joined]) != base:
        raise DatasetError(f"{where}: {path!r} lies outside data.root={base}; set a higher root")
    return joined


def rows_by_video(source: Path, rows: Sequence[Row]) -> dict[str, Row]:
    """The first row of each video.

    Raises:
        DatasetError: a video has two labels; names both rows.
    """
    first: dict[str, Row] = {}
    for row in rows:
        earlier = first.setdefault(row.video, row)
        if earlier.label != row.label:
            raise DatasetError(
                f"{at(source, row.number)}: {row.video} is {row.label!r}, and "
                f"{earlier.label!r} in {at(source, earlier.number).rpartition(', ')[2]}"
            )
    return first


def unique_rows(source: Path, rows: Sequence[Row]) -> list[Row]:
    """Keep one row of each video; the number of those left out is logged.

    Raises:
        DatasetError: a video has two labels.
    """
    first = rows_by_video(source, rows)
    if repeated := len(rows) - len(first):
        log.warning(f"{source}: repeats {repeated} of its {len(rows)} rows; each is used once")
    return list(first.values())
