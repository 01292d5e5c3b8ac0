"""The parts of a Hiera: patch embedding, mask unit attention, block, head.

Legend: B batch, U mask units, L tokens of a unit, C channels. Tokens are ``(B, U, L, C)``, in the
order of `token_order`.
"""

from collections.abc import Callable
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hiera_video.models.architecture import BlockShape
from hiera_video.models.on_cpu import apply, in_parts, is_emulated, linear, takes_parts
from hiera_video.models.token_order import pool, windows
from hiera_video.models.window_attention import attend_windows, takes

CONVOLVE = {2: F.conv2d, 3: F.conv3d}
CUDA_GRID = 65535  # most rows that a fused attention kernel of torch takes at once


class PatchEmbed(nn.Module):
    """Overlapping convolution from pixels to tokens.

    Args:
        in_chans: channels of a pixel.
        dim: channels of a token.
        kernel: in pixels along each axis: two axes for images, three for videos.
        stride: likewise.
        padding: likewise.
    """

    def __init__(
        self,
        in_chans: int,
        dim: int,
        kernel: tuple[int, ...],
        stride: tuple[int, ...],
        padding: tuple[int, ...],
    ) -> None:
        super().__init__()
        conv = {2: nn.Conv2d, 3: nn.Conv3d}[len(kernel)]
        self.proj = conv(in_chans, dim, kernel, stride, padding)

    def forward(self, video: Tensor) -> Tensor:
        """Convolve ``(B, 3, T, H, W)`` to tokens ``(B, T'*H'*W', C)`` in raster order."""
        if is_emulated(video, self.proj.weight):
            return self._convolve_in_float32(video).flatten(2).transpose(1, 2)
        wide = any(k > 2 * s for k, s in zip(self.proj.kernel_size, self.proj.stride, strict=True))
        # A CPU in float32 is quicker with the three channels of the pixels; meta counts as one.
        if wide or (video.device.type in ("cpu", "meta") and video.dtype == torch.float32):
            return self.proj(video).flatten(2).transpose(1, 2)
        return self._convolve_cells(video).flatten(2).transpose(1, 2)

    def _convolve_in_float32(self, video: Tensor) -> Tensor:
        """The same convolution, to ``(B, C, T', H', W')`` of the type of the video."""
        proj = self.proj
        bias = None if proj.bias is None else proj.bias.float()
        arguments = video.float(), proj.weight.float(), bias, proj.stride, proj.padding
        return CONVOLVE[len(proj.stride)](*arguments).to(video.dtype)

    def _convolve_cells(self, video: Tensor) -> Tensor:
        """The same convolution, to ``(B, C, T', H', W')``, without its slow three channels.

        Pixels are grouped into cells of the size of the stride, and each number of a cell becomes
        a channel. A kernel of up to two strides is then one of two cells.
        """
        kernel, stride, padding = self.proj.kernel_size, self.proj.stride, self.proj.padding
        axes = len(stride)
        margins = [
            m for s, p in zip(stride, padding, strict=True) for m in (s - int(p), int(p))
        ]  # of each axis the end, then the start: reversed below, as `pad` wants it
        video = F.pad(video, margins[::-1])
        shape = [n for size, s in zip(video.shape[2:], stride, strict=True) for n in (size // s, s)]
        cells = _numbers_last(video.reshape(*video.shape[:2], *shape), axes)
        margins = [2 * s - k for s, k in zip(stride, kernel, strict=True)]
        weight = F.pad(self.proj.weight, [m for margin in margins[::-1] for m in (0, margin)])
        shape = [n for s in stride for n in (2, s)]
        weight = _numbers_last(weight.reshape(*weight.shape[:2], *shape), axes)
        convolve = CONVOLVE[axes]
        # Numbers are last in memory and second in shape: what torch calls channels last.
        return convolve(cells.movedim(-1, 1), weight.movedim(-1, 1), self.proj.bias)

    def units(self, video: Tensor, kept: Tensor, unit_grid: tuple[int, ...]) -> Tensor:
        """Compute the tokens of the mask units that are kept, at the cost of these alone.

        The others count as zeros, even where a kernel reaches into them from a kept unit. The
        pixels that the kernel sees of each unit are gathered, and one matrix product does the rest.

        Args:
            video: float ``(B, 3, T, H, W)``, images ``(B, 3, H, W)``.
            kept: distinct indices of units in raster order, int64 ``(B, K)``.
            unit_grid: number of mask units along each axis.

        Returns:
            ``(B, K, t, h, w, C)``, images ``(B, K, h, w, C)``: each unit in raster order.
        """
        axes = len(unit_grid)
        pixels = self._pixels_seen(video, kept, unit_grid)  # (B, 3, K, T, H, W)
        for a, (k, s) in enumerate(zip(self.proj.kernel_size, self.proj.stride, strict=True)):
            pixels = pixels.unfold(3 + a, k, s)  # (B, 3, K, t, h, w, kt, kh, kw) at last
        pixels = pixels.movedim(1, axes + 2).flatten(axes + 2)  # (B, K, t, h, w, 3*kt*kh*kw)
        return linear(pixels, self.proj.weight.flatten(1), self.proj.bias)

    def _pixels_seen(self, video: Tensor, kept: Tensor, unit_grid: tuple[int, ...]) -> Tensor:
        """The pixels that the kernel sees of each kept unit, ``(B, 3, K, T, H, W)``.

        Those of hidden units and beyond the border are zero.
        """
        (batch, num_kept), axes = kept.shape, len(unit_grid)
        # Index of each pixel in the video, and of its unit in the grid with a border around it.
        pixel = unit = torch.zeros([1] * (2 + axes), dtype=torch.int64, device=kept.device)
        geometry = (self.proj.kernel_size, self.proj.stride, self.proj.padding, unit_grid)
        for a, (place, k, s, p, units) in enumerate(
            zip(places(kept, unit_grid), *geometry, strict=True)
        ):
            length = video.shape[2 + a]
            size = length // units
            margin = torch.arange(-int(p), size + k - s - int(p), device=kept.device)
            shape = [-1 if i == a else 1 for i in range(axes)]
            along = (place[..., None] * size + margin).view(batch, num_kept, *shape)
            pixel = pixel * length + along.clamp(0, length - 1)
            unit = unit * (units + 2) + (along // size).clamp(-1, units) + 1
        seen = torch.zeros(batch, *unit_grid, dtype=torch.bool, device=kept.device)
        seen = F.pad(seen.flatten(1).scatter(1, kept, True).view_as(seen), [1, 1] * axes)
        seen = seen.flatten(1).gather(1, unit.flatten(1))  # (B, K*T*H*W)
        index = pixel.flatten(1)[:, None].expand(-1, video.shape[1], -1)
        pixels = video.flatten(2).gather(2, index)  # (B, 3, K*T*H*W)
        return pixels.masked_fill(~seen[:, None], 0).unflatten(2, pixel.shape[1:])


def _numbers_last(cells: Tensor, axes: int) -> Tensor:
    """``(B, 3, T, t, H, h, W, w)``, cells of t*h*w pixels, to ``(B, T, H, W, 3*t*h*w)``."""
    grid, cell = [2 + 2 * a for a in range(axes)], [3 + 2 * a for a in range(axes)]
    return cells.permute(0, *grid, 1, *cell).flatten(axes + 1)


def places(index: Tensor, grid: tuple[int, ...]) -> list[Tensor]:
    """Coordinates along each axis of a grid, of indices in raster order, all int64 ``(B, K)``."""
    coordinates = []
    for size in reversed(grid):
        coordinates.insert(0, index % size)
        index = index // size
    return coordinates


class MaskUnitAttention(nn.Module):
    """Attention within each mask unit or among all tokens, with queries pooled at transitions.

    Args:
        dim: channels of the input.
        dim_out: channels of the output.
        heads: number of attention heads.
        q_stride: queries that are pooled into one by their maximum.
        windowed: attend within mask units, not among all tokens.
    """

    def __init__(self, dim: int, dim_out: int, heads: int, q_stride: int, windowed: bool) -> None:
        super().__init__()
        self.heads, self.q_stride, self.windowed = heads, q_stride, windowed
        self.qkv = nn.Linear(dim, 3 * dim_out)
        self.proj = nn.Linear(dim_out, dim_out)

    def forward(self, x: Tensor) -> Tensor:
        """Attend: ``(B, U, L, dim)`` to ``(B, U, L/q_stride, dim_out)``."""
        qkv = apply(self.qkv, x).unflatten(-1, (3, self.heads, -1))  # (B, U, L, 3, heads, c)
        q, k, v = qkv.unbind(3)
        q = pool(q, self.q_stride)
        # Fused kernels want four axes, so a window becomes a row of the batch.
        out = attend(*(windows(t, self.windowed) for t in (q, k, v)))  # (rows, heads, tokens, c)
        out = out.transpose(1, 2).reshape(*q.shape[:3], -1)  # (B, U, L/q_stride, dim_out)
        return apply(self.proj, out)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Scaled dot-product attention for any number of rows.

    Args:
        q: ``(rows, heads, queries, c)``.
        k: ``(rows, heads, keys, c)``.
        v: ``(rows, heads, keys, c)``.

    Returns:
        ``(rows, heads, queries, c)``.
    """
    if takes(q, k):
        return attend_windows(q, k, v)
    if is_emulated(q, k, v):
        return F.scaled_dot_product_attention(q.float(), k.float(), v.float()).to(q.dtype)
    if q.is_cuda and len(q) > CUDA_GRID:
        parts = zip(*(t.split(CUDA_GRID) for t in (q, k, v)), strict=True)
        return torch.cat([F.scaled_dot_product_attention(*part) for part in parts])
    return F.scaled_dot_product_attention(q, k, v)


class Mlp(nn.Module):
    """Two linear maps with a GELU between them.

    Args:
        dim: channels of input and output.
        hidden: channels between the maps.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., dim)`` to the same shape."""
        return apply(self.fc2, F.gelu(apply(self.fc1, x)))


class HieraBlock(nn.Module):
    """Attention, then an MLP, each after a norm and with a skip connection.

    At a transition the first skip is a linear map of the normed input, pooled by its maximum.

    Args:
        shape: channels, heads, pooling and windows.
        mlp_ratio: hidden channels of the MLP, as a multiple of its channels.
        drop_path: probability, in [0, 1), that stochastic depth skips a branch in training.
    """

    keep_rate: Tensor

    def __init__(self, shape: BlockShape, mlp_ratio: float = 4.0, drop_path: float = 0.0) -> None:
        super().__init__()
        dim, dim_out = shape.dim, shape.dim_out
        self.drop_path, self.q_stride = drop_path, shape.q_stride
        # A tensor, because the blocks share compiled code, and a number would be a part of it.
        self.register_buffer("keep_rate", torch.tensor(1 - drop_path), persistent=False)
        self.drops = drop_path > 0
        self.norm1 = layer_norm(dim)
        self.attn = MaskUnitAttention(dim, dim_out, shape.heads, shape.q_stride, shape.windowed)
        self.norm2 = layer_norm(dim_out)
        self.mlp = Mlp(dim_out, int(dim_out * mlp_ratio))
        self.proj = nn.Linear(dim, dim_out) if dim != dim_out else None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # No file holds the rate, and `to_empty` leaves it with any value at all.
        super()._apply(fn, recurse)
        self.keep_rate.fill_(1 - self.drop_path)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Transform ``(B, U, L, dim)`` to ``(B, U, L/q_stride, dim_out)``."""
        if self.attn.windowed and not self.training and takes_parts(x):
            return in_parts(self._transform, x)
        return self._transform(x)

    def _transform(self, x: Tensor) -> Tensor:
        normed = self.norm1(x)
        if self.proj is not None:
            x = apply(self.proj, normed)
        x = pool(x, self.q_stride) + self._drop(self.attn(normed))
        return x + self._drop(self.mlp(self.norm2(x)))

    def _drop(self, x: Tensor) -> Tensor:
        """Stochastic depth: drop this branch for random samples, and scale it for the rest."""
        if not (self.training and self.drops):
            return x
        kept = torch.rand(len(x), 1, 1, 1, device=x.device) < self.keep_rate
        return x * (kept / self.keep_rate).to(x.dtype)


class Head(nn.Module):
    """Dropout and a linear classifier. Its output is logits, also in evaluation.

    Evaluation computes them in the type of the weights, also under autocast: bfloat16 keeps 8 bits,
    so the best two of many logits would often be equal.

    Args:
        dim: channels of the input.
        num_classes: number of logits.
        dropout: probability of dropout in training.
    """

    def __init__(self, dim: int, num_classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.projection = nn.Linear(dim, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Classify ``(B, dim)``: logits ``(B, classes)``."""
        if self.training or autocast_type(x.device) is None:
            return apply(self.projection, self.dropout(x))
        with torch.autocast(x.device.type, enabled=False):
            return apply(self.projection, x.to(self.projection.weight.dtype))


def layer_norm(dim: int) -> nn.LayerNorm:
    """A LayerNorm over `dim` channels, with the epsilon of the published models."""
    return nn.LayerNorm(dim, eps=1e-6)


def autocast_type(device: torch.device) -> torch.dtype | None:
    """The type that autocast computes products in on a device; None where it is off."""
    kind = device.type
    if kind != "meta" and torch.is_autocast_enabled(kind):  # meta has no autocast to ask for
        return torch.get_autocast_dtype(kind)
    return None
