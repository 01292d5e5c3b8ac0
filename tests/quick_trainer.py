"""A real trainer for a test: on the CPU, quiet, and without files."""

import os
import warnings
from contextlib import contextmanager

import pytest
from lightning import Trainer
from lightning.pytorch.loggers import CSVLogger

from tests.ports import free_port


def quick_trainer(**kwargs):
    """A `Trainer` with these arguments, for one epoch unless they say otherwise."""
    quiet = {
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": 1,
        "logger": False,
        "num_sanity_val_steps": 0,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "use_distributed_sampler": False,
    }
    if kwargs.get("strategy") == "ddp_fork":
        # Lightning's own choice stays in the environment, for every later trainer of this process,
        # and is one that an outgoing connection may have got.
        os.environ["MASTER_PORT"] = str(free_port())
    return Trainer(**{**quiet, **kwargs})


@contextmanager
def without_advice():
    """Ignore Lightning's advice on machines, and a warning about its own use of torch."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated")
        yield


@pytest.fixture(autouse=True)
def _quiet_lightning():
    """The same for each test of a package whose ``conftest.py`` imports this."""
    with without_advice():
        yield


class Points(CSVLogger):
    """Keeps all points of each curve."""

    def __init__(self, folder):
        super().__init__(folder)
        self.points = []

    def log_metrics(self, metrics, step=None):
        self.points += [(name, step, value) for name, value in metrics.items()]

    def curve(self, name):
        return {step: value for key, step, value in self.points if key == name}
