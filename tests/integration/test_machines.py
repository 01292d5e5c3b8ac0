"""The ways to several machines, with two processes that stand for two of them."""

import os
import subprocess
import sys
from contextlib import ExitStack, contextmanager

import pytest
import torch

from tests.integration.conftest import ROOT, TINY_DATA, TINY_MAE, TINY_RUN
from tests.integration.forked import THREADS, Command, run_two
from tests.ports import free_port

WORDS = ["fit", "--config", "demo/pretrain", *TINY_MAE, *TINY_DATA, "data.batch_size=2"]
WORDS += [word for word in TINY_RUN if not word.startswith("trainer.devices")]


# A store of each attempt: what the processes of the last one left in it would mislead the next.
ALONE = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", "CUDA_VISIBLE_DEVICES": ""}


@contextmanager
def torchrun(*words, cwd):
    """Start torchrun, which starts processes of the command; end it if the test has failed."""
    agent = subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *map(str, words)],
        cwd=cwd,
        env={**os.environ, **THREADS, **ALONE, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield agent
    finally:
        if agent.poll() is None:
            agent.terminate()  # which ends its processes, too
            agent.communicate()


def assert_same_weights(run, unbroken, workspace):
    one, other = (
        torch.load(workspace / f"runs/{name}/checkpoints/last.ckpt", weights_only=True)
        for name in (run, unbroken)
    )
    assert one["global_step"] == other["global_step"] == 12
    for key, value in other["state_dict"].items():
        assert torch.equal(one["state_dict"][key], value), key


@pytest.fixture(scope="module")
def unbroken(workspace):
    """A run of two processes on one machine."""
    run_two(*WORDS, "run_dir=runs/two-machines", "trainer.devices=2", cwd=workspace)
    return "two-machines"


def test_plain_environment_variables(workspace, unbroken):
    words = [*WORDS, "run_dir=runs/plain", "trainer=ddp", "trainer.num_nodes=2"]
    nodes = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    commands = [
        Command(*words, "trainer.devices=1", cwd=workspace, NODE_RANK=str(rank), **nodes)
        for rank in range(2)
    ]
    outputs = [command.wait() for command in commands]
    assert "2 processes x 1 batch x 2 videos" in outputs[0]
    assert_same_weights("plain", unbroken, workspace)


def test_torchrun_on_two_machines_brings_a_run_back(workspace, unbroken, tmp_path):
    rendezvous = ["--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{free_port()}"]
    rendezvous += ["--rdzv-id=both", "--nnodes=2", "--nproc-per-node=1", "--max-restarts=1"]
    rendezvous += ["--local-addr=127.0.0.1"]
    words = ["-m", "hiera_video", *WORDS, "trainer=ddp_nodes", "resume=auto", "run_dir=runs/back"]
    words += ["+callbacks.die._target_=tests.integration.stopping.DieOnce", "+callbacks.die.step=8"]
    words += [f"+callbacks.die.path={tmp_path}/died"]
    # On one machine both would take themselves for the meeting point.
    hosts = [f"--rdzv-conf=is_host={host}" for host in ("true", "false")]
    with ExitStack() as stack:
        agents = [
            stack.enter_context(torchrun(*rendezvous, host, *words, cwd=workspace))
            for host in hosts
        ]
        outputs = [agent.communicate(timeout=300)[0] for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], "".join(outputs)
    assert (tmp_path / "died").exists()
    assert any("going on from" in output for output in outputs)
    assert_same_weights("back", unbroken, workspace)


@pytest.mark.slow
def test_torchrun_ends_with_the_reason(workspace, tmp_path):
    words = ["-m", "hiera_video", *WORDS, "trainer=ddp_nodes", f"run_dir={tmp_path}/run"]
    words += ["+callbacks.fail._target_=tests.integration.stopping.FailIn"]
    words += ["+callbacks.fail.hook=on_train_batch_end", "+callbacks.fail.step=2"]
    with torchrun("--nproc-per-node=2", *words, cwd=workspace) as agent:
        output, _ = agent.communicate(timeout=300)
    assert agent.returncode == 1
    assert output.strip().splitlines()[-2].strip().endswith("this is the cause")
