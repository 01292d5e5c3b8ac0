"""The members of Lightning and PyTorch that this project uses though they are not public.

Each has a test that runs a real trainer and fails when a release changes it.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from lightning import Trainer
from torch import Tensor
from torch.optim import Optimizer


def stop_after_step(trainer: Trainer) -> None:
    """End training with ``SIGTERMException`` once Lightning has counted the batch under way.

    ``trainer.received_sigterm`` is public but cannot be set. Were the exception raised by a
    callback instead, a checkpoint would hold a batch that was trained on but not completed.
    """
    trainer._signal_connector.received_sigterm = True


def batch_progress(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Where in its epoch a checkpoint is; what is changed here changes the checkpoint.

    No hook of Lightning lets a training continue at another batch of an epoch.

    Returns:
        ``is_last_batch``, and ``current``: the batches that are ``ready``, ``started``,
        ``processed`` and ``completed`` in this epoch, and ``total`` in all epochs.
    """
    return checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]


class Position(NamedTuple):
    """How far a training is.

    Attributes:
        epochs: whole epochs it has had.
        batches: batches it has had of the next epoch.
        step: steps of the optimiser.
    """

    epochs: int
    batches: int
    step: int


def position_of(checkpoint: Mapping[str, Any]) -> Position:
    """How far the training of a checkpoint is."""
    epochs, batches = _epoch_progress(checkpoint)["current"], batch_progress(checkpoint)
    within = 0 if batches["is_last_batch"] else batches["current"]["processed"]
    # At the end of an epoch, which `max_steps` has cut short if there are batches left.
    ends = epochs["processed"] > epochs["completed"]
    return Position(epochs["processed"] - (ends and within > 0), within, checkpoint["global_step"])


def go_on_within_epoch(checkpoint: Mapping[str, Any], epoch: int) -> None:
    """Let a training go on within an epoch.

    Lightning takes one that ``max_steps`` has cut short for a whole one. It miscounts an epoch that
    follows a resume at the last batch of another one.

    Args:
        checkpoint: is changed.
        epoch: counted from 0; some of its batches are left.
    """
    progress = _epoch_progress(checkpoint)
    progress["current"] = {
        stage: epoch + (stage in ("ready", "started")) for stage in progress["current"]
    }
    progress["total"] = dict(progress["current"])


def _epoch_progress(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    return checkpoint["loops"]["fit_loop"]["epoch_progress"]


def log_by_steps(trainer: Trainer) -> None:
    """Number the rows of logs by the steps made, to be called when a batch starts.

    Lightning counts them separately, and loses one where a training goes on within an epoch.
    """
    trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step


def skip_step_if(optimizer: Optimizer, flag: Tensor) -> bool:
    """Have a fused optimiser leave weights and state as they are if a flag is set on the device.

    Args:
        optimizer: within its step, before it reads the gradients.
        flag: bool scalar, on the device of the parameters.

    Returns:
        False if the optimiser cannot do that. SGD cannot in its first step, in which it would keep
        a momentum that it has not computed.
    """
    if not unscales_gradients(optimizer) or not optimizer.state:
        return False
    optimizer.found_inf = flag.float()  # pyright: ignore[reportAttributeAccessIssue]
    return True


def unscales_gradients(optimizer: Optimizer) -> bool:
    """Whether an optimiser undoes a ``GradScaler``'s factor itself, inside of its step.

    Fused optimisers do. Their gradients are still scaled when Lightning asks to clip them.
    """
    return bool(getattr(optimizer, "_step_supports_amp_scaling", False))
