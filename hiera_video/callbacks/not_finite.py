"""Skipped steps: count them, and stop a training that does nothing else."""

import itertools
import logging
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor, distributed

from datamodules.files import write_json
from hiera_video.errors import UsageError
from hiera_video.tasks.lightning_private import is_logged, log_interval
from hiera_video.tasks.protocols import data_of

log = logging.getLogger(__name__)


class StopIfNotFinite(Callback):
    """Count the steps that a task has skipped (`VideoTask.skipped`); stop after some in a row.

    The flags of all steps stay on the device. The host reads them together, at the steps at which
    losses are logged and at the end of an epoch, so no step waits for the device. All ranks have
    the same flags, and stop together.

    Args:
        folder: of the run; ``not_finite.json`` in it will list the batches of the steps in a row.
        limit: skipped steps in a row that end the training; None: any number is tolerated.

    Attributes:
        skipped: number of skipped steps in the whole training.

    Raises:
        ValueError: the limit is not positive.
    """

    def __init__(self, folder: str | Path, limit: int | None = 10) -> None:
        if limit is not None and limit < 1:
            raise ValueError(f"limit must be at least 1 or null, not {limit}")
        self.folder, self.limit = Path(folder), limit
        self.skipped = 0
        self._batches: list[dict[str, Tensor]] = []  # of the step under way
        self._unread: list[tuple[int, Tensor, list[dict[str, Tensor]]]] = []  # step, flag, batches
        self._in_a_row: list[tuple[int, list[dict[str, Tensor]]]] = []  # steps and their batches

    def state_dict(self) -> dict[str, Any]:
        """The number of skipped steps, those included that have not been read yet."""
        unread = [flag for _, flag, _ in self._unread]
        return {"skipped": self.skipped + (int(torch.stack(unread).sum()) if unread else 0)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self.skipped = state_dict["skipped"]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note the batch, and at the end of a step whether it was skipped.

        Raises:
            UsageError: too many steps in a row were skipped.
        """
        self._batches.append({key: batch[key] for key in ("video_id", "seed") if key in batch})
        flag: Tensor | None = getattr(pl_module, "skipped", None)
        if flag is None:  # gradients accumulate
            return
        self._unread.append((trainer.global_step, flag, self._batches))
        self._batches = []
        never = not log_interval(trainer)
        if never or trainer.is_last_batch or is_logged(trainer, trainer.global_step):
            self._read(trainer)

    def _read(self, trainer: Trainer) -> None:
        flags = torch.stack([flag for _, flag, _ in self._unread]).tolist()  # waits for the device
        before = self.skipped
        for (step, _, batches), skipped in zip(self._unread, flags, strict=True):
            self.skipped += skipped
            if self.limit is None:
                continue
            self._in_a_row = [*self._in_a_row, (step, batches)] if skipped else []
            if len(self._in_a_row) >= self.limit:
                self._stop(trainer)
        self._unread = []
        if self.skipped > before and trainer.is_global_zero:
            for logger in trainer.loggers:
                step = trainer.global_step - 1
                logger.log_metrics({"train/skipped_steps": self.skipped}, step=step)
            log.warning(
                f"step {trainer.global_step}: {self.skipped - before} steps since the last count "
                "had a loss or gradient that is not finite, and changed no weight; "
                f"{self.skipped} in all"
            )

    def _stop(self, trainer: Trainer) -> None:
        """Write down the batches of all ranks, and stop.

        Raises:
            UsageError: always.
        """
        videos = data_of(trainer).manifests["train"]
        steps: list[Any] = []
        for step, batches in self._in_a_row:
            ids, seeds = (_numbers(batches, key) for key in ("video_id", "seed"))
            paths = [videos.path(i) for i in ids]
            steps.append({"step": step, "rank": trainer.global_rank, "video": paths, "seed": seeds})
        if trainer.world_size > 1:
            ranks: list[Any] = [None] * trainer.world_size
            distributed.all_gather_object(ranks, steps)
            steps = sorted(itertools.chain(*ranks), key=lambda row: (row["step"], row["rank"]))
        path = self.folder / "not_finite.json"
        if trainer.is_global_zero:
            write_json(path, steps)
        trainer.strategy.barrier("not_finite.json is written")  # the first error ends all ranks
        saved = self.folder.glob("checkpoints/*.ckpt")  # only finite weights are ever saved
        newest = max(saved, key=lambda file: file.stat().st_mtime, default=None)
        raise UsageError(
            f"{len(self._in_a_row)} steps in a row, up to step {steps[-1]['step']}, had a loss or "
            f"gradient that is not finite; {path} lists their videos and seeds; the last good "
            f"checkpoint is {newest or 'none: no epoch was completed'}",
            1,
        )


def _numbers(batches: list[dict[str, Tensor]], key: str) -> list[int]:
    return [number for batch in batches if key in batch for number in batch[key].tolist()]
