"""Training with sharded parameters is the same training, on any number of processes."""

import csv
import json

import pytest
import torch

from tests.integration import forked
from tests.integration.conftest import TINY_DATA, TINY_MAE, TINY_MODEL, TINY_RUN
from tests.integration.forked import run_several

CLASSIFIER = ["--config", "demo/finetune", *TINY_MODEL, *TINY_DATA, "task.layer_decay=0.7"]
AUTOENCODER = ["--config", "demo/pretrain", *TINY_MAE, *TINY_DATA]


def fit(config, name, workspace, *more, processes=1, trainer="fsdp2", videos=4):
    words = ["fit", *config, f"trainer={trainer}", *TINY_RUN, f"run_dir=runs/sharding/{name}"]
    words += [f"data.batch_size={videos // processes}", "trainer.log_every_n_steps=1"]
    words += [f"trainer.devices={processes}", *more]
    if processes == 1:
        return forked.run(*words, cwd=workspace)
    return run_several(*words, processes=processes, cwd=workspace)


def curve(name, workspace, columns=("train/loss", "train/grad_norm")):
    """Loss and gradient norm of each step, or other columns."""
    with open(
        workspace / f"runs/sharding/{name}/metrics/version_0/metrics.csv", newline=""
    ) as file:
        rows = [row for row in csv.DictReader(file) if row[columns[0]]]
    return torch.tensor([[float(row[column]) for column in columns] for row in rows])


def checkpoint(name, workspace, file="last.ckpt"):
    return torch.load(workspace / f"runs/sharding/{name}/checkpoints/{file}", weights_only=True)


def assert_same(one, other, tolerance):
    """Weights, their average and the optimiser's state, in which names and numbers agree, too."""
    assert one.keys() == other.keys()
    assert one["global_step"] == other["global_step"]
    for part in {"state_dict", "current_model_state", "averaging_state"} & one.keys():
        torch.testing.assert_close(one[part], other[part], rtol=0, atol=tolerance)
    (mine,), (theirs,) = one["optimizer_states"], other["optimizer_states"]
    assert [g["names"] for g in mine["param_groups"]] == [
        g["names"] for g in theirs["param_groups"]
    ]
    torch.testing.assert_close(mine["state"], theirs["state"], rtol=0, atol=tolerance)


# In bfloat16, and with pictures by the first process alone.
HALF = [*AUTOENCODER, "trainer.precision=bf16-mixed", "trainer.num_sanity_val_steps=1"]


@pytest.mark.parametrize(
    ("name", "config", "tolerance"),
    [
        ("classifier", CLASSIFIER, 1e-4),
        pytest.param("autoencoder", AUTOENCODER, 1e-4, marks=pytest.mark.slow),
        pytest.param("half", HALF, 5e-3, marks=pytest.mark.slow),
    ],
)
def test_two_sharded_processes_train_as_one(name, config, tolerance, workspace):
    fit(config, f"{name}-one", workspace, trainer="default")
    output = fit(config, f"{name}-two", workspace, processes=2)
    assert "2 processes x 1 batch x 2 videos" in output
    expected, actual = curve(f"{name}-one", workspace), curve(f"{name}-two", workspace)
    assert len(expected) == 12
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)
    if config is not HALF:  # the optimiser magnifies the noise of the smallest gradients
        assert_same(*(checkpoint(f"{name}-{n}", workspace) for n in ("one", "two")), tolerance)


@pytest.mark.parametrize("trainer", [pytest.param("ddp", marks=pytest.mark.slow), "fsdp2"])
def test_gradients_accumulate_as_in_one_process(trainer, workspace):
    more = ["trainer.accumulate_grad_batches=2", "trainer.max_epochs=1"]
    more += ["model.grad_checkpointing=true"]
    fit(AUTOENCODER, f"sum-{trainer}-one", workspace, *more, trainer="cpu", videos=2)
    fit(AUTOENCODER, f"sum-{trainer}", workspace, *more, processes=2, trainer=trainer, videos=2)
    ends = (checkpoint(f"sum-{trainer}{n}", workspace) for n in ("-one", ""))
    assert_same(*ends, 1e-4)


