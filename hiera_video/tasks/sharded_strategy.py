"""Lightning's strategy for networks whose parameters are spread over all devices."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from lightning.pytorch.strategies import ModelParallelStrategy, ParallelStrategy
from torch import Tensor
from torch.distributed.constants import default_pg_timeout
from torch.optim import Optimizer
from torch.utils._pytree import tree_map_only

from hiera_video.models.sharding import gradients_stay, part_like, whole


class ShardedStrategy(ModelParallelStrategy):
    """Each of the run's devices holds a part of each parameter, gradient and optimiser state.

    If several batches make a step, gradients are exchanged once, as with DDP; until then, each
    device holds whole ones.

    The network shards itself (`hiera_video.models.sharding.shard`) over the device mesh that this
    strategy makes. Checkpoints are the same single files as without sharding, so that a run goes on
    with another number of devices, or with DDP. To save one, the first process gathers all that it
    holds in its main memory: 12 bytes for each parameter with AdamW, 16 with an average of weights.

    Args:
        process_group_backend: of `torch.distributed`; None: NCCL on GPUs, else gloo.
        timeout: after which a process that waits for another one gives up.
    """

    def __init__(
        self,
        process_group_backend: str | None = None,
        timeout: timedelta | None = default_pg_timeout,
    ) -> None:
        super().__init__(
            # Lightning's default is a tensor-parallel mesh, on which nothing would be averaged.
            tensor_parallel_size=1,
            save_distributed_checkpoint=False,
            process_group_backend=process_group_backend,
            timeout=timeout,
        )

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Checkpoints are restored part by part, as with other strategies."""
        return True

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        """The network is sharded when it is built, so checkpoints are read as with DDP."""
        return False

    def setup_environment(self) -> None:
        """Make the mesh of all devices of the run."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    @contextmanager
    def block_backward_sync(self) -> Generator:
        """Exchange no gradients in a batch after which the step goes on."""
        assert self.lightning_module is not None
        with gradients_stay(self.lightning_module):
            yield

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The whole state of an optimiser, in the form of `Optimizer.state_dict`.

        Returns:
            The state on the CPU for the first process; what the others get is of no use.
        """
        state = optimizer.state_dict()
        on_cpu: dict[int, dict[str, Any]] = {}
        for number, values in state["state"].items():
            # One parameter after another, as they may not all fit a device.
            gathered = {key: whole(value) for key, value in values.items()}
            if self.global_rank == 0:
                on_cpu[number] = tree_map_only(Tensor, Tensor.cpu, gathered)
        return {**state, "state": on_cpu}

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any = None
    ) -> None:
        """Write a checkpoint as every other strategy does: a single file, by the first process."""
        ParallelStrategy.save_checkpoint(self, checkpoint, filepath, storage_options)

    def load_checkpoint(
        self, checkpoint_path: str | Path, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint as every other strategy does: a single file, by all processes."""
        return ParallelStrategy.load_checkpoint(self, checkpoint_path, weights_only=weights_only)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Load this device's part of the weights of a whole checkpoint."""
        assert self.lightning_module is not None
        weights = dict(checkpoint["state_dict"])
        for name, parameter in self.lightning_module.named_parameters():
            if name in weights:
                weights[name] = part_like(weights[name], parameter)
        self.lightning_module.load_state_dict(weights, strict=strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Load this device's part of the optimisers' states of a whole checkpoint."""
        for optimizer, saved in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            own = [p for group in optimizer.param_groups for p in group["params"]]
            numbers = [number for group in saved["param_groups"] for number in group["params"]]
            # The optimiser itself refuses other groups of parameters.
            like = dict(zip(numbers, own, strict=False))
            state = {
                number: {key: part_like(value, like[number]) for key, value in values.items()}
                for number, values in saved["state"].items()
                if number in like
            }
            optimizer.load_state_dict({**saved, "state": state})
