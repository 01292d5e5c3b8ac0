"""A run, its folder and its checkpoints: through the commands."""

import csv
import json
import shutil
import time

import pytest
import torch

from tests.integration.conftest import ROOT, TINY_DATA, TINY_MAE, TINY_RUN
from tests.integration.forked import Command, run, run_two

WORDS = ["fit", "--config", "demo/pretrain", *TINY_MAE, *TINY_DATA, *TINY_RUN]


def checkpoint(run_dir, name="last"):
    return torch.load(run_dir / f"checkpoints/{name}.ckpt", weights_only=True)


@pytest.fixture(scope="module")
def finished(workspace):
    """Run folder of a training of two epochs, of 6 steps each."""
    run(*WORDS, "run_dir=runs/finished", cwd=workspace)
    return workspace / "runs/finished"


@pytest.fixture
def trained(finished, tmp_path):
    """A copy of it, to be changed."""
    return shutil.copytree(finished, tmp_path / "run")


def test_a_damaged_last_checkpoint_is_named_and_replaced(workspace, trained):
    last = trained / "checkpoints/last.ckpt"
    assert checkpoint(trained, "previous")["global_step"] == 6
    last.write_bytes(last.read_bytes()[:-1])
    words = [f"resume={trained}", "trainer.max_epochs=3"]
    output = run("fit", *words, cwd=workspace, code=2)
    line = output.splitlines()[-1]
    assert "last.ckpt: " in line
    assert "damaged" in line
    assert "previous.ckpt is whole: use it instead" in line
    # What holds for the whole run is said by one of its processes.
    words = [*WORDS, f"run_dir={trained}", "resume=auto", "trainer.max_epochs=3"]
    words += ["trainer.devices=2", "data.batch_size=2", "data.videos=[32,8,16]"]
    output = run_two(*words, "task.warmup_epochs=3", cwd=workspace)
    assert output.count(f"; going on from {trained}/checkpoints/previous.ckpt") == 1
    assert "previous.ckpt: step 6, epoch 2" in output
    assert output.count("resumed with 32 training videos; there were 24 of them before") == 1
    assert output.count("the learning rate never falls") == 1
    assert checkpoint(trained)["global_step"] == 6 + 2 * 8


def test_a_finished_run_says_so(workspace, trained):
    output = run("fit", f"resume={trained}", cwd=workspace)
    assert "is of a run that is finished: 2 epochs, 12 steps; to train on, raise" in output
    output = run("fit", f"resume={trained}", "trainer.max_epochs=1", cwd=workspace, code=2)
    assert "has had 2 epochs, more than trainer.max_epochs=1" in output.splitlines()[-1]


def test_a_changed_rate_holds_and_logs_go_on_in_one_file(workspace, trained):
    (trained / "run.json").write_text((trained / "run.json").read_text() + "garbage")
    words = [f"resume={trained}", "trainer.max_epochs=3", "task.lr=5e-4", "task.min_lr=5e-4"]
    output = run("fit", *words, cwd=workspace)
    assert "run.json: not a JSON list" in output
    assert len(json.loads((trained / "run.json").read_text())) == 1
    (file,) = (trained / "metrics").rglob("*.csv")
    rows = list(csv.DictReader(file.read_text().splitlines()))
    rates = {int(row["step"]): float(row["lr"]) for row in rows if row["lr"]}
    assert list(rates) == [1, 3, 5, 7, 9, 11, 13, 15, 17]
    assert rates[13] == rates[17] == 5e-4 != rates[11]
    losses = [int(row["step"]) for row in rows if row["train/loss"]]
    assert losses == list(rates)
    groups = checkpoint(trained)["optimizer_states"][0]["param_groups"]
    assert {group["lr"] for group in groups} == {5e-4}


def test_another_optimiser_is_refused(workspace, trained):
    sgd = ["task.optimizer._target_=torch.optim.SGD", "~task.optimizer.betas"]
    output = run("fit", f"resume={trained}", *sgd, cwd=workspace, code=2)
    assert "was trained by torch.optim.AdamW, not torch.optim.SGD" in output.splitlines()[-1]


def test_an_epoch_cut_short_by_max_steps_is_gone_on_with(workspace, tmp_path):
    record = ["+callbacks.record._target_=tests.integration.stopping.Record"]
    record += [f"+callbacks.record.path={tmp_path}/batches"]
    words = [*WORDS, *record, f"run_dir={tmp_path}/run"]
    run(*words, "trainer.max_steps=4", cwd=workspace, PYTHONPATH=str(ROOT))
    output = run(*words, "resume=auto", cwd=workspace, PYTHONPATH=str(ROOT))
    assert "last.ckpt: step 4, epoch 1, after 4 batches of it" in output
    rows = [json.loads(line) for line in (tmp_path / "batches.0").read_text().splitlines()]
    assert [step for step, *_ in rows] == list(range(12))
    assert sorted(video for _, videos, _ in rows[:6] for video in videos) == list(range(24))
    (file,) = (tmp_path / "run/metrics").rglob("*.csv")
    steps = [int(r["step"]) for r in csv.DictReader(file.read_text().splitlines()) if r["lr"]]
    assert steps == [1, 3, 5, 7, 9, 11]


