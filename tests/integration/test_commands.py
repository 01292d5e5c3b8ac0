"""The commands as a user runs them."""

import csv
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.integration import conftest
from tests.integration.conftest import TINY_DATA, TINY_MODEL, TINY_RUN
from tests.integration.forked import run


def events(run_dir):
    accumulator = EventAccumulator(str(run_dir / "tensorboard"))
    accumulator.Reload()
    return accumulator.Tags()


def metrics(run_dir):
    (file,) = run_dir.glob("metrics/version_0/metrics.csv")
    with open(file) as lines:
        return list(csv.DictReader(lines))


def test_pretraining_leaves_a_complete_run_folder(pretrained):
    record = json.loads((pretrained / "run.json").read_text())[0]
    assert record["seed"] == 0
    assert record["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert "fit" in record["argv"]
    assert (pretrained / "log.log").read_text().count("step ") >= 6
    losses = [float(row["train/loss"]) for row in metrics(pretrained) if row["train/loss"]]
    assert len(losses) == 6
    assert all(0 < loss < 10 for loss in losses)
    tags = events(pretrained)
    assert "reconstruction" in tags["images"]
    assert {"train/loss", "val/loss"} <= set(tags["scalars"])
    with Image.open(pretrained / "reconstructions/step-0000012.png") as picture:
        # Captions beside 2 predicted frames; 4 pictures of each of 3 clips.
        assert picture.size == (100 + (64 + 4) * 2, (64 + 4) * 4 * 3)
    checkpoint = torch.load(pretrained / "checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 12
    assert checkpoint["config"]["model"]["embed_dim"] == 8
    assert all(key.startswith("model.") for key in checkpoint["state_dict"])


def test_the_saved_config_runs_again(pretrained, workspace):
    config = yaml.safe_load((pretrained / "config.yaml").read_text())
    assert config["trainer"]["max_epochs"] == 2
    output = run(
        *("fit", "--config", pretrained / "config.yaml", "trainer.max_epochs=1"),
        "trainer.check_val_every_n_epoch=null",
        cwd=workspace,
    )
    again = workspace / output.rpartition("results in ")[2].strip()
    assert again != pretrained
    first = [row["train/loss"] for row in metrics(pretrained) if row["train/loss"]]
    second = [row["train/loss"] for row in metrics(again) if row["train/loss"]]
    assert float(second[0]) == pytest.approx(float(first[0]), rel=1e-4)


def test_finetuning_says_what_it_loaded_and_validates(finetuned):
    run_dir, output = finetuned
    assert "loaded" in output
    assert "head" in output
    assert (run_dir / "checkpoints/best.ckpt").exists()
    checkpoint = torch.load(run_dir / "checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["description"]["class_names"][0] == "down"
    assert any(row["val/top1"] for row in metrics(run_dir))


def test_test_writes_all_views_and_the_same_accuracy(finetuned, workspace):
    run_dir, _ = finetuned
    output = run(
        *("test", "--config", "demo/finetune", "run_dir=runs/tested"),
        f"ckpt_path={run_dir}",
        *(*TINY_MODEL, *TINY_DATA, *TINY_RUN),
        cwd=workspace,
    )
    table = pq.read_table(workspace / "runs/tested/predictions.parquet")
    assert table.num_rows == 16 * 6
    assert json.loads(table.schema.metadata[b"class_names"])[0] == "down"
    assert table.schema.metadata[b"temporal_views"] == b"2"
    rows = table.to_pylist()
    keys = [(r["video_id"], r["temporal_view"], r["spatial_view"]) for r in rows]
    assert keys == [(v, t, s) for v in range(16) for t in range(2) for s in range(3)]
    probabilities = np.array([r["probabilities"] for r in rows]).reshape(16, 6, 8)
    assert np.allclose(probabilities.sum(-1), 1, atol=1e-5)
    labels = np.array([r["label"] for r in rows]).reshape(16, 6)[:, 0]
    order = probabilities.astype(np.float64).mean(1).argsort(-1)[:, ::-1]
    results = json.loads((workspace / "runs/tested/results.json").read_text())
    assert results["top1"] == pytest.approx((order[:, 0] == labels).mean())
    assert results["top5"] == pytest.approx((order[:, :5] == labels[:, None]).any(1).mean())
    assert f"test/top1 {results['top1']:.2%}" in output
    assert not list((workspace / "runs/tested").glob("*.part*"))


def test_predict_takes_files_and_folders_and_goes_on_after_a_bad_one(finetuned, workspace):
    run_dir, _ = finetuned
    videos = workspace / "my videos, {new}"
    good = sorted((workspace / "data/synthetic").rglob("test/up/*.mp4"))
    videos.mkdir()
    shutil.copy(good[0], videos / "a=1 'quoted' ü.mp4")
    (videos / "broken.mp4").write_bytes(b"this is no video")
    # Its class names in another order: what is predicted must be named as in the checkpoint.
    checkpoint = torch.load(run_dir / "checkpoints/best.ckpt", weights_only=True)
    names = [f"class {name}" for name in checkpoint["description"]["class_names"]]
    checkpoint["description"]["class_names"] = names
    torch.save(checkpoint, workspace / "renamed.ckpt")
    words = ["predict", "--config", "demo/finetune", "ckpt_path=renamed.ckpt", "data.root=/nowhere"]
    words += [*TINY_MODEL, *TINY_DATA, *TINY_RUN]
    run(*words, "out=answers.jsonl", good[1], "--", "my videos, {new}", cwd=workspace)
    lines = [json.loads(line) for line in (workspace / "answers.jsonl").read_text().splitlines()]
    by_name = {line["path"].rpartition("/")[2]: line for line in lines}
    assert set(by_name) == {good[1].name, "a=1 'quoted' ü.mp4", "broken.mp4"}
    best = by_name["a=1 'quoted' ü.mp4"]["predictions"]
    assert len(best) == 5
    assert {p["label"] for p in best} <= set(names)
    assert best == sorted(best, key=lambda p: -p["probability"])
    assert by_name["broken.mp4"]["error"]
    again = run(*words, "out=answers.jsonl", good[1], cwd=workspace, code=2)
    assert "answers.jsonl exists already; set another out=" in again.splitlines()[-1]
    alone = run(*words, "out=alone.jsonl", good[1], cwd=workspace)
    (line,) = [line for line in alone.splitlines() if line.startswith(f"{good[1]}: ")]
    assert line.count("%") == 5
    assert by_name[good[1].name]["predictions"][0]["label"] in line


def test_weights_of_a_pretraining_cannot_be_evaluated(pretrained, workspace):
    words = [*TINY_MODEL, *TINY_DATA, *TINY_RUN, "run_dir=runs/no-head"]
    weights = f"task.init_from={pretrained}/checkpoints/last.ckpt"
    output = run("test", "--config", "demo/finetune", weights, *words, cwd=workspace, code=2)
    assert "lacks head.projection.weight" in output.splitlines()[-1]


def test_training_in_bfloat16_and_what_may_differ_from_the_checkpoint(finetuned, workspace):
    run_dir, _ = finetuned
    words = ["--config", "demo/finetune", *TINY_MODEL, *TINY_DATA, *TINY_RUN]
    words += ["model.drop_path_rate=0.1", "model.grad_checkpointing=true"]
    more = [f"resume={run_dir}", "run_dir=runs/bf16", "trainer.precision=bf16-mixed"]
    run("fit", *words, *more, "trainer.max_epochs=3", cwd=workspace)
    rows = metrics(workspace / "runs/bf16")
    losses = [float(row["train/loss"]) for row in rows if row["train/loss"]]
    assert len(losses) == 3
    assert all(0 < loss < 10 for loss in losses)


def test_help_is_instant_and_lists_commands_and_configs(tmp_path):
    before = os.times()
    output = conftest.run("--help", cwd=tmp_path)
    after = os.times()  # CPU time: the machine may be busy
    used = after.children_user + after.children_system
    assert used - before.children_user - before.children_system < 1
    for word in (
        "fit",
        "validate",
        "test",
        "predict",
        "models",
        "demo/pretrain",
        "  folder/          finetune pretrain probe",
    ):
        assert word in output
    assert conftest.run("--version", cwd=tmp_path).startswith("hiera-video ")
    assert conftest.run("fit", "--help", cwd=tmp_path).startswith("usage: hiera-video fit")


def test_configs_and_models(tmp_path):
    listed = run("configs", "ls", cwd=tmp_path).split()
    assert "demo/finetune" in listed
    assert "defaults:" in run("configs", "show", "demo/finetune", cwd=tmp_path)
    assert " # " in run("configs", "show", "data/folder", cwd=tmp_path)
    run("configs", "copy", "demo/finetune", "mine.yaml", cwd=tmp_path)
    printed = run("fit", "--config", "mine.yaml", "--cfg", "job", "seed=7", cwd=tmp_path)
    assert (yaml.safe_load(printed)["seed"], yaml.safe_load(printed)["name"]) == (7, "mine")
    assert "exists" in run("configs", "copy", "demo/finetune", "mine.yaml", cwd=tmp_path, code=2)
    assert "hiera_huge_16x224" in run("models", cwd=tmp_path)


def test_completion_offers_keys_or_nothing(tmp_path):
    def offered(line):
        environment = {"COMP_LINE": line, "COMP_POINT": str(len(line))}
        return conftest.run("-sc", "query=bash", cwd=tmp_path, **environment)

    assert "data=" in offered("hiera-video fit --config demo/pretrain dat")
    assert offered("hiera-video fit --config demo/pretrain nothing") == ""
    assert offered("hiera-video fit --config demo/pre") == "demo/pretrain\n"
    assert offered("hiera-video fit --config nothing") == ""


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes_configurations_and_keys(tmp_path):
    program = tmp_path / "hiera-video"  # as pip writes it
    program.write_text(f"#!{sys.executable}\nfrom hiera_video.cli import main\nmain()\n")
    program.chmod(0o755)
    script = """
        eval "$(hiera-video -sc install=bash)"
        complete -p hiera-video
        for COMP_LINE in "hiera-video fit --config demo/pre" \\
                         "hiera-video fit --config folder/finetune task.warm"; do
            COMP_WORDS=($COMP_LINE)
            COMP_POINT=${#COMP_LINE} COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
            hydra_bash_completion
            echo "${COMPREPLY[@]}"
        done
    """
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    environment |= {"PYTHONPATH": str(conftest.ROOT)}
    words = ["bash", "--norc", "-c", script]
    result = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
    function, configuration, keys = result.stdout.splitlines()
    assert function.endswith("-F hydra_bash_completion hiera-video"), result.stderr
    assert configuration == "demo/pretrain"
    assert keys.split() == ["task.warmup_epochs=", "task.warmup_lr="]
