"""One file of numbers for a run, however often it is resumed."""

import csv
import resource
import threading

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

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


def steps_of_curves(folder):
    values = EventAccumulator(str(folder)).Reload().Scalars("loss")
    return [value.step for value in values]


def test_curves_go_on_after_a_full_disk(tmp_path, caplog, monkeypatch):
    errors = []
    monkeypatch.setattr(threading, "excepthook", errors.append)
    curves = Curves(tmp_path, "tensorboard", "")
    curves.log_metrics({"loss": 1.0}, 0)
    curves.experiment.flush()
    (file,) = (tmp_path / "tensorboard").iterdir()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        for step in range(1, 5):
            curves.log_metrics({"loss": 2.0}, step)
        curves.finalize("success")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [*(tmp_path / "tensorboard").iterdir()] == [file]
    curves.log_metrics({"loss": 3.0}, 5)
    curves.finalize("success")
    assert steps_of_curves(tmp_path / "tensorboard") == [0, 5]
    (warning,) = (r.getMessage() for r in caplog.records if "TensorBoard" in r.getMessage())
    assert warning.endswith("points of TensorBoard's curves are lost until they can be written")
    assert not errors


def test_errors_of_other_threads_are_shown(tmp_path, monkeypatch):
    errors = []
    monkeypatch.setattr(threading, "excepthook", lambda error: errors.append(error.exc_value))
    Curves(tmp_path, "tensorboard", "")
    thread = threading.Thread(target=open, args=[tmp_path / "none"])
    thread.start()
    thread.join()
    assert [type(error) for error in errors] == [FileNotFoundError]
