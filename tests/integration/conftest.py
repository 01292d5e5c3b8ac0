import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# A network and a data set so small that a command takes as long as its imports.
TINY_MODEL = [
    "model.input_size=[4,64,64]",
    "model.embed_dim=8",
    "model.num_heads=1",
    "model.stages=[1,1,1,1]",
]
TINY_MAE = [*TINY_MODEL, "model.decoder_embed_dim=16", "model.decoder_depth=1"]
TINY_DATA = [
    "data.videos=[24,8,16]",
    "data.video_frames=12",
    "data.num_frames=4",
    "data.size=[64,64]",
    "data.batch_size=4",
    "data.eval_batch_size=3",
]
TINY_RUN = [
    "trainer.accelerator=cpu",
    "trainer.devices=1",
    "trainer.max_epochs=2",
    "trainer.log_every_n_steps=2",
    "trainer.check_val_every_n_epoch=1",
]


def run(*words, cwd, code: int | None = 0, module=True, **environment):
    """Run a command as a user would; returns its standard output and error together."""
    program = [sys.executable, "-m", "hiera_video"] if module else [words[0]]
    command = [*program, *map(str, words if module else words[1:])]
    result = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert code is None or result.returncode == code, (
        f"{command} ended with {result.returncode}\n{result.stdout}"
    )
    return result.stdout


@pytest.fixture(scope="session")
def workspace(tmp_path_factory):
    """A folder to run in, with the tiny synthetic videos already written."""
    return tmp_path_factory.mktemp("workspace")


@pytest.fixture(scope="session")
def pretrained(workspace):
    """Run folder of a pretraining."""
    run(
        *("fit", "--config", "demo/pretrain", "run_dir=runs/pretrained"),
        *(*TINY_MAE, *TINY_DATA, *TINY_RUN),
        cwd=workspace,
    )
    return workspace / "runs/pretrained"


@pytest.fixture(scope="session")
def finetuned(workspace, pretrained):
    """Run folder of a fine-tuning that starts from it, and what it printed."""
    from tests.integration import forked  # which imports this module

    output = forked.run(
        *("fit", "--config", "demo/finetune", "run_dir=runs/finetuned"),
        f"task.init_from={pretrained}",
        *(*TINY_MODEL, *TINY_DATA, *TINY_RUN),
        cwd=workspace,
    )
    return workspace / "runs/finetuned", output
