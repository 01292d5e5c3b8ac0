"""The arithmetic of a Hiera, without torch: how tokens are laid out and what each block is."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

# Geometry of the published models, by the number of axes of their input.
PUBLISHED_GEOMETRY: dict[int, dict[str, Any]] = {
    2: {
        "q_stride": (2, 2),
        "mask_unit_size": (8, 8),
        "patch_kernel": (7, 7),
        "patch_stride": (4, 4),
        "patch_padding": (3, 3),
        "sep_pos_embed": False,
    },
    3: {
        "q_stride": (1, 2, 2),
        "mask_unit_size": (1, 8, 8),
        "patch_kernel": (3, 7, 7),
        "patch_stride": (2, 4, 4),
        "patch_padding": (1, 3, 3),
        "sep_pos_embed": True,
    },
}
AXES = {2: ("height", "width"), 3: ("frames", "height", "width")}


class Geometry(NamedTuple):
    """How one input becomes tokens: one entry for each axis, time before height before width.

    Examples are those of the published models for 16x224x224.

    Attributes:
        input_size: frames (of a video), height and width in pixels.
        tokens: grid after the patch embedding, 8x56x56.
        unit_grid: grid of mask units, 8x7x7.
        unit: tokens of a mask unit, 1x8x8.
        levels: factors of `unit`: the stride of each pooling, in order, and what is left.
        q_stride: tokens that a pooling merges into one, 1x2x2.
        patch_kernel: of the patch embedding, in pixels.
        patch_stride: of the patch embedding.
        patch_padding: of the patch embedding.
        sep_pos_embed: the position embeddings of space and time are separate.
    """

    input_size: tuple[int, ...]
    tokens: tuple[int, ...]
    unit_grid: tuple[int, ...]
    unit: tuple[int, ...]
    levels: tuple[tuple[int, ...], ...]
    q_stride: tuple[int, ...]
    patch_kernel: tuple[int, ...]
    patch_stride: tuple[int, ...]
    patch_padding: tuple[int, ...]
    sep_pos_embed: bool


class BlockShape(NamedTuple):
    """One transformer block.

    Attributes:
        stage: index of its stage.
        dim: channels of the input.
        dim_out: channels of the output; they differ from `dim` where a stage begins.
        heads: number of attention heads.
        q_stride: queries that are pooled into one; 1 means no pooling.
        windowed: attend within mask units, not among all tokens.
    """

    stage: int
    dim: int
    dim_out: int
    heads: int
    q_stride: int
    windowed: bool


def geometry(
    input_size: Sequence[int],
    q_pool: int,
    q_stride: Sequence[int] | None = None,
    mask_unit_size: Sequence[int] | None = None,
    patch_kernel: Sequence[int] | None = None,
    patch_stride: Sequence[int] | None = None,
    patch_padding: Sequence[int] | None = None,
    sep_pos_embed: bool | None = None,
) -> Geometry:
    """Lay out the tokens of an input. Arguments are those of `Hiera`.

    Raises:
        ValueError: sizes that do not divide; the message says by what they must.
    """
    size = tuple(input_size)
    if len(size) not in PUBLISHED_GEOMETRY:
        raise ValueError(f"input_size must be (height, width) or (frames, height, width): {size}")
    published = PUBLISHED_GEOMETRY[len(size)]
    arguments = {
        "q_stride": q_stride,
        "mask_unit_size": mask_unit_size,
        "patch_kernel": patch_kernel,
        "patch_stride": patch_stride,
        "patch_padding": patch_padding,
    }
    axes = {name: tuple(published[name] if v is None else v) for name, v in arguments.items()}
    for name, value in axes.items():
        if len(value) != len(size):
            raise ValueError(f"{name} {value} must have {len(size)} numbers, as input_size {size}")
    if sep_pos_embed is None:
        sep_pos_embed = published["sep_pos_embed"]
    if sep_pos_embed and len(size) != 3:
        raise ValueError(f"sep_pos_embed is for video; input_size {size} has no time")
    unit, stride = axes.pop("mask_unit_size"), axes["patch_stride"]
    _check_input_size(size, tuple(s * u for s, u in zip(stride, unit, strict=True)))
    tokens = tuple(i // s for i, s in zip(size, stride, strict=True))
    _check_patches(size, tokens, axes["patch_kernel"], stride, axes["patch_padding"])
    return Geometry(
        input_size=size,
        tokens=tokens,
        unit_grid=tuple(n // u for n, u in zip(tokens, unit, strict=True)),
        unit=unit,
        levels=_levels(unit, axes["q_stride"], q_pool),
        sep_pos_embed=bool(sep_pos_embed),
        **axes,
    )


def block_shapes(
    stages: Sequence[int],
    embed_dim: int,
    num_heads: int,
    q_pool: int,
    q_stride: Sequence[int],
    mask_unit_attn: Sequence[bool],
    dim_mul: float,
    head_mul: float,
) -> list[BlockShape]:
    """The blocks of an encoder, in order. Arguments are those of `Hiera`.

    The first block of a stage widens the channels and pools the queries. It attends as the stage
    before it does, because its keys still have that stage's resolution.

    Raises:
        ValueError: stages, heads and poolings that do not go together.
    """
    if isinstance(stages, int) or not stages or min(stages) < 1:
        raise ValueError(f"each of stages must have at least one block, not {stages}")
    if embed_dim < 1 or num_heads < 1:
        raise ValueError(f"embed_dim {embed_dim} and num_heads {num_heads} must be positive")
    if len(mask_unit_attn) < len(stages):
        raise ValueError(
            f"mask_unit_attn {mask_unit_attn} must have an entry for each of {len(stages)} stages"
        )
    if not 0 <= q_pool < len(stages):
        raise ValueError(f"q_pool must be in [0, {len(stages) - 1}] for {len(stages)} stages")
    blocks, dim, heads = [], embed_dim, num_heads
    for stage, depth in enumerate(stages):
        for i in range(depth):
            enters = stage > 0 and i == 0
            dim_out = int(dim * dim_mul) if enters else dim
            heads = int(heads * head_mul) if enters else heads
            pools = math.prod(q_stride) if enters and stage <= q_pool else 1
            windowed = bool(mask_unit_attn[stage - 1 if enters else stage])
            blocks.append(BlockShape(stage, dim, dim_out, heads, pools, windowed))
            dim = dim_out
    for block in blocks:
        if block.dim_out % block.heads:
            raise ValueError(f"{block.dim_out} channels do not divide into {block.heads} heads")
    return blocks


def _check_input_size(size: tuple[int, ...], multiples: tuple[int, ...]) -> None:
    for name, n, multiple in zip(AXES[len(size)], size, multiples, strict=True):
        if n < multiple or n % multiple:
            raise ValueError(f"input_size {size}: {name} {n} must be a multiple of {multiple}")


def _check_patches(
    size: tuple[int, ...],
    tokens: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
) -> None:
    for i, n, k, s, p in zip(size, tokens, kernel, stride, padding, strict=True):
        made = (i + 2 * p - k) // s + 1
        if made != n:
            raise ValueError(
                f"patch_kernel {kernel}, stride {stride} and padding {padding} make {made} tokens "
                f"of {i} pixels, not {n}; use a padding of (kernel - 1) / 2"
            )


def _levels(
    unit: tuple[int, ...], q_stride: tuple[int, ...], q_pool: int
) -> tuple[tuple[int, ...], ...]:
    """Factor a mask unit: 1x8x8 with two poolings of 1x2x2 is (1, 2, 2), (1, 2, 2), (1, 2, 2)."""
    pooled = tuple(s**q_pool for s in q_stride)
    if any(u % p for u, p in zip(unit, pooled, strict=True)):
        raise ValueError(
            f"mask_unit_size {unit} must be a multiple of {pooled}, "
            f"which is q_stride {q_stride} pooled q_pool={q_pool} times"
        )
    rest = tuple(u // p for u, p in zip(unit, pooled, strict=True))
    return (q_stride,) * q_pool + (rest,)
