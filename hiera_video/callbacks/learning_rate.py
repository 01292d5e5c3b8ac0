"""The learning rate of the head, and with layer-wise decay that of other layers."""

from typing import Any

from lightning import Callback, LightningModule, Trainer
from torch.optim import Optimizer

from hiera_video.callbacks.logged_steps import completes_step
from hiera_video.tasks.lightning_private import is_logged


class LearningRate(Callback):
    """Log the learning rate of the head, ``lr``, and with layer-wise decay those of other layers.

    The ratios between layers are constant (`tasks.optimization.parameter_groups`), so ``lr`` and
    ``lr/layer_00``, the first layer's rate, determine all others. Lightning's
    monitor writes one column per parameter group, a hundred for a large model. Nothing here waits
    for the device.

    Args:
        every_layer: log each layer, from ``lr/layer_00``, and not just the first.
    """

    def __init__(self, every_layer: bool = False) -> None:
        self.every_layer = every_layer

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Log at the steps at which Lightning logs losses."""
        step = trainer.global_step
        if completes_step(trainer, batch_idx) and is_logged(trainer, step + 1):
            layers = layer_rates(trainer.optimizers[0])
            shown = layers if self.every_layer else layers[:1]
            rates = {f"lr/layer_{n:02}": rate for n, rate in enumerate(shown)}
            rates = {"lr": layers[-1]} | (rates if len(layers) > 1 else {})
            for logger in trainer.loggers:
                logger.log_metrics(rates, step=step)


def layer_rates(optimizer: Optimizer) -> list[float]:
    """The learning rates of a network's layers now, from the first layer, the slowest, to the head.

    Layers that learn at the same rate, as all do without layer-wise decay, count as one.
    """
    groups = optimizer.param_groups
    now = {group.get("initial_lr", group["lr"]): group["lr"] for group in groups}
    return [now[initial] for initial in sorted(now)]
