"""The members of Lightning and PyTorch that this project uses though they are not public.

Each has a test that runs a real trainer and fails when a release changes it.
"""

from collections.abc import Mapping
from typing import Any

from lightning import Trainer
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


def unscales_gradients(optimizer: Optimizer) -> bool:
    """Whether an optimiser undoes a ``GradScaler``'s factor itself, inside of its step.

    Fused optimisers do. Their gradients are still scaled when Lightning asks to clip them.
    """
    return bool(getattr(optimizer, "_step_supports_amp_scaling", False))
