"""What `gpu.py` measures of ``task.compile``: whole training steps of the product's own task.

The batch is the same each time and lies on the device, so that nothing waits for data. A step is
augmentation, masks, forward, backward, clipping and the optimiser.
"""

import gc
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from benchmarks.gpu_models import Setting
from benchmarks.timing import GIB
from datamodules import VideoDataModule, make_manifest
from hiera_video.models.compiling import MODES
from hiera_video.models.zoo import create_mae
from hiera_video.tasks.pretraining import PretrainingTask

NAME = "hiera_base_16x224"


class OneBatch(VideoDataModule):
    """A training batch of random pixels, which comes again and again.

    Args:
        clips: number of clips.
        size: frames, height and width of a clip.
        device: where the batch lies.
        batches: number of times that it comes.
    """

    def __init__(self, clips: int, size: Sequence[int], device: str, batches: int) -> None:
        frames, height, width = size
        super().__init__(
            "/nowhere", val=None, num_frames=frames, size=(height, width), batch_size=clips
        )
        shape = (clips, *size, 3)
        video = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
        self.batch = {"video": video.permute(0, 4, 1, 2, 3), "seed": torch.arange(clips)}
        self.batch |= {"video_id": torch.arange(clips), "failed": []}
        self.batches = batches

    def list_split(self, split: str, class_names: Any) -> Any:
        """Videos that are never read."""
        numbers = range(self.batch_size)
        return make_manifest([f"{n}.mp4" for n in numbers], [-1 for _ in numbers], ())

    def train_dataloader(self) -> Any:
        """The batches of an epoch."""
        return Repeated(self.batch, self.batches)


class Repeated:
    """A loader of one batch, as a new dict each time, to which the task may add.

    Args:
        batch: to be repeated.
        times: how often.
    """

    def __init__(self, batch: dict[str, Any], times: int) -> None:
        self.batch, self.times = batch, times

    def __len__(self) -> int:
        return self.times

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (dict(self.batch) for _ in range(self.times))


class Clock(Callback):
    """Times steps, and notes their losses.

    Args:
        first: batches that load, compile and record, and are not timed.
    """

    def __init__(self, first: int) -> None:
        self.first = first
        self.start = time.perf_counter()
        self.cold = self.seconds = 0.0
        self.losses: list[torch.Tensor] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Wait for the device after the first batches and after the last one, and only then."""
        self.losses.append(outputs["loss"].clone())
        if len(self.losses) == self.first or trainer.is_last_batch:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            now = time.perf_counter()
            if len(self.losses) == self.first:
                self.cold = now - self.start
                gc.collect()  # else Python clears away what compiling left amid the timed batches
                self.start = time.perf_counter()
            else:
                self.seconds = (now - self.start) / (len(self.losses) - self.first)


def modes(setting: Setting) -> Iterator[dict[str, Any]]:
    """Pretraining of base with 32 clips under ``bf16-mixed``, in each mode of ``task.compile``.

    On a CPU, modes are wired up as on a GPU, but nothing is compiled, which would take minutes.
    """
    on_gpu = setting.device == "cuda"
    default, graphs, autotuned = MODES
    # The one that takes longest to compile comes last.
    for mode, accumulate in ((None, 1), (graphs, 1), (graphs, 2), (default, 1), (autotuned, 1)):
        torch.compiler.reset()
        with nullcontext() if on_gpu else torch.compiler.set_stance("force_eager"):
            yield {"compile": mode, "accumulated": accumulate, **steps(setting, mode, accumulate)}


def steps(setting: Setting, mode: str | None, accumulate: int) -> dict[str, Any]:
    """One training in a mode: seconds until the first steps are done, and of a batch."""
    gc.collect()  # the trainer of an earlier mode, which is part of a cycle
    clips, first = setting.batch(32), 4 * accumulate
    batches = first + accumulate * setting.rounds(40)
    model = partial(create_mae, NAME, **setting.overrides(NAME, decoder=True))
    size = model().input_size
    ratio = 0.5 if setting.tiny else None
    on_gpu = setting.device == "cuda"
    clock = Clock(first)
    trainer = Trainer(
        accelerator="gpu" if on_gpu else "cpu",
        devices=1,
        precision="bf16-mixed",
        accumulate_grad_batches=accumulate,
        gradient_clip_val=0.02,
        max_epochs=1,
        callbacks=[clock],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    torch.manual_seed(0)
    task = PretrainingTask(model, mask_ratio=ratio, compile=mode)
    trainer.fit(task, datamodule=OneBatch(clips, size, setting.device, batches))
    return {
        "cold_start_s": clock.cold,
        "batch_ms": 1e3 * clock.seconds,
        "clips_per_s": clips / clock.seconds,
        "peak_gib": torch.cuda.max_memory_allocated() / GIB if on_gpu else None,
        "losses": [float(loss) for loss in clock.losses[: first + 4]],
    }
