"""A run folder or a checkpoint says what it is: no command needs its configuration again."""

import csv
import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from hiera_video import load
from hiera_video.running.compose import is_trusted
from hiera_video.running.configurations import conf_dir
from hiera_video.running.folders import checkpoint_of
from hiera_video.running.words import translate
from tests.integration.conftest import TINY_DATA, TINY_MAE, TINY_MODEL, TINY_RUN
from tests.integration.forked import run

LEGACY = Path(__file__).parents[1] / "legacy"
CPU = ["trainer.accelerator=cpu", "trainer.devices=1"]


def results(folder):
    return json.loads((folder / "results.json").read_text())


def labels(file):
    return [
        [prediction["label"] for prediction in json.loads(line)["predictions"]]
        for line in file.read_text().splitlines()
    ]


@pytest.fixture(scope="module")
def tested(workspace, finetuned):
    """Results of a test that was told everything again."""
    words = ["--config", "demo/finetune", *TINY_MODEL, *TINY_DATA, *CPU]
    run("test", *words, f"ckpt_path={finetuned[0]}", "run_dir=runs/told", cwd=workspace)
    return results(workspace / "runs/told")


def test_a_classifier_is_tested_from_its_folder_and_from_a_checkpoint(
    workspace, finetuned, tested, tmp_path
):
    run_dir, _ = finetuned
    run("test", run_dir, "run_dir=runs/alone", *CPU, cwd=workspace)
    assert results(workspace / "runs/alone") == tested
    alone = tmp_path / "model.ckpt"  # nothing of its run lies near it
    shutil.copy(checkpoint_of(run_dir, newest=False), alone)
    run("test", alone, "run_dir=runs/file", *CPU, cwd=workspace)
    weights = {"weights": tested["weights"]}  # names the file
    assert results(workspace / "runs/file") | weights == tested
    run("validate", f"ckpt_path={run_dir}", "run_dir=runs/val", *CPU, cwd=workspace)
    assert 0 <= results(workspace / "runs/val")["top1"] <= 1


def test_keys_on_top_count(workspace, finetuned):
    run("test", finetuned[0], "data.test_views=[1,1]", "run_dir=runs/one", *CPU, cwd=workspace)
    assert results(workspace / "runs/one")["videos"] == 16
    output = run("test", finetuned[0], "data.test_view=[1,1]", *CPU, cwd=workspace, code=2)
    assert "did you mean data.test_views" in output


def test_a_classifier_predicts_and_is_exported(workspace, finetuned, tmp_path):
    run_dir, _ = finetuned
    video = min((workspace / "data").rglob("test/**/*.mp4"))
    answers = tmp_path / "answers.jsonl"
    run("predict", run_dir, video, f"out={answers}", *CPU, cwd=workspace)
    expected = [p.label for p in load(run_dir).predict(video)]
    assert labels(answers) == [expected]
    run("export", run_dir, "--format", "safetensors", "--out", tmp_path / "out", cwd=workspace)
    assert [p.label for p in load(tmp_path / "out").predict(video)] == expected


def test_trainings_go_on(workspace, pretrained, tmp_path):
    again = tmp_path / "again"
    shutil.copytree(pretrained, again)
    output = run("fit", f"resume={again}", "trainer.max_epochs=3", cwd=workspace)
    assert str(again) in output
    steps = torch.load(again / "checkpoints/last.ckpt", weights_only=True)["global_step"]
    assert steps == 18  # 12 before
    output = run("validate", again, "run_dir=runs/mae", *CPU, cwd=workspace)
    assert "val/loss" in output


def test_a_run_of_the_wrong_kind_is_one_line(workspace, pretrained):
    video = min((workspace / "data").rglob("test/**/*.mp4"))
    output = run("predict", pretrained, video, *CPU, cwd=workspace, code=2)
    assert "pretraining predicts no classes" in output
    output = run("test", workspace, cwd=workspace, code=2)
    assert "neither the folder of a training run nor a checkpoint" in output


def test_a_run_named_as_a_configuration_is_one_for_other_processes_too(finetuned):
    for command in ("fit", "test"):
        call = translate([command, "--config", str(finetuned[0]), "task.lr=1"])
        assert call.config_words == ["--config", str(finetuned[0])]
        again = translate([command, *call.config_words, *call.overrides])
        assert (again.config_flags, again.overrides) == (call.config_flags, call.overrides)


def test_arguments_need_no_plus(workspace, tmp_path):
    words = ["fit", "--config", "demo/pretrain", *TINY_MAE, *TINY_DATA, *TINY_RUN]
    words += ["model.mlp_ratio=2", "data.short_side=[64,72]", "trainer.max_epochs=1"]
    run(*words, f"run_dir={tmp_path}/run", cwd=workspace)
    checkpoint = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["description"]["arguments"]["mlp_ratio"] == 2
    assert checkpoint["config"]["data"]["short_side"] == [64, 72]


