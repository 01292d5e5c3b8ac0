"""Training steps recorded on CUDA graphs: what they go with, and whose the gradients are.

A graph writes its outputs, gradients included, to the same memory each time.
"""

from typing import Any

import torch
from lightning import Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch.optim import Optimizer

from hiera_video.models.compiling import MODES


def check_mode(compile: bool | str | None) -> str | None:
    """The mode that `task.compile` asks for; None: eager.

    Args:
        compile: a name in `compiling.MODES`; True: ``default``; False or None: eager.

    Raises:
        ValueError: it is another name.
    """
    if compile in (True, False, None):
        return MODES[0] if compile else None
    if compile not in MODES:
        raise ValueError(f"compile must be true, false, {', '.join(MODES)}, not {compile!r}")
    return str(compile)


def records_graphs(mode: str | None) -> bool:
    """Whether a mode of `check_mode` records CUDA graphs."""
    return mode not in (None, MODES[0])


def check_graphs(mode: str, trainer: Trainer, network: Any, same_shapes: bool) -> None:
    """Refuse what CUDA graphs cannot do, or have not been seen to do.

    Args:
        mode: a name in `compiling.MODES`; one that records no graphs is not refused.
        trainer: of the training.
        network: that is trained.
        same_shapes: whether its inputs have the same shapes in all batches.

    Raises:
        MisconfigurationException: they do not, or there are several devices or gradient
            checkpointing.
    """
    if not records_graphs(mode):
        return
    if not same_shapes:
        reason = "detection, where each batch has another number of boxes"
    elif not isinstance(trainer.strategy, SingleDeviceStrategy):
        reason = f"{type(trainer.strategy).__name__}: it is for one device"
    elif getattr(network, "grad_checkpointing", False):
        reason = "model.grad_checkpointing, which would not save memory"
    else:
        return
    raise MisconfigurationException(
        f"task.compile={mode} does not go with {reason}; set task.compile=default"
    )


def keep_gradients(optimizer: Optimizer) -> None:
    """Set gradients to zero where they are, in memory of their own.

    Those of the next batch are then added to them. Were there none, the memory of the graph itself
    would be taken for the gradients, and the next batch would overwrite it.

    Args:
        optimizer: of the parameters.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
    optimizer.zero_grad(set_to_none=False)
