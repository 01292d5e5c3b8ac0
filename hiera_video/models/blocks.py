"""The parts of a Hiera after its patch embedding: mask unit attention, block, head.

Legend: B batch, U mask units, L tokens of a unit, C channels. Tokens are ``(B, U, L, C)``, in the
order of `token_order`.
"""

from collections.abc import Callable
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hiera_video.models.architecture import BlockShape
from hiera_video.models.on_cpu import apply, in_parts, is_emulated, takes_parts
from hiera_video.models.token_order import pool, windows
from hiera_video.models.window_attention import attend_windows, takes

CUDA_GRID = 65535  # most rows that a fused attention kernel of torch takes at once


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


def learned(places: int, dim: int) -> nn.Parameter:
    """A parameter ``(1, places, dim)``, initially normal with deviation 0.02."""
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(1, places, dim), std=0.02))


def autocast_type(device: torch.device) -> torch.dtype | None:
    """The type that autocast computes products in on a device; None where it is off."""
    kind = device.type
    if kind != "meta" and torch.is_autocast_enabled(kind):  # meta has no autocast to ask for
        return torch.get_autocast_dtype(kind)
    return None