def test_a_checkpoint_makes_nothing_that_is_not_ours(tmp_path, finetuned, workspace):
    content = torch.load(finetuned[0] / "checkpoints/last.ckpt", weights_only=True)
    content["config"]["callbacks"]["evil"] = {"_target_": "os.system", "command": "touch gone"}
    torch.save(content, tmp_path / "evil.ckpt")
    output = run("test", tmp_path / "evil.ckpt", *CPU, cwd=workspace, code=2)
    assert "names os.system, which is not part of this project" in output
    assert not (workspace / "gone").exists()


@pytest.mark.parametrize(
    "target",
    [
        "os.mkdir",
        "hiera_video.cli.os.mkdir",  # only imported there
        "datamodules.files.os.mkdir",
        "hiera_video.commands.prepare.run",
        "lightning.pytorch.cli.LightningCLI",
        "torch.load",
        "${name}",
    ],
)
def test_only_parts_of_configurations_are_trusted(target):
    assert not is_trusted(target)


def test_what_configurations_are_made_of_is_trusted():
    for file in [*conf_dir().rglob("*.yaml"), *LEGACY.glob("*/config.yaml")]:
        for target in re.findall(r"_target_: (\S+)", file.read_text()):
            assert is_trusted(target), target


def test_a_checkpoint_configures_nothing_but_its_run(tmp_path, finetuned, workspace):
    content = torch.load(finetuned[0] / "checkpoints/last.ckpt", weights_only=True)
    handler = {"()": "os.mkdir", "path": "made"}
    content["config"]["hydra"] = {"job_logging": {"handlers": {"evil": handler}}}
    content["config"]["defaults"] = ["/gone"]
    torch.save(content, tmp_path / "evil.ckpt")
    run("test", tmp_path / "evil.ckpt", *CPU, f"run_dir={tmp_path}/tested", cwd=workspace)
    assert not (workspace / "made").exists()


@pytest.fixture
def legacy(tmp_path):
    """A copy of what version 0.1.0 wrote."""
    shutil.copytree(LEGACY, tmp_path / "runs")
    return tmp_path


EXPECTED = json.loads((LEGACY / "expected.json").read_text())


def test_a_classifier_of_version_0_1(legacy):
    run("predict", "runs/classifier", "runs/clip.mp4", "out=out.jsonl", *CPU, cwd=legacy)
    expected = EXPECTED["classifier"]["predict clip.mp4"]
    (line,) = map(json.loads, (legacy / "out.jsonl").read_text().splitlines())
    assert [p["label"] for p in line["predictions"]] == [p["label"] for p in expected]
    for new, old in zip(line["predictions"], expected, strict=True):
        assert new["probability"] == pytest.approx(old["probability"], abs=2e-6)
    words = ["data.videos=[8,8,8]", "data.root=new", *CPU]
    run("test", "runs/classifier", "run_dir=tested", *words, cwd=legacy)
    assert results(legacy / "tested")["videos"] == 8
    run("evaluate", "--task", "classification", "runs/classifier_test", cwd=legacy)
    file = "runs/classifier/checkpoints/best.ckpt"
    words = [f"resume={file}", "trainer.max_epochs=2", "task.epochs.count=2", *words]
    assert "fit demo/finetune took" in run("fit", *words, cwd=legacy)


def test_a_pretraining_of_version_0_1(legacy):
    words = ["data.videos=[8,8,8]", "data.root=new", "data.batch_size=8", *CPU]
    run("validate", "runs/pretraining", "run_dir=validated", *words, cwd=legacy)
    assert results(legacy / "validated")["val/loss"] > 0
    run("export", "runs/pretraining", "--format", "safetensors", "--out", "mae", cwd=legacy)
    old, new = (
        json.loads((legacy / f / "model.json").read_text()) for f in ("runs/exported_mae", "mae")
    )
    assert (new["name"], new["arguments"]) == (old["name"], old["arguments"])


def test_a_detector_of_version_0_1(legacy):
    words = ["boxes=full_frame", "min_action_score=0", "out=acts", *CPU]
    run("predict", "runs/detector", "runs/clip.mp4", *words, cwd=legacy)
    with open(legacy / "acts/clip.csv", newline="") as file:
        assert {row[0] for row in csv.reader(file)} == {"clip"}
    words = ["data.videos=[2,2,2]", "data.video_seconds=3", "data.root=new", *CPU]
    run("test", "runs/detector", "run_dir=tested", *words, cwd=legacy)
    assert "mAP@0.5IOU" in json.dumps(results(legacy / "tested"))
