"""A process that fails, or hangs, wherever in a run: the others end, and say why."""

import socket
import time

import pytest

from tests.integration.conftest import TINY_DATA, TINY_MAE, TINY_RUN
from tests.integration.forked import Command
from tests.ports import free_port

WORDS = ["fit", "--config", "demo/pretrain", *TINY_MAE, *TINY_DATA, "data.batch_size=2"]
WORDS += [word for word in TINY_RUN if not word.startswith("trainer.devices")]
WORDS += ["trainer=ddp", "trainer.devices=1", "trainer.num_nodes=2"]
SECONDS = 8  # that a process waits for the other


def start(*words, cwd):
    """Start both processes."""
    nodes = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    timeout = f"+trainer.strategy.timeout={{_target_: datetime.timedelta, seconds: {SECONDS}}}"
    return [
        Command(*WORDS, *words, timeout, cwd=cwd, NODE_RANK=str(rank), **nodes) for rank in range(2)
    ]


@pytest.mark.parametrize(
    ("hook", "step", "rank"),
    [
        ("setup", 0, 1),
        ("on_validation_batch_end", 0, 1),
        ("on_save_checkpoint", 0, 0),
    ],
)
def test_one_process_fails_and_the_other_ends(hook, step, rank, workspace, tmp_path):
    fail = ["+callbacks.fail._target_=tests.integration.stopping.FailIn"]
    fail += [f"+callbacks.fail.{key}={value}" for key, value in [("step", step), ("rank", rank)]]
    processes = start(*fail, f"+callbacks.fail.hook={hook}", f"run_dir={tmp_path}", cwd=workspace)
    began = time.monotonic()
    outputs = [process.wait(1) for process in processes]
    assert time.monotonic() - began < 10 * SECONDS
    assert outputs[rank].splitlines()[-1] == "hiera-video: this is the cause"
    last = outputs[1 - rank].splitlines()[-1]
    assert last == "hiera-video: another process of this run has ended; what it printed says why"
    assert "Traceback" not in "".join(outputs)


@pytest.mark.parametrize(
    ("rank", "hook", "step", "stands"),
    [
        pytest.param(1, "on_train_batch_end", 2, "after step 2", marks=pytest.mark.slow),
        (0, "on_validation_batch_start", 6, "after step 6"),
    ],
)
def test_a_process_that_hangs_is_named_with_its_step(rank, hook, step, stands, workspace, tmp_path):
    goes_on = tmp_path / "goes-on"
    values = {"step": step, "path": goes_on, "rank": rank, "hook": hook}
    hang = ["+callbacks.hang._target_=tests.integration.stopping.WaitAt"]
    hang += [f"+callbacks.hang.{key}={value}" for key, value in values.items()]
    processes = start(*hang, f"run_dir={tmp_path}/run", cwd=workspace)
    try:
        output = processes[1 - rank].wait(1)
    finally:
        goes_on.touch()
    processes[rank].wait(1)
    hung = f"process {rank} on {socket.gethostname()}, which stands {stands}"
    lines = output.splitlines()
    assert any(line.startswith(f"process {1 - rank} has stood {stands}") for line in lines)
    assert lines[-1].startswith(
        f"hiera-video: no answer in the time of trainer.strategy.timeout from {hung}"
    )
