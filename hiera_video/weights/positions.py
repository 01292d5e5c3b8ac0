"""Position embeddings for inputs of another size.

In space, what a mask unit sees of the embedding repeats from unit to unit: attention within units
learns a pattern of one unit's size. Stretching the whole embedding would stretch that pattern, and
no unit would see what it was trained with (Bolya et al., "Window Attention is Bugged: How not to
Interpolate Position Embeddings", arXiv:2311.05613). So the pattern stays as it is, tiled, and only
what is left over is resized.

Legend: C channels; T' H' W' the grid of tokens after patch embedding; h w tokens of a mask unit.
"""

import math
from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor

from hiera_video.models.architecture import Geometry

Grid = tuple[int, ...]


def resized_positions(
    found: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    geometry: Geometry,
    input_size: tuple[int, ...] | None = None,
) -> dict[str, Tensor]:
    """Those position embeddings of a file that are of another grid, for the grid of a model.

    Args:
        found: tensors of the file under published names.
        own: those of the model.
        geometry: of the model.
        input_size: that the file's network had, if that is known; else its grid is square, or the
            model's where as many tokens make no square.

    Raises:
        ValueError: a grid that cannot be known or has no whole mask units, or one of space and time
            in one embedding, which is not resized.
    """
    names = ("pos_embed_spatial", "pos_embed_temporal", "pos_embed", "decoder_pos_embed")
    # What has other channels is of another network, which the caller will see.
    values = {n: found[n] for n in names if n in found and n in own and _alike(found[n], own[n])}
    resized = {}
    *time, height, width = geometry.tokens
    if "pos_embed_temporal" in values:
        time = [values["pos_embed_temporal"].shape[1]]
        if time[0] != geometry.tokens[0]:
            steps = geometry.tokens[0]
            resized["pos_embed_temporal"] = resize_time(values["pos_embed_temporal"], steps)
    source: Grid = (height, width)
    space = "pos_embed_spatial" if geometry.sep_pos_embed else "pos_embed"
    if space in values and (geometry.sep_pos_embed or not time):
        given = _tokens(input_size, geometry)[-2:]
        source = _source_grid(space, values[space].shape[1], (height, width), given)
        if source != (height, width):
            unit = geometry.unit[-2:]
            resized[space] = resize_space(values[space], source, (height, width), unit)
    elif space in values:
        given = _tokens(input_size, geometry)
        if given and given != geometry.tokens and math.prod(given) == values[space].shape[1]:
            raise ValueError(
                f"{space} is of {_by(given)} tokens, of space and time at once; it is not resized, "
                f"and the model has {_by(geometry.tokens)}"
            )
    if "decoder_pos_embed" in values:
        before, after = (_decoder_grid(t, geometry) for t in ((*time, *source), geometry.tokens))
        value = values["decoder_pos_embed"]
        if before != after and math.prod(before) == value.shape[1]:
            resized["decoder_pos_embed"] = resize_joint(value, before, after)
    return resized


def resize_time(value: Tensor, steps: int) -> Tensor:
    """An embedding of time ``(1, T', C)`` for another number of steps.

    Linear between the middles of the steps: twice the frames see the same span more finely.
    """
    x = F.interpolate(value.double().transpose(1, 2), steps, mode="linear")  # (1, C, T')
    return x.transpose(1, 2).to(value.dtype)


def resize_space(value: Tensor, source: Grid, target: Grid, unit: Grid) -> Tensor:
    """An embedding of space for another grid, with the part within mask units as it was.

    The mean over all units stays exactly; the difference from it is resized, bicubic, and loses the
    mean over units that resizing gave it.

    Args:
        value: ``(1, H'*W', C)`` of the grid `source`.
        source: ``(H', W')``, a multiple of `unit`.
        target: another one.
        unit: ``(h, w)`` of a mask unit.

    Raises:
        ValueError: `source` has no whole units.
    """
    if any(n % u for n, u in zip(source, unit, strict=True)):
        raise ValueError(
            f"position embeddings of {_by(source)} tokens have no whole mask units of {_by(unit)}"
        )
    x = value.double().transpose(1, 2).unflatten(2, source)  # (1, C, H', W')
    within = _mean_unit(x, unit)  # (1, C, h, w)
    x = _resize(x - _tile(within, source), target)
    x = x + _tile(within - _mean_unit(x, unit), target)
    return x.flatten(2).transpose(1, 2).to(value.dtype)  # (1, H'*W', C)


