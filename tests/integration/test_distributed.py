"""Several processes through the real command; Hydra's relaunch is where this would break."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from tests.integration import forked
from tests.integration.conftest import TINY_DATA, TINY_MODEL, TINY_RUN, run
from tests.integration.forked import run_several

TWO = ["trainer.devices=2"]


def words(command, run_dir, *more):
    config = [command, "--config", "demo/finetune", f"run_dir={run_dir}", "data=folder"]
    lists = ["data.root=data", "data.train=train.txt", "data.val=test.txt", "data.test=test.txt"]
    clips = ["data.num_frames=4", "data.size=[64,64]", "data.batch_size=4", "data.num_workers=1"]
    views = ["data.eval_batch_size=2", "data.test_views=[2,3]"]
    return [*config, *TINY_MODEL, *lists, *clips, *views, *TINY_RUN, *more]


def write_lists(workspace):
    """25 training and 17 test videos: neither 2 nor 3 divides them."""
    videos = sorted((workspace / "data").rglob("train/*/*.mp4"))
    names = sorted({video.parent.name for video in videos})
    lines = [
        f"{video.relative_to(workspace / 'data')} {names.index(video.parent.name)}"
        for video in videos
    ]
    (workspace / "data/train.txt").write_text("\n".join([*lines, lines[0]]))
    (workspace / "data/test.txt").write_text("\n".join(lines[:17]))


def test_fit_on_two_processes_and_test_on_several(workspace, pretrained):
    write_lists(workspace)
    output = run(*words("fit", "runs/two", *TWO), cwd=workspace)
    assert "step 6/6" in output
    assert output.count("fit demo/finetune ->") == 1  # the second process is silent
    checkpoint = torch.load(workspace / "runs/two/checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 6

    tables, results = [], []
    for processes in (1, 2, 3):
        run_dir = f"runs/test-{processes}"
        more = ["runs/two", f"trainer.devices={processes}", f"run_dir={run_dir}"]
        if processes == 2:  # the first one starts the second
            run("test", *more, cwd=workspace)
        else:
            run_several("test", *more, processes=processes, cwd=workspace)
        tables.append(pq.read_table(workspace / run_dir / "predictions.parquet"))
        results.append(json.loads((workspace / run_dir / "results.json").read_text()))
    for table, result in zip(tables[1:], results[1:], strict=True):
        assert table.drop(["probabilities"]).equals(tables[0].drop(["probabilities"]))
        values = [np.array(t["probabilities"].to_pylist()) for t in (tables[0], table)]
        assert np.abs(values[0] - values[1]).max() < 1e-6
        assert result == results[0]
    assert results[0]["videos"] == 17
    offline = ["evaluate", "--task", "classification", "runs/test-3", "--json"]
    output = forked.run(*offline, cwd=workspace)  # with the progress, which goes to stderr
    assert json.loads(output[output.index("{") :]) == results[0]


@pytest.mark.slow
def test_a_sweep_on_two_processes_runs_each_job_once(workspace):
    sweep = ["--multirun", "seed=3,4", "trainer.max_epochs=1", "hydra.sweep.dir=sweep"]
    config = ["fit", "--config", "demo/finetune", *TINY_MODEL, *TINY_DATA, *TINY_RUN]
    output = run(*config, *sweep, *TWO, cwd=workspace)
    assert output.count("fit demo/finetune ->") == 2
    for job, seed in enumerate((3, 4)):
        (record,) = json.loads((workspace / f"sweep/{job}/run.json").read_text())
        assert (record["seed"], record["world_size"]) == (seed, 2)
        assert (workspace / f"sweep/{job}/checkpoints/last.ckpt").exists()
    files = sorted(p.name for p in (workspace / "sweep").iterdir())
    assert files == [".jobs", "0", "1", "multirun.yaml", "sweep.json"]
    table = json.loads((workspace / "sweep/sweep.json").read_text())
    assert {(job["number"], job["status"]) for job in table} == {(0, "finished"), (1, "finished")}
    assert all(job["metric"] == "val/top1" and 0 <= job["value"] <= 1 for job in table)
    assert output.count("jobs of sweep, highest val/top1 first:") == 1
