"""What a process counts of its training, on the host alone."""

import math
import time
from dataclasses import dataclass
from typing import Any

from lightning import Callback, LightningModule, Trainer


@dataclass
class Lap:
    """What one process did in a part of a training.

    Attributes:
        steps: of the optimiser.
        clips: clips trained on.
        failed: videos that could not be decoded and were replaced.
        seconds: wall time; see `Stopwatch`.
        waiting: seconds of them in which the training loop waited for its next batch; NaN if the
            loader does not say.
    """

    steps: int = 0
    clips: int = 0
    failed: int = 0
    seconds: float = 0.0
    waiting: float = 0.0

    @property
    def clips_per_second(self) -> float:
        """Clips per second of this process."""
        return self.clips / self.seconds

    @property
    def waiting_share(self) -> float:
        """Share of the time that was spent waiting for data, in [0, 1], or NaN."""
        return self.waiting / self.seconds

    def text(self, ranks: int = 1) -> str:
        """Speed and waiting, as in ``12.3 clips/s, 5 % waiting``.

        Args:
            ranks: number of processes that were as fast as this one.
        """
        waiting = "" if math.isnan(self.waiting) else f", {self.waiting_share * 100:.0f} % waiting"
        return f"{self.clips_per_second * ranks:.1f} clips/s{waiting}"


class Stopwatch(Callback):
    """Count clips, steps and seconds of a training; a subclass reads them in `on_step_end`.

    The time of batches counts, and that between them. If a validation or a checkpoint comes between
    two batches, only the wait for the second one counts. The wait for the first batch after a start
    or a resume does not, as the decoding processes start in it; in later epochs it does.

    Waiting is the time within ``next`` of the loader (`Loader.waited`), on the host. Copying a
    batch to the device is no part of it. Nothing here waits for the device. Where nothing else
    does, either, the host runs ahead of it, and the device idles less than the host waits.

    Attributes:
        lap: what was counted since `take_lap`, up to the end of the last batch.
    """

    def __init__(self) -> None:
        self.lap = Lap()
        self._step = self._first_step = 0
        self._since: float | None = None  # the time up to then is counted; None: no batch yet
        self._interrupted = False  # by a validation or a checkpoint

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count."""
        self.lap, self._since = Lap(), None
        self._step = trainer.global_step
        self._first_step = trainer.global_step + 1

    def on_train_batch_start(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        """Count the wait for the batch."""
        now = time.perf_counter()
        waited: float = getattr(trainer.train_dataloader, "waited", math.nan)
        if self._since is None:
            self._since = now
        else:
            self.lap.waiting += waited
            if self._interrupted:
                self._since = now - (0.0 if math.isnan(waited) else waited)
        self._interrupted = False

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the batch, and the step that it completes."""
        self._count_time()
        self.lap.clips += len(batch["video"])
        self.lap.failed += len(batch.get("failed", ()))
        steps = trainer.global_step - self._step
        if steps:  # else gradients accumulate
            self._step = trainer.global_step
            self.lap.steps += steps
            self.on_step_end(trainer, pl_module)

    def on_step_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Called after each step of the optimiser, when it is counted."""

    def is_first_step(self) -> bool:
        """Whether the step that has just ended is the first after a start or a resume."""
        return self._step == self._first_step

    def take_lap(self) -> Lap:
        """What was counted since the last call, or the start, until now; a new lap begins."""
        self._count_time()
        lap, self.lap = self.lap, Lap()
        return lap

    def _count_time(self) -> None:
        now = time.perf_counter()
        self.lap.seconds += 0.0 if self._since is None else now - self._since
        self._since = now

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave out the time up to the next batch."""
        self._interrupted = True

    def on_save_checkpoint(self, *_: Any, **__: Any) -> None:
        """Leave out the time up to the next batch."""
        self._interrupted = True
