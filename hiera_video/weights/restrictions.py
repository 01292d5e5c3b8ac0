"""What the Hiera of timm and transformers cannot be, where ours can."""

from collections.abc import Sequence


def obstacle(
    stages: Sequence[int],
    dims: Sequence[int],
    q_pool: int,
    q_stride: Sequence[int],
    mask_unit_size: Sequence[int],
    mask_unit_attn: Sequence[bool],
    dim_mul: float,
    pools_less: bool,
) -> str | None:
    """The first argument of an image model with which these libraries compute something else.

    Both unroll tokens once for each stage but the first, whatever is pooled. In the first block of
    a stage, transformers attends within mask units if this stage or the one before does.

    Args:
        stages: number of blocks in each stage.
        dims: channels of each stage.
        q_pool: number of transitions that pool.
        q_stride: tokens that a pooling merges, along each axis.
        mask_unit_size: tokens of a mask unit, along each axis.
        mask_unit_attn: for each stage, whether it attends within mask units.
        dim_mul: factor on the channels at a transition.
        pools_less: whether the library's model may pool less often than there are transitions; even
            then, all stages with windows must come before.

    Returns:
        Our name of the argument and its value; None if they compute the same.
    """
    last = len(stages) - 1
    unit, whole = tuple(mask_unit_size), tuple(stride**last for stride in q_stride)
    windowed = [bool(w) for w in mask_unit_attn[: len(stages)]]
    pooled = q_pool if pools_less else last
    obstacles = {
        f"q_pool {q_pool} for {len(stages)} stages": q_pool != pooled,
        f"q_pool {pooled} with mask_unit_attn {windowed}": min(sum(windowed), last) > pooled,
        f"mask_unit_size {unit}, not {whole}": unit != whole,
        f"mask_unit_attn {windowed}": windowed != sorted(windowed, reverse=True),
        f"dim_mul {dim_mul}": list(dims) != [dims[0] * dim_mul**i for i in range(len(dims))],
    }
    return next((words for words, present in obstacles.items() if present), None)