@pytest.mark.parametrize(
    "launcher", [{}, pytest.param({"HIERA_VIDEO_RUN_ID": "job"}, marks=pytest.mark.slow)]
)
def test_two_runs_at_once_have_a_folder_each_or_one_of_them_stops(tmp_path, workspace, launcher):
    data = workspace / "data"
    words = [*WORDS, f"data.root={data}/synthetic"]
    commands = [Command(*words, cwd=tmp_path, **launcher) for _ in range(2)]
    outputs = [command.wait(code=None) for command in commands]
    folders = list((tmp_path / "runs/demo/pretrain").iterdir())
    assert len(folders) == 2 - len(launcher)
    for folder in folders:
        assert checkpoint(folder)["global_step"] == 12
        assert len(json.loads((folder / "run.json").read_text())) == 1
    refused = [output for output in outputs if "is training there" in output.splitlines()[-1]]
    assert len(refused) == len(launcher)


def test_auto_leaves_a_run_alone_that_is_under_way(tmp_path, workspace):
    words = [*WORDS, f"data.root={workspace}/data/synthetic"]
    wait = ["+callbacks.wait._target_=tests.integration.stopping.WaitAt"]
    wait += ["+callbacks.wait.step=8", f"+callbacks.wait.path={tmp_path}/end"]
    first = Command(*words, *wait, cwd=tmp_path, PYTHONPATH=str(ROOT))
    while not list(tmp_path.glob("runs/demo/pretrain/*/checkpoints/last.ckpt")):
        time.sleep(0.05)
    output = run(*words, "resume=auto", cwd=tmp_path)
    assert "a new one starts" in output
    assert len(list(tmp_path.glob("runs/demo/pretrain/*"))) == 2
    (tmp_path / "end").touch()
    first.wait()


def contents(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def test_a_refused_start_changes_nothing_in_the_folder_of_a_live_run(tmp_path, workspace):
    words = [*WORDS, f"data.root={workspace}/data/synthetic", f"run_dir={tmp_path}/run"]
    wait = ["+callbacks.wait._target_=tests.integration.stopping.WaitAt"]
    wait += ["+callbacks.wait.step=8", f"+callbacks.wait.path={tmp_path}/end"]
    first = Command(*words, *wait, cwd=tmp_path, PYTHONPATH=str(ROOT))
    while not (tmp_path / "run/checkpoints/last.ckpt").exists():
        time.sleep(0.05)
    time.sleep(0.5)  # it waits by now
    before = contents(tmp_path / "run")
    for more in ([], ["resume=auto"], ["task.lr=1e-3", f"resume={tmp_path}/run"]):
        output = run(*words, *more, cwd=tmp_path, code=2)
        assert "is training there" in output.splitlines()[-1]
    # A second process leaves it to the first to be refused; this one fails before they meet.
    run(*words, "+task.optimizer.lr=1", cwd=tmp_path, code=2, RANK="1", LOCAL_RANK="1")
    assert contents(tmp_path / "run") == before
    (tmp_path / "end").touch()
    first.wait()


def test_a_refused_start_changes_nothing_in_the_folder_of_an_earlier_run(workspace, trained):
    before = contents(trained)
    run(*WORDS, f"run_dir={trained}", "task.lr=1e-3", cwd=workspace, code=2)
    before.pop(trained / ".lock"), (after := contents(trained)).pop(trained / ".lock")
    assert after == before


@pytest.mark.parametrize(
    "word",
    [
        "+task.optimizer.lr=1",
        "task.optimizer.weight_decay=1",
        "trainer.strategy=fsdp",
        "+trainer.callbacks=[]",
        "task.epochs.count=null",
        "+trainer.strategy._target_=lightning.pytorch.strategies.ModelParallelStrategy",
        "data.batch_size=100",
    ],
)
def test_starts_that_fail_leave_nothing(tmp_path, workspace, word):
    words = [*WORDS, f"data.root={workspace}/data/synthetic", "trainer.max_epochs=-1"]
    if "_target_" in word:
        words.append("~trainer.strategy")
    output = run(*words, word, cwd=tmp_path, code=2)
    assert output.splitlines()[-1].startswith("hiera-video: ")
    assert not list(tmp_path.iterdir())


def test_a_start_that_fails_leaves_what_was_in_the_folder(tmp_path, workspace):
    mine = tmp_path / "run/tensorboard/mine"
    mine.parent.mkdir(parents=True)
    mine.write_text("kept")
    words = [*WORDS, f"data.root={workspace}/data/synthetic", "run_dir=run", "data.batch_size=100"]
    run(*words, cwd=tmp_path, code=2)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["tensorboard"]
    assert mine.read_text() == "kept"


def test_the_error_of_another_process_is_not_buried(workspace, tmp_path):
    fail = ["+callbacks.fail._target_=tests.integration.stopping.FailIn"]
    fail += ["+callbacks.fail.hook=on_train_batch_end", "+callbacks.fail.step=2"]
    words = [*WORDS, *fail, "trainer.devices=2"]
    output = run_two(*words, f"run_dir={tmp_path}/run", cwd=workspace, code=1, PYTHONPATH=str(ROOT))
    errors = [line for line in output.splitlines() if line.startswith("hiera-video: ")]
    assert sorted(errors) == [
        "hiera-video: another process of this run has ended; what it printed says why",
        "hiera-video: this is the cause",
    ]
    assert "Traceback" not in output


def test_slurm_has_started_too_few_processes(tmp_path):
    slurm = {"SLURM_JOB_ID": "5", "SLURM_NTASKS": "1", "SLURM_JOB_NAME": "train"}
    slurm |= {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}
    for tasks in ({}, {"SLURM_NTASKS_PER_NODE": "1"}):
        words = [*WORDS, "trainer.devices=2", f"data.root={tmp_path}/data"]
        output = run(*words, cwd=tmp_path, code=2, **slurm, **tasks)
        assert "1 processes were started for 2 devices on 1 nodes" in output.splitlines()[-1]
    assert not list(tmp_path.glob("runs/*"))
