"""Position embeddings of a file for inputs of another size; see `models.positions`.

Legend: C channels; T' H' W' the grid of tokens after patch embedding; h w tokens of a mask unit.
"""

import math
from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor

from hiera_video.models.architecture import Geometry
from hiera_video.models.positions import Grid, resize_bicubic, resize_windows, tile

TIME, DECODER = "pos_embed_temporal", "decoder_pos_embed"


def resized_positions(
    weights: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    geometry: Geometry,
    input_size: tuple[int, ...] | None = None,
) -> dict[str, Tensor]:
    """Resize the position embeddings of a file that belong to another grid than the model's.

    Embeddings with other channels are of another network; they are left to the caller.

    Args:
        weights: tensors of the file under published names, embeddings ``(1, tokens, C)``.
        own: tensors of the model.
        geometry: of the model.
        input_size: ``(H, W)`` or ``(T, H, W)`` in pixels that the file's network takes, if known.
            Otherwise its grid is square, or the model's if the tokens do not make a square.

    Returns:
        The resized embeddings alone, by name, with the tokens of the model's grid.

    Raises:
        ValueError: the grid of the file is ambiguous or has no whole mask units, or one embedding
            is of space and time together, which cannot be resized.
    """
    space = _space_name(geometry)
    names = (space, TIME, DECODER)
    both = [name for name in names if name in weights and name in own]
    values = {name: weights[name] for name in both if _same_channels(weights[name], own[name])}
    source, target = _grid_of_file(values, geometry, input_size), geometry.tokens
    resized = {}
    if TIME in values and source[0] != target[0]:
        resized[TIME] = resize_time(values[TIME], target[0])
    if space in values and source[-2:] != target[-2:]:
        unit = geometry.unit[-2:]
        resized[space] = resize_space(values[space], source[-2:], target[-2:], unit)
    if DECODER in values:
        before, after = _decoder_grid(source, geometry), _decoder_grid(target, geometry)
        # With another number of tokens it is of another network, as with other channels.
        if before != after and math.prod(before) == values[DECODER].shape[1]:
            resized[DECODER] = resize_joint(values[DECODER], before, after)
    return resized


def resize_time(value: Tensor, steps: int) -> Tensor:
    """Resize an embedding of time ``(1, T', C)`` to ``(1, steps, C)``.

    Linear between the middles of the steps: twice the frames see the same span more finely.
    """
    x = F.interpolate(value.double().transpose(1, 2), steps, mode="linear")  # (1, C, T')
    return x.transpose(1, 2).to(value.dtype)


def resize_space(value: Tensor, source: Grid, target: Grid, unit: Grid) -> Tensor:
    """Resize an embedding of space, and keep the pattern within mask units as it was.

    Args:
        value: ``(1, H'*W', C)`` of the grid `source`.
        source: ``(H', W')``, a multiple of `unit`.
        target: the new ``(H', W')``, a multiple of `unit`.
        unit: ``(h, w)`` of a mask unit.

    Returns:
        ``(1, H'*W', C)`` of the grid `target`, in the type of `value`.

    Raises:
        ValueError: `source` has no whole units.
    """
    if any(n % u for n, u in zip(source, unit, strict=True)):
        raise ValueError(
            f"position embeddings of {_by(source)} tokens have no whole mask units of {_by(unit)}"
        )
    x = value.double().transpose(1, 2).unflatten(2, source)  # (1, C, H', W')
    x = resize_windows(x, target, unit)  # (1, C, H', W') of the target
    return x.flatten(2).transpose(1, 2).to(value.dtype)  # (1, H'*W', C)


def resize_joint(value: Tensor, source: Grid, target: Grid) -> Tensor:
    """Resize a decoder's embedding of space and time together: linear in time, bicubic in space.

    The decoder attends to all tokens in every block, so it has no pattern within units to keep.

    Args:
        value: ``(1, T*H*W, C)``, of images ``(1, H*W, C)``.
        source: its grid ``(T, H, W)`` or ``(H, W)``.
        target: the new grid, with as many axes.

    Returns:
        As `value`, with the tokens of `target`.
    """
    *time, height, width = source
    x = value.double().unflatten(1, (math.prod(time), height, width))[0]  # (T, H, W, C)
    x = resize_bicubic(x.permute(0, 3, 1, 2), target[-2:])  # (T, C, H, W)
    if time and time[0] != target[0]:
        steps = resize_time(x.flatten(1)[None], target[0])  # (1, T, C*H*W)
        x = steps[0].unflatten(1, x.shape[1:]).to(x.dtype)
    return x.permute(0, 2, 3, 1).flatten(0, 2)[None].to(value.dtype)  # (1, T*H*W, C)


