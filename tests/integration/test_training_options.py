"""Averaged weights, exact accumulation, the whole recipe: through the commands."""

import csv
import json
from collections import Counter

import pytest
import torch

from tests.integration.conftest import ROOT, TINY_DATA, TINY_MAE, TINY_MODEL, TINY_RUN
from tests.integration.forked import run

WORDS = ["fit", "--config", "demo/pretrain", *TINY_MAE, *TINY_DATA, *TINY_RUN]


def checkpoint(workspace, name):
    path = workspace / f"runs/{name}/checkpoints/last.ckpt"
    return torch.load(path, weights_only=True)


def assert_same(a, b):
    assert a.keys() == b.keys()
    for key, value in a.items():
        assert torch.equal(value, b[key]), key


@pytest.fixture(scope="module")
def averaged(workspace):
    """The checkpoint of an unbroken run with an average of the weights."""
    run(*WORDS, "callbacks.ema.decay=0.9", "run_dir=runs/averaged", cwd=workspace)
    return checkpoint(workspace, "averaged")


def test_a_resumed_average_of_weights_ends_bit_for_bit_the_same(workspace, averaged):
    words = [*WORDS, "callbacks.ema.decay=0.9", "run_dir=runs/averaged-killed"]
    words += [
        "callbacks.recovery.every_n_epochs=null",
        "+callbacks.recovery.every_n_train_steps=1",
        "callbacks.recovery.save_on_train_epoch_end=false",
    ]
    kill = ["+callbacks.kill._target_=tests.integration.stopping.KillAt", "+callbacks.kill.batch=8"]
    run(*words, *kill, cwd=workspace, code=None, PYTHONPATH=str(ROOT))
    assert checkpoint(workspace, "averaged-killed")["global_step"] == 8
    run(*words, "resume=auto", cwd=workspace)
    resumed = checkpoint(workspace, "averaged-killed")
    assert_same(averaged["state_dict"], resumed["state_dict"])
    assert_same(averaged["current_model_state"], resumed["current_model_state"])
    key = "model.decoder_pred.weight"  # the average lags behind
    assert not torch.equal(averaged["state_dict"][key], averaged["current_model_state"][key])


@pytest.mark.parametrize("average", [True, False])
def test_an_average_of_weights_is_not_lost_by_resuming(workspace, averaged, pretrained, average):
    kind, before = ("averaged", "averaged") if average else ("plain", "pretrained")
    decay = "null" if average else "0.9"
    words = [*WORDS, f"resume=runs/{before}", f"run_dir=runs/{kind}-on", "trainer.max_epochs=3"]
    output = run(*words, f"callbacks.ema.decay={decay}", cwd=workspace, code=2)
    assert "task.init_from" in output.splitlines()[-1]
    assert "average of" in output.splitlines()[-1]


def test_accumulated_batches_make_the_same_step(workspace):
    words = [*WORDS, "task.optimizer._target_=torch.optim.SGD", "~task.optimizer.betas"]
    words += ["data.batch_size=10", "task.lr=0.1"]  # 2 steps an epoch; 4 of 24 videos left out
    run(*words, "run_dir=runs/at-once", cwd=workspace)
    words += ["data.batch_size=5", "task.batch.global=10", "trainer.check_val_every_n_epoch=3"]
    output = run(*words, "run_dir=runs/accumulated", cwd=workspace)
    assert "a step is 10 videos, 10 clips: 1 process x 2 batches x 5 videos x 1 clip" in output
    assert "check_val_every_n_epoch=3: the last 2 of 2 epochs are not validated" in output
    once, accumulated = (checkpoint(workspace, n) for n in ("at-once", "accumulated"))
    assert once["global_step"] == accumulated["global_step"] == 4
    for key, value in once["state_dict"].items():
        torch.testing.assert_close(accumulated["state_dict"][key], value, rtol=1e-4, atol=1e-6)


def test_steps_are_whole_after_resuming_with_another_batch(workspace):
    words = [*WORDS, "data.batch_size=2", "task.batch.global=4"]  # 6 steps of 2 batches
    words += ["callbacks.recovery.every_n_epochs=null", "run_dir=runs/other-batch"]
    words += ["+callbacks.recovery.every_n_train_steps=1"]
    target = "tests.integration.stopping.Record"
    words += [f"+callbacks.record._target_={target}", "+callbacks.record.path=other-batch"]
    kill = ["+callbacks.kill._target_=tests.integration.stopping.KillAt", "+callbacks.kill.batch=6"]
    run(*words, *kill, cwd=workspace, code=None, PYTHONPATH=str(ROOT))  # 12 of 24 videos are had
    (workspace / "other-batch.0").unlink()
    run(*words, "task.batch.global=6", "resume=auto", cwd=workspace, PYTHONPATH=str(ROOT))
    lines = (workspace / "other-batch.0").read_text().splitlines()
    videos = Counter()
    for step, ids, _ in map(json.loads, lines):
        videos[step] += len(ids)
    # 12 videos are two steps of 6, and the second epoch's 24 are four.
    assert videos == {step: 6 for step in range(3, 9)}


def test_a_batch_that_cannot_be_made_is_one_line(workspace):
    words = [*WORDS, "task.batch.global=10", "run_dir=runs/no-batch"]
    output = run(*words, cwd=workspace, code=2)
    assert "data.batch_size=2 would do" in output.splitlines()[-1]


def test_the_whole_recipe_of_finetuning_trains(workspace, pretrained):
    data = [word for word in TINY_DATA if "batch_size=4" not in word]
    output = run(
        *("fit", "--config", "demo/finetune_recipe", *TINY_MODEL, *data, *TINY_RUN),
        *("task.batch.global=8", "data.batch_size=4", "task.batch.lr_reference=16"),
        f"task.init_from={pretrained}/checkpoints/last.ckpt",
        "run_dir=runs/recipe",
        cwd=workspace,
    )
    assert "a step is 8 videos, 16 clips: 1 process x 2 batches x 4 videos x 2 clips" in output
    assert "learning rate 0.00035 (0.0007 x 0.5)" in output
    (file,) = (workspace / "runs/recipe/metrics").rglob("metrics.csv")
    rows = list(csv.DictReader(file.read_text().splitlines()))
    rates = [float(row["lr"]) for row in rows if row["lr"]]
    # 6 steps, logged every 2; the cosine falls once the warm-up is over.
    assert len(rates) == 3
    assert max(rates) <= 0.00035
    losses = [float(row["train/loss"]) for row in rows if row["train/loss"]]
    assert all(0 < loss < 10 for loss in losses)
