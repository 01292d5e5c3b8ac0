"""An exponential moving average of the weights, by Lightning's callback, and going on with it.

A checkpoint then holds the average in ``state_dict``, which is what evaluation and `load_weights`
use, and the weights that are trained beside it.
"""

import warnings
from typing import Any

from lightning import LightningModule, Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import EMAWeightAveraging, WeightAveraging


class AveragedWeights(EMAWeightAveraging):
    """Lightning's average, without its warning about a hook that is harmless here."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin the average with the initial weights."""
        with warnings.catch_warnings():
            # Of sharded models; `VideoTask.configure_model` builds a whole one.
            warnings.filterwarnings("ignore", message="You're using the WeightAveraging callback")
            super().setup(trainer, pl_module, stage)


def ema(decay: float | None, device: str | None = None) -> AveragedWeights | None:
    """The callback, or None where no average is wanted.

    Args:
        decay: share of the average that stays at each step, in [0, 1), such as 0.9999; None: none.
        device: where the average lies; None: with the model.

    Raises:
        ValueError: the decay is outside [0, 1).
    """
    if decay is None:
        return None
    if not 0 <= decay < 1:
        raise ValueError(f"decay must be in [0, 1), not {decay}")
    return AveragedWeights(device=device, decay=decay)


def check_average(trainer: Trainer, checkpoint: dict[str, Any]) -> None:
    """See that a training with an average of weights is continued with it.

    Without the callback Lightning would go on from the average, as if it had been trained.

    Raises:
        MisconfigurationException: it is not.
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
