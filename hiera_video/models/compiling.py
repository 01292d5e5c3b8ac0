"""Networks whose training is compiled, and recorded on CUDA graphs."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from hiera_video.models.blocks import HieraBlock
from hiera_video.models.patch_embed import PatchEmbed
from hiera_video.models.recorded_pass import RecordedPass

# Kinds of blocks and ways to run them (training, evaluation, dtypes) for which code may be made;
# the default of 8 is less than a model has.
MAX_KINDS = 64
# Of `compile_network`. All but the first record CUDA graphs.
MODES = ("default", "reduce-overhead", "max-autotune")


def compile_network(model: nn.Module, mode: str) -> None:
    """Compile a network in place; names of its parameters stay.

    Args:
        model: any network.
        mode: a name in `MODES`: ``default`` is `compile_blocks`, ``reduce-overhead`` also
            `record_training`; ``max-autotune`` is the same with kernels that are chosen by timing.
    """
    compile_blocks(model, "max-autotune-no-cudagraphs" if mode == "max-autotune" else None)
    if mode != "default":
        record_training(model)


def compile_blocks(model: nn.Module, mode: str | None = None) -> None:
    """Compile a network in place, block by block; names of its parameters stay.

    Blocks of the same shapes share their code, so that less is compiled than for the whole network.
    A network without `HieraBlock` is compiled as a whole.

    Args:
        model: any network.
        mode: of `torch.compile`; None: its default.
    """
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, MAX_KINDS)
    for module in list(_parts(model)) or [model]:
        module.compile(dynamic=False, mode=mode)


def record_training(model: nn.Module) -> None:
    """Record what a network computes in training on CUDA graphs, in place; names stay.

    The first batch of a training records the forward and the backward pass, and others replay them
    (see `RecordedPass`). Evaluation, whose batches have any shape, is not recorded; nor is training
    on a CPU.

    Args:
        model: a network that takes a tensor, and others by keyword; of its outputs, only the first
            tensor gets a gradient.

    Raises:
        ValueError: (when called) a batch differs in shape from the first one.
    """
    forward, recorded = model.forward, []

    def run(video: Tensor, **others: Tensor | None) -> Any:
        if not (model.training and torch.is_grad_enabled() and video.is_cuda):
            return forward(video, **others)
        names = [name for name, value in others.items() if value is not None]
        inputs = [video, *(others[name] for name in names)]
        if not recorded:

            def work(video: Tensor, *values: Tensor) -> Any:
                return forward(video, **dict(zip(names, values, strict=True)))

            recorded.append(RecordedPass(work, list(model.parameters()), inputs))
        return recorded[0](*inputs)

    model.forward = run


def _parts(model: nn.Module) -> Iterator[nn.Module]:
    return (m for m in model.modules() if isinstance(m, (HieraBlock, PatchEmbed)))
