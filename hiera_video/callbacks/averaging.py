"""An exponential moving average of the weights.

A checkpoint then holds the average in ``state_dict``, which evaluation and `load_weights` use, and
beside it the weights that are being trained, in ``current_model_state``.
"""

from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from hiera_video.models.sharding import from_local_part, local_part, part_like, whole


class AveragedWeights(Callback):
    """Averages the weights after each step, and evaluates the average in their place.

    Of a sharded network, each device averages its own parts. Checkpoints have the form of
    Lightning's `WeightAveraging`, which copies a whole network.

    Args:
        decay: share of the average that is kept at each step, in [0, 1). The first step is taken
            as it is.
        device: device that holds the average; None: that of the weights.
    """

    def __init__(self, decay: float, device: str | None = None) -> None:
        self.decay, self.device = decay, device
        # This device's part of the parameters and buffers that a checkpoint has, by their names.
        self._weights: dict[str, Tensor] = {}  # in the memory of the network
        self._averages: dict[str, Tensor] = {}
        self._exchanged = False  # by a validation
        self._steps = 0  # that are averaged
        self._latest_step = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget the average of an earlier training."""
        if stage == "fit":
            self._averages, self._steps, self._latest_step = {}, 0, 0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start from the initial weights, or go on from a checkpoint."""
        values = {k: v for k, v in pl_module.state_dict().items() if isinstance(v, Tensor)}
        self._weights = {name: local_part(value) for name, value in values.items()}
        start = self._averages or self._weights
        self._averages = {
            name: start[name].to(self.device or weight.device, copy=True)
            for name, weight in self._weights.items()
        }

    def on_train_batch_end(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        """Average the weights if the batch has completed a step."""
        if trainer.global_step <= self._latest_step:
            return
        averages, weights = [], []
        for name, weight in self._weights.items():
            if weight.is_floating_point() and self._steps:
                averages.append(self._averages[name])
                weights.append(weight.to(self._averages[name].device))
            else:
                self._averages[name].copy_(weight)
        if averages:
            get_ema_multi_avg_fn(self.decay)(averages, weights, None)
        self._steps += 1
        self._latest_step = trainer.global_step

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluate the average; before the task gathers weights that are sharded."""
        if trainer.state.fn == "fit":
            self._exchange()

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on with the trained weights."""
        if self._exchanged:
            self._exchange()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the average in the network."""
        for name, weight in self._weights.items():
            weight.copy_(self._averages[name])

    def _exchange(self) -> None:
        for name, weight in self._weights.items():
            held = weight.clone()
            weight.copy_(self._averages[name])
            self._averages[name].copy_(held)
        self._exchanged = not self._exchanged

    def state_dict(self) -> dict[str, Any]:
        """The last step that was averaged."""
        return {"latest_update_step": self._latest_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on after that step."""
        self._latest_step = state_dict["latest_update_step"]

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Save the average in ``state_dict``, the trained weights in ``current_model_state``."""
        if not self._averages:  # nothing was trained
            return
        held = {}
        for name, value in pl_module.state_dict().items():
            if name in self._averages:  # gathered one by one, as they may not all fit a device
                value = whole(from_local_part(self._averages[name], value)).cpu()
            if trainer.is_global_zero:
                held[name] = value
        states = (held, checkpoint["state_dict"])  # of a sharded network gathered already
        average, trained = states[::-1] if self._exchanged else states
        checkpoint["state_dict"], checkpoint["current_model_state"] = average, trained
        checkpoint["averaging_state"] = {"n_averaged": torch.tensor(self._steps)}

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Take the average and the trained weights from a checkpoint, to train on.

        Raises:
            MisconfigurationException: it has no average.
        """
        if trainer.state.fn != "fit":
            return
        check_average(trainer, checkpoint)
        average = checkpoint["state_dict"]
        for name, value in pl_module.state_dict().items():
            if isinstance(value, Tensor):
                self._averages[name] = local_part(part_like(average[name], value))
        self._steps = int(checkpoint["averaging_state"]["n_averaged"])
        trained = {"state_dict": checkpoint["current_model_state"]}
        trainer.strategy.load_model_state_dict(trained)


def ema(decay: float | None, device: str | None = None) -> AveragedWeights | None:
    """The callback that averages weights, or None if no average is wanted.

    Args:
        decay: share of the average that is kept at each step, in [0, 1), such as 0.9999; None: no
            average.
        device: device that holds the average; None: that of the model.

    Raises:
        ValueError: the decay is outside [0, 1).
    """
    if decay is None:
        return None
    if not 0 <= decay < 1:
        raise ValueError(f"decay must be in [0, 1), not {decay}")
    return AveragedWeights(decay, device)


def check_average(trainer: Trainer, checkpoint: dict[str, Any]) -> None:
    """See that a training is resumed with an average of weights exactly if it had one.

    Otherwise Lightning would go on from the average as if it were the trained weights, or fail.

    Raises:
        MisconfigurationException: only one of the checkpoint and the trainer has an average.
    """
    averaged = "averaging_state" in checkpoint
    kinds = (AveragedWeights, WeightAveraging)
    averaging = any(isinstance(c, kinds) for c in trainer.callbacks)  # type: ignore
    if averaged and not averaging:
        raise MisconfigurationException(
            "the checkpoint has an average of weights, and this run makes none: set "
            "callbacks.ema.decay as before, or start from the average with task.init_from"
        )
    if averaging and not averaged:
        raise MisconfigurationException(
            "the checkpoint has no average of weights: leave out callbacks.ema.decay, or start "
            "from its weights with task.init_from"
        )
