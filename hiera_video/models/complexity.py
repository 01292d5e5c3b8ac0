"""Size and cost of networks, counted on the meta device: no memory, no weights.

Multiply-adds are those of the paper's tables, which fvcore counted: matrix products (attention has
two), convolutions, and five for each element that a LayerNorm sees.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from hiera_video.models.hiera import Hiera
from hiera_video.models.names import MODELS

LAYER_NORM = torch.ops.aten.native_layer_norm


class Complexity(NamedTuple):
    """Size and cost of a model.

    Attributes:
        parameters: number of parameters.
        multiply_adds: of the forward pass of one input, as the paper counts.
        layer_norms: the part of `multiply_adds` that LayerNorms take.
    """

    parameters: int
    multiply_adds: int
    layer_norms: int


def complexity(**arguments: Any) -> Complexity:
    """Count the parameters and multiply-adds of the `Hiera` with these arguments.

    Raises:
        ValueError: arguments that do not go together.
    """
    with torch.device("meta"):
        model = Hiera(**arguments)
        video = torch.empty(1, model.in_chans, *model.input_size)  # (1, 3, T, H, W)
    return cost_of(model, lambda: model(video))


def training_flops(
    create: Callable[[], nn.Module],
    loss: Callable[[nn.Module, Tensor], Tensor],
    shape: Sequence[int],
) -> int:
    """Floating-point operations that training takes for one input, forward and backward.

    Matrix products, those of attention included, and convolutions count, a multiply-add as two
    operations. Nothing else counts: norms, softmax, augmentation and the optimiser are left out,
    and so is what is computed again to save memory.

    Args:
        create: makes the network.
        loss: scalar loss of the network and a normalised input, float ``(1, *shape)``; both are on
            the meta device, so no value may be read.
        shape: of an input, ``(3, T, H, W)``.
    """
    counter = FlopCounterMode(display=False)
    with torch.device("meta"):
        network, video = create(), torch.empty(1, *shape)  # (1, 3, T, H, W)
        for module in network.modules():
            if isinstance(module, Hiera):
                module.grad_checkpointing = False
        with counter, sdpa_kernel(SDPBackend.MATH):
            loss(network, video).backward()
    return counter.get_total_flops()


def complexity_table() -> str:
    """All models of the zoo, one a line: millions of parameters and billions of multiply-adds."""
    lines = [f"{'model':<24} {'input':<10} {'params (M)':>10} {'GMACs':>8}"]
    for name, arguments in MODELS.items():
        size = "x".join(map(str, arguments["input_size"]))
        cost = complexity(**arguments)
        parameters, multiply_adds = cost.parameters / 1e6, cost.multiply_adds / 1e9
        lines.append(f"{name:<24} {size:<10} {parameters:>10.2f} {multiply_adds:>8.2f}")
    return "\n".join(lines)


def cost_of(model: nn.Module, run: Callable[[], Any]) -> Complexity:
    """The parameters of a model, and the multiply-adds of what is run."""
    counter = FlopCounterMode(display=False, custom_mapping={LAYER_NORM: _layer_norm_flops})
    # Of attention the counter sees the products only where no fused kernel hides them.
    with counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        run()
    # The counter takes a multiply-add for two operations.
    return Complexity(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        multiply_adds=counter.get_total_flops() // 2,
        layer_norms=counter.get_flop_counts()["Global"][LAYER_NORM] // 2,
    )


def _layer_norm_flops(shape: torch.Size, *_: Any, **__: Any) -> int:
    return 2 * 5 * math.prod(shape)
