"""Progress in a log, and hints."""

import time

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
