"""Values of JSON files from anywhere: read, checked, and shown in messages."""

import json
import reprlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hiera_video.errors import CheckpointError


def read_object(file: Path) -> dict[str, Any]:
    """Read the object in a JSON file.

    Raises:
        CheckpointError: the file cannot be read, or holds no object.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{file}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file}: not valid JSON ({error})") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{file}: not an object of JSON")
    return content


def check_all(
    record: Mapping[str, Any], requirements: Mapping[str, tuple[bool, str]], prefix: str = ""
) -> None:
    """Raise a ValueError that names the first wrong field.

    Args:
        record: the fields.
        requirements: for each field whether it is right, and what it must be.
        prefix: of the names in the message.
    """
    for name, (holds, words) in requirements.items():
        if not holds:
            raise ValueError(f"{prefix}{name} must be {words}, not {short(record[name])}")


def is_text(*values: Any) -> bool:
    """Whether all values are text."""
    return all(isinstance(value, str) for value in values)


def is_number(value: Any) -> bool:
    """Whether it is a finite number below a billion."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9


def is_positive(value: Any) -> bool:
    """Whether it is such a number above 0."""
    return is_number(value) and value > 0


def is_count(value: Any) -> bool:
    """Whether it is a whole number above 0 and below a million."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1_000_000


def is_list(value: Any, holds: Callable[[Any], bool], length: int | None = None) -> bool:
    """Whether it is a list, of that length, whose values all hold."""
    return isinstance(value, list) and length in (None, len(value)) and all(map(holds, value))


def short(value: Any) -> str:
    """A value in one short line."""
    return one_line(reprlib.repr(value))


def one_line(text: object) -> str:
    """A text without line breaks, also Unicode's own; what a terminal would obey is escaped."""
    line = " ".join(line.strip() for line in str(text).splitlines())
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)
