"""A multi-view test, files in and numbers out, beside the published model over clips by decord.

    python benchmarks/multi_view.py [--model hiera_base_16x224] [--videos 2] [--views 5 3]

Both have the same weights and take turns on Kinetics-like files. Ours is the whole of
``Trainer.test``, with one process that decodes; decord has as many threads as there are cores.
Prints seconds for a video, and the largest difference of a video's mean probabilities: torch
resizes decord's frames, and does it a little differently. decord must be installed.
"""

import argparse
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import hiera
import numpy as np
import torch
import torch.nn.functional as F
from decord import VideoReader  # type: ignore[import-not-found]
from lightning import Trainer
from pyarrow import parquet
from torch import nn

from datamodules import VideoFolderDataModule
from hiera_video import create_model
from hiera_video.callbacks import PredictionTable
from hiera_video.commands.decode_rate import write_kinetics_like
from hiera_video.models.names import VIDEO_MEAN, VIDEO_STD
from hiera_video.tasks import ClassificationTask

FRAMES, STRIDE, SIZE = 16, 4, 224


def ours(model: nn.Module, folder: Path, count: int, views: tuple[int, int]) -> np.ndarray:
    """Mean probabilities of each video, ``(videos, classes)``."""
    data = VideoFolderDataModule(
        folder,
        train="test",  # names the classes
        test="test",
        num_frames=FRAMES,
        stride=STRIDE,
        size=(SIZE, SIZE),
        test_views=views,
        eval_batch_size=1,
        num_workers=1,
    )
    task = ClassificationTask(lambda **_: model)
    table = folder / "predictions.parquet"
    trainer = Trainer(
        accelerator="cpu",
        callbacks=[PredictionTable(table)],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.test(task, datamodule=data, verbose=False)
    rows = parquet.read_table(table).select(["video_id", "probabilities"]).to_pydict()
    probabilities = np.array(rows["probabilities"])
    ids = np.array(rows["video_id"])  # in the order of the classes
    return np.stack([probabilities[ids == i].mean(axis=0) for i in range(count)])


def spread(most: int, count: int) -> np.ndarray:
    """Whole numbers at equal distances from 0 to the most, or the middle one."""
    return (np.linspace(0, most, count) if count > 1 else np.array([most / 2])).round().astype(int)


@torch.inference_mode()
def theirs(model: nn.Module, files: list[Path], views: tuple[int, int]) -> np.ndarray:
    """The same by the published model."""
    mean, std = torch.tensor(VIDEO_MEAN), torch.tensor(VIDEO_STD)
    answers = []
    for file in files:
        reader = VideoReader(str(file))
        last = len(reader) - 1 - (FRAMES - 1) * STRIDE
        clips = []
        for start in spread(last, views[0]):
            frames = reader.get_batch(start + np.arange(FRAMES) * STRIDE).asnumpy()
            video = (torch.from_numpy(frames) / 255 - mean) / std
            video = video.permute(0, 3, 1, 2)  # (T, 3, H, W)
            scale = SIZE / min(video.shape[-2:])
            size = [round(side * scale) for side in video.shape[-2:]]
            video = F.interpolate(video, size, mode="bilinear", antialias=True)
            for left in spread(video.shape[-1] - SIZE, views[1]):
                clips.append(video[..., left : left + SIZE].transpose(0, 1))
        answers.append(model(torch.stack(clips)).softmax(dim=1).mean(dim=0))
    return torch.stack(answers).numpy()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="hiera_base_16x224")
    parser.add_argument("--videos", type=int, default=2, help="at least 2")
    parser.add_argument("--views", type=int, nargs=2, default=(5, 3))
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    views = tuple(arguments.views)
    model = create_model(arguments.model, num_classes=2, head_init_scale=1.0).eval()
    reference = getattr(hiera, arguments.model)(pretrained=False, num_classes=2).eval()
    reference.head.act_func = nn.Identity()  # was a softmax
    reference.load_state_dict(model.state_dict())
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, "test", "ab"[i % 2], f"{i}.mp4") for i in range(arguments.videos)]
        for file in files[:2]:
            file.parent.mkdir(parents=True)
        for i, file in enumerate(files):
            write_kinetics_like(file, i)
        seconds: dict[str, list[float]] = {"hiera-transformer over decord": [], "ours": []}
        answers = {}
        for _ in range(arguments.rounds):
            for name, times in seconds.items():
                start = time.perf_counter()
                if name == "ours":
                    answers[name] = ours(model, Path(folder), len(files), views)
                else:
                    answers[name] = theirs(reference, sorted(files), views)
                times.append((time.perf_counter() - start) / len(files))
    first, second = answers.values()
    print(
        f"{arguments.videos} videos, {views[0]}x{views[1]} views, {torch.get_num_threads()} threads"
    )
    print("| | s a video | of each round | x |\n|---|--:|--:|--:|")
    medians = [statistics.median(times) for times in seconds.values()]
    for (name, times), median in zip(seconds.items(), medians, strict=True):
        rounds = ", ".join(f"{t:.1f}" for t in times)
        print(f"| {name} | {median:.1f} | {rounds} | {medians[0] / median:.2f} |")
    print(f"\nlargest difference of a probability: {np.abs(first - second).max():.1e}")


if __name__ == "__main__":
    main()
