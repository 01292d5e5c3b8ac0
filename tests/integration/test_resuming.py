"""A run that is killed goes on with the very next batch after its last checkpoint."""

import json
from functools import cache

import pytest
import torch

from tests.integration import conftest
from tests.integration.conftest import ROOT, TINY_DATA, TINY_MAE, TINY_RUN
from tests.integration.forked import THREADS, run, run_two

# Six batches an epoch; drop path draws random numbers in the network, too.
WORDS = ["fit", "--config", "demo/pretrain", *TINY_MAE, *TINY_RUN]
WORDS += ["+model.drop_path_rate=0.3"]
WORDS += ["callbacks.recovery.every_n_epochs=null", "+callbacks.recovery.every_n_train_steps=1"]
WORDS += ["callbacks.recovery.save_on_train_epoch_end=false"]
DATA = ["data.num_workers=1", "data.repeats=2"]
PACK = ["data=folder", "data.root=ready/packed", "data.train=.", "data.val=null", "data.fps=30"]
PACK += ["data.crop_scale=[0.8,1.0]", *(word for word in TINY_DATA if "video" not in word)]
VARIANTS = {
    "plain": [],
    "packed": [],
    "accumulating": ["trainer.accumulate_grad_batches=2"],
    "two processes": ["trainer.devices=2", "data.batch_size=2"],
}


def recorded(name, ranks, workspace):
    """Of each rank, the batches: (video ids, seeds), and the global step before each."""
    rows = []
    for rank in range(ranks):
        with open(workspace / f"{name}.{rank}") as file:
            rows.append([json.loads(line) for line in file])
    return rows


def record(name):
    target = "tests.integration.stopping.Record"
    return [f"+callbacks.record._target_={target}", f"+callbacks.record.path={name}"]


def weights(workspace, name):
    path = workspace / f"runs/{name}/checkpoints/last.ckpt"
    return torch.load(path, weights_only=True)["state_dict"]


def fit(workspace, variant, run_dir, *more, code: int | None = 0):
    data = [*(PACK if variant == "packed" else TINY_DATA), *DATA]
    words = [*WORDS, *data, *VARIANTS[variant], f"run_dir=runs/{run_dir}", *more]
    start = run
    if "trainer.devices=2" in words:
        # Of one that is killed Lightning starts the second process, of others a launcher both.
        start = run_two if code == 0 else conftest.run
    start(*words, cwd=workspace, code=code, PYTHONPATH=str(ROOT), **THREADS)


@pytest.fixture(scope="module")
def whole(workspace):
    """A function that gives the batches of a variant's unbroken run."""

    @cache
    def batches(variant):
        name = f"whole {variant}"
        fit(workspace, variant, name, *record(name))
        return recorded(name, 2 if "two" in variant else 1, workspace)

    return batches


@pytest.fixture(scope="module")
def packed(workspace, whole):
    """The training videos as tar files, in ``ready/packed``."""
    whole("plain")
    (videos,) = workspace.glob("data/synthetic/motion-*/train")
    run("prepare", videos, "--out", "ready", "--pack", cwd=workspace)


# An epoch has six batches, or three steps of two batches, and the run has two epochs. Two processes
# are stopped and go on in test_submitit.py, too.
@pytest.mark.parametrize(
    ("variant", "batch"),
    [
        ("plain", 6),
        *(
            pytest.param(variant, batch, marks=pytest.mark.slow)
            for variant, batches in {
                "plain": (1, 2, 5, 7, 11),
                "packed": (7,),
                "accumulating": (2, 4, 5, 6, 8, 10),
                "two processes": (1, 5, 6, 7, 11),
            }.items()
            for batch in batches
        ),
    ],
)
def test_a_run_that_is_killed_before_a_batch_goes_on_there(
    workspace, whole, request, variant, batch
):
    if variant == "packed":
        request.getfixturevalue("packed")
    unbroken = "plain" if variant == "packed" else variant  # the same batches, from packs
    expected = whole(unbroken)
    name = f"killed {variant} {batch}"
    kill = ["+callbacks.kill._target_=tests.integration.stopping.KillAt"]
    kill += [f"+callbacks.kill.batch={batch}"]
    fit(workspace, variant, name, *record(name), *kill, code=None)
    fit(workspace, variant, name, *record(f"{name} on"), "resume=auto")
    before = recorded(name, len(expected), workspace)
    after = recorded(f"{name} on", len(expected), workspace)
    # Batches in the last checkpoint.
    saved = batch - batch % (2 if variant == "accumulating" else 1)
    for rank, batches in enumerate(expected):
        assert len(batches) == 12
        assert before[rank][:saved] == batches[:saved]
        assert after[rank] == batches[saved:]
    for key, value in weights(workspace, f"whole {unbroken}").items():
        assert torch.equal(weights(workspace, name)[key], value), key


TWO = ["trainer.devices=2", "data.batch_size=2"]


@pytest.mark.parametrize(
    ("first", "batch", "then", "rest"),
    [
        (["data.batch_size=3"], 4, TWO, 3),  # 12 of 24 videos are had; 3 batches of 2 x 2 follow
        pytest.param(TWO, 2, ["data.batch_size=3"], 5, marks=pytest.mark.slow),
        pytest.param(TWO, 6, ["data.batch_size=3"], 0, marks=pytest.mark.slow),  # all were had
        pytest.param(
            ["data.batch_size=3"], 7, [TWO[0], "data.batch_size=4"], 0, marks=pytest.mark.slow
        ),
    ],
)
def test_another_number_of_processes_or_batch_size_sees_the_rest_of_the_epoch_once(
    workspace, whole, first, batch, then, rest
):
    order = sum((videos for _, videos, _ in whole("plain")[0][:6]), [])[::2]
    name = f"other {batch}"
    kill = ["+callbacks.kill._target_=tests.integration.stopping.KillAt"]
    kill += [f"+callbacks.kill.batch={batch}"]
    fit(workspace, "plain", name, *record(name), *kill, *first, code=None)
    fit(workspace, "plain", name, *record(f"{name} on"), "resume=auto", *then)
    before = recorded(name, 1 + (first == TWO), workspace)
    after = recorded(f"{name} on", len(then), workspace)
    had = [video for rank in before for _, videos, _ in rank[:batch] for video in videos[::2]]
    assert sorted(had) == sorted(order[: len(had)])
    seen = [video for rank in after for _, videos, _ in rank[:rest] for video in videos[::2]]
    assert sorted(seen) == sorted(order[len(had) :][: len(seen)])
    size = int(then[-1].rpartition("=")[2]) * len(then)
    assert 24 - len(had) - len(seen) < size  # less than one step is left out
    for rank in after:  # and the next epoch is a whole one
        assert len(rank) == rest + 24 // size
    videos = [video for rank in after for _, videos, _ in rank[rest:] for video in videos[::2]]
    assert sorted(videos) == list(range(24))
