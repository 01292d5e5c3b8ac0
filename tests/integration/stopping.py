from lightning import Callback


class StopAfter(Callback):
    """End a run after some epochs, as a user's Ctrl-C would, but at a known place."""

    def __init__(self, epochs):
        self.epochs = epochs

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch + 1 == self.epochs:
            trainer.should_stop = True
