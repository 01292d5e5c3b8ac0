"""The checkpoint from which a run is resumed."""

from lightning import LightningModule, Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ModelCheckpoint


class LastCheckpoint(ModelCheckpoint):
    """Lightning's `ModelCheckpoint`, and one at the end of a training whatever the interval.

    Lightning saves nothing at the end if, for example, ``every_n_epochs`` is 10 and the training
    has 25 epochs: the last five would be lost.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse to train with checkpoints from which nothing can be resumed.

        Raises:
            MisconfigurationException: ``save_weights_only``.
        """
        if stage == "fit" and self.save_weights_only:
            raise MisconfigurationException(
                "callbacks.recovery.save_weights_only: no run can be resumed from weights alone; "
                "leave it out, or set callbacks.recovery=null"
            )
        super().setup(trainer, pl_module, stage)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the end, unless the last step is saved already.

        Not in ``on_train_end``, where an epoch that ``max_steps`` has cut short counts as whole.
        """
        super().on_train_epoch_end(trainer, pl_module)
        if trainer.fit_loop.done and not self._should_skip_saving_checkpoint(trainer):
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))