def compose(across: Tensor, within: Tensor, grid: Grid, antialias: bool) -> Tensor:
    """Add up a position embedding that was trained in two parts.

    Args:
        across: ``(1, C, n, m)``, over the picture; resized to the grid (bicubic).
        within: ``(1, C, h, w)``, within windows; tiled over the grid.
        grid: ``(H', W')``.
        antialias: which of PyTorch's two cubic kernels the network was trained with.

    Returns:
        float32 ``(1, H'*W', C)``.

    Raises:
        ValueError: the grid is no multiple of ``(h, w)``.
    """
    unit = tuple(within.shape[-2:])
    if any(n % u for n, u in zip(grid, unit, strict=True)):
        raise ValueError(f"its windows of {_by(unit)} do not divide {_by(grid)} tokens")
    x = F.interpolate(across.float(), grid, mode="bicubic", antialias=antialias)
    x = x + tile(within.float(), grid)  # (1, C, H', W')
    return x.flatten(2).transpose(1, 2)


def _space_name(geometry: Geometry) -> str:
    return "pos_embed_spatial" if geometry.sep_pos_embed else "pos_embed"


def _grid_of_file(
    values: Mapping[str, Tensor], geometry: Geometry, input_size: tuple[int, ...] | None
) -> Grid:
    """The grid of tokens that a file's embeddings belong to; the model's where they do not say."""
    name, own = _space_name(geometry), geometry.tokens
    time = (values[TIME].shape[1],) if TIME in values else own[:-2]
    if name not in values:
        return (*time, *own[-2:])
    count, stated = values[name].shape[1], _tokens(input_size, geometry)
    if geometry.sep_pos_embed or not time:
        return (*time, *_space_grid(name, count, own[-2:], stated[-2:]))
    if stated and stated != own and math.prod(stated) == count:
        raise ValueError(
            f"{name} has {_by(stated)} tokens, of space and time together; it cannot be resized, "
            f"and the model has {_by(own)}"
        )
    return own


def _space_grid(name: str, count: int, own: Grid, stated: Grid) -> Grid:
    """Rows and columns of `count` tokens of space.

    Args:
        name: of the embedding, for error messages.
        count: number of tokens.
        own: the model's ``(H', W')``.
        stated: what the file says; empty if nothing.
    """
    if stated and math.prod(stated) == count:
        return stated
    side = math.isqrt(count)
    fitting = {grid for grid in ((side, side), own) if math.prod(grid) == count}
    if len(fitting) == 1:
        return fitting.pop()
    if fitting:
        raise ValueError(
            f"{name} has {count} tokens, {side}x{side} or, as the model, {_by(own)}, and the file "
            "does not say which; a run or an export does, and model.load_state_dict takes them as "
            "the model's"
        )
    raise ValueError(
        f"{name} has {count} tokens, which make no square, and the file does not say how many "
        f"rows they are; the model has {_by(own)}"
    )


def _tokens(input_size: tuple[int, ...] | None, geometry: Geometry) -> Grid:
    """The grid of an input, of its last axes that the model has too; empty if it is unknown."""
    axes = min(len(input_size or ()), len(geometry.patch_stride))
    if input_size is None or not axes:
        return ()
    pairs = zip(input_size[-axes:], geometry.patch_stride[-axes:], strict=True)
    return tuple(pixels // stride for pixels, stride in pairs)


def _decoder_grid(tokens: Grid, geometry: Geometry) -> Grid:
    """The grid after the last pooling, which the decoder sees, from that of the first stage."""
    pooled = [u // rest for u, rest in zip(geometry.unit, geometry.levels[-1], strict=True)]
    return tuple(n // p for n, p in zip(tokens, pooled, strict=True))


def _same_channels(a: Tensor, b: Tensor) -> bool:
    return a.ndim == 3 and (a.shape[0], a.shape[2]) == (b.shape[0], b.shape[2])


def _by(grid: Grid) -> str:
    return "x".join(map(str, grid))
