"""Files that are there whole or not at all."""

import errno
import os

import pytest

from datamodules.files import atomic_file


@pytest.mark.parametrize(
    ("error", "named"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "a.txt"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "other"), "other"),
        (OSError(errno.EIO, "of a file that is read"), None),
    ],
)
def test_a_full_disk_is_named_by_the_file_that_was_to_be_written(tmp_path, error, named):
    def write():
        with atomic_file(tmp_path / "a.txt") as temporary:
            temporary.write_bytes(bytes(200))
            raise error

    with pytest.raises(OSError, match=".") as caught:
        write()
    name = caught.value.filename
    assert (name and os.path.basename(name)) == named
    assert not list(tmp_path.iterdir())
