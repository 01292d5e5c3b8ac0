"""Jobs of a sweep as jobs of submitit: by its local executor, and by stubs of SLURM's commands."""

import json
import os
import re
import time

import pytest
import torch

from tests.integration.conftest import ROOT, TINY_DATA, TINY_MAE, TINY_RUN
from tests.integration.forked import Command, run, run_two

pytest.importorskip("submitit")
WORDS = ["fit", "--config", "demo/pretrain", *TINY_MAE, *TINY_DATA, *TINY_RUN]
WORDS += ["+model.drop_path_rate=0.3", "data.num_workers=1"]
SWEEP = ["--multirun", "hydra.sweep.dir=sweep", "optimized_metric=train/loss"]
LOCAL, SLURM = "hydra/launcher=submitit_local", "hydra/launcher=submitit_slurm"
# The cluster wants the job's place after the third step.
PREEMPTED = ["+callbacks.stop._target_=tests.integration.stopping.TerminateAt"]
PREEMPTED += ["+callbacks.stop.step=3", "+callbacks.stop.number=12"]
PATH = {"PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}
JOB = {"SUBMITIT_EXECUTOR": "slurm", "SLURM_JOB_ID": "77", "SLURM_JOB_NAME": "log"}
JOB |= {"SLURM_JOB_NUM_NODES": "1", "SLURM_NNODES": "1", "SLURM_NODEID": "0"}
STUBS = {
    "sbatch": """cp "$1" copy; mv copy script; echo 'Submitted batch job 77'""",
    "srun": "exit 1",
    "scontrol": """echo "$@" >> called""",
    "sacct": "echo 'JobID|State|NodeList'; echo '77|RUNNING|node'",
}


@pytest.fixture
def slurm(tmp_path):
    """The environment of a machine with SLURM's commands, which write to the current folder."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, script in STUBS.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}", **PATH}


def weights(run_dir):
    checkpoint = torch.load(run_dir / "checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 12
    return checkpoint["state_dict"]


def srun(folder, tasks, cwd, slurm):
    """Run the tasks of a job at once, as `srun` does; returns what they printed."""
    job = {"module": "submitit.core._submit", **JOB, **slurm}
    job |= {"SLURM_NTASKS": f"{tasks}", "SLURM_NTASKS_PER_NODE": f"{tasks}"}
    ranks = [{"SLURM_PROCID": f"{rank}", "SLURM_LOCALID": f"{rank}"} for rank in range(tasks)]
    started = [Command(folder, cwd=cwd, **job, **rank) for rank in ranks]
    return "".join(task.wait(None) for task in started)


def on_slurm(*words, cwd, slurm, starts=1, tasks=1, code=0):
    """Run a sweep of one job; returns what its starts printed, and last the sweep itself."""
    words = [*words, f"hydra.launcher.tasks_per_node={tasks}"]
    sweep = Command(*words, *SWEEP, SLURM, cwd=cwd, **slurm)
    while not (script := cwd / "script").exists():
        time.sleep(0.05)
    (folder,) = re.findall(r"submitit\.core\._submit (\S+)", script.read_text())
    assert f"--ntasks-per-node={tasks}\n" in script.read_text()
    outputs = [srun(folder, tasks, cwd, slurm) for _ in range(starts)]
    return [*outputs, sweep.wait(code)]


@pytest.fixture
def words(workspace):
    return [*WORDS, f"data.root={workspace}/data/synthetic"]


@pytest.mark.parametrize("tasks", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_preempted_job_of_slurm_is_queued_again_once(words, tmp_path, slurm, tasks):
    if tasks == 2:  # each is a process of DDP
        words += ["trainer=slurm", "trainer.precision=32-true", "trainer.accelerator=cpu"]
        words += ["data.batch_size=2"]
    start = {1: run, 2: run_two}[tasks]
    start(*words, f"trainer.devices={tasks}", "run_dir=unbroken", cwd=tmp_path)
    if tasks == 2:
        words.remove("trainer.devices=1")  # SLURM says how many
    words += PREEMPTED
    first, second, _ = on_slurm(*words, cwd=tmp_path, slurm=slurm, starts=2, tasks=tasks)
    assert (tmp_path / "called").read_text() == "requeue 77\n"
    assert "stopped and saved after step 4" in first
    assert "last.ckpt: step 4, epoch 1, after 4 batches of it" in second
    for key, value in weights(tmp_path / "unbroken").items():
        assert torch.equal(weights(tmp_path / "sweep/0")[key], value), key
    (job,) = json.loads((tmp_path / "sweep/sweep.json").read_text())
    assert (job["status"], job["reason"], job["metric"]) == ("finished", None, "train/loss")


def test_a_job_that_may_not_be_queued_again_says_so(words, tmp_path, slurm):
    # So short a limit is over as soon as the job has begun, and no job may run out of time.
    words += ["hydra.launcher.timeout_min=1", *PREEMPTED]
    *_, output = on_slurm(*words, cwd=tmp_path, slurm=slurm, code=1)
    error = output.splitlines()[-1]
    assert error.startswith("hiera-video: all is saved, but the job is not queued again (")
    assert "hydra.launcher.max_num_timeout" in error
    assert (tmp_path / "sweep/0/checkpoints/last.ckpt").exists()
    assert not (tmp_path / "called").exists()


def test_a_job_of_slurm_that_fails_is_one_line(words, tmp_path, slurm):
    *_, output = on_slurm(*words, "task.lr=-1", cwd=tmp_path, slurm=slurm, code=2)
    reason = "task: lr must be above 0 and finite, not -1"
    assert output.splitlines()[-1] == f"hiera-video: {reason}"
    assert "Traceback" not in output
    (job,) = json.loads((tmp_path / "sweep/sweep.json").read_text())
    assert (job["status"], job["reason"]) == ("failed", reason)


@pytest.mark.slow
def test_a_local_job_has_a_process_of_its_own_and_comes_back(words, tmp_path):
    run(*words, "trainer.max_epochs=1", *SWEEP, LOCAL, *PREEMPTED, cwd=tmp_path, **PATH)
    (job,) = json.loads((tmp_path / "sweep/sweep.json").read_text())
    assert job["status"] == "finished"
    assert len(json.loads((tmp_path / "sweep/0/run.json").read_text())) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([SLURM], 'Could not detect "srun"'),
        ([LOCAL, "hydra.launcher.tasks_per_node=2"], "submitit_local starts one process a job"),
    ],
)
def test_what_cannot_work_is_one_line(tmp_path, words, message):
    output = run(*WORDS, *SWEEP, *words, cwd=tmp_path, code=None, PATH="/usr/bin:/bin", **PATH)
    assert message in output.splitlines()[-1]
    assert "Traceback" not in output
