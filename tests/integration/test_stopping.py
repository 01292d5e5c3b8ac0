"""A run that is told to stop saves itself, says so, and goes on as if it had never stopped."""

import json
import os

import pytest
import torch

from tests.integration.conftest import ROOT, TINY_DATA, TINY_MAE, TINY_RUN
from tests.integration.forked import run, run_two

# Drop path draws random numbers in the network, besides those of order, crops and masks.
WORDS = ["fit", "--config", "demo/pretrain", *TINY_MAE, *TINY_DATA, *TINY_RUN]
WORDS += ["+model.drop_path_rate=0.3", "data.num_workers=1"]


@pytest.fixture(scope="module")
def unbroken(workspace):
    run(*WORDS, "run_dir=runs/unbroken", cwd=workspace)
    return torch.load(workspace / "runs/unbroken/checkpoints/last.ckpt", weights_only=True)


@pytest.mark.parametrize("step", [3, 6], ids=["within an epoch", "at the last step of one"])
def test_sigterm_saves_and_resume_ends_bit_for_bit_the_same(workspace, unbroken, step):
    words = [*WORDS, f"run_dir=runs/told-{step}"]
    stop = ["+callbacks.stop._target_=tests.integration.stopping.TerminateAt"]
    stop += [f"+callbacks.stop.step={step}"]
    run(*words, *stop, cwd=workspace, code=143, PYTHONPATH=str(ROOT))
    output = run(*words, "resume=auto", cwd=workspace)
    assert "step 12/12" in output
    assert "step 2/12" not in output
    resumed = torch.load(workspace / f"runs/told-{step}/checkpoints/last.ckpt", weights_only=True)
    assert resumed["global_step"] == unbroken["global_step"] == 12
    for key, value in unbroken["state_dict"].items():
        assert torch.equal(resumed["state_dict"][key], value), key
    starts = json.loads((workspace / f"runs/told-{step}/run.json").read_text())
    assert len(starts) == 2


def test_ctrl_c_saves_and_says_how_to_go_on(workspace, unbroken):
    words = [*WORDS, "run_dir=runs/by hand"]
    stop = ["+callbacks.stop._target_=tests.integration.stopping.TerminateAt"]
    stop += ["+callbacks.stop.step=3", "+callbacks.stop.number=2"]
    output = run(*words, *stop, cwd=workspace, code=130, PYTHONPATH=str(ROOT))
    assert "Ctrl-C: the step under way is completed and saved" in output
    # The callback comes last, so the signal is seen at the end of the next step.
    assert "stopped and saved after step 4; to go on: hiera-video fit 'resume=" in output
    assert "runs/by hand'" in output  # to paste into a shell
    assert "Traceback" not in output
    run("fit", "resume=runs/by hand", "callbacks.stop=null", cwd=workspace)
    resumed = torch.load(workspace / "runs/by hand/checkpoints/last.ckpt", weights_only=True)
    for key, value in unbroken["state_dict"].items():
        assert torch.equal(resumed["state_dict"][key], value), key


@pytest.mark.parametrize(
    ("job", "queued", "fails"),
    [
        ({"SLURM_JOB_ID": "77"}, "77", False),
        (
            {"SLURM_JOB_ID": "78", "SLURM_ARRAY_JOB_ID": "70", "SLURM_ARRAY_TASK_ID": "3"},
            "70_3",
            False,
        ),
        ({"SLURM_JOB_ID": "77"}, "77", True),
    ],
    ids=["job", "array", "refused"],
)
def test_a_warning_of_slurm_saves_and_queues_the_job_again(job, queued, fails, workspace, tmp_path):
    scontrol = tmp_path / "scontrol"
    end = "echo 'requeue is disabled' >&2; exit 1" if fails else "exit 0"
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/called\n{end}\n')
    scontrol.chmod(0o755)
    environment = {**job, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    words = [*WORDS, f"run_dir={tmp_path}/run", "trainer.max_epochs=1"]
    stop = ["+callbacks.stop._target_=tests.integration.stopping.TerminateAt"]
    stop += ["+callbacks.stop.step=3", "+callbacks.stop.number=10"]
    output = run(*words, *stop, cwd=workspace, code=138, **environment)
    assert (tmp_path / "called").read_text() == f"requeue {queued}\n"
    said = "not queued again, start it by hand: scontrol requeue 77: requeue is disabled"
    assert (said if fails else f"job {queued} is queued again") in output
    assert "step 6/6" in run(*words, "resume=auto", cwd=workspace, **environment)


def test_sigterm_saves_on_two_processes(workspace):
    words = [*WORDS, "trainer.devices=2"]
    stop = ["+callbacks.stop._target_=tests.integration.stopping.TerminateAt"]
    stop += ["+callbacks.stop.step=2"]
    run_two(*words, "run_dir=runs/both", cwd=workspace)
    told = [*words, "run_dir=runs/both-told"]
    run_two(*told, *stop, cwd=workspace, code=143, PYTHONPATH=str(ROOT))
    output = run_two(*told, "resume=auto", cwd=workspace)
    assert "step 6/6" in output
    assert "step 2/6" not in output
    whole, resumed = (
        torch.load(workspace / f"runs/{name}/checkpoints/last.ckpt", weights_only=True)
        for name in ("both", "both-told")
    )
    assert resumed["global_step"] == whole["global_step"] == 6
    for key, value in whole["state_dict"].items():
        assert torch.equal(resumed["state_dict"][key], value), key


def test_two_processes_that_cannot_save_say_so(workspace, tmp_path):
    words = [*WORDS, "trainer.devices=2", f"run_dir={tmp_path}/run"]
    for name, kind in (("spoil", "SpoilAt"), ("stop", "TerminateAt")):
        words += [f"+callbacks.{name}._target_=tests.integration.stopping.{kind}"]
        words += [f"+callbacks.{name}.step=2"]
    output = run_two(*words, cwd=workspace, code=1, PYTHONPATH=str(ROOT))
    errors = [line for line in output.splitlines() if line.startswith("hiera-video: ")]
    assert errors[0] == errors[1]
    assert "last.ckpt is not saved: the weights are not finite" in errors[0]


def test_a_second_start_does_not_overwrite_the_first(workspace, unbroken):
    output = run(*WORDS, "run_dir=runs/unbroken", cwd=workspace, code=2)
    assert "is of an earlier run; set resume=auto or another run_dir=" in output
