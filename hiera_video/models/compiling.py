"""Networks whose training is compiled."""

import torch
from torch import nn

from hiera_video.models.blocks import HieraBlock, PatchEmbed

# Kinds of blocks and ways to run them (training, evaluation, dtypes) for which code may be made;
# the default of 8 is less than a model has.
MAX_KINDS = 64


def compile_blocks(model: nn.Module) -> None:
    """Compile a network in place, block by block; names of its parameters stay.

    Blocks of the same shapes share their code, so that less is compiled than for the whole network,
    and a start takes seconds. A network without `HieraBlock` is compiled as a whole.

    Args:
        model: any network.
    """
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, MAX_KINDS)
    blocks = [m for m in model.modules() if isinstance(m, (HieraBlock, PatchEmbed))]
    for module in blocks or [model]:
        module.compile(dynamic=False)
