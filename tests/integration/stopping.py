import os
import signal

from lightning import Callback


class TerminateAt(Callback):
    """Send this process SIGTERM after some step, as a cluster would."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)
