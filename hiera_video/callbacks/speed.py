"""How fast a training is, what it waits for, and how much memory it takes."""

import logging
import math
from collections.abc import Sequence
from dataclasses import astuple
from typing import Any

import torch
from lightning import LightningModule, Trainer
from torch import distributed

from hiera_video.callbacks.chips import device_peak
from hiera_video.callbacks.stopwatch import Lap, Stopwatch
from hiera_video.tasks.lightning_private import is_logged
from hiera_video.tasks.protocols import data_of

log = logging.getLogger(__name__)

UNEQUAL = 0.1  # ranks that differ by more from the mean are named
LOGS_BETWEEN_LINES = 10  # from one line on unequal ranks to the next
MOST_NAMED = 8  # ranks in a line


class Speed(Stopwatch):
    """Log speed, waiting, memory and bad videos, at the steps at which losses are logged.

    All numbers are of the time since the step logged before (see `Stopwatch` for what counts); the
    first step of a start warms up and does not count unless it is logged itself.

    - ``speed/clips_per_second``: of all ranks together.
    - ``speed/waits_for_data``: share of the time in which the training loop waited for its next
      batch, in [0, 1]; the mean of the ranks.
    - ``speed/mfu``: floating-point operations of the network (`VideoTask.training_flops`) as a
      share of the devices' peak, in [0, 1]; only where both are known.
    - ``memory/peak_gib``: most memory that PyTorch has allocated on a GPU since the process began;
      of the rank with the most.
    - ``train/bad_share``: share of the videos that could not be decoded and were replaced, in
      [0, 1].
    - ``speed/rank_<n>/clips_per_second`` and ``.../waits_for_data``: of a rank whose clips per
      second are more than 10 % off the mean, or whose share of waiting is more than 0.1 off it. A
      line names these ranks, from the second logged step on and at most once in ten.

    Between logged steps there is no synchronisation and no collective operation. At a logged step
    the ranks are gathered, which waits for the device once; one process alone never waits.
    """

    def __init__(self) -> None:
        super().__init__()
        self._peak_rate: float | None = None  # clips per second of all ranks at the devices' peak
        self._silent_logs = 0  # before the next line on unequal ranks

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count the operations of the network, and begin."""
        super().on_train_start(trainer, pl_module)
        self._peak_rate = _peak_rate(trainer, pl_module) if trainer.is_global_zero else None
        self._silent_logs = 2  # at the first logged step, ranks may not have started together

    def on_step_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log, if the step is logged."""
        if not is_logged(trainer, trainer.global_step):
            if self.is_first_step():
                self.take_lap()
            return
        laps, memory = _gather(trainer, self.take_lap())
        if not trainer.is_global_zero:
            return
        numbers = self._numbers(laps, getattr(data_of(trainer), "repeats", 1))
        if memory:
            numbers["memory/peak_gib"] = memory
        for logger in trainer.loggers:
            logger.log_metrics(numbers, step=trainer.global_step - 1)
        self._name_unequal(laps, trainer.global_step)

    def _numbers(self, laps: Sequence[Lap], repeats: int) -> dict[str, float]:
        """The numbers of all ranks, by name."""
        rate = sum(lap.clips_per_second for lap in laps)
        failed = sum(lap.failed for lap in laps)
        videos = sum(lap.clips for lap in laps) / repeats
        numbers = {
            "speed/clips_per_second": rate,
            "speed/waits_for_data": sum(lap.waiting_share for lap in laps) / len(laps),
            "train/bad_share": failed / (failed + videos),
        }
        if self._peak_rate is not None:
            numbers["speed/mfu"] = rate / self._peak_rate
        for rank in unequal_ranks(laps):
            numbers[f"speed/rank_{rank}/clips_per_second"] = laps[rank].clips_per_second
            numbers[f"speed/rank_{rank}/waits_for_data"] = laps[rank].waiting_share
        return {name: number for name, number in numbers.items() if not math.isnan(number)}

    def _name_unequal(self, laps: Sequence[Lap], step: int) -> None:
        """Print a line on ranks that differ, unless there was one a short while ago."""
        self._silent_logs = max(0, self._silent_logs - 1)
        ranks = unequal_ranks(laps)
        if not ranks or self._silent_logs:
            return
        self._silent_logs = LOGS_BETWEEN_LINES
        named = [f"rank {rank}: {laps[rank].text()}" for rank in ranks[:MOST_NAMED]]
        if len(ranks) > MOST_NAMED:
            named.append(f"and {len(ranks) - MOST_NAMED} more")
        log.warning(f"step {step}: the {len(laps)} ranks are unequal: {'; '.join(named)}")


def unequal_ranks(laps: Sequence[Lap]) -> list[int]:
    """The ranks that differ from the mean of all, by number, in ascending order.

    Either their clips per second are more than 10 % off the mean, or their share of waiting is more
    than 0.1 off it.
    """
    rate = sum(lap.clips_per_second for lap in laps) / len(laps)
    share = sum(lap.waiting_share for lap in laps) / len(laps)
    return [
        rank
        for rank, lap in enumerate(laps)
        if abs(lap.clips_per_second - rate) > UNEQUAL * rate
        or abs(lap.waiting_share - share) > UNEQUAL
    ]


def _gather(trainer: Trainer, lap: Lap) -> tuple[list[Lap], float]:
    """The laps of all ranks, in order, and the greatest peak of memory in GiB (0: no GPU)."""
    device = trainer.strategy.root_device
    memory = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else 0.0
    if trainer.world_size == 1:
        return [lap], memory
    local = torch.tensor([*astuple(lap), memory]).to(device, non_blocking=True)  # (6,)
    # Lightning's `all_gather` warns that the function it uses is deprecated.
    ranks = [torch.empty_like(local) for _ in range(trainer.world_size)]
    distributed.all_gather(ranks, local)
    rows = torch.stack(ranks).tolist()  # (ranks, 6); waits for the device
    return [Lap(*numbers) for *numbers, _ in rows], max(memory for *_, memory in rows)


def _peak_rate(trainer: Trainer, pl_module: LightningModule) -> float | None:
    """Clips per second of all ranks if their devices did nothing but the network's operations."""
    task: Any = pl_module
    peak = device_peak(trainer.strategy.root_device, str(trainer.precision))
    if peak is None or not hasattr(task, "training_flops"):
        return None
    clip = data_of(trainer).clip
    try:
        flops = task.training_flops((3, clip.num_frames, clip.height, clip.width))
    except Exception as error:  # any network may refuse to be built or run without memory
        log.info(f"speed/mfu is not logged: operations cannot be counted ({error})")
        return None
    return peak * trainer.world_size / flops if flops else None
