"""A last checkpoint when the machine is about to be taken away."""

from pathlib import Path

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException


class SaveOnSigterm(Callback):
    """Save ``last.ckpt`` when all ranks stop for SIGTERM.

    Only then: the ranks stop together, so that a checkpoint they write together is safe. After an
    ordinary error on one rank the others would wait for it forever.

    Args:
        folder: the run's folder of checkpoints.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Save if it was SIGTERM during training."""
        if isinstance(exception, SIGTERMException) and trainer.state.fn == "fit":
            trainer.save_checkpoint(self.folder / "last.ckpt")
