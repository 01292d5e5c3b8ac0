"""A run that is killed again and again, also while it saves, loses nothing."""

import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch

from hiera_video.errors import CheckpointError
from hiera_video.weights.files import read_checkpoint
from tests.integration.conftest import TINY_DATA, TINY_MAE, TINY_RUN
from tests.integration.forked import Command, run

OTHER_FILE_SYSTEM = Path("/dev/shm")
# Each step is saved, in files that are not written in an instant.
WORDS = ["fit", "--config", "demo/pretrain", *TINY_MAE, *TINY_DATA, *TINY_RUN]
WORDS += ["model.embed_dim=48", "model.decoder_embed_dim=64", "data.num_workers=1"]
WORDS += ["callbacks.recovery.every_n_epochs=null", "+callbacks.recovery.every_n_train_steps=1"]
WORDS += ["callbacks.recovery.save_on_train_epoch_end=false"]


def last_step(checkpoints):
    """Step of the newest checkpoint that is whole; -1 before the first."""
    steps = [-1]
    for path in checkpoints.glob("*.ckpt"):
        try:
            checkpoint = read_checkpoint(path)
        except CheckpointError:
            continue
        assert all(weight.isfinite().all() for weight in checkpoint["state_dict"].values())
        steps.append(checkpoint["global_step"])
    return max(steps)


def process_in(run_dir):
    """The process that trains there, as its lock says; None if none does."""
    try:
        return int((run_dir / ".lock").read_text().split()[1])
    except (FileNotFoundError, IndexError):
        return None


def unfinished(run_dir):
    return any(run_dir.glob("checkpoints/.*.unfinished"))


def _stamp(path):
    return path.stat().st_mtime_ns if path.exists() else 0


def start(words, run_dir, workspace, **environment):
    """Start a run, and wait for a checkpoint of its own."""
    last = run_dir / "checkpoints/last.ckpt"
    stamp, earlier = _stamp(last), process_in(run_dir)
    command = Command(*words, cwd=workspace, TMPDIR=str(OTHER_FILE_SYSTEM), **environment)
    deadline = time.monotonic() + 120
    while process_in(run_dir) in (None, earlier) or _stamp(last) == stamp:
        assert time.monotonic() < deadline, command.wait(code=None)
        time.sleep(0.005)
    return command


def kill(number, words, run_dir, workspace):
    """Start a run, and kill it at a random moment after its first checkpoint.

    Returns:
        Whether a half-written file is left.
    """
    command = start(words, run_dir, workspace)
    deadline = time.monotonic() + 120
    time.sleep(random.Random(number).uniform(0, 0.1))
    if number % 2:  # every other one while a checkpoint is written
        while not unfinished(run_dir) and time.monotonic() < deadline:
            time.sleep(0.0005)
    os.kill(process_in(run_dir), signal.SIGKILL)
    command.wait(code=-signal.SIGKILL)
    return unfinished(run_dir)


def same_end(run_dir, whole, steps):
    """See that two runs ended with the same weights, bit for bit."""
    assert not list(run_dir.glob("checkpoints/.*"))
    mine, other = (
        torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
        for folder in (run_dir, whole)
    )
    assert mine["global_step"] == other["global_step"] == steps
    for key, value in other["state_dict"].items():
        assert torch.equal(mine["state_dict"][key], value), key


@pytest.mark.skipif(not os.access(OTHER_FILE_SYSTEM, os.W_OK), reason="no other file system")
@pytest.mark.parametrize(
    ("kills", "epochs"), [(2, 4), pytest.param(20, 20, marks=pytest.mark.slow)]
)
def test_a_run_survives_random_kills(workspace, kills, epochs):
    words = [*WORDS, f"trainer.max_epochs={epochs}"]
    whole, run_dir = (workspace / f"runs/{name}-{kills}" for name in ("whole", "killed"))
    run(*words, f"run_dir={whole}", cwd=workspace)
    words += [f"run_dir={run_dir}", "resume=auto"]
    step, during_saves = -1, 0
    for number in range(kills):
        during_saves += kill(number, words, run_dir, workspace)
        before, step = step, last_step(run_dir / "checkpoints")
        assert step > before, "a checkpoint was lost"
    run(*words, cwd=workspace)
    print(f"{kills} kills, {during_saves} of them during a save")
    assert during_saves
    same_end(run_dir, whole, 6 * epochs)


@pytest.mark.slow
def test_a_run_is_preempted_again_and_again(workspace, tmp_path):
    """Twenty signals at random moments, ten of them from SLURM, which queues the job again."""
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/called\n')
    scontrol.chmod(0o755)
    words = [*WORDS, "trainer.max_epochs=20"]
    whole, run_dir = workspace / "runs/whole-preempted", workspace / "runs/preempted"
    run(*words, f"run_dir={whole}", cwd=workspace)
    words += [f"run_dir={run_dir}", "resume=auto"]
    slurm = {"SLURM_JOB_ID": "77", "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    step = -1
    for number in range(20):
        warning = signal.SIGUSR1 if number % 2 else signal.SIGTERM
        command = start(words, run_dir, workspace, **(slurm if number % 2 else {}))
        time.sleep(random.Random(number).uniform(0, 0.3))
        os.kill(process_in(run_dir), warning)
        sent = time.monotonic()
        command.wait(code=128 + warning)
        before, step = step, last_step(run_dir / "checkpoints")
        print(f"{warning.name}: saved after step {step}, ended in {time.monotonic() - sent:.1f} s")
        assert step > before, "the step was not saved"
    assert (tmp_path / "called").read_text() == "requeue 77\n" * 10
    run(*words, cwd=workspace)
    same_end(run_dir, whole, 6 * 20)
