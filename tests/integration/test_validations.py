"""A training that ends within a validation goes on with that validation, from its start."""

import csv
import signal
from functools import partial

import pytest
import torch
from torch.testing import assert_close

from tests.integration.conftest import ROOT, TINY_DATA, TINY_MODEL, TINY_RUN
from tests.integration.forked import run, run_several

# Six steps an epoch, three batches a validation. Both weights and their average are compared.
WORDS = ["fit", "--config", "demo/finetune", "task.init_from=null", *TINY_MODEL, *TINY_DATA]
WORDS += [*TINY_RUN, "model.drop_path_rate=0.3", "callbacks.ema.decay=0.5", "data.num_workers=1"]
EACH_STEP = ["callbacks.recovery.every_n_epochs=null", "+callbacks.recovery.every_n_train_steps=1"]
EACH_STEP += ["callbacks.recovery.save_on_train_epoch_end=false"]
TARGET = "tests.integration.stopping.SignalInEvaluation"


def signalled(number, batch=1, epoch=0):
    values = {"_target_": TARGET, "batch": batch, "number": int(number), "epoch": epoch}
    return [f"+callbacks.signal.{name}={value}" for name, value in values.items()]


def rows(run_dir):
    """The rows of metrics, with their columns that have a value, without times."""
    with open(run_dir / "metrics/version_0/metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if v and not k.startswith("speed/")} for row in rows]


def validations(run_dir):
    return [row for row in rows(run_dir) if any(name.startswith("val/") for name in row)]


def checkpoint(run_dir, name="last"):
    return torch.load(run_dir / f"checkpoints/{name}.ckpt", weights_only=True)


def check_same(run_dir, unbroken):
    assert validations(run_dir) == validations(unbroken)
    for name in ("last", "best"):
        mine, other = checkpoint(run_dir, name), checkpoint(unbroken, name)
        assert mine["global_step"] == other["global_step"]
        for part in ("state_dict", "current_model_state"):
            for key, value in other[part].items():
                assert torch.equal(mine[part][key], value), key


@pytest.fixture(scope="module")
def unbroken(workspace):
    run(*WORDS, "run_dir=runs/whole", cwd=workspace)
    return workspace / "runs/whole"


@pytest.mark.parametrize(
    ("number", "epoch"),
    [
        pytest.param(signal.SIGINT, 0, id="Ctrl-C", marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 1, id="SIGTERM"),
    ],
)
def test_a_signal_stops_a_validation_which_is_done_again(workspace, unbroken, number, epoch):
    run_dir = workspace / f"runs/signal-{number}"
    words = [*WORDS, f"run_dir={run_dir}"]
    stop = signalled(number, epoch=epoch)
    output = run(*words, *stop, cwd=workspace, code=128 + number, PYTHONPATH=str(ROOT))
    step = 6 * (epoch + 1)
    assert f"stopped and saved after step {step}; to go on: hiera-video fit resume=" in output
    assert len(validations(run_dir)) == epoch
    assert (run_dir / "checkpoints/best.ckpt").exists() == bool(epoch)
    output = run("fit", f"resume={run_dir}", "callbacks.signal=null", cwd=workspace)
    assert f"last.ckpt: step {step}, epoch {epoch + 1}, with a validation" in output
    check_same(run_dir, unbroken)


def test_a_run_that_is_killed_in_a_validation_does_it_again(workspace, unbroken):
    words = [*WORDS, *EACH_STEP, "run_dir=runs/killed"]
    kill = signalled(signal.SIGKILL)
    run(*words, *kill, cwd=workspace, code=-signal.SIGKILL, PYTHONPATH=str(ROOT))
    run(*words, "resume=auto", cwd=workspace)
    check_same(workspace / "runs/killed", unbroken)


def test_metrics_of_a_validation_that_is_done_again_are_there_once(workspace, unbroken):
    words = [*WORDS, *EACH_STEP, "run_dir=runs/afterwards"]
    kill = ["+callbacks.kill._target_=tests.integration.stopping.KillAt", "+callbacks.kill.batch=6"]
    run(*words, *kill, cwd=workspace, code=-signal.SIGKILL, PYTHONPATH=str(ROOT))
    assert len(validations(workspace / "runs/afterwards")) == 1
    run(*words, "resume=auto", cwd=workspace)
    check_same(workspace / "runs/afterwards", unbroken)
    assert rows(workspace / "runs/afterwards") == rows(unbroken)


@pytest.mark.slow
def test_all_processes_stop_after_the_same_batch_of_a_validation(workspace):
    # Two of them have three batches, one has two. Two steps are an epoch.
    words = [*WORDS, "trainer.devices=3", "data.eval_batch_size=1"]
    start = partial(run_several, processes=3, cwd=workspace)
    start(*words, "run_dir=runs/all-whole")
    words.append("run_dir=runs/all-stopped")
    output = start(*words, *signalled(2, batch=0), code=130, PYTHONPATH=str(ROOT))
    assert "stopped and saved after step 2; to go on" in output
    assert not validations(workspace / "runs/all-stopped")
    start(*words, "resume=auto")
    stopped, whole = workspace / "runs/all-stopped", workspace / "runs/all-whole"
    assert [row["step"] for row in validations(stopped)] == ["1", "3"]
    # DDP sums gradients in another order in its first step, so three are not equal to the last bit.
    assert_close(checkpoint(stopped)["state_dict"], checkpoint(whole)["state_dict"])


def test_ctrl_c_ends_a_test_at_once_with_one_line(workspace, unbroken):
    words = ["test", unbroken, *signalled(signal.SIGINT), "run_dir=runs/stopped-test"]
    output = run(*words, cwd=workspace, code=130, PYTHONPATH=str(ROOT))
    lines = output.splitlines()
    advice = "to continue, run the same command with resume=auto"
    assert lines[-1] == f"hiera-video: stopped; {advice}"
    assert "Traceback" not in output
    assert not (workspace / "runs/stopped-test/results.json").exists()
