"""The scores of the best checkpoints, as they are in their files."""

import logging
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from datamodules.processes import in_first_process
from hiera_video.callbacks.progress import listed
from hiera_video.errors import CheckpointError
from hiera_video.running.saving import WholeCheckpoints
from hiera_video.weights.files import read_checkpoint

log = logging.getLogger(__name__)


class KeepBest(Callback):
    """Keep the scores of `ModelCheckpoint` those of the files that are there.

    A resumed run reads its best score from ``best.ckpt``, so that nothing worse replaces it: the
    checkpoint that the run goes on from may be older than the best validation, and Lightning
    forgets the score of a run whose folder was moved. Without that file, the next validation is the
    best. This is for each `ModelCheckpoint` that keeps one file, which always has the same name.

    Lightning takes a checkpoint that could not be saved, as on a full disk, for one that is there,
    and would leave a worse one in its place. The score of the file that is there is put back.
    """

    def __init__(self) -> None:
        self._resumes = False
        self._scores: dict[str, dict[str, Tensor]] = {}  # of each callback's files, before a save

    def on_load_checkpoint(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        """Note that a training is resumed."""
        self._resumes = trainer.state.fn == "fit"

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the scores; by now, Lightning has restored what it knows of them."""
        if not self._resumes:
            return
        for saver in _judges(trainer):
            name = f"{saver.filename}.ckpt"
            if saver.save_top_k == 1 and saver.dirpath is not None and "{" not in name:
                _restore(saver, trainer, Path(saver.dirpath, name))

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put back the scores of files that could not be replaced."""
        self._put_back(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put back the scores of files that could not be replaced."""
        self._put_back(trainer)

    def _put_back(self, trainer: Trainer) -> None:
        saving = trainer.strategy.checkpoint_io
        if trainer.state.fn != "fit" or not isinstance(saving, WholeCheckpoints):
            return
        for saver in _judges(trainer):
            before = self._scores.get(saver.state_key, {})
            scores = dict(saver.best_k_models)
            # The first process saves; a score that is the same object is not of a new save.
            failed = [p for p, s in scores.items() if before.get(p) is not s]
            failed = [path for path in failed if saving.has_failed(path)]
            failed = trainer.strategy.broadcast(failed)
            for path in failed:
                del scores[path]
                if path in before:
                    scores[path] = before[path]
            if failed:
                _set_scores(saver, scores)
            self._scores[saver.state_key] = scores


def _judges(trainer: Trainer) -> list[ModelCheckpoint]:
    """The callbacks that keep the checkpoints with the best values of a metric."""
    savers = [c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint)]
    return [saver for saver in savers if saver.monitor is not None]


def _restore(saver: ModelCheckpoint, trainer: Trainer, path: Path) -> None:
    monitor = str(saver.monitor)
    # Not all processes need have the file.
    found = in_first_process(trainer, lambda: _best_of(path, monitor))
    if found is None:
        _set_scores(saver, {})
        return
    value, step = found
    if trainer.is_global_zero:
        log.info(
            f"{path.name} (step {step}) has {listed({monitor: value})}; only better replaces it"
        )
    _set_scores(saver, {str(path): torch.tensor(value, device=trainer.strategy.root_device)})


def _set_scores(saver: ModelCheckpoint, scores: dict[str, Tensor]) -> None:
    """Have a callback know these files, and no others, by their scores."""
    ascending = sorted(scores, key=lambda path: float(scores[path]))
    best_first = ascending[::-1] if saver.mode == "max" else ascending
    saver.best_k_models = scores
    saver.best_model_path = best_first[0] if scores else ""
    saver.best_model_score = scores[best_first[0]] if scores else None
    saver.kth_best_model_path = best_first[-1] if scores else ""
    if scores:
        saver.kth_value = scores[best_first[-1]]


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
