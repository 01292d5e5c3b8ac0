"""Two processes through the real command; Hydra's relaunch is where this would break."""

import json

import numpy as np
import pyarrow.parquet as pq
import torch

from tests.integration.conftest import TINY_DATA, TINY_MODEL, TINY_RUN, run

TWO = ["trainer.devices=2"]


def words(command, run_dir, *more):
    config = [command, "--config", "demo/finetune", f"run_dir={run_dir}", "data=folder"]
    lists = ["data.root=data", "data.train=train.txt", "data.val=test.txt", "data.test=test.txt"]
    clips = ["data.num_frames=4", "data.size=[64,64]", "data.batch_size=4", "data.num_workers=1"]
    views = ["data.eval_batch_size=2", "data.test_views=[2,3]"]
    return [*config, *TINY_MODEL, *lists, *clips, *views, *TINY_RUN, *more]


def write_lists(workspace):
    """25 training and 15 test videos: 2 divides neither."""
    videos = sorted((workspace / "data").rglob("train/*/*.mp4"))
    names = sorted({video.parent.name for video in videos})
    lines = [
        f"{video.relative_to(workspace / 'data')} {names.index(video.parent.name)}"
        for video in videos
    ]
    (workspace / "data/train.txt").write_text("\n".join([*lines, lines[0]]))
    (workspace / "data/test.txt").write_text("\n".join(lines[:15]))


def test_fit_and_test_on_two_processes(workspace, pretrained):
    write_lists(workspace)
    output = run(*words("fit", "runs/two", *TWO), cwd=workspace)
    assert "step 6/6" in output
    assert output.count("fit demo/finetune ->") == 1  # the second process is silent
    checkpoint = torch.load(workspace / "runs/two/checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 6

    tables, results = [], []
    for name, more in (("one-test", []), ("two-test", TWO)):
        # The two processes get 8 and 7 of the 15 videos.
        run(*words("test", f"runs/{name}", "ckpt_path=runs/two", *more), cwd=workspace)
        tables.append(pq.read_table(workspace / f"runs/{name}/predictions.parquet").to_pydict())
        results.append(json.loads((workspace / f"runs/{name}/results.json").read_text()))
    one, two = tables
    for column in ("video_id", "path", "label", "temporal_view", "spatial_view"):
        assert one[column] == two[column]
    difference = np.abs(np.array(one["probabilities"]) - np.array(two["probabilities"])).max()
    assert difference < 1e-5
    assert results[0] == results[1]


def test_a_sweep_on_two_processes_runs_each_job_once(workspace):
    sweep = ["--multirun", "seed=3,4", "trainer.max_epochs=1", "hydra.sweep.dir=sweep"]
    config = ["fit", "--config", "demo/finetune", *TINY_MODEL, *TINY_DATA, *TINY_RUN]
    output = run(*config, *sweep, *TWO, cwd=workspace)
    assert output.count("fit demo/finetune ->") == 2
    for job, seed in enumerate((3, 4)):
        (record,) = json.loads((workspace / f"sweep/{job}/run.json").read_text())
        assert (record["seed"], record["world_size"]) == (seed, 2)
        assert (workspace / f"sweep/{job}/checkpoints/last.ckpt").exists()
    assert sorted(p.name for p in (workspace / "sweep").iterdir()) == ["0", "1", "multirun.yaml"]
