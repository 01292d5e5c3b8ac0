"""Several processes' metrics in one, without ``torch.distributed``."""

from collections.abc import Sequence
from itertools import cycle

from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat


def joined(metrics: Sequence[Metric], states: Sequence[str]) -> Metric:
    """The first of these metrics, which from now on exchanges its states with the others.

    Args:
        metrics: one of each process.
        states: names of all their states, in the order in which they were added.
    """
    for metric in metrics[1:]:  # each process prepares its states when it exchanges them
        metric.sync(lambda state, group=None: [state], distributed_available=lambda: True)
        metric.unsync()
    names = cycle(states)

    def gather(_: Tensor, group: object = None) -> list[Tensor]:
        name = next(names)
        return [dim_zero_cat(getattr(metric, name)) for metric in metrics]

    metrics[0].dist_sync_fn = gather
    metrics[0].distributed_available_fn = lambda: True
    return metrics[0]
