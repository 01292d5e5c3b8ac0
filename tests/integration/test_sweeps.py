"""Sweeps: each job once, a table of all of them, and the best one for `test`."""

import json
import shutil

import pytest

from tests.integration.conftest import ROOT, TINY_DATA, TINY_MODEL, TINY_RUN
from tests.integration.forked import run

WORDS = ["fit", "--config", "demo/finetune", *TINY_MODEL, *TINY_DATA, *TINY_RUN]
WORDS += ["trainer.max_epochs=1", "--multirun"]
# What a job's script has on SLURM: several tasks, none of which srun has started.
SCRIPT = {"SLURM_JOB_ID": "5", "SLURM_JOB_NAME": "sweep", "SLURM_PROCID": "0"}
SCRIPT |= {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "1"}


def table(sweep):
    return {job["number"]: job for job in json.loads((sweep / "sweep.json").read_text())}


@pytest.fixture(scope="module")
def swept(tmp_path_factory, workspace):
    """A folder with a sweep of three jobs, the second of which fails; and what it printed."""
    folder = tmp_path_factory.mktemp("swept")
    words = [f"data.root={workspace}/data/synthetic", "task.lr=1e-3,-1,2e-3"]
    output = run(*WORDS, *words, "optimized_metric=train/loss", cwd=folder, code=2, **SCRIPT)
    return folder, output


def sweep_of(folder):
    (sweep,) = folder.glob("multirun/demo/finetune/*")
    return sweep


def test_a_job_that_fails_does_not_stop_the_others(swept):
    folder, output = swept
    sweep = sweep_of(folder)
    assert [path.name for path in sorted(sweep.glob("[0-9]*"))] == ["0", "2"]
    jobs = table(sweep)
    assert {n: job["status"] for n, job in jobs.items()} == {
        0: "finished",
        1: "failed",
        2: "finished",
    }
    assert jobs[1]["reason"] == "task: lr must be above 0 and finite, not -1"
    assert output.splitlines()[-1] == "hiera-video: task: lr must be above 0 and finite, not -1"
    losses = {n: jobs[n]["value"] for n in (0, 2)}
    assert list(jobs) == [*sorted(losses, key=lambda n: losses[n]), 1]  # in the file, too
    (heading,) = (line for line in output.splitlines() if line.startswith("jobs of "))
    assert heading.endswith(", lowest train/loss first:")
    rows = output.splitlines()[output.splitlines().index(heading) + 1 :]
    assert rows[0].split() == ["job", "train/loss", "status", "folder", "overrides"]
    words = {0: "task.lr=0.001", 1: "task.lr=-1", 2: "task.lr=0.002"}
    for row, number in zip(rows[1:], jobs, strict=False):
        value = f"{losses[number]:.4f}" if number in losses else "-"
        cells = [str(number), value, jobs[number]["status"], str(number), words[number]]
        assert row.split()[:5] == cells


def test_the_best_job_is_tested(swept):
    folder, _ = swept
    sweep = sweep_of(folder)
    best = next(iter(table(sweep)))
    why = f"job {best} (task.lr=0.00{'1' if best == 0 else '2'}): lowest train/loss "
    for number, words in enumerate(([sweep], ["--config", "demo/finetune", "ckpt_path=auto"])):
        more = [] if number == 0 else [word for word in WORDS[3:-1] if "max_epochs" not in word]
        more += [f"run_dir=runs/test-{number}"]
        output = run("test", *words, *more, cwd=folder)
        assert f"{sweep.relative_to(folder) if number else sweep}/{best}: {why}" in output
        results = json.loads((folder / f"runs/test-{number}/results.json").read_text())
        assert f"/{best}/checkpoints/best.ckpt" in str(results["weights"])


def test_a_sweep_that_is_cut_off_has_a_table_and_goes_on(swept, workspace, tmp_path):
    stop = ["+callbacks.stop._target_=tests.integration.stopping.TerminateAt"]
    stop += ["+callbacks.stop.step=2"]
    words = [*WORDS, f"data.root={workspace}/data/synthetic", "hydra.sweep.dir=sweep", "seed=0,1"]
    output = run(*words, *stop, cwd=tmp_path, code=143, PYTHONPATH=str(ROOT))
    jobs = table(tmp_path / "sweep")
    assert [(n, job["status"], job["reason"]) for n, job in jobs.items()] == [
        (0, "interrupted", "SIGTERM")
    ]
    assert "interrupted" in output
    run("test", "sweep", cwd=tmp_path, code=2)
    for _ in range(2):  # the second time, nothing is left to do
        output = run(*words, "resume=auto", cwd=tmp_path)
        jobs = table(tmp_path / "sweep")
        assert {n: job["status"] for n, job in jobs.items()} == {0: "finished", 1: "finished"}
        assert all(0 <= job["value"] <= 1 for job in jobs.values())
    assert output.count("is of a run that is finished") == 2
    assert output.count("finished  ") == 2
    words[-1] = "seed=1,0,2"
    output = run(*words, "resume=auto", cwd=tmp_path, code=2)
    assert "hiera-video: sweep/0 is of seed=0, not of seed=1; begin the sweep's lists" in output
    assert table(tmp_path / "sweep") == jobs  # no job has begun


def test_a_sweep_without_finished_jobs_is_one_line(swept, tmp_path):
    sweep = shutil.copytree(sweep_of(swept[0]), tmp_path / "sweep")
    for file in (sweep / ".jobs").glob("[02].json"):
        file.unlink()
    output = run("test", sweep, cwd=tmp_path, code=2)
    assert output == (
        f"hiera-video: {sweep}: no job of this sweep has finished; name the run of one\n"
    )


@pytest.mark.parametrize(
    ("launcher", "words"),
    [
        ({"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "2", "RANK": "1"}, []),
        ({**SCRIPT, "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"}, []),
        ({"MASTER_ADDR": "localhost", "NODE_RANK": "1"}, ["trainer.num_nodes=2"]),
    ],
)
def test_a_sweep_that_a_launcher_starts_is_refused(launcher, words, tmp_path):
    output = run(*WORDS, "seed=3,4", *words, cwd=tmp_path, code=2, **launcher)
    assert output == (
        "hiera-video: a sweep starts the processes of its jobs: start it on one machine without "
        "torchrun or srun and set trainer.devices, or use hydra/launcher=submitit_slurm\n"
    )
    assert not list(tmp_path.iterdir())
