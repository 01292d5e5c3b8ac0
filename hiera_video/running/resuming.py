"""Where a resumed run goes on, and whether it can."""

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from datamodules.wording import counted
from hiera_video.errors import CheckpointError, UsageError
from hiera_video.running.choices import check_checkpoint
from hiera_video.running.launchers import is_first
from hiera_video.tasks.lightning_private import Position
from hiera_video.weights.files import whole_beside

log = logging.getLogger(__name__)


def check_resumed(config: DictConfig, path: Path) -> tuple[Path, Mapping[str, Any]]:
    """Check the checkpoint that a run is to go on from.

    Returns:
        The checkpoint and its content. With ``resume=auto``, where ``last.ckpt`` is damaged, this
        is the run's newest checkpoint that is whole.

    Raises:
        UserError: the checkpoint is damaged, or of another run.
    """
    try:
        checkpoint = check_checkpoint(config, path)
    except CheckpointError as error:
        whole = whole_beside(path) if config.resume == "auto" else None
        if whole is None:
            raise
        if is_first():
            log.warning(f"{str(error).partition('; ')[0]}; going on from {whole}")
        path, checkpoint = whole, check_checkpoint(config, whole)
    _check_same_optimizer(config, checkpoint, path)
    return path, checkpoint


def is_finished(config: DictConfig, position: Position, path: Path) -> bool:
    """Whether a run has nothing left to do, which is said.

    Raises:
        UsageError: the run has had more epochs than it is to have.
    """
    epochs, steps = config.trainer.get("max_epochs"), config.trainer.get("max_steps")
    epochs, steps = (math.inf if most in (None, -1) else most for most in (epochs, steps))
    if position.epochs > epochs:
        raise UsageError(
            f"{path} has had {counted(position.epochs, 'epochs')}, more than "
            f"trainer.max_epochs={epochs}; raise task.epochs.count"
        )
    finished = position.epochs == epochs or (position.step >= steps and not position.validates)
    if finished and is_first():
        log.info(
            f"{path} is of a run that is finished: {counted(position.epochs, 'epochs')}, "
            f"{counted(position.step, 'steps')}; to train on, raise task.epochs.count, "
            "trainer.max_epochs or trainer.max_steps"
        )
    return finished


def where(position: Position) -> str:
    """Where a run goes on, in words."""
    within = f", after {counted(position.batches, 'batches')} of it" if position.batches else ""
    validates = ", with a validation" if position.validates else ""
    return f"step {position.step}, epoch {position.epochs + 1}{within}{validates}"


def _check_same_optimizer(config: DictConfig, checkpoint: Mapping[str, Any], path: Path) -> None:
    """Refuse another optimiser, which could not use the saved one's state."""
    task = (checkpoint.get("config") or {}).get("task") or {}
    before = (task.get("optimizer") or {}).get("_target_")
    now = (config.task.get("optimizer") or {}).get("_target_")
    if before is not None and before != now:
        raise UsageError(
            f"{path} was trained by {before}, not {now}: keep task.optimizer, or start from the "
            f"weights with task.init_from={path}"
        )
