"""The best score so far of a run that goes on."""

import logging
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from hiera_video.callbacks.progress import listed
from hiera_video.errors import CheckpointError
from hiera_video.weights.files import read_checkpoint

log = logging.getLogger(__name__)


class KeepBest(Callback):
    """Read the best score of a resumed run from ``best.ckpt``, so that nothing worse replaces it.

    The checkpoint that the run goes on from may be older than the best validation, and Lightning
    forgets the score of a run whose folder was moved. This is for each `ModelCheckpoint` that keeps
    one file, which always has the same name.
    """

    def __init__(self) -> None:
        self._resumes = False

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Note that a training is resumed."""
        self._resumes = trainer.state.fn == "fit"

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the scores; by now, Lightning has restored what it knows of them."""
        if not self._resumes:
            return
        for saver in trainer.checkpoint_callbacks:
            if not isinstance(saver, ModelCheckpoint) or saver.monitor is None:
                continue
            if saver.save_top_k == 1 and saver.dirpath is not None:
                _restore(saver, trainer, Path(saver.dirpath, f"{saver.filename}.ckpt"))


def _restore(saver: ModelCheckpoint, trainer: Trainer, path: Path) -> None:
    monitor = str(saver.monitor)
    found = _best_of(path, monitor) if trainer.is_global_zero else None
    found = trainer.strategy.broadcast(found)  # of one process, as not all need have the file
    if found is None:
        return
    value, step = found
    if trainer.is_global_zero:
        log.info(
            f"{path.name} (step {step}) has {listed({monitor: value})}; only better replaces it"
        )
    score = torch.tensor(value, device=trainer.strategy.root_device)
    saver.best_k_models = {str(path): score}
    saver.best_model_score = saver.kth_value = score
    saver.best_model_path = saver.kth_best_model_path = str(path)


def _best_of(path: Path, monitor: str) -> tuple[float, int] | None:
    """The score of a checkpoint, and its step; None if there is none that can be read."""
    if not path.is_file():
        return None
    try:
        checkpoint = read_checkpoint(path)
    except CheckpointError as error:
        log.warning(f"{error}; the next validation replaces it")
        return None
    for state in checkpoint.get("callbacks", {}).values():
        if isinstance(state, dict) and state.get("monitor") == monitor:
            score = state.get("best_model_score")
            if score is not None:
                return float(score), checkpoint["global_step"]
    return None
