"""Folders as runs and tests leave them, with numbers that a test can know."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from hiera_video.results.classification import evaluate_file
from hiera_video.results.prediction_files import Header, PredictionFile, Rows, stamped
from hiera_video.results.prediction_parts import Parts, PartWriter
from tests.video_files import moving_frames, write_video

EVIL = "<script>alert('&\"x\"')</script>"  # as the name of a class and in the configuration
CLASSES = ("walking", EVIL, "running")

CONFIG = """\
defaults: [/hiera_video, _self_]
name: any/run
seed: 3
model: {_target_: hiera_video.create_model, _partial_: true, name: hiera_tiny_16x224}
data: {_target_: datamodules.VideoFolderDataModule, root: "<b>videos</b>", batch_size: 4}
task: {_target_: hiera_video.tasks.%s, lr: 0.001, seed: "${seed}"}
trainer: {max_epochs: 2, default_root_dir: "${run_dir}"}
"""
METRICS = """\
epoch,lr,speed/clips_per_second,step,train/loss,val/loss,val/top1
0,0.1,10,0,3.5,,
0,0.2,30,1,nan,,
0,,,1,,2.5,0.25
1,0.1,20,3,1.5,,
1,,,3,,2.0,0.75
"""


def write_run(folder: Path, task: str = "ClassificationTask") -> Path:
    """A run with a checkpoint (that cannot be loaded), curves and records."""
    (folder / "metrics/version_0").mkdir(parents=True)
    (folder / "metrics/version_0/metrics.csv").write_text(METRICS)
    (folder / "config.yaml").write_text(CONFIG % task)
    starts = [{"started": "2026-01-0" + day, "argv": ["x/__main__.py", "fit", f"day={day}"],
               "versions": {"torch": "2.14"}, "gpus": []} for day in "12"]  # fmt: skip
    (folder / "run.json").write_text(json.dumps(starts))
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints/best.ckpt").write_bytes(b"weights")
    return folder


def write_reconstructions(run: Path, steps: list[int]) -> None:
    """Pictures as a pretraining paints them."""
    (run / "reconstructions").mkdir()
    for step in steps:
        picture = Image.new("RGB", (60, 40), (step % 256, 80, 80))
        picture.save(run / f"reconstructions/step-{step:07}.png")


def write_test(run: Path, folder: Path, videos: list[str], labels: list[int], predicted: list[int],
               names: tuple[str, ...] = CLASSES, first_id: int = 0) -> None:  # fmt: skip
    """A test of a run: its table of one view a video, and its results.

    Predictions are the surer the later the video.
    """
    folder.mkdir()
    count = len(videos)
    probabilities = np.full((count, len(names)), 0.01, np.float32)
    probabilities[np.arange(count), predicted] = np.linspace(0.4, 0.8, count)
    parts = folder / "predictions.parquet.parts"
    writer = PartWriter(parts, Header(names, 1, 1), 0)
    ids, view = first_id + np.arange(count), np.zeros(count, np.int64)
    writer.add(Rows(ids, videos, np.array(labels), view, probabilities), [])
    writer.flush()
    Parts(parts).join()
    summary = evaluate_file(PredictionFile(folder / "predictions.parquet")).summary()
    summary["weights"] = stamped(run / "checkpoints/best.ckpt")
    (folder / "results.json").write_text(json.dumps(summary))


def write_videos(folder: Path, count: int) -> list[str]:
    """Short H.264 files; returns their paths."""
    folder.mkdir()
    paths = [folder / f"{i}.mp4" for i in range(count)]
    for i, path in enumerate(paths):
        write_video(path, moving_frames(20, seed=i))
    return [str(path) for path in paths]
