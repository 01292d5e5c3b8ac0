"""docs/extending.md, followed by somebody whose own package lies outside of the project."""

import csv
import importlib
import json
import re

import pytest
import torch

from hiera_video.weights.description import RECORD
from tests.integration.conftest import ROOT, TINY_MODEL, TINY_RUN
from tests.integration.forked import run
from tests.video_files import moving_frames, write_video

PAGE = ROOT / "docs/extending.md"
BLOCK = re.compile(r"^```(?:python|yaml)\n# (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CLIP = ["data.num_frames=4", "data.size=[64,64]", "data.stride=1", "data.num_workers=0"]
CLIP += ["data.test_views=[1,1]", "data.batch_size=2"]
CLASSES = ("clapping", "waving")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The package and the configurations of the page, and videos for them."""
    folder = tmp_path_factory.mktemp("outside")
    for name, text in BLOCK.findall(PAGE.read_text()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    for split, count in (("train", 4), ("val", 2), ("test", 2)):
        labels = {f"clips/{split}{i}.mp4": CLASSES[i % 2] for i in range(count)}
        for i, path in enumerate(labels):
            (folder / "videos" / path).parent.mkdir(parents=True, exist_ok=True)
            write_video(folder / "videos" / path, moving_frames(12, 64, 64, seed=i))
        (folder / f"videos/{split}.json").write_text(json.dumps(labels))
    ucf101 = folder / "ucf101"
    (ucf101 / "UCF-101").mkdir(parents=True)
    for split, count in (("train", 4), ("test", 2)):
        paths = [f"{CLASSES[i % 2]}/{split}{i}.avi" for i in range(count)]
        for i, path in enumerate(paths):
            (ucf101 / "UCF-101" / path).parent.mkdir(exist_ok=True)
            write_video(ucf101 / "UCF-101" / path, moving_frames(12, 64, 64, seed=i))
        lines = [f"{path} {1 + i % 2}\n" for i, path in enumerate(paths)]
        (ucf101 / f"{split}list01.txt").write_text("".join(lines))
    return folder


def test_data_task_augmentation_and_callback_of_a_users_own(folder):
    words = [*TINY_MODEL, *TINY_RUN, *CLIP, "run_dir=runs/arrow"]
    run("fit", "--config", "my.yaml", *words, "task.augment.probability=1.0", cwd=folder)
    checkpoint = torch.load(folder / "runs/arrow/checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 4  # 2 epochs of 4 videos
    assert checkpoint[RECORD]["arguments"]["num_classes"] == 2  # outputs without names
    assert checkpoint[RECORD]["class_names"] == []
    with open(folder / "runs/arrow/metrics/version_0/metrics.csv", newline="") as file:
        assert {"train/loss", "train/seconds", "val/accuracy"} <= set(
            csv.DictReader(file).fieldnames or ()
        )

    run("test", "runs/arrow", "run_dir=tested", "trainer.accelerator=cpu", cwd=folder)
    results = json.loads((folder / "tested/results.json").read_text())
    assert 0 <= results["test/accuracy"] <= 1

    run("fit", "resume=runs/arrow", "trainer.max_epochs=3", cwd=folder)
    checkpoint = torch.load(folder / "runs/arrow/checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 6

    output = run(
        "fit", "--config", "my.yaml", *words, "task.augment.probabilty=1", cwd=folder, code=2
    )
    assert "did you mean task.augment.probability" in output.splitlines()[-1]


def test_commands_for_files_take_a_data_set_of_a_users_own(folder):
    assert "8 videos" in run("check", "--config", "my.yaml", cwd=folder)
    run("prepare", "--config", "my.yaml", "--out", "ready", cwd=folder)
    words = [*TINY_MODEL, *TINY_RUN, *CLIP, "trainer.max_epochs=1", "run_dir=runs/prepared"]
    run("fit", "--config", "my.yaml", *words, "data.root=ready", cwd=folder)


def test_a_checkpoint_alone_makes_no_objects_of_a_users_own(folder):
    words = [*TINY_MODEL, *TINY_RUN, *CLIP, "trainer.max_epochs=1", "run_dir=runs/alone"]
    run("fit", "--config", "my.yaml", *words, cwd=folder)
    alone = folder / "alone.ckpt"
    (folder / "runs/alone/checkpoints/last.ckpt").rename(alone)
    assert "my_videos" in run("test", alone, cwd=folder, code=2).splitlines()[-1]


def test_a_model_and_annotation_files_of_a_users_own(folder):
    words = [*TINY_RUN, *CLIP, "run_dir=runs/small"]
    run("fit", "--config", "own_model.yaml", *words, cwd=folder)
    checkpoint = torch.load(folder / "runs/small/checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["state_dict"]["model.head.weight"].shape == (2, 16)
    assert checkpoint[RECORD]["kind"] == "custom"
    assert checkpoint[RECORD]["class_names"] == ["clapping", "waving"]

    run("test", "runs/small", "run_dir=tested_small", "trainer.accelerator=cpu", cwd=folder)
    assert "top1" in json.loads((folder / "tested_small/results.json").read_text())
    clip = folder / "videos/clips/train0.mp4"
    run("predict", "runs/small", clip, "out=answers.jsonl", "trainer.accelerator=cpu", cwd=folder)
    (answer,) = map(json.loads, (folder / "answers.jsonl").read_text().splitlines())
    assert {row["label"] for row in answer["predictions"]} == set(CLASSES)

    output = run(
        "fit",
        "--config",
        "own_model.yaml",
        *words,
        "task.layer_decay=0.8",
        "run_dir=no",
        cwd=folder,
        code=2,
    )
    assert "set task.layer_decay=1" in output.splitlines()[-1]


def test_a_command_of_a_developers_own(folder, capsys, monkeypatch):
    monkeypatch.syspath_prepend(folder / "hiera_video/commands")
    importlib.import_module("duration").run([str(folder / "videos/clips/train0.mp4")])
    assert capsys.readouterr().out.startswith("0.40  ")
