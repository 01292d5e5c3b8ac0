import logging
import os
import resource

import pytest

from hiera_video.running.log_handlers import ConsoleHandler, LogFileHandler


@pytest.fixture
def log(caplog):
    caplog.set_level("INFO")
    yield logging.root
    for handler in logging.root.handlers[:]:
        if isinstance(handler, (ConsoleHandler, LogFileHandler)):
            logging.root.removeHandler(handler)
            handler.close()


def lines(caplog):
    return [record.getMessage() for record in caplog.records]


def test_a_pipe_without_a_reader_is_one_line(log, caplog, capfd):
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as stream:
        log.addHandler(ConsoleHandler(stream))
        for line in "abc":
            log.info(line)
        print("d", file=stream, flush=True)
    warning = "standard output: Broken pipe; no more lines go there"
    assert sorted(lines(caplog)) == sorted([*"abc", warning])
    assert capfd.readouterr() == ("", "")


def test_lines_wait_for_a_full_disk(log, caplog, capfd, tmp_path):
    file = tmp_path / "log.log"
    log.addHandler(LogFileHandler(file, delay=True))
    log.info("a")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for n in range(2):
        resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size + 1, limits[1]))
        try:
            log.info(f"b{n}")
            log.info(f"c{n}")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        log.info(f"d{n}")
    warning = f"{file}: File too large; its lines wait until they can be written"
    first = ["b0", warning, "c0", "d0"]
    assert file.read_text().splitlines() == ["a", *first, "b1", warning, "c1", "d1"]
    assert lines(caplog).count(warning) == 2
    assert capfd.readouterr().err == ""


def test_other_errors_have_their_traceback(capfd, tmp_path):
    handler = LogFileHandler(tmp_path / "log.log")
    handler.handle(logging.LogRecord("x", logging.INFO, "x.py", 1, "%d", ("no number",), None))
    handler.close()
    assert "--- Logging error ---" in capfd.readouterr().err
