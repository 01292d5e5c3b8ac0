"""What is found in the folders of runs and tests."""

import json
import os
import shutil

import pytest

from hiera_video.errors import UsageError
from hiera_video.reporting.run_files import (
    curves_of,
    evaluation_in,
    evaluations_of,
    reconstructions_of,
    run_folder_of,
)
from hiera_video.results.run_files import starts_of
from tests.reporting.runs import write_reconstructions, write_run, write_test


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "runs/fit-1")


def add_test(run, name):
    write_test(run, run.parent / name, ["a", "b"], [0, 1], [0, 2])
    return run.parent / name


def test_curves_count_steps_from_one_and_leave_out_what_is_not_finite(run):
    curves = curves_of(run)
    assert curves["train/loss"] == ([1, 4], [3.5, 1.5], 1)
    assert curves["val/top1"] == ([2, 4], [0.25, 0.75], 0)
    assert "epoch" not in curves


def test_the_last_value_of_a_step_counts_across_files(run):
    later = run / "metrics/version_10"
    later.mkdir()
    (later / "metrics.csv").write_text("step,train/loss\n3,1.25\n,9\n4,x\n")
    assert curves_of(run)["train/loss"] == ([1, 4], [3.5, 1.25], 1)


def test_curves_go_on_after_what_a_crash_left(run):
    file = run / "metrics/version_0/metrics.csv"
    with open(file, "ab") as lines:  # as a file system that lost power
        lines.write(b"\0" * 200_000 + b"\n")
    later = run / "metrics/version_1"
    later.mkdir()
    (later / "metrics.csv").write_text("step,train/loss\n5,1.25\n")
    assert curves_of(run)["train/loss"] == ([1, 4, 6], [3.5, 1.5, 1.25], 1)


def test_a_run_is_found_by_its_checkpoint(run):
    assert run_folder_of(run) == run
    assert run_folder_of(run / "checkpoints/best.ckpt") == run


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no such run"):
        run_folder_of(tmp_path / "none")
    with pytest.raises(UsageError, match=r"not the folder of a run: it has none of config\.yaml"):
        run_folder_of(tmp_path)


def test_tests_of_a_run_are_those_of_its_checkpoints(run):
    folder = add_test(run, "test-1")
    other = write_run(run.parent / "fit-2")
    (other / "checkpoints/best.ckpt").write_bytes(b"other weights")
    add_test(other, "test-2")
    (found,) = evaluations_of(run)
    assert found.folder == folder
    assert found.unchanged
    assert found.weights == "best.ckpt"


def test_a_test_in_the_folder_of_the_run_is_found(run):
    write_test(run, run / "test", ["a", "b"], [0, 1], [0, 2])
    (found,) = evaluations_of(run)
    assert found.folder == run / "test"


def test_a_test_in_the_folder_of_the_run_is_found_after_a_copy_with_other_times(run, tmp_path):
    write_test(run, run / "test", ["a", "b"], [0, 1], [0, 2])
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    os.utime(copy / "checkpoints/best.ckpt", (1, 1))
    (found,) = evaluations_of(copy)
    assert (found.folder, found.unchanged) == (copy / "test", False)


def test_a_test_goes_before_a_later_validation(run):
    for time, command in enumerate(("test", "validate"), 1):
        write_test(run, run / command, ["a", "b"], [0, 1], [0, 2])
        file = run / command / "results.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"command": command}))
        os.utime(file, (time, time))
    found = evaluations_of(run)
    assert [(e.folder.name, e.kind) for e in found] == [
        ("test", "test"), ("validate", "validation"),
    ]  # fmt: skip


def test_a_moved_run_and_one_that_trained_on_are_recognised(run, tmp_path):
    add_test(run, "test-1")
    moved = shutil.move(run.parent, tmp_path / "elsewhere") / "fit-1"
    (found,) = evaluations_of(moved)
    assert found.unchanged
    shutil.move(moved.parent, tmp_path / "runs")
    (run / "checkpoints/best.ckpt").write_bytes(b"later weights")
    (found,) = evaluations_of(run)
    assert not found.unchanged


def test_a_test_without_results_is_refused(run, tmp_path):
    with pytest.raises(UsageError, match="no test ended there"):
        evaluation_in(tmp_path, run)
    (tmp_path / "results.json").write_text("[")
    with pytest.raises(UsageError, match="not the results of a test"):
        evaluation_in(tmp_path, run)


def test_records_and_pictures(run):
    assert [start["started"] for start in starts_of(run)] == ["2026-01-01", "2026-01-02"]
    (run / "run.json").write_text("{")
    assert starts_of(run) == []
    write_reconstructions(run, [20, 3])
    assert [step for step, _ in reconstructions_of(run)] == [3, 20]
