"""Two machines in miniature: two network namespaces that a virtual cable joins."""

import csv
import json
import os
import subprocess
import sys
import time

import pytest
import torch

from tests.integration import forked
from tests.integration.conftest import ROOT, TINY_DATA, TINY_MAE, TINY_RUN
from tests.integration.forked import THREADS

pytestmark = pytest.mark.slow
MACHINES = ("hiera-a", "hiera-b")
WORDS = ["fit", "--config", "demo/pretrain", *TINY_MAE, *TINY_DATA, *TINY_RUN]
WORDS += ["trainer.max_epochs=9", "trainer.log_every_n_steps=1"]  # 54 steps
STRATEGIES = ["ddp", "fsdp2"]
SECONDS = 20  # that a process waits for the other


def ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture(scope="module")
def cable():
    """Join both namespaces; returns the address of the first."""
    a, b = MACHINES
    try:
        for machine in MACHINES:
            ip("netns", "add", machine)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"network namespaces are not allowed here: {error}")
    try:
        ip("link", "add", "hiera0", "netns", a, "type", "veth", "peer", "hiera0", "netns", b)
        for number, machine in enumerate(MACHINES, 1):
            ip("-n", machine, "addr", "add", f"10.99.0.{number}/24", "dev", "hiera0")
            for device in ("lo", "hiera0"):
                ip("-n", machine, "link", "set", device, "up")
        yield "10.99.0.1"
    finally:
        for machine in MACHINES:
            subprocess.run(["ip", "netns", "del", machine], check=False)


def start(machine, address, strategy, *words, cwd):
    """Start the command on one of the machines."""
    timeout = f"+trainer.strategy.timeout={{_target_: datetime.timedelta, seconds: {SECONDS}}}"
    more = [f"trainer={strategy}", "trainer.num_nodes=2", "data.batch_size=2", timeout]
    command = ["ip", "netns", "exec", MACHINES[machine], sys.executable, "-m", "hiera_video"]
    variables = {"MASTER_ADDR": address, "MASTER_PORT": "29517", "NODE_RANK": str(machine)}
    variables |= {"GLOO_SOCKET_IFNAME": "hiera0", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [*command, *words, *more],
        cwd=cwd,
        env={**os.environ, **THREADS, **variables, "CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ended(processes):
    """Exit codes and output of both."""
    try:
        outputs = [process.communicate(timeout=240)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], outputs


def curve(folder):
    """Loss and gradient norm of each step."""
    with open(folder / "metrics/version_0/metrics.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["train/loss"]]
    return torch.tensor([[float(row["train/loss"]), float(row["train/grad_norm"])] for row in rows])


@pytest.fixture(scope="module")
def alone(workspace):
    """A run of one process."""
    forked.run(*WORDS, "run_dir=runs/network-alone", cwd=workspace)
    return workspace / "runs/network-alone"


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_machines_train_as_one_process(strategy, alone, cable, workspace):
    words = [*WORDS, f"run_dir=runs/network-{strategy}"]
    codes, outputs = ended(
        [start(machine, cable, strategy, *words, cwd=workspace) for machine in range(2)]
    )
    assert codes == [0, 0], "".join(outputs)
    ours = curve(workspace / f"runs/network-{strategy}")
    assert len(ours) == 54
    torch.testing.assert_close(ours, curve(alone), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_cut_cable_ends_both_and_the_run_goes_on(strategy, alone, cable, workspace):
    run = workspace / f"runs/network-cut-{strategy}"
    words = [*WORDS, f"run_dir={run}", "resume=auto"]
    processes = [start(machine, cable, strategy, *words, cwd=workspace) for machine in range(2)]
    deadline = time.monotonic() + 120
    while not (run / "checkpoints/previous.ckpt").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    ip("-n", MACHINES[0], "link", "set", "hiera0", "down")
    cut = time.monotonic()
    codes, outputs = ended(processes)
    seconds = time.monotonic() - cut
    ip("-n", MACHINES[0], "link", "set", "hiera0", "up")
    assert 0 not in codes, "".join(outputs)
    assert seconds < 3 * SECONDS
    silent = "hiera-video: no answer in the time of trainer.strategy.timeout from process"
    for output in outputs:
        assert output.splitlines()[-1].startswith(silent)
        assert "Traceback" not in output

    again = [start(machine, cable, strategy, *words, cwd=workspace) for machine in range(2)]
    codes, outputs = ended(again)
    assert codes == [0, 0], "".join(outputs)
    assert "going on from" in "".join(outputs)
    assert json.loads((run / "run.json").read_text())
    torch.testing.assert_close(curve(run), curve(alone), rtol=1e-4, atol=1e-4)
