"""A last checkpoint when the machine is about to be taken away, and going on from one."""

import signal
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import distributed

from datamodules.base import VideoDataModule
from hiera_video.callbacks.averaging import check_average


class SaveOnSigterm(Callback):
    """Stop all ranks after the same step when SIGTERM comes during training; save ``last.ckpt``.

    Lightning's own handler starts a collective from within the signal, wherever the ranks are, and
    often waits for ever. Here the first rank notes the signal and the others learn of it at the end
    of an optimiser's step. Nothing is saved after an ordinary error of one rank: the others would
    wait for it.

    Args:
        folder: the run's folder of checkpoints.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._told = False
        self._group: Any = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the place of Lightning's handler, which is restored by Lightning at the end."""
        self._told = False
        signal.signal(signal.SIGTERM, self._note)
        if trainer.world_size > 1:  # on the CPU, so that no step waits for a GPU
            self._group = distributed.new_group(backend="gloo")

    def _note(self, *_: object) -> None:
        self._told = True

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Ask the first rank."""
        told = torch.tensor(self._told)
        if trainer.world_size > 1:
            distributed.broadcast(told, src=0, group=self._group)
        # Not within an accumulation: its gradients are in no checkpoint.
        if told and not trainer.fit_loop.epoch_loop._should_accumulate():
            # Lightning raises SIGTERMException at the end of the step, now on all ranks.
            trainer._signal_connector.received_sigterm = True

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Save if it was SIGTERM during training."""
        if isinstance(exception, SIGTERMException) and trainer.state.fn == "fit":
            trainer.save_checkpoint(self.folder / "last.ckpt")


class ContinueEpoch(Callback):
    """Continue an epoch with another number of processes, batch size or accumulation.

    The loader's position is a number of samples. Lightning's is one of batches, and it would end
    the epoch too early or too late: it is counted anew here, so that whole steps remain.
    """

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Correct the checkpoint before Lightning's loops read it.

        Raises:
            MisconfigurationException: its average of weights would be lost.
        """
        if trainer.state.fn != "fit":
            return
        check_average(trainer, checkpoint)
        datamodule: Any = getattr(trainer, "datamodule", None)
        if not isinstance(datamodule, VideoDataModule):
            return
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        loader = datamodule.train_dataloader()  # at its position
        left = 0 if progress["is_last_batch"] else loader.batches_left
        shift = len(loader) - left - progress["current"]["processed"]
        progress["is_last_batch"] = not left
        progress["current"] = {name: n + shift for name, n in progress["current"].items()}
