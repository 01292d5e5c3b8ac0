"""How a run saves its checkpoints: one whole, finite checkpoint is there at all times."""

import contextlib
import logging
import os
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from torch import Tensor

from hiera_video.errors import UsageError
from hiera_video.running.folders import LAST, PREVIOUS
from hiera_video.weights.whole import write_checkpoint

log = logging.getLogger(__name__)


class WholeCheckpoints(TorchCheckpointIO):
    """Writes checkpoints whole or not at all, and never weights that are not finite.

    The checkpoint that a new ``last.ckpt`` replaces stays beside it as ``previous.ckpt``. A save
    that fails, as on a full disk, is logged, and training goes on: the next one may succeed.
    """

    def __init__(self) -> None:
        super().__init__()
        self._whole: dict[Path, int] = {}  # written or loaded here, with their steps
        self._failures: dict[Path, str] = {}  # why the last save to a path failed

    def load_checkpoint(self, path: str | Path, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Read a checkpoint that `check_whole` has seen."""
        checkpoint = super().load_checkpoint(path, *args, **kwargs)
        self._whole[_place(path)] = checkpoint["global_step"]
        return checkpoint

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write a checkpoint; log an error if that fails."""
        if "://" in str(path):  # remote storage has its own ways
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        place = _place(path)
        try:
            if not _is_finite(checkpoint):
                raise ValueError("the weights are not finite")
            self._write(checkpoint, place)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else None
            self._failures[place] = reason or str(error)
            log.error(f"{path} is not saved: {reason or error}; {self._still_whole(place.parent)}")
        else:
            self._failures.pop(place, None)
            self._whole[place] = checkpoint["global_step"]

    def has_failed(self, path: str | Path) -> bool:
        """Whether the last save to a path has failed, in this process."""
        return _place(path) in self._failures

    def check_saved(self) -> None:
        """See that the last save to each place has succeeded.

        Raises:
            UsageError: one has failed; says what is there.
        """
        for place, reason in self._failures.items():
            raise UsageError(
                f"the last {place} is not saved: {reason}; {self._still_whole(place.parent)}", 1
            )

    def _write(self, checkpoint: dict[str, Any], place: Path) -> None:
        place.parent.mkdir(parents=True, exist_ok=True)
        previous = place.with_name(PREVIOUS)
        # A damaged file that a run could not go on from must not take the place of a whole one.
        keeps = place.name == LAST and place in self._whole and place.exists()
        if keeps:  # make room, so that there are never more than two
            previous.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # a file system without hard links
                os.link(place, previous)
                self._whole[previous] = self._whole[place]
        write_checkpoint(checkpoint, place)

    def _still_whole(self, folder: Path) -> str:
        names = [
            f"{place.name} (step {step})"
            for place, step in sorted(self._whole.items(), key=lambda item: -item[1])
            if place.parent == folder and place.exists()
        ]
        return f"still whole in {folder}: {', '.join(names) or 'nothing'}"


def _place(path: str | Path) -> Path:
    """The absolute path of a file, which itself may be a link that is to be replaced."""
    path = Path(path).absolute()
    return path.parent.resolve() / path.name


def _is_finite(checkpoint: dict[str, Any]) -> bool:
    """Whether all weights are finite: those in training, and their average if there is one."""
    parts = (checkpoint.get(name, {}).values() for name in ("state_dict", "current_model_state"))
    weights = [value for values in parts for value in values if isinstance(value, Tensor)]
    wide = [w for w in weights if w.is_floating_point() and w.itemsize > 1]
    flags = [weight.isfinite().all().to(wide[0].device) for weight in wide]
    return not flags or bool(torch.stack(flags).all())  # waits for the device once
