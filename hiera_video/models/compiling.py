"""Networks whose training is compiled."""

from collections.abc import Iterator
from types import MethodType
from typing import Any

import torch
from torch import nn

from hiera_video.models.blocks import HieraBlock, PatchEmbed

# Kinds of blocks and ways to run them (training, evaluation, dtypes) for which code may be made;
# the default of 8 is less than a model has.
MAX_KINDS = 64
# Of `torch.compile`. All but the first record CUDA graphs.
MODES = ("default", "reduce-overhead", "max-autotune")


def compile_network(model: nn.Module, mode: str) -> None:
    """Compile a network in place; names of its parameters stay.

    Args:
        model: any network.
        mode: a name in `MODES`: ``default`` is `compile_blocks`, others are `compile_training`.
    """
    if mode == "default":
        compile_blocks(model)
    else:
        compile_training(model, mode)


def compile_blocks(model: nn.Module) -> None:
    """Compile a network in place, block by block; names of its parameters stay.

    Blocks of the same shapes share their code, so that less is compiled than for the whole network.
    A network without `HieraBlock` is compiled as a whole.

    Args:
        model: any network.
    """
    _allow_kinds()
    for module in list(_parts(model)) or [model]:
        module.compile(dynamic=False)


def compile_training(model: nn.Module, mode: str) -> None:
    """Compile what a network computes in training, as one graph; it is evaluated in eager mode.

    On a GPU, forward and backward pass are recorded on a CUDA graph each, which the host starts
    with one call. Batches must then have one shape, and outputs and gradients are overwritten by
    the next batch, which begins with `torch.compiler.cudagraph_mark_step_begin`. Evaluation has
    batches of other shapes, for which recording would not pay.

    Args:
        model: any network.
        mode: of `torch.compile`.
    """
    _allow_kinds()
    forward = type(model).forward
    compiled = torch.compile(forward, mode=mode, dynamic=False)

    def run(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return (compiled if self.training else forward)(self, *args, **kwargs)

    model.forward = MethodType(run, model)


def _allow_kinds() -> None:
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, MAX_KINDS)


def _parts(model: nn.Module) -> Iterator[nn.Module]:
    return (m for m in model.modules() if isinstance(m, (HieraBlock, PatchEmbed)))
