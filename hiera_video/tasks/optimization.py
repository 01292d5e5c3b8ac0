"""Parameter groups with layer-wise decay, and the schedule of the learning rate."""

import math
from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from hiera_video.models.hiera import Hiera

OptimizerFactory = Callable[..., Optimizer]


def parameter_groups(
    model: Hiera, lr: float, weight_decay: float, layer_decay: float = 1.0
) -> list[dict[str, Any]]:
    """Groups for an optimiser, one for each (layer, decayed or not).

    Layer ``i`` learns at ``lr * layer_decay ** (last - i)`` (BEiT; indexing as in PySlowFast's
    ``get_param_groups``, so that the last block is already one step below the head). Weight decay
    leaves out 1-D parameters and what ``model.no_weight_decay()`` names.

    Args:
        model: classifier or autoencoder.
        lr: learning rate of the head.
        weight_decay: for the parameters that decay.
        layer_decay: factor from one layer to the one before it; 1 treats all alike.

    Returns:
        Dicts with ``params``, ``names``, ``lr``, ``weight_decay``.
    """
    undecayed = model.no_weight_decay()
    last = model.num_layers - 1
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        decays = parameter.ndim > 1 and name not in undecayed
        layer = model.layer_id(name) if layer_decay != 1.0 else last
        group = groups.setdefault(
            (layer, decays),
            {
                "params": [],
                "names": [],
                "lr": lr * layer_decay ** (last - layer),
                "weight_decay": weight_decay if decays else 0.0,
            },
        )
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())


def warmup_cosine(
    step: int, warmup: int, total: int, floor: float = 0.0, start: float | None = None
) -> float:
    """Factor on the learning rate: linear from ``start`` to 1, then half a cosine to ``floor``.

    The first step is one part of the warm-up above the start, the last one just above the floor.

    Args:
        step: optimiser steps already made, from 0.
        warmup: steps of the linear part.
        total: all steps.
        floor: least factor of the cosine, which would come after the last step.
        start: factor that would come before the first step; None: ``floor``.
    """
    if step < warmup:
        start = floor if start is None else start
        return start + (1 - start) * (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))


def scheduler(
    optimizer: Optimizer,
    warmup_steps: int,
    total_steps: int,
    floor: float,
    start: float | None = None,
) -> dict[str, Any]:
    """`warmup_cosine` at every step, in the form Lightning's ``configure_optimizers`` returns."""
    factor = LambdaLR(
        optimizer, lambda step: warmup_cosine(step, warmup_steps, total_steps, floor, start)
    )
    return {"scheduler": factor, "interval": "step"}
