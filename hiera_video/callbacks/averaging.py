"""An exponential moving average of the weights, kept by Lightning's callback.

A checkpoint then holds the average in ``state_dict``, which evaluation and `load_weights` use, and
beside it the weights that are being trained.
"""

import warnings
from typing import Any

from lightning import LightningModule, Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import EMAWeightAveraging, WeightAveraging


class AveragedWeights(EMAWeightAveraging):
    """Lightning's average, without a warning that does not apply here.

    A checkpoint may be saved while a validation has exchanged the average and the trained weights.
    """

    _exchanged = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Start the average from the initial weights."""
        with warnings.catch_warnings():
            # It warns of sharded models; `VideoTask.configure_model` builds a whole one.
            warnings.filterwarnings("ignore", message="You're using the WeightAveraging callback")
            super().setup(trainer, pl_module, stage)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluate the average."""
        super().on_validation_epoch_start(trainer, pl_module)
        self._exchanged = True

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on with the trained weights."""
        super().on_validation_epoch_end(trainer, pl_module)
        self._exchanged = False

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Save the average in ``state_dict``, the trained weights in ``current_model_state``."""
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if self._exchanged and "current_model_state" in checkpoint:
            names = ("current_model_state", "state_dict")
            checkpoint.update(zip(names, [checkpoint[name] for name in names[::-1]], strict=True))


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
    return AveragedWeights(device=device, decay=decay)


def check_average(trainer: Trainer, checkpoint: dict[str, Any]) -> None:
    """See that a training is resumed with an average of weights exactly if it had one.

    Otherwise Lightning would go on from the average as if it were the trained weights, or fail.

    Raises:
        MisconfigurationException: only one of the checkpoint and the trainer has an average.
    """
    averaged = "averaging_state" in checkpoint
    averaging = any(isinstance(c, WeightAveraging) for c in trainer.callbacks)  # type: ignore
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
