"""Files that are there whole or not at all."""

import errno
import os
import resource
import signal

import pytest

from datamodules.files import atomic_file


@pytest.fixture
def full_disk():
    """No file gets larger than 100 bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_is_named_by_the_file_that_was_to_be_written(tmp_path, full_disk):
    target = tmp_path / "shard.tar"
    with pytest.raises(OSError, match=r"File too large: '.*/shard\.tar'") as error:  # noqa: SIM117
        with atomic_file(target) as temporary:
            temporary.write_bytes(bytes(200))
    assert error.value.filename == str(target)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("error", "named"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "a.txt"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "other"), "other"),
        (OSError(errno.EIO, "of a file that is read"), None),
    ],
)
def test_an_error_keeps_the_name_that_it_has(tmp_path, error, named):
    with pytest.raises(OSError, match=".") as caught, atomic_file(tmp_path / "a.txt"):
        raise error
    name = caught.value.filename
    assert (name and os.path.basename(name)) == named
