"""Which folder a run gets."""

import os

import pytest

from hiera_video.running.folders import RUN_ID_VARIABLES, run_folder


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Two runs of ``x``, the second one newer."""
    monkeypatch.chdir(tmp_path)
    for name in RUN_ID_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for age, job in enumerate(("b", "a")):
        checkpoint = tmp_path / f"runs/x/fit-{job}/checkpoints/last.ckpt"
        checkpoint.parent.mkdir(parents=True)
        checkpoint.touch()
        os.utime(checkpoint, (age, age))


def test_auto_is_the_newest_run(runs):
    assert run_folder("x", "fit", "auto") == "runs/x/fit-a"


@pytest.mark.parametrize("job", ["b", "new"])
def test_a_job_of_a_launcher_keeps_to_its_own_run(runs, monkeypatch, job):
    monkeypatch.setenv("SLURM_JOB_ID", job)
    assert run_folder("x", "fit", "auto") == f"runs/x/fit-{job}"
    assert run_folder("x", "fit", None) == f"runs/x/fit-{job}"


def test_a_given_run(runs):
    for run in ("runs/x/fit-b", "runs/x/fit-b/checkpoints/last.ckpt"):
        assert run_folder("x", "fit", run).endswith("runs/x/fit-b")
