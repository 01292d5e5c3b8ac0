"""Files that are there whole or not at all."""

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_numbers = itertools.count()


@contextmanager
def atomic_file(path: Path, folder: Path | None = None) -> Iterator[Path]:
    """Give a temporary path to write to; it becomes ``path`` when the block ends without an error.

    A process that is killed leaves at most a file whose name begins with a dot and ends with
    ``.unfinished``; what was at ``path`` before stays until the new file is whole and on disk.

    Args:
        path: the file to write; its folder must exist.
        folder: where the temporary file lies, on the same file system; by default beside ``path``.
    """
    temporary = (folder or path.parent) / f".{os.getpid()}-{next(_numbers)}.unfinished"
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
