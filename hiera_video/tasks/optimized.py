"""What all tasks that train have in common: learning rates, and the steps of the optimiser."""

import inspect
import logging
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from datamodules.wording import counted
from hiera_video.augment.basic import Normalize
from hiera_video.models.sharding import whole
from hiera_video.tasks.budget import Budget
from hiera_video.tasks.evaluation import EvaluatedTask
from hiera_video.tasks.lightning_private import is_logged, skip_step_if, unscales_gradients
from hiera_video.tasks.optimization import (
    OptimizerFactory,
    Schedule,
    keep_settings,
    parameter_groups,
    schedule_length,
    warmup_cosine,
)

log = logging.getLogger(__name__)


class OptimizedTask(EvaluatedTask):
    """A network with its optimiser, which is built when the trainer asks for it.

    Args:
        normalize: turns uint8 clips into the network's input.
        optimizer: called with parameter groups, whose learning rates and decays are already set.
        batch: ``global``, ``unit`` and ``lr_reference``, as in `Budget`. Where the devices hold
            less than ``global``, gradients are accumulated.
        epochs: ``count``, and the ``unit`` that `warmup_epochs` is counted in, as in `Budget`.
        lr: learning rate after warm-up, for a batch of ``lr_reference`` if that is given; with
            layer-wise decay, that of the head.
        weight_decay: of all parameters except 1-D ones and position embeddings.
        layer_decay: factor on the learning rate from one layer to the one before; 1: no decay.
        position_lr: factor on `lr` for position embeddings, in (0, 1]; None: as their layer.
        warmup_epochs: length of the linear warm-up; fractions are allowed.
        warmup_lr: learning rate from which warm-up rises, scaled like `lr`; None: `min_lr`.
        min_lr: learning rate to which the cosine falls, scaled like `lr`.

    Attributes:
        skipped: whether the step that the last batch completed was skipped: bool scalar, the same
            on all ranks; None while gradients accumulate.

    Raises:
        ValueError: ``min_lr`` or ``warmup_lr`` is outside [0, lr].
        BudgetError: ``batch`` or ``epochs`` is wrong.
    """

    def __init__(
        self,
        normalize: Normalize,
        /,
        *,
        optimizer: OptimizerFactory = AdamW,
        batch: Mapping[str, Any] | None = None,
        epochs: Mapping[str, Any] | None = None,
        lr: float = 8e-4,
        weight_decay: float = 0.05,
        layer_decay: float = 1.0,
        position_lr: float | None = None,
        warmup_epochs: float = 0.0,
        warmup_lr: float | None = None,
        min_lr: float = 1e-6,
    ) -> None:
        super().__init__(normalize)
        warmup_lr = min_lr if warmup_lr is None else warmup_lr
        if not 0 < lr < math.inf:  # nor NaN
            raise ValueError(f"lr must be above 0 and finite, not {lr}")
        for name, value in (("weight_decay", weight_decay), ("warmup_epochs", warmup_epochs)):
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} must be 0 or more, and finite, not {value}")
        if not 0 < layer_decay <= 1:  # 0 would freeze all layers but the last
            raise ValueError(f"layer_decay must be in (0, 1], not {layer_decay}")
        if position_lr is not None and not 0 < position_lr <= 1:
            raise ValueError(f"position_lr must be in (0, 1], not {position_lr}")
        for name, value in (("min_lr", min_lr), ("warmup_lr", warmup_lr)):
            if not 0 <= value <= lr:
                raise ValueError(f"{name} must be in [0, lr={lr}], not {value}")
        self.optimizer = optimizer
        self.budget = Budget.of(batch, epochs)
        self.lr, self.weight_decay, self.layer_decay = lr, weight_decay, layer_decay
        self.position_lr = position_lr
        self.warmup_epochs, self.warmup_lr, self.min_lr = warmup_epochs, warmup_lr, min_lr
        self.skipped: Tensor | None = None
        self._sums: dict[str, Tensor] = {}  # of this step's batches, on this rank

    def fix_accumulation(self) -> None:
        """Tell the trainer how many batches make a step, before a loader or checkpoint is read.

        Raises:
            MisconfigurationException: no whole number of batches does.
        """
        trainer, data = self.trainer, self.datamodule
        try:
            trainer.accumulate_grad_batches = self.budget.accumulation(
                data.batch_size, data.repeats, trainer.world_size, trainer.accumulate_grad_batches
            )
        except ValueError as error:
            raise MisconfigurationException(str(error)) from error

    def configure_optimizers(self) -> Any:
        """The optimiser, and its schedule for every step.

        Raises:
            MisconfigurationException: the optimiser refuses its arguments, or there is no whole or
                finite number of steps.
        """
        trainer = self.trainer
        batch_size, repeats = self.datamodule.batch_size, self.datamodule.repeats
        accumulate = trainer.accumulate_grad_batches
        videos = batch_size * trainer.world_size * accumulate  # of a step
        factor = self.budget.lr_factor(videos, repeats)
        groups = self.parameter_groups(self.model, factor)
        try:
            optimizer = self.optimizer(groups, **self._fused())
        except (TypeError, ValueError, IndexError) as error:
            raise MisconfigurationException(f"task.optimizer: {error}") from error
        keep_settings(optimizer)
        length = schedule_length(trainer)
        steps, unit = length.steps, getattr(self.datamodule, "unit", "videos")
        warmup = round(self.budget.in_passes(self.warmup_epochs, repeats) * length.a_pass)
        if trainer.is_global_zero:
            log.info(
                f"a step is {counted(videos, unit)}, {counted(videos * repeats, 'clips')}: "
                f"{counted(trainer.world_size, 'processes')} x {counted(accumulate, 'batches')} x "
                f"{counted(batch_size, unit)} x {counted(repeats, 'clips')}"
            )
            log.info(
                f"learning rate {self.lr * factor:.3g} ({self.lr:g} x {factor:g}); "
                f"{counted(steps, 'steps')} of which {warmup} warm up, {length.a_pass} a pass over "
                f"the {unit}; {steps * videos * repeats:.4g} clips in all"
            )
            if warmup >= steps:
                log.warning(
                    f"task.warmup_epochs={self.warmup_epochs:g} is {warmup} of "
                    f"{counted(steps, 'steps')}: the learning rate never falls"
                )
        schedule = Schedule(optimizer, self.schedule(warmup, steps), length)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def schedule(self, warmup: int, steps: int) -> Callable[[int], float]:
        """The factor on the learning rate, by the steps already made.

        Args:
            warmup: steps of the warm-up.
            steps: of the whole training.
        """
        floor, start = self.min_lr / self.lr, self.warmup_lr / self.lr
        return partial(warmup_cosine, warmup=warmup, total=steps, floor=floor, start=start)

    def parameter_groups(self, model: nn.Module, lr_factor: float = 1.0) -> list[dict[str, Any]]:
        """The groups of a network's parameters, with their rates; see `optimization`.

        Args:
            model: the network.
            lr_factor: on all learning rates.
        """
        return parameter_groups(
            model, self.lr * lr_factor, self.weight_decay, self.layer_decay, self.position_lr
        )

    def _fused(self) -> dict[str, bool]:
        """A fused optimiser on a GPU: it can skip a step without the host."""
        takes = inspect.signature(self.optimizer).parameters.get("fused")
        on_gpu = self.trainer.strategy.root_device.type == "cuda"
        return {"fused": True} if takes and takes.default is None and on_gpu else {}

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the total L2 norm of all gradients and log what it was before.

        If it is not finite, the step changes neither weights nor the state of the optimiser. All
        ranks have the same gradients, so all skip the step.

        Args:
            optimizer: the one that will make a step.
            gradient_clip_val: greatest norm; None or 0: only log it.
            gradient_clip_algorithm: "norm" or None.

        Raises:
            MisconfigurationException: another algorithm.
        """
        # Lightning's own clipping refuses fused optimisers.
        if gradient_clip_algorithm not in (None, "norm"):
            raise MisconfigurationException(
                "gradients are clipped by norm; leave out trainer.gradient_clip_algorithm"
            )
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        if scaler is not None and unscales_gradients(optimizer):
            scaler.unscale_(optimizer)  # Lightning does it for all others
        norm: Tensor = whole(
            nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val or math.inf)
        )
        self.log("train/grad_norm", norm)
        self._log_means()
        self.skipped = ~norm.isfinite()
        if not skip_step_if(optimizer, self.skipped) and self.skipped:
            optimizer.zero_grad()  # the host has waited; without gradients, a step does nothing

    def log_mean(self, name: str, value: Tensor) -> None:
        """Log the mean of a number over all batches of a step, on all ranks.

        Ranks and host meet only at the steps that are logged, and at the last of an epoch.

        Args:
            name: such as ``train/loss``.
            value: scalar, of one batch.
        """
        self._sums[name] = self._sums.get(name, 0) + value.detach().float()

    def log_sum(self, name: str, count: Tensor | float) -> None:
        """Log the sum of a number over the batches of an epoch, on all ranks."""
        self.log(name, count, on_step=False, on_epoch=True, reduce_fx="sum", sync_dist=True)

    def _log_means(self) -> None:
        """Log what `log_mean` was given since the last step."""
        trainer, sums = self.trainer, self._sums
        step = trainer.global_step + 1
        due = is_logged(trainer, step) or trainer.is_last_batch or step == trainer.max_steps
        if sums and due:
            means = torch.stack(list(sums.values())) / trainer.accumulate_grad_batches
            means = trainer.strategy.reduce(means, reduce_op="mean")
            for name, mean in zip(sums, means.unbind(), strict=True):
                self.log(name, mean)
        self._sums = {}

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Compute gradients, which are NaN on all ranks if the loss of one is not finite."""
        super().backward(loss, *args, gradient=loss.detach() * 0 + 1, **kwargs)
