"""What a run records of itself: ``run.json`` and ``metrics/``, as far as they can be read."""

import csv
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


def starts_of(folder: Path | None) -> list[dict[str, Any]]:
    """``run.json``: a record of each start of a run, the first one first; empty if unreadable.

    Args:
        folder: of the run; None if it has none.
    """
    starts = folder and read_or_none(folder / "run.json")
    return [s for s in starts if isinstance(s, dict)] if isinstance(starts, list) else []


def logged_rows(folder: Path | None) -> Iterator[dict[str, str]]:
    """The rows of all ``metrics.csv`` of a run, the oldest file first, as texts by their columns.

    Cells that are missing are left out, and bytes that are no text replaced. A file ends at what is
    not CSV.

    Args:
        folder: of the run; None if it has none.
    """
    versions = {
        int(match[1]): file
        for file in (folder.glob("metrics/version_*/metrics.csv") if folder else ())
        if (match := re.fullmatch(r"version_(\d+)", file.parent.name))
    }
    for _, file in sorted(versions.items()):
        try:
            with open(file, newline="", encoding="utf-8", errors="replace") as lines:
                for row in csv.DictReader(line.replace("\0", "") for line in lines):
                    yield {k: v for k, v in row.items() if k is not None and v is not None}
        except (OSError, csv.Error):
            continue


def number_in(text: str) -> float | None:
    """The number in a cell; None if there is none."""
    try:
        return float(text)
    except ValueError:
        return None


def section(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A section of a configuration or a record; empty if it is missing or is not a section."""
    return value if isinstance(value := values.get(name), dict) else {}


def read_or_none(file: Path) -> Any:
    """The value in a JSON file; None if it cannot be read."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