def test_a_run_goes_on_sharded_and_back(workspace):
    """Each goes on from a checkpoint of another one, to the same weights and the same average."""
    every_epoch = ["callbacks.recovery.save_top_k=-1", "callbacks.recovery.filename='{epoch}'"]
    every_epoch += ["trainer.max_epochs=3", "callbacks.ema.decay=0.9"]
    fit(AUTOENCODER, "whole", workspace, *every_epoch, trainer="cpu")
    losses = curve("whole", workspace, ["val/loss"])  # of the average
    for name, trainer, processes, source in (
        ("sharded", "fsdp2", 2, "whole/checkpoints/epoch=0.ckpt"),
        ("ddp", "ddp", 2, "sharded/checkpoints/epoch=1.ckpt"),
        ("single", "cpu", 1, "sharded/checkpoints/epoch=1.ckpt"),
    ):
        (workspace / f"runs/sharding/{name}").mkdir()
        more = [*every_epoch, f"resume='runs/sharding/{source}'"]
        fit(AUTOENCODER, name, workspace, *more, processes=processes, trainer=trainer)
        expected, end = (checkpoint(run, workspace, "epoch=2.ckpt") for run in ("whole", name))
        assert_same(end, expected, 1e-4)
        evaluated = curve(name, workspace, ["val/loss"])
        torch.testing.assert_close(evaluated, losses[-len(evaluated) :], rtol=1e-4, atol=1e-4)
    key = "model.decoder_pred.weight"  # the average lags behind
    assert (expected["state_dict"][key] - expected["current_model_state"][key]).abs().max() > 5e-4


def test_a_test_with_sharded_weights_is_the_same(workspace):
    """8 videos on three processes: one has fewer batches than the others."""
    fit(CLASSIFIER, "tested", workspace, trainer="cpu")
    results = []
    for trainer, processes in (("cpu", 1), ("fsdp2", 3)):
        words = ["test", *CLASSIFIER, f"trainer={trainer}", *TINY_RUN, "data.eval_batch_size=1"]
        words += ["ckpt_path=runs/sharding/tested", "data.videos=[24,8,8]", "data.root=data/eight"]
        words += [f"trainer.devices={processes}", f"run_dir=runs/sharding/test-{processes}"]
        if processes == 1:
            forked.run(*words, cwd=workspace)
        else:
            run_several(*words, processes=processes, cwd=workspace)
        path = workspace / f"runs/sharding/test-{processes}/results.json"
        results.append(json.loads(path.read_text()))
    assert results[0] == results[1]


@pytest.mark.parametrize(
    ("more", "refused"),
    [
        (["trainer.precision=16-mixed"], "trainer: The `ModelParallelStrategy` does not support"),
        (
            ["+callbacks.swa._target_=lightning.pytorch.callbacks.WeightAveraging"],
            "callbacks: WeightAveraging cannot average a sharded network",
        ),
    ],
)
def test_what_does_not_go_with_sharding_is_one_line(more, refused, workspace):
    words = ["fit", *CLASSIFIER, "trainer=fsdp2", *TINY_RUN, *more, "run_dir=runs/sharding/refused"]
    output = forked.run(*words, cwd=workspace, code=2)
    assert output.splitlines()[-1].startswith(f"hiera-video: {refused}")
    assert "Traceback" not in output


@pytest.mark.slow
def test_a_validation_that_is_due_comes_first_after_a_resume(workspace):
    """The run ended at its last step, before the validation that follows it."""
    end = ["trainer.max_epochs=-1", "trainer.max_steps=6"]
    every_step = ["callbacks.recovery.every_n_epochs=null"]
    every_step += ["+callbacks.recovery.every_n_train_steps=6"]
    every_step += ["callbacks.recovery.save_on_train_epoch_end=false"]
    config = [*AUTOENCODER, *end, *every_step]
    fit(config, "due", workspace, trainer="cpu")
    (workspace / "runs/sharding/due-again").mkdir()
    resume = "resume=runs/sharding/due/checkpoints/last.ckpt"
    output = fit(config, "due-again", workspace, resume, processes=2)
    assert "val/loss" in output
