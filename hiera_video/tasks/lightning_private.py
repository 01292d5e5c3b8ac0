"""The members of Lightning and PyTorch that this project uses though they are not public
or not declared.

Each has a test that runs a real trainer and fails when a release changes it.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, NamedTuple

from lightning import Trainer
from torch import Tensor
from torch.optim import Optimizer

# Progress of a validation that an error ended in its first batch: Lightning begins again with it.
_IN_FIRST_BATCH = {"ready": 1, "started": 1, "processed": 0, "completed": 0}


def stop_after_step(trainer: Trainer) -> None:
    """End training with ``SIGTERMException`` once Lightning has counted the batch under way.

    It may be one of a validation within the training, but not its last: that validation ends first.
    ``trainer.received_sigterm`` is public but cannot be set. Were the exception raised by a
    callback instead, a checkpoint would hold a batch that was trained on but not completed.
    """
    trainer._signal_connector.received_sigterm = True


def timeout_of(trainer: Trainer) -> timedelta | None:
    """How long the processes of a run wait for one another; None: the default of torch.

    It is ``trainer.strategy.timeout`` of the configuration.
    """
    return getattr(trainer.strategy, "_timeout", None)


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
        validates: whether it goes on with the validation that follows the last batch.
    """

    epochs: int
    batches: int
    step: int
    validates: bool = False


def position_of(checkpoint: Mapping[str, Any]) -> Position:
    """How far the training of a checkpoint is."""
    epochs, batches = _epoch_progress(checkpoint)["current"], batch_progress(checkpoint)
    within = 0 if batches["is_last_batch"] else batches["current"]["processed"]
    # At the end of an epoch, which `max_steps` has cut short if there are batches left.
    ends = epochs["processed"] > epochs["completed"]
    whole = epochs["processed"] - (ends and within > 0)
    validates = _validation_progress(checkpoint)["total"] == _IN_FIRST_BATCH
    return Position(whole, within, checkpoint["global_step"], validates)


def keep_validation(trainer: Trainer, checkpoint: Mapping[str, Any]) -> None:
    """Let a training go on with the validation that is due where a checkpoint is saved, if any.

    Lightning passes over it if the checkpoint is saved when the batch before it ends, or within the
    validation, unless in the middle of a batch.

    Args:
        trainer: fits a model.
        checkpoint: is changed, where it is saved.
    """
    batches, validation = batch_progress(checkpoint), _validation_progress(checkpoint)
    if trainer.validating:
        current = validation["current"]
        due = not validation["is_last_batch"] or current["completed"] < current["ready"]
    else:
        due = _is_ending(batches) and validation_follows(trainer)
    if due:
        validation["current"] = dict(_IN_FIRST_BATCH)
        for progress in (batches["total"], batches["current"]):
            progress["completed"] = progress["processed"]
    # After a validation that was begun again, Lightning counts one batch more in the total.
    validation["total"] = dict(validation["current"])


def validation_follows(trainer: Trainer) -> bool:
    """Whether a validation is due after the training batch that is under way, or was the last."""
    loop = trainer.fit_loop
    fetcher = loop._data_fetcher
    return fetcher is not None and loop.epoch_loop._should_check_val_fx(fetcher)


def leave_out_validation(checkpoint: Mapping[str, Any]) -> None:
    """Let a training go on with the next epoch, though a validation was due at the end of this one.

    Lightning would look for another batch of this epoch first.
    """
    if not _is_ending(batch_progress(checkpoint)):
        progress = _epoch_progress(checkpoint)
        for stage in (progress["current"], progress["total"]):
            stage["processed"] = stage["started"]


def _is_ending(batches: Mapping[str, Any]) -> bool:
    """Whether a checkpoint was saved while a batch of the training was ending."""
    return batches["current"]["completed"] < batches["current"]["processed"]


def set_max_steps(trainer: Trainer, steps: int) -> None:
    """Change after how many steps a training ends; -1: after any number.

    Lightning resumes a training that has a limit as if it were within an epoch, wherever it is. It
    does not begin one that has reached the limit, even if a validation is due.
    """
    trainer.fit_loop.epoch_loop.max_steps = steps


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


def _validation_progress(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    return checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]


def _epoch_progress(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    return checkpoint["loops"]["fit_loop"]["epoch_progress"]


def log_by_steps(trainer: Trainer) -> None:
    """Number the rows of logs by the steps made, to be called when a batch starts.

    Lightning counts them separately, and loses one where a training goes on within an epoch.
    """
    trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step


def log_interval(trainer: Trainer) -> int:
    """Steps from one that is logged to the next; 0: none is."""
    return trainer.log_every_n_steps  # pyright: ignore[reportAttributeAccessIssue]


def set_log_interval(trainer: Trainer, steps: int) -> None:
    """Change what `log_interval` says."""
    trainer.log_every_n_steps = steps  # pyright: ignore[reportAttributeAccessIssue]


def is_logged(trainer: Trainer, step: int) -> bool:
    """Whether Lightning logs a training step, counted from 1."""
    interval = log_interval(trainer)
    return interval > 0 and step % interval == 0


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
