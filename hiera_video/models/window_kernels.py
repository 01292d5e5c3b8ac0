"""Triton kernels of attention within windows: what `window_attention` runs on a GPU.

A program attends in several windows at once, so that its matrix products have the size that tensor
cores want; products between different windows are left out of the softmax. It reads and writes each
token once, and no program shares a window with another. Weights between windows are zero, but zero
times infinity is NaN: a window with numbers that are not finite makes those of its program NaN.

Legend: a tile is the tokens of the windows of a program, its rows, by the channels of one head,
filled up to a power of two. Names in capitals are known when a kernel is compiled.
"""

# In kernels, everything is Triton's, of whose types type checkers know little.
# pyright: reportArgumentType=false, reportCallIssue=false

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE = 64  # keys that a program looks at: several short windows, or one of the longest
LEAST = 16  # columns of the smallest matrix product
WARPS = 4


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Scaled dot-product attention.

    Args:
        q: ``(windows, heads, queries, c)``.
        k: ``(windows, heads, keys, c)``.
        v: ``(windows, heads, keys, c)``.

    Returns:
        As `result` makes it from `q`.
    """
    out = result(q)
    _launch(attend_tile, q, k, v, out)
    return out


def attend_backward(q: Tensor, k: Tensor, v: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `attend` with respect to `q`, `k` and `v`; `grad` is that of its output."""
    gradients = result(q), result(k), result(v)
    _launch(attend_tile_backward, q, k, v, grad, *gradients)
    return gradients


def result(like: Tensor) -> Tensor:
    """An empty tensor of the shape ``(windows, heads, tokens, c)``, tokens before heads in memory.

    So the heads of a token lie side by side, as the next linear map wants them.
    """
    windows, heads, tokens, channels = like.shape
    return like.new_empty(windows, tokens, heads, channels).transpose(1, 2)


def _launch(kernel: Any, *tensors: Tensor) -> None:
    """Start a kernel on tensors, the first of which are queries and keys."""
    # Only gradients such as that of a sum have other strides.
    tensors = tuple(t if t.stride(3) == 1 else t.contiguous() for t in tensors)
    (total, heads, queries, channels), keys = tensors[0].shape, tensors[1].shape[2]
    windows = TILE // keys  # at least 16 queries, as there is one for each 4 keys
    with torch.cuda.device_of(tensors[0]):
        kernel[triton.cdiv(total, windows), heads](
            *tensors,
            *(t.stride()[:3] for t in tensors),
            total,
            channels**-0.5,
            QUERIES=queries,
            KEYS=keys,
            WINDOWS=windows,
            CHANNELS=channels,
            WIDTH=max(LEAST, triton.next_power_of_2(channels)),
            num_warps=WARPS,
        )


@triton.jit(do_not_specialize=["total"])  # one kernel for batches of all sizes
def attend_tile(
    q, k, v, out,
    q_strides, k_strides, v_strides, out_strides,
    total, scale,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, WINDOWS: tl.constexpr,
    CHANNELS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """What `attend` computes, for the windows of a program."""
    queries = _load(q, q_strides, total, QUERIES, WINDOWS, CHANNELS, WIDTH)
    keys = _load(k, k_strides, total, KEYS, WINDOWS, CHANNELS, WIDTH)
    values = _load(v, v_strides, total, KEYS, WINDOWS, CHANNELS, WIDTH)
    weights = _weights(queries, keys, scale, QUERIES, KEYS, WINDOWS)
    attended = tl.dot(weights.to(values.dtype), values)
    _store(out, attended, out_strides, total, QUERIES, WINDOWS, CHANNELS, WIDTH)


@triton.jit(do_not_specialize=["total"])
def attend_tile_backward(
    q, k, v, grad, grad_q, grad_k, grad_v,
    q_strides, k_strides, v_strides, grad_strides, grad_q_strides, grad_k_strides, grad_v_strides,
    total, scale,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, WINDOWS: tl.constexpr,
    CHANNELS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """What `attend_backward` computes, for the windows of a program."""
    queries = _load(q, q_strides, total, QUERIES, WINDOWS, CHANNELS, WIDTH)
    keys = _load(k, k_strides, total, KEYS, WINDOWS, CHANNELS, WIDTH)
    values = _load(v, v_strides, total, KEYS, WINDOWS, CHANNELS, WIDTH)
    above = _load(grad, grad_strides, total, QUERIES, WINDOWS, CHANNELS, WIDTH)

    weights = _weights(queries, keys, scale, QUERIES, KEYS, WINDOWS)
    of_values = tl.dot(tl.trans(weights.to(above.dtype)), above)
    _store(grad_v, of_values, grad_v_strides, total, KEYS, WINDOWS, CHANNELS, WIDTH)

    of_weights = tl.dot(above, tl.trans(values))
    # Through the softmax: the gradient less its mean by weight.
    of_products = weights * (of_weights - tl.sum(weights * of_weights, 1)[:, None]) * scale
    of_products = of_products.to(queries.dtype)
    of_keys = tl.dot(tl.trans(of_products), queries)
    _store(grad_k, of_keys, grad_k_strides, total, KEYS, WINDOWS, CHANNELS, WIDTH)
    of_queries = tl.dot(of_products, keys)
    _store(grad_q, of_queries, grad_q_strides, total, QUERIES, WINDOWS, CHANNELS, WIDTH)


@triton.jit
def _weights(
    queries, keys, scale, QUERIES: tl.constexpr, KEYS: tl.constexpr, WINDOWS: tl.constexpr
):
    """Attention weights in float32, zero between windows, ``(WINDOWS*QUERIES, WINDOWS*KEYS)``."""
    products = tl.dot(queries, tl.trans(keys)) * scale
    of_query = tl.arange(0, WINDOWS * QUERIES) // QUERIES
    of_key = tl.arange(0, WINDOWS * KEYS) // KEYS
    products = tl.where(of_query[:, None] == of_key[None, :], products, float("-inf"))
    weights = tl.exp(products - tl.max(products, 1)[:, None])
    return weights / tl.sum(weights, 1)[:, None]


@triton.jit
def _load(
    tensor, strides, total,
    LENGTH: tl.constexpr, WINDOWS: tl.constexpr, CHANNELS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """A tile of a tensor, zero where the tensor has nothing, ``(WINDOWS*LENGTH, WIDTH)``."""
    places, there = _tile(strides, total, LENGTH, WINDOWS, CHANNELS, WIDTH)
    return tl.load(tensor + places, mask=there, other=0.0)


@triton.jit
def _store(
    tensor, values, strides, total,
    LENGTH: tl.constexpr, WINDOWS: tl.constexpr, CHANNELS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Write a tile, in the type of the tensor."""
    places, there = _tile(strides, total, LENGTH, WINDOWS, CHANNELS, WIDTH)
    tl.store(tensor + places, values.to(tensor.dtype.element_ty), mask=there)


@triton.jit
def _tile(
    strides, total,
    LENGTH: tl.constexpr, WINDOWS: tl.constexpr, CHANNELS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Where the tile of this program lies in memory, and what of it the tensor has."""
    token, channel = tl.arange(0, WINDOWS * LENGTH), tl.arange(0, WIDTH)
    window = tl.program_id(0) * WINDOWS + token // LENGTH
    # 64 bits: a tensor may have more numbers than 32 bits count.
    start = window.to(tl.int64) * strides[0] + token % LENGTH * strides[2]
    places = (start + tl.program_id(1).to(tl.int64) * strides[1])[:, None] + channel[None, :]
    return places, (window < total)[:, None] & (channel < CHANNELS)[None, :]
