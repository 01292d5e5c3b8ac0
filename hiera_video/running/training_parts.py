"""The task of a configuration and its settings, for a command that looks at a training."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from hiera_video.models.precision import full_name
from hiera_video.running.compose import configuration
from hiera_video.running.making import made


class TrainingParts(NamedTuple):
    """What `fit` would train, and how.

    Attributes:
        task: without a network.
        batch_size: videos on a device.
        repeats: clips of each.
        accumulate: as ``trainer.accumulate_grad_batches``.
        precision: the full name of ``trainer.precision``.
        accelerator: as ``trainer.accelerator``.
        bucket_view: whether DDP keeps gradients in its buckets alone.
        sharded: whether the devices share weights, gradients and the optimiser's state.
        averages: whether the device holds a moving average of the weights.
        size: height and width, as ``data.size``; None: the data has no such setting.
    """

    task: Any
    batch_size: int
    repeats: int
    accumulate: int
    precision: str
    accelerator: str
    bucket_view: bool
    sharded: bool
    averages: bool
    size: Sequence[int] | None

    def accumulates(self, devices: int) -> bool:
        """Whether several batches make a step on so many devices.

        Raises:
            BudgetError: no whole number of batches makes a step.
        """
        batches = self.task.budget.accumulation(
            self.batch_size, self.repeats, devices, self.accumulate
        )
        return batches > 1


def training_parts(config: str, words: Sequence[str]) -> TrainingParts:
    """Build the task of a configuration and read the settings that cost memory.

    Args:
        config: name or file of the configuration.
        words: ``key=value`` overrides.

    Raises:
        UsageError: an unknown configuration, or words that do not fit it.
    """
    with configuration("fit", config, words) as values:
        strategy = values.trainer.strategy or "auto"
        options = {} if isinstance(strategy, str) else strategy
        ema = OmegaConf.select(values, "callbacks.ema") or {}
        return TrainingParts(
            task=made(values, "task"),
            batch_size=values.data.batch_size,
            repeats=values.data.get("repeats", 1),
            accumulate=values.trainer.accumulate_grad_batches,
            precision=full_name(values.trainer.precision),
            accelerator=str(values.trainer.accelerator),
            bucket_view=bool(options.get("gradient_as_bucket_view")),
            sharded=str(options.get("_target_")).endswith(".ShardedStrategy"),
            averages=ema.get("decay") is not None and ema.get("device") != "cpu",
            size=OmegaConf.select(values, "data.size"),
        )
