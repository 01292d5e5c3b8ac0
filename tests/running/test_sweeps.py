import errno
import fcntl
import time
from multiprocessing import get_context

import pytest

from hiera_video.errors import UsageError
from hiera_video.running.sweeps import (
    Job,
    OtherListError,
    best_job,
    jobs_of,
    recorded,
    report,
)

Process = get_context("spawn").Process


def add(sweep, number, value, mode="max", error: BaseException | None = None):
    """Run a job that ends with a value, or an error."""
    folder = sweep / str(number) / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "last.ckpt").touch()
    with recorded(Job(number, ["task.lr=1", f"seed={number}"], str(number)), sweep) as job:
        job.metric, job.mode, job.value = "val/x", mode, value
        if error is not None:
            raise error


@pytest.mark.parametrize(("mode", "best"), [("max", 1), ("min", 2)])
def test_the_best_finished_job_is_taken(tmp_path, mode, best):
    for number, value in enumerate((0.5, 0.75, 0.25, float("nan"))):
        add(tmp_path, number, value, mode)
    with pytest.raises(ValueError, match="bad"):
        add(tmp_path, 4, 1.0 if mode == "max" else 0.0, mode, ValueError("bad\nluck"))
    folder, why = best_job(tmp_path)
    assert folder == tmp_path / str(best)
    order = {"max": "highest val/x 0.7500", "min": "lowest val/x 0.2500"}[mode]
    assert why == f"job {best} (seed={best}): {order} of 4 finished jobs"
    jobs = {job.number: job for job in jobs_of(tmp_path)}
    assert [*jobs][-2:] == [3, 4]
    assert (jobs[3].value, jobs[4].reason) == (None, "bad luck")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (KeyboardInterrupt(), "Ctrl-C"),
        (SystemExit(143), "SIGTERM"),
        (SystemExit(3), "exit code 3"),
    ],
)
def test_a_job_that_is_stopped_is_interrupted(tmp_path, error, reason):
    with pytest.raises(type(error)):
        add(tmp_path, 0, 0.5, error=error)
    (job,) = jobs_of(tmp_path)
    assert (job.status, job.reason) == ("interrupted", reason)


def test_a_job_is_running_until_it_ends_or_is_killed(tmp_path, capsys):
    process = Process(target=run_forever, args=[tmp_path])
    process.start()
    while not [*tmp_path.rglob("0.json")]:
        time.sleep(0.01)
    report(tmp_path)
    assert capsys.readouterr().out.splitlines()[2].split() == ["0", "-", "running", "0"]
    process.kill()
    process.join()
    report(tmp_path)
    row = capsys.readouterr().out.splitlines()[2].split(maxsplit=4)
    assert row == ["0", "-", "killed", "0", "its process is gone without a word (out of memory?)"]
    with pytest.raises(UsageError, match="no job of this sweep has finished"):
        best_job(tmp_path)
    add(tmp_path, 0, 0.5)
    assert jobs_of(tmp_path)[0].status == "finished"


def run_forever(sweep):
    with recorded(Job(0, [], "0"), sweep):
        time.sleep(1000)


def test_without_locks_a_killed_job_seems_to_run(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", no_locks)
    with recorded(Job(0, [], "0"), tmp_path):
        assert jobs_of(tmp_path)[0].status == "running"


def test_a_finished_job_stays_finished(tmp_path):
    add(tmp_path, 0, 0.5)
    add(tmp_path, 0, None)  # there was nothing left to do
    with pytest.raises(UsageError):
        add(tmp_path, 0, None, error=UsageError("there is an earlier run"))
    (job,) = jobs_of(tmp_path)
    assert (job.status, job.value) == ("finished", 0.5)
    add(tmp_path, 0, 0.25)
    assert jobs_of(tmp_path)[0].value == 0.25


def test_no_best_job(tmp_path):
    with pytest.raises(UsageError, match="no job of this sweep has finished"):
        best_job(tmp_path)
    add(tmp_path, 0, None)
    with pytest.raises(UsageError, match="have no metric to be compared by"):
        best_job(tmp_path)
    add(tmp_path, 0, 0.5)
    (tmp_path / "0/checkpoints/last.ckpt").unlink()
    with pytest.raises(UsageError, match="has no checkpoint"):
        best_job(tmp_path)


@pytest.mark.parametrize("value", [None, 0.5])
def test_jobs_that_are_not_ranked_are_said_to_be(tmp_path, capsys, value):
    with recorded(Job(0, [], "0"), tmp_path) as job:
        job.metric, job.value = (None, None) if value is None else ("val/x", value)
    report(tmp_path)
    assert ("the jobs are not ranked" in capsys.readouterr().out) == (value is None)


def start(sweep, *swept, shared=("data.root=a",)):
    """Start the first job of a sweep; it is interrupted."""
    job = Job(0, [*shared, *swept], "0", swept=[*swept])
    with pytest.raises(KeyboardInterrupt), recorded(job, sweep):
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("swept", "shared", "is_of"),
    [
        (["task.lr=0.003"], [], "task.lr=0.001, not of task.lr=0.003"),
        (["task.lr=0.001", "seed=1"], [], "task.lr=0.001, not of task.lr=0.001 seed=1"),
        ([], ["task.lr=0.003"], "task.lr=0.001, not of task.lr=0.003"),
        (["seed=1"], [], "task.lr=0.001, not of seed=1"),
        ([], [], "task.lr=0.001, not of the defaults"),
    ],
)
def test_a_job_does_not_go_on_with_other_values(tmp_path, swept, shared, is_of):
    start(tmp_path, "task.lr=0.001")
    before = (tmp_path / ".jobs/0.json").read_text()
    with pytest.raises(OtherListError) as error:
        start(tmp_path, *swept, shared=shared)
    assert str(error.value) == (
        f"{tmp_path}/0 is of {is_of}; begin the sweep's lists as they were, or set another "
        "hydra.sweep.dir="
    )
    assert (tmp_path / ".jobs/0.json").read_text() == before


def test_a_job_goes_on_with_the_same_values(tmp_path):
    start(tmp_path, "task.lr=0.001")
    start(tmp_path, "task.lr=0.001", shared=["data.root=b", "resume=auto"])  # moved
    start(tmp_path, shared=["task.lr=0.001", "resume=auto"])  # the only one of the list
