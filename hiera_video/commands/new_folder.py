"""A folder that appears when it is complete."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hiera_video.errors import UsageError


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Yield a folder to write into, which becomes ``out`` if all goes well and else is removed.

    Raises:
        UsageError: ``out`` is a link, a file, or a folder that is not empty.
    """
    if out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        what = "is a link" if out.is_symlink() else "exists"
        raise UsageError(f"{out} {what}; name another folder with --out")
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}-", suffix=".unfinished", dir=out.parent))
    try:
        yield folder
        folder.chmod(0o777 & ~_umask())  # that of mkdtemp is for its owner alone
        os.replace(folder, out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
