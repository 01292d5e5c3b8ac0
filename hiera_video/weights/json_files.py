"""Objects in JSON files, which may come from anywhere."""

import json
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
