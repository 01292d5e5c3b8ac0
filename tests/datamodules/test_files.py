"""Files that are there whole or not at all."""

import errno
import fcntl
import os

import pytest

from datamodules.files import atomic_file, locked_folder


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


def test_a_file_system_without_locks_is_warned_of(tmp_path, monkeypatch, caplog):
    def refuse(*args):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locked_folder(tmp_path / "work") as folder:
        assert folder.is_dir()
    assert f"{tmp_path}: its file system has no locks" in caplog.text
