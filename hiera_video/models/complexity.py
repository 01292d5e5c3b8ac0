"""Parameters and multiply-adds of a classifier, from its constructor arguments alone.

Needs neither torch nor the model. Multiply-adds are those of the paper's tables, which fvcore
counted: matrix products (attention's two among them), convolutions, and five for each element that
a LayerNorm sees.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from hiera_video.models.architecture import BlockShape, Geometry, block_shapes, geometry
from hiera_video.models.names import MODELS

LAYER_NORM_OPERATIONS = 5


class Complexity(NamedTuple):
    """Size and cost of a model.

    Attributes:
        parameters: all of them.
        multiply_adds: of the forward pass of one input, as the paper counts.
        layer_norms: what of `multiply_adds` are LayerNorms.
    """

    parameters: int
    multiply_adds: int
    layer_norms: int


class Row(NamedTuple):
    """A model of the zoo and its `Complexity`."""

    name: str
    parameters: int
    multiply_adds: int


def complexity(
    input_size: Sequence[int] = (224, 224),
    in_chans: int = 3,
    embed_dim: int = 96,
    num_heads: int = 1,
    num_classes: int = 1000,
    stages: Sequence[int] = (2, 3, 16, 3),
    q_pool: int = 3,
    mask_unit_attn: Sequence[bool] = (True, True, False, False),
    dim_mul: float = 2.0,
    head_mul: float = 2.0,
    mlp_ratio: float = 4.0,
    **layout: Any,
) -> Complexity:
    """Of the `Hiera` with these arguments.

    Raises:
        ValueError: as `Hiera` does.
    """
    shape = geometry(input_size, q_pool, **layout)
    blocks = block_shapes(
        stages, embed_dim, num_heads, q_pool, shape.q_stride, mask_unit_attn, dim_mul, head_mul
    )
    units, tokens = math.prod(shape.unit_grid), math.prod(shape.tokens)
    patch = in_chans * math.prod(shape.patch_kernel) * embed_dim  # weights of the patch embedding
    parameters = patch + embed_dim + embed_dim * _positions(shape)
    products, norms = tokens * patch, 0
    for block in blocks:
        parameters += _block_parameters(block, mlp_ratio)
        products += _block_products(block, tokens, units, mlp_ratio)
        norms += tokens * block.dim
        tokens //= block.q_stride
        norms += tokens * block.dim_out
    last = blocks[-1].dim_out
    parameters += 2 * last + (last + 1) * num_classes
    products += last * num_classes
    norms = LAYER_NORM_OPERATIONS * (norms + last)
    return Complexity(parameters, products + norms, norms)


def complexity_rows() -> list[Row]:
    """All models of the zoo."""
    return [
        Row(name, cost.parameters, cost.multiply_adds)
        for name, arguments in MODELS.items()
        for cost in [complexity(**arguments)]
    ]


def complexity_table() -> str:
    """All models of the zoo, one a line, in millions of parameters and giga multiply-adds."""
    lines = [f"{'model':<24} {'input':<10} {'params (M)':>10} {'GMACs':>8}"]
    for row in complexity_rows():
        size = "x".join(map(str, MODELS[row.name]["input_size"]))
        parameters, products = row.parameters / 1e6, row.multiply_adds / 1e9
        lines.append(f"{row.name:<24} {size:<10} {parameters:>10.2f} {products:>8.2f}")
    return "\n".join(lines)


def _positions(shape: Geometry) -> int:
    """Places that have a learned position embedding."""
    if not shape.sep_pos_embed:
        return math.prod(shape.tokens)
    time, *space = shape.tokens
    return time + math.prod(space)


def _block_parameters(block: BlockShape, mlp_ratio: float) -> int:
    dim, out, hidden = block.dim, block.dim_out, int(block.dim_out * mlp_ratio)
    norms = 2 * dim + 2 * out
    attention = (dim + 1) * 3 * out + (out + 1) * out
    mlp = (out + 1) * hidden + (hidden + 1) * out
    skip = (dim + 1) * out if dim != out else 0
    return norms + attention + mlp + skip


def _block_products(block: BlockShape, tokens: int, units: int, mlp_ratio: float) -> int:
    """Multiply-adds of a block's matrix products for `tokens` that come in, in `units` windows."""
    dim, out, hidden = block.dim, block.dim_out, int(block.dim_out * mlp_ratio)
    queries = tokens // block.q_stride
    keys = tokens // units if block.windowed else tokens  # that a query sees
    projections = tokens * dim * 3 * out + queries * out * out
    skip = tokens * dim * out if dim != out else 0  # before it is pooled
    return projections + 2 * queries * keys * out + skip + queries * 2 * out * hidden
