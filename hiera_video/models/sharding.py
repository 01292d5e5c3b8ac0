"""Networks whose parameters are spread over several devices (FSDP2, `torch.distributed.fsdp`).

Each device holds a part of each parameter, of its gradient and of the optimiser's state. A part of
the network gathers its parameters when it runs and forgets them afterwards.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from hiera_video.models.blocks import HieraBlock, MaskUnitAttention, Mlp


def shard(model: nn.Module, mesh: DeviceMesh, compute: torch.dtype | None = None) -> None:
    """Spread the parameters of a network over the devices of a mesh, in place.

    The matrix products of the blocks, which are nearly all parameters, are gathered one by one in
    the type in which they compute, and their gradients are averaged in float32. Norms, embeddings
    and the head stay in float32, and are gathered once a batch. Parameter names do not change.

    Args:
        model: with the same architecture on all devices; all take the values of the first.
        mesh: with one axis.
        compute: the type of the products under autocast, such as bfloat16; None: that of the
            weights.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        value = tensor.detach().to(mesh.device_type)
        distributed.broadcast(value, src=0)
        tensor.data.copy_(value)
    # Sums over the blocks stay in float32, so the input of a part is not cast.
    policy = MixedPrecisionPolicy(compute, torch.float32, cast_forward_inputs=False)
    for part in products(model):
        fully_shard(part, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh)


def products(model: nn.Module) -> Iterator[nn.Module]:
    """The parts of blocks that multiply matrices, which are sharded one by one."""
    for module in list(model.modules()):
        if isinstance(module, (MaskUnitAttention, Mlp)):
            yield module
        elif isinstance(module, HieraBlock) and module.proj is not None:
            yield module.proj


def gather_for_evaluation(model: nn.Module) -> None:
    """Have each device keep all parameters of a sharded network, until `reshard_for_training`.

    Devices then need not evaluate the same number of batches, as none waits for another. A network
    that is not sharded is left as it is.
    """
    # Tensors made in inference mode could not be used in training again.
    with torch.inference_mode(False), torch.no_grad():
        for part in _sharded(model):
            part.set_reshard_after_forward(False, recurse=False)
            part.unshard()


def reshard_for_training(model: nn.Module) -> None:
    """Let each device forget what `gather_for_evaluation` gathered."""
    with torch.inference_mode(False), torch.no_grad():
        for part in _sharded(model):
            part.set_reshard_after_forward(part is not model, recurse=False)
            part.reshard()


@contextmanager
def gradients_stay(model: nn.Module) -> Iterator[None]:
    """Have each device add up whole gradients of its own in a backward pass, and exchange none.

    The next backward pass outside exchanges their sum. A network that is not sharded is left as it
    is.
    """
    for part in _sharded(model):
        part.set_requires_gradient_sync(False, recurse=False)
    try:
        yield
    finally:
        for part in _sharded(model):
            part.set_requires_gradient_sync(True, recurse=False)


def _sharded(model: nn.Module) -> Iterator[FSDPModule]:
    return (module for module in model.modules() if isinstance(module, FSDPModule))


def whole(value: Any) -> Any:
    """Gather a tensor that is spread over devices; anything else is returned as it is.

    Args:
        value: a tensor of any shape and type, or another value. All devices must call this for the
            same sharded tensors in the same order, or they wait for one another.

    Returns:
        The whole tensor, of the same shape and type, on each device.
    """
    return value.full_tensor() if isinstance(value, DTensor) else value


def part_like(value: Any, parameter: Tensor) -> Any:
    """Spread a tensor that all devices have over them in the way of a parameter.

    Args:
        value: of the parameter or of its optimiser's state; any type.
        parameter: sharded or not.

    Returns:
        A sharded tensor of the same shape and type, if the parameter is sharded and the value is a
        tensor of its shape; else the value as it is, such as a count of steps.
    """
    if not isinstance(parameter, DTensor) or not isinstance(value, Tensor):
        return value
    if value.shape != parameter.shape:
        return value
    mesh, placements = parameter.device_mesh, parameter.placements
    value = value.to(mesh.device_type)
    return distribute_tensor(value, mesh, placements, src_data_rank=None)


def local_part(value: Tensor) -> Tensor:
    """The part of a tensor that this device holds, in the same memory; all if it is not sharded."""
    return value.to_local() if isinstance(value, DTensor) else value


def from_local_part(part: Tensor, like: Tensor) -> Tensor:
    """The inverse of `local_part`.

    Args:
        part: of this device, on any device.
        like: the tensor that it is of, or one of the same shape that is spread in the same way.

    Returns:
        A sharded tensor of the shape of `like`, or the part as it is if `like` is not sharded.
    """
    if not isinstance(like, DTensor):
        return part
    mesh, placements = like.device_mesh, like.placements
    part = part.to(mesh.device_type)
    return DTensor.from_local(
        part, mesh, placements, run_check=False, shape=like.shape, stride=like.stride()
    )