def resize_joint(value: Tensor, source: Grid, target: Grid) -> Tensor:
    """The decoder's embedding of space and time at once: linear in time, bicubic in space.

    The decoder attends to all tokens in every block, so no pattern of a unit's size is to be kept.

    Args:
        value: ``(1, T*H*W, C)``, of images ``(1, H*W, C)``.
        source: its ``(T, H, W)`` or ``(H, W)``.
        target: another one.
    """
    *time, height, width = source
    x = value.double().unflatten(1, (math.prod(time), height, width))[0]  # (T, H, W, C)
    x = _resize(x.permute(0, 3, 1, 2), target[-2:])  # (T, C, H, W)
    if time and time[0] != target[0]:
        steps = resize_time(x.flatten(1)[None], target[0])  # (1, T, C*H*W)
        x = steps[0].unflatten(1, x.shape[1:]).to(x.dtype)
    return x.permute(0, 2, 3, 1).flatten(0, 2)[None].to(value.dtype)  # (1, T*H*W, C)


def compose(across: Tensor, within: Tensor, grid: Grid, antialias: bool) -> Tensor:
    """An embedding that was trained in two parts, as one.

    Args:
        across: ``(1, C, n, m)``, resized to the grid, bicubic.
        within: ``(1, C, h, w)``, tiled over it.
        grid: ``(H', W')``.
        antialias: the kernel that the network was trained with: PyTorch has two cubic ones.

    Returns:
        ``(1, H'*W', C)``.

    Raises:
        ValueError: the grid is no multiple of ``(h, w)``.
    """
    unit = tuple(within.shape[-2:])
    if any(n % u for n, u in zip(grid, unit, strict=True)):
        raise ValueError(f"its windows of {_by(unit)} do not divide {_by(grid)} tokens")
    x = F.interpolate(across.float(), grid, mode="bicubic", antialias=antialias)
    x = x + _tile(within.float(), grid)  # (1, C, H', W')
    return x.flatten(2).transpose(1, 2)


def _resize(x: Tensor, size: Grid) -> Tensor:
    # The antialiased kernel is the sharper one; it averages only where it shrinks.
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x, tuple(size), mode="bicubic", antialias=True)


def _mean_unit(x: Tensor, unit: Grid) -> Tensor:
    """``(1, C, H', W')`` to the mean over its units ``(1, C, h, w)``."""
    h, w = unit
    return x.unflatten(3, (-1, w)).unflatten(2, (-1, h)).mean(dim=(2, 4))


def _tile(within: Tensor, grid: Grid) -> Tensor:
    return within.tile([n // u for n, u in zip(grid, within.shape[-2:], strict=True)])


def _tokens(input_size: tuple[int, ...] | None, geometry: Geometry) -> Grid:
    """The grid of an input, of as many axes as are known of both; empty where none is."""
    axes = min(len(input_size or ()), len(geometry.patch_stride))
    if input_size is None or not axes:
        return ()
    pairs = zip(input_size[-axes:], geometry.patch_stride[-axes:], strict=True)
    return tuple(n // s for n, s in pairs)


def _source_grid(name: str, count: int, own: Grid, given: Grid) -> Grid:
    if given and math.prod(given) == count:
        return given
    side = math.isqrt(count)
    fitting = {grid for grid in ((side, side), own) if math.prod(grid) == count}
    if len(fitting) == 1:
        return fitting.pop()
    if fitting:
        raise ValueError(
            f"{name} is of {count} tokens, {side}x{side} or {_by(own)} as the model's, and the "
            "file does not say which; a run or an export does, and model.load_state_dict takes "
            "them as the model's"
        )
    raise ValueError(
        f"{name} is of {count} tokens, which make no square, and the file does not say how many "
        f"rows they are; the model has {_by(own)}"
    )


def _decoder_grid(tokens: Grid, geometry: Geometry) -> Grid:
    """Tokens at the first stage to those of the last, which the decoder sees."""
    pooled = [u // rest for u, rest in zip(geometry.unit, geometry.levels[-1], strict=True)]
    return tuple(n // p for n, p in zip(tokens, pooled, strict=True))


def _alike(a: Tensor, b: Tensor) -> bool:
    return a.ndim == 3 and (a.shape[0], a.shape[2]) == (b.shape[0], b.shape[2])


def _by(grid: Grid) -> str:
    return "x".join(map(str, grid))
