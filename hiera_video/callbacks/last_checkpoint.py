"""The checkpoint from which a run is resumed."""

from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint


class LastCheckpoint(ModelCheckpoint):
    """Lightning's `ModelCheckpoint`, and one at the end of a training whatever the interval.

    Lightning saves nothing at the end if, for example, ``every_n_epochs`` is 10 and the training
    has 25 epochs: the last five would be lost.

    Raises:
        ValueError: ``save_weights_only``, from which nothing can be resumed.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.save_weights_only:
            raise ValueError("save_weights_only: no run can be resumed from weights alone")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the end, unless the last step is saved already.

        Not in ``on_train_end``, where an epoch that ``max_steps`` has cut short counts as whole.
        """
        super().on_train_epoch_end(trainer, pl_module)
        if trainer.fit_loop.done and not self._should_skip_saving_checkpoint(trainer):
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))
