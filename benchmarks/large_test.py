"""Time and memory of a test as large as Kinetics', without decoding and without a real network.

What is left is all that evaluation itself does: batches, the metric, the Parquet file, the results.

    python benchmarks/large_test.py --videos 20000 --views 5 3 --classes 400
"""

import argparse
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from lightning import Callback, Trainer
from torch import nn

from datamodules import VideoDataModule, make_manifest
from hiera_video.callbacks import ConfusionPicture, PredictionTable
from hiera_video.results.classification import evaluate_file
from hiera_video.results.prediction_files import PredictionFile
from hiera_video.tasks import ClassificationTask


class Pixels:
    """Clips of one pixel, whose colour depends on the video and the view."""

    def __init__(self, clips) -> None:
        self.clips, self.manifest = clips, clips.manifest
        self.item_shape = (clips.item_shape[0], 1, 1, 1, 3)

    def __getitem__(self, key):
        epoch, index = key
        colours = np.random.default_rng(index).integers(0, 256, self.item_shape, np.uint8)
        return self.clips.item(colours, epoch, index)


class PixelVideos(VideoDataModule):
    """Videos that are not read from anywhere."""

    def __init__(self, videos: int, classes: int, views: tuple[int, int]) -> None:
        super().__init__("/", test="test", test_views=views, eval_batch_size=4)
        self.videos, self.classes = videos, classes

    def list_split(self, split, class_names):
        """All of them."""
        paths = [f"/class {i % self.classes}/{i}.mp4" for i in range(self.videos)]
        names = [f"class {i}" for i in range(self.classes)]
        return make_manifest(paths, [i % self.classes for i in range(self.videos)], names)

    def _loader(self, dataset, *args, **kwargs):
        return super()._loader(Pixels(dataset), *args, **kwargs)


class Stub(nn.Module):
    """Scores that are linear in the colour."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(3, num_classes)

    def forward(self, video: torch.Tensor) -> torch.Tensor:
        """``(B, 3, 1, 1, 1)`` to ``(B, classes)``."""
        return self.head(video.flatten(1))


class Memory(Callback):
    """Resident memory in MiB at each tenth of the test."""

    def __init__(self, batches: int) -> None:
        self.every, self.mebibytes = max(1, batches // 10), []

    def on_test_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        """Look."""
        if batch_idx % self.every == 0:
            self.mebibytes.append(resident())


def resident() -> float:
    """MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


def main() -> None:
    """Run it and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--videos", type=int, default=20_000)
    parser.add_argument("--views", type=int, nargs=2, default=(5, 3))
    parser.add_argument("--classes", type=int, default=400)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", module="lightning")
    views = tuple(arguments.views)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "predictions.parquet")
        memory = Memory(arguments.videos // 4)
        trainer = Trainer(
            accelerator="cpu",
            callbacks=[PredictionTable(path), ConfusionPicture(path.with_suffix(".png")), memory],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            use_distributed_sampler=False,
        )
        started = time.perf_counter()
        task = ClassificationTask(Stub)
        data = PixelVideos(arguments.videos, arguments.classes, views)
        trainer.test(task, datamodule=data, verbose=False)
        seconds, after = time.perf_counter() - started, resident()
        size = path.stat().st_size / 2**20
        started = time.perf_counter()
        again = evaluate_file(PredictionFile(path))
        offline = time.perf_counter() - started
        assert again.summary() == task.results.summary()
    print(task.results.describe())
    views_seen = f"{arguments.videos} videos x {views[0]}x{views[1]} views x {arguments.classes}"
    print(f"\n{views_seen} classes")
    print(f"| test | {seconds:.0f} s |\n| file | {size:.0f} MiB |")
    print(f"| the same numbers from the file | {offline:.0f} s |")
    steps = ", ".join(f"{m:.0f}" for m in memory.mebibytes)
    print(
        f"| memory at each tenth of the test | {steps} MiB |\n| after joining | {after:.0f} MiB |"
    )


if __name__ == "__main__":
    main()
