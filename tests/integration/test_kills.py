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
# A step takes less time than its save, so most kills come while a checkpoint is written.
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


def _stamp(path):
    return path.stat().st_mtime_ns if path.exists() else 0


def kill_within(seconds, words, run_dir, workspace, before):
    """Start a run, wait for a checkpoint of its own, and kill it at a random moment after that.

    Returns:
        Whether it was killed, rather than done, and whether a half-written file is left.
    """
    last = run_dir / "checkpoints/last.ckpt"
    stamp, earlier = _stamp(last), process_in(run_dir)
    command = Command(*words, cwd=workspace, TMPDIR=str(OTHER_FILE_SYSTEM))
    deadline = time.monotonic() + 120
    while process_in(run_dir) in (None, earlier) or _stamp(last) == stamp:
        assert time.monotonic() < deadline, command.wait(code=None)
        time.sleep(0.005)
    process = process_in(run_dir)
    time.sleep(random.Random(before).uniform(0, seconds))
    try:
        os.kill(process, signal.SIGKILL)
    except ProcessLookupError:
        command.wait(code=0)
        return False, False
    command.wait(code=-signal.SIGKILL)
    return True, any(run_dir.glob("checkpoints/.*.unfinished"))


@pytest.mark.skipif(not os.access(OTHER_FILE_SYSTEM, os.W_OK), reason="no other file system")
@pytest.mark.parametrize(
    ("kills", "epochs"), [(2, 2), pytest.param(20, 15, marks=pytest.mark.slow)]
)
def test_a_run_survives_random_kills(workspace, kills, epochs):
    words = [*WORDS, f"trainer.max_epochs={epochs}"]
    whole, run_dir = (workspace / f"runs/{name}-{kills}" for name in ("whole", "killed"))
    run(*words, f"run_dir={whole}", cwd=workspace)
    words += [f"run_dir={run_dir}", "resume=auto"]
    step, during_saves, killed = -1, 0, 0
    for number in range(kills):
        was_killed, was_saving = kill_within(0.3, words, run_dir, workspace, number)
        killed, during_saves = killed + was_killed, during_saves + was_saving
        before, step = step, last_step(run_dir / "checkpoints")
        assert step > before, "a checkpoint was lost"
    run(*words, cwd=workspace)
    print(f"{killed} kills, {during_saves} of them during a save")
    assert killed == kills
    assert not list(run_dir.glob("checkpoints/.*"))
    mine, other = (
        torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
        for folder in (run_dir, whole)
    )
    assert mine["global_step"] == other["global_step"] == 6 * epochs
    for key, value in other["state_dict"].items():
        assert torch.equal(mine["state_dict"][key], value), key
