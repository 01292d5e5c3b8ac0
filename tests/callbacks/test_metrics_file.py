"""One file of numbers for a run, however often it is resumed."""

import csv
import resource
import threading

from hiera_video.callbacks.metrics_file import Curves, MetricsFile


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_rows_are_in_the_file_at_once(tmp_path):
    path = tmp_path / "metrics/metrics.csv"
    file = MetricsFile(path)
    file.log_metrics({"loss": 0.5}, 1)
    file.log_metrics({"loss": 0.25}, 3)
    assert rows(path) == [{"loss": "0.5", "step": "1"}, {"loss": "0.25", "step": "3"}]
    file.log_metrics({"val": 2.0, "loss": 0.1}, 3)
    assert [row["val"] for row in rows(path)] == ["", "", "2.0"]
    assert path.read_text().splitlines()[0] == "loss,step,val"


def test_a_resumed_run_goes_on_in_it(tmp_path):
    path = tmp_path / "metrics.csv"
    first = MetricsFile(path)
    for step in (1, 3, 5):
        first.log_metrics({"loss": step / 10}, step)
    with open(path, "a") as file:
        file.write("0.7")  # a row that was cut off
    second = MetricsFile(path)
    second.continue_from(4)
    second.log_metrics({"loss": 0.9}, 5)
    assert [(row["step"], row["loss"]) for row in rows(path)] == [
        ("1", "0.1"),
        ("3", "0.3"),
        ("5", "0.9"),
    ]


def test_numbers_of_a_validation_that_is_done_again_are_dropped(tmp_path):
    file = MetricsFile(tmp_path / "metrics.csv")
    file.log_metrics({"val/loss": 3}, 1)
    for row in ({"train/loss": 2}, {"val/loss": 1}, {"train/bad_videos": 0}):
        file.log_metrics(row, 5)
    file.continue_from(6)
    assert len(rows(file.path)) == 4
    file.continue_from(6, validates=True)
    assert [(row["step"], row["val/loss"]) for row in rows(file.path)] == [("1", "3"), ("5", "")]


def test_rows_wait_for_a_full_disk(tmp_path):
    path = tmp_path / "metrics.csv"
    file = MetricsFile(path)
    file.log_metrics({"loss": 1.0}, 0)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 3, limits[1]))
    try:
        file.log_metrics({"loss": 2.0}, 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    file.log_metrics({"loss": 3.0}, 2)
    assert [(row["step"], row["loss"]) for row in rows(path)] == [
        ("0", "1.0"),
        ("1", "2.0"),
        ("2", "3.0"),
    ]


def test_curves_end_on_a_full_disk(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(threading, "excepthook", lambda _: None)  # TensorBoard's writer ends so
    curves = Curves(tmp_path, "tensorboard", "")
    curves.log_metrics({"loss": 1.0}, 0)
    curves.experiment.flush()
    (file,) = (tmp_path / "tensorboard").iterdir()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size + 3, limits[1]))
    try:
        curves.log_metrics({"loss": 2.0}, 1)
        curves.finalize("success")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    curves.log_metrics({"loss": 3.0}, 2)
    assert [r.getMessage().rpartition("; ")[2] for r in caplog.records] == [
        "TensorBoard's curves end here"
    ]
