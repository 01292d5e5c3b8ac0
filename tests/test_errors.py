"""What a command makes of an exception that is none of ours."""

import errno
import os

import pytest

from hiera_video.errors import as_user_error


def fault(number, *names):
    error = as_user_error(OSError(number, os.strerror(number), *names))
    assert error is not None
    return error


@pytest.mark.parametrize(
    "number", [errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.EACCES, errno.EROFS]
)
def test_a_path_that_cannot_be_used_is_wrong_input(number):
    error = fault(number, "runs/x")
    assert str(error) == f"runs/x: {os.strerror(number)}"
    assert error.exit_code == 2


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE])
def test_a_disk_that_fails_in_the_middle_is_failed_work(number):
    assert fault(number, "runs/x").exit_code == 1


def test_a_rename_names_the_users_file_and_a_bug_keeps_its_traceback():
    assert str(fault(errno.EACCES, "x.tmp", None, "x")).startswith("x: ")
    assert fault(errno.ENOENT).exit_code == 1  # of no path: not what the user named
    assert as_user_error(BrokenPipeError(errno.EPIPE, "Broken pipe")) is None
    assert as_user_error(KeyError("x")) is None
