"""Two processes through the real command; Hydra's relaunch is where this would break."""

import json

import numpy as np
import pyarrow.parquet as pq
import torch

from tests.integration.conftest import TINY_DATA, TINY_MODEL, TINY_RUN, run

# 24 training videos are 3 batches of 4 on each of 2 processes; 15 test videos leave one over.
TWO = ["trainer.devices=2"]


def words(command, run_dir, *more):
    odd = ["data.videos=[24,8,24]", "+trainer.limit_predict_batches=1.0"]
    config = [command, "--config", "demo/finetune", f"run_dir={run_dir}"]
    return [*config, *TINY_MODEL, *TINY_DATA, *odd, *TINY_RUN, *more]


def test_fit_and_test_on_two_processes(workspace):
    output = run(*words("fit", "runs/two", *TWO), cwd=workspace)
    assert "step 6/6" in output
    assert output.count("fit demo/finetune ->") == 1  # the second process is silent
    checkpoint = torch.load(workspace / "runs/two/checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 6
    assert not list((workspace / "runs/demo/finetune").glob("fit-*two*"))

    tables, results = [], []
    for name, more in (("one-test", []), ("two-test", TWO)):
        # A list of 15 videos: the processes get 8 and 7.
        run(*words("test", f"runs/{name}", "ckpt_path=runs/two", *more), cwd=workspace)
        tables.append(pq.read_table(workspace / f"runs/{name}/predictions.parquet").to_pydict())
        results.append(json.loads((workspace / f"runs/{name}/results.json").read_text()))
    one, two = tables
    for column in ("video_id", "path", "label", "temporal_view", "spatial_view"):
        assert one[column] == two[column]
    difference = np.abs(np.array(one["probabilities"]) - np.array(two["probabilities"])).max()
    assert difference < 1e-5
    assert results[0] == results[1]
