"""The budget of a training: batch, epochs and learning rate.

Papers count batches in videos or in clips, and epochs in passes over the videos or in clips drawn
("effective": with 4 repeats, a pass is 4 epochs). Here the units are explicit. This file must not
import torch, as configurations use it.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

BATCH_UNITS = ("videos", "clips")
EPOCH_UNITS = ("passes", "effective")


class BudgetError(ValueError):
    """A batch or a number of epochs that is not possible; the message suggests one that is."""


class Budget(NamedTuple):
    """The batch of a step, the batch of the learning rate, and their units.

    Attributes:
        batch: size of the batch of one optimiser step on all devices together; None: whatever
            devices, accumulation and ``data.batch_size`` make.
        batch_unit: "videos" or "clips": what ``batch`` and ``lr_reference`` count.
        lr_reference: the batch that the learning rate is given for; for other batches it is scaled
            in proportion (Goyal et al., arXiv:1706.02677). None: it is never scaled.
        epoch_unit: "passes" over the videos, or "effective": each clip of a video counts.
    """

    batch: int | None = None
    batch_unit: str = "videos"
    lr_reference: float | None = None
    epoch_unit: str = "passes"

    @classmethod
    def of(cls, batch: Mapping[str, Any] | None, epochs: Mapping[str, Any] | None) -> "Budget":
        """Read ``task.batch`` {global, unit, lr_reference} and ``task.epochs`` {count, unit}.

        Raises:
            BudgetError: an unknown key or unit, or a number that is not positive.
        """
        batch, epochs = dict(batch or {}), dict(epochs or {})
        _check_keys("batch", batch, ("global", "unit", "lr_reference"))
        _check_keys("epochs", epochs, ("count", "unit"))
        budget = cls(
            batch.get("global"),
            batch.get("unit", "videos"),
            batch.get("lr_reference"),
            epochs.get("unit", "passes"),
        )
        _check_unit("batch.unit", budget.batch_unit, BATCH_UNITS)
        _check_unit("epochs.unit", budget.epoch_unit, EPOCH_UNITS)
        if budget.batch is not None and (budget.batch < 1 or budget.batch != int(budget.batch)):
            raise BudgetError(f"batch.global must be a positive whole number, not {budget.batch}")
        if budget.lr_reference is not None and not 0 < budget.lr_reference < math.inf:
            raise BudgetError(
                f"batch.lr_reference must be positive and finite, not {budget.lr_reference}"
            )
        return budget

    def accumulation(
        self, batch_size: int, repeats: int, world_size: int, accumulate: int = 1
    ) -> int:
        """Number of batches to accumulate for one optimiser step.

        Args:
            batch_size: videos in a batch of one process.
            repeats: clips of each video.
            world_size: number of processes.
            accumulate: ``trainer.accumulate_grad_batches``, 1 if it is not set.

        Raises:
            BudgetError: no whole number of batches makes ``batch``.
        """
        if self.batch is None:
            return accumulate
        videos, rest = divmod(self.batch, repeats if self.batch_unit == "clips" else 1)
        if rest:
            raise BudgetError(
                f"task.batch.global={self.batch} clips is no multiple of data.repeats={repeats}"
            )
        batch_of_all = batch_size * world_size
        if videos % batch_of_all:
            raise BudgetError(
                f"task.batch.global={self.batch} {self.batch_unit} is no multiple of "
                f"{world_size} processes x data.batch_size={batch_size} videos"
                f"{_fitting(videos, batch_size, world_size)}"
            )
        if accumulate not in (1, videos // batch_of_all):
            raise BudgetError(
                f"trainer.accumulate_grad_batches={accumulate} contradicts task.batch.global="
                f"{self.batch}, which needs {videos // batch_of_all}; leave it out"
            )
        return videos // batch_of_all

    def lr_factor(self, videos: int, repeats: int) -> float:
        """Factor on the learning rate for a step of ``videos`` on all devices together."""
        batch = videos * (repeats if self.batch_unit == "clips" else 1)
        return 1.0 if self.lr_reference is None else batch / self.lr_reference

    def in_passes(self, epochs: float, repeats: int) -> float:
        """Convert a number of epochs, such as that of the warm-up, to passes over the videos."""
        return epochs / repeats if self.epoch_unit == "effective" else epochs


def passes(count: float | None, unit: str, repeats: int) -> int:
    """Convert ``task.epochs`` to the trainer's ``max_epochs``: passes, or -1 without a count.

    Raises:
        BudgetError: the number of passes is not whole.
    """
    _check_unit("epochs.unit", unit, EPOCH_UNITS)
    if count is None:
        return -1
    if repeats < 1:
        raise BudgetError(f"data.repeats must be at least 1, not {repeats}")
    whole = Budget(epoch_unit=unit).in_passes(count, repeats)
    if whole < 1 or whole != int(whole):
        raise BudgetError(
            f"task.epochs.count={count:g} ({unit}) with data.repeats={repeats} is {whole:g} passes "
            "over the videos; it must be a whole number"
        )
    return int(whole)


def _fitting(videos: int, batch_size: int, world_size: int) -> str:
    """Suggest the nearest batch or ``data.batch_size`` that divides."""
    if videos % world_size:
        fitting = max(1, round(videos / world_size)) * world_size
        return f"; {videos} do not divide among {world_size} processes, {fitting} would"
    share = videos // world_size
    sizes = [size for size in range(1, min(batch_size, share) + 1) if share % size == 0]
    return f"; data.batch_size={sizes[-1]} would do"


def _check_keys(name: str, section: Mapping[str, Any], known: tuple[str, ...]) -> None:
    if unknown := [key for key in section if key not in known]:
        raise BudgetError(f"{name} has no key {unknown[0]!r}; it has {', '.join(known)}")


def _check_unit(name: str, unit: str, known: tuple[str, ...]) -> None:
    if unit not in known:
        raise BudgetError(f"{name} must be {' or '.join(known)}, not {unit!r}")
