"""Parameter groups with layer-wise decay, and the schedule of the learning rate."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from lightning import Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

OptimizerFactory = Callable[..., Optimizer]
POSITIONS = ("pos_embed", "pos_embed_spatial", "pos_embed_temporal")  # of an encoder


def parameter_groups(
    model: nn.Module,
    lr: float,
    weight_decay: float,
    layer_decay: float = 1.0,
    position_lr: float | None = None,
) -> list[dict[str, Any]]:
    """Groups of parameters for an optimiser, one for each layer and for with or without decay.

    Layer ``i`` learns at ``lr * layer_decay ** (last - i)`` (BEiT; indexed as in PySlowFast's
    ``get_param_groups``, where the last block is already one step below the head). Weight decay
    skips 1-D parameters and those that ``model.no_weight_decay()`` names. Frozen parameters are in
    no group.

    Args:
        model: classifier, autoencoder or any other network. One without ``num_layers`` and
            ``layer_id`` has no layer-wise decay, one without ``no_weight_decay`` no names.
        lr: learning rate of the head.
        weight_decay: of the parameters that decay.
        layer_decay: factor from one layer to the one before it; 1 treats all layers alike.
        position_lr: factor on ``lr`` for the encoder's position embeddings, in place of that of
            their layer (paper: 0.5 at a larger picture than in pretraining); None: their layer's.

    Returns:
        Dicts with ``params``, ``names``, ``lr``, ``weight_decay``.

    Raises:
        MisconfigurationException: layer-wise decay of a network that does not number its layers.
    """
    network: Any = model
    undecayed = network.no_weight_decay() if hasattr(model, "no_weight_decay") else ()
    layered = layer_decay != 1.0
    if layered and not hasattr(model, "layer_id"):
        raise MisconfigurationException(
            f"task.layer_decay={layer_decay:g}: {type(model).__name__} does not number its layers "
            "(num_layers, layer_id); set task.layer_decay=1"
        )
    last = network.num_layers - 1 if layered else 0
    groups: dict[tuple[float, bool], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        decays = parameter.ndim > 1 and name not in undecayed
        layer = network.layer_id(name) if layered else last
        factor = layer_decay ** (last - layer)
        if position_lr is not None and name in POSITIONS:
            factor = position_lr
        group = groups.setdefault(
            (factor, decays),
            {
                "params": [],
                "names": [],
                "lr": lr * factor,
                "weight_decay": weight_decay if decays else 0.0,
            },
        )
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())


def keep_settings(optimizer: Optimizer) -> None:
    """Let an optimiser that loads a state keep its own settings: rates, decay, betas and the rest.

    To load the state of other groups of parameters raises a MisconfigurationException.
    """

    def with_own_settings(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        own, saved = optimizer.param_groups, state["param_groups"]
        if [len(group["params"]) for group in own] != [len(group["params"]) for group in saved]:
            raise MisconfigurationException(
                "the checkpoint's optimiser has other groups of parameters: keep task.layer_decay "
                "and the model as they were, or start from the weights with task.init_from"
            )
        pairs = zip(own, saved, strict=True)
        return {**state, "param_groups": [{**mine, "params": s["params"]} for mine, s in pairs]}

    optimizer.register_load_state_dict_pre_hook(with_own_settings)


class ScheduleLength(NamedTuple):
    """How long a training is.

    Attributes:
        steps: optimiser steps of the whole training.
        a_pass: optimiser steps of one pass over the videos.
        by_passes: whether it ends after a number of passes; else after that of steps.
    """

    steps: int
    a_pass: int
    by_passes: bool


class Schedule(LambdaLR):
    """A schedule of which a checkpoint holds only the place: rates and shape are as configured.

    With another batch size, number of processes or of videos, a pass has other steps than before.
    A resumed training that has half of its passes behind it is half through its schedule, too.

    Args:
        optimizer: its groups keep the ratio of their learning rates.
        factor: of the next step, on all rates, by the steps already made.
        length: of the training.
    """

    def __init__(
        self, optimizer: Optimizer, factor: Callable[[int], float], length: ScheduleLength
    ) -> None:
        self.steps_a_pass = length.a_pass if length.by_passes else None  # kept in checkpoints
        super().__init__(optimizer, factor)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on at a place."""
        step, before = state_dict["last_epoch"], state_dict.get("steps_a_pass")
        if self.steps_a_pass and before:
            step = round(step * self.steps_a_pass / before)
        self.last_epoch, self._step_count = step, step + 1
        factors = [factor(self.last_epoch) for factor in self.lr_lambdas]
        self._last_lr = [rate * f for rate, f in zip(self.base_lrs, factors, strict=True)]
        for group, rate in zip(self.optimizer.param_groups, self._last_lr, strict=True):
            group["lr"] = rate


def warmup_cosine(
    step: int, warmup: int, total: int, floor: float = 0.0, start: float | None = None
) -> float:
    """Factor on the learning rate: linear from ``start`` to 1, then half a cosine to ``floor``.

    ``start`` and ``floor`` themselves are not reached: the first step is already one part of the
    warm-up above ``start``, the last one still just above ``floor``.

    Args:
        step: optimiser steps already made, from 0.
        warmup: steps of the linear part.
        total: all steps.
        floor: factor that would follow the last step, in [0, 1].
        start: factor that would precede the first step, in [0, 1]; None: ``floor``.

    Returns:
        The factor of the next step, in [0, 1].
    """
    if step < warmup:
        start = floor if start is None else start
        return start + (1 - start) * (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))


def warmup_steps(
    step: int, warmup: int, start: float, milestones: Sequence[int], gamma: float
) -> float:
    """Factor on the learning rate: linear from ``start`` to 1, then falling at milestones.

    Args:
        step: optimiser steps already made, from 0.
        warmup: steps of the linear part.
        start: factor of the first step, in [0, 1].
        milestones: steps after which the factor is multiplied by ``gamma``.
        gamma: in (0, 1].

    Returns:
        The factor of the next step, in [0, 1].
    """
    rise = min(1.0, step / warmup) if warmup else 1.0
    return (start + (1 - start) * rise) * gamma ** sum(step >= m for m in milestones)


def schedule_length(trainer: Trainer) -> ScheduleLength:
    """How long a training is, before it begins.

    Raises:
        MisconfigurationException: they are no finite, whole numbers above 0.
    """
    accumulate = trainer.accumulate_grad_batches
    trainer.fit_loop.setup_data()  # of no effect if the loader exists
    steps = trainer.estimated_stepping_batches
    if not trainer.num_training_batches:
        raise MisconfigurationException("there are no training batches")
    if trainer.num_training_batches % accumulate:
        raise MisconfigurationException(
            f"trainer.limit_train_batches leaves {trainer.num_training_batches} batches, no "
            f"multiple of the {accumulate} that make a step"
        )
    if math.isinf(steps):
        raise MisconfigurationException(
            "the schedule needs an end; set task.epochs.count, or trainer.max_steps"
        )
    a_pass = int(trainer.num_training_batches // accumulate)
    return ScheduleLength(int(steps), a_pass, steps != trainer.max_steps)


def steps_left(trainer: Trainer) -> int:
    """Optimiser steps that a training has left; those it made in an earlier run may differ."""
    schedules = (config.scheduler for config in trainer.lr_scheduler_configs)
    made = next((s.last_epoch for s in schedules if isinstance(s, Schedule)), trainer.global_step)
    return max(0, int(trainer.estimated_stepping_batches) - made)
