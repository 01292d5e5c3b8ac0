"""Progress in a log and on a terminal."""

import os
import pty
import sys
import time
from contextlib import suppress

import pytest

from hiera_video.terminal import progress_line


def test_a_log_gets_a_line_every_ten_seconds_with_the_time_left(capsys, monkeypatch):
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with progress_line("read", "files") as show:
        for done in range(1, 31):  # one a second
            now += 1
            show(done, 30)
    assert capsys.readouterr().err.splitlines() == [
        "read: 2 of 30 files, 1.0 a second, 0:00:28 left",
        "read: 12 of 30 files, 1.0 a second, 0:00:18 left",
        "read: 22 of 30 files, 1.0 a second, 0:00:08 left",
        "read: 30 of 30 files, 1.0 a second, took 0:00:30",
    ]


def test_the_start_of_processes_and_earlier_work_say_nothing_about_the_rate(capsys, monkeypatch):
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with progress_line("read", "files") as show:
        for seconds, done in ((20.0, 101), (25.0, 111), (31.0, 123), (31.5, 124)):
            now = seconds
            show(done, 124)
    assert capsys.readouterr().err.splitlines() == [
        "read: 101 of 124 files",
        "read: 123 of 124 files, 2.0 a second, 0:00:00 left",
        "read: 124 of 124 files, 2.0 a second, took 0:00:32",
    ]


def test_seconds_of_the_clock_have_no_rate(capsys):
    with progress_line("measure", "seconds") as show:
        show(1, 1)
    assert capsys.readouterr().err == "measure: 1 of 1 second, took 0:00:00\n"


def test_work_that_cannot_be_counted_is_said_if_it_takes_long(capsys):
    with progress_line("read", None):
        pass
    with pytest.raises(ZeroDivisionError), progress_line("write", None):
        raise ZeroDivisionError
    assert capsys.readouterr().err == ""
    with progress_line("trace", None):
        time.sleep(2.3)
        assert capsys.readouterr().err == "trace: under way\n"
    assert capsys.readouterr().err == "trace: took 0:00:02\n"


def read_to_the_end(controller: int) -> str:
    """Text written to a terminal that is closed; the kernel hands it over some time later."""
    shown = b""
    with suppress(OSError):  # Linux's end of a terminal is EIO
        while part := os.read(controller, 1 << 16):
            shown += part
    os.close(controller)
    return shown.decode()


@pytest.mark.parametrize("unit", [None, "files"])
def test_a_terminal_shows_work_that_is_not_counted(monkeypatch, unit):
    controller, terminal = pty.openpty()
    with open(terminal, "w") as file:
        monkeypatch.setattr(sys, "stderr", file)
        with progress_line("trace", unit):
            pass
    last = read_to_the_end(controller).splitlines()[-2:]
    assert any("trace" in line and "0:00:00" in line for line in last) == (unit is None)
