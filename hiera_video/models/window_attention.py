"""Attention within short windows in half precision on a GPU.

The fused kernels of torch take a tile of 64 or 128 queries for each window, which one of 16 tokens
leaves nearly empty. The kernels here take several windows at once.
"""

import logging
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

log = logging.getLogger(__name__)

TRITON = find_spec("triton") is not None  # comes with torch for CUDA on Linux
LONGEST = 64  # keys of a window; no more than `window_kernels.TILE`
WIDEST = 128  # channels of a head


def takes(q: Tensor, k: Tensor) -> bool:
    """Whether `attend_windows` computes attention with these queries and keys.

    Args:
        q: ``(windows, heads, queries, c)``.
        k: ``(windows, heads, keys, c)``, of the same type.
    """
    half = q.dtype in (torch.bfloat16, torch.float16)
    fit = fits(q.shape[2], k.shape[2], q.shape[3])
    return q.is_cuda and half and fit and is_able(q.device)


def fits(queries: int, keys: int, channels: int) -> bool:
    """Whether `attend_windows` is made for windows of this size and heads of so many channels."""
    powers_of_two = all(n > 0 and n & (n - 1) == 0 for n in (queries, keys))
    return powers_of_two and queries <= keys <= min(4 * queries, LONGEST) and channels <= WIDEST


def is_able(device: torch.device) -> bool:
    """Whether Triton is there, and makes code for a GPU, of NVIDIA."""
    nvidia = torch.version.hip is None  # the kernels have run on no other
    return TRITON and nvidia and torch.cuda.get_device_capability(device) >= (8, 0) and builds()


# The answer is a constant of compiled code. `torch.compiler.assume_constant_result` says so by the
# same mark, but imports the whole compiler for it, which takes seconds.
is_able._dynamo_marked_constant = True  # pyright: ignore[reportFunctionMemberAccess]


@cache
def builds() -> bool:
    """Whether Triton can build what starts its kernels; a warning says why not."""
    try:
        from triton.runtime import driver

        active: Any = driver.active
        _ = active.utils  # is built now, if no earlier process has left it in the cache
    except Exception as error:  # of Triton, of the compiler that it runs, or of the system
        log.warning(
            "attention in windows takes PyTorch's kernels, which are slower, as Triton cannot "
            "build its own; it needs a C compiler and the headers of Python (%s)",
            " ".join(str(error).split()) or type(error).__name__,
        )
        return False
    return True


@torch.library.custom_op("hiera_video::attend_windows", mutates_args=())
def attend_windows(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Scaled dot-product attention in windows that `takes` accepts, differentiable once.

    Args:
        q: ``(windows, heads, queries, c)``, float16 or bfloat16 like the others.
        k: ``(windows, heads, keys, c)``.
        v: ``(windows, heads, keys, c)``.

    Returns:
        ``(windows, heads, queries, c)``.
    """
    from hiera_video.models import window_kernels  # where there is no GPU, Triton may be missing

    return window_kernels.attend(q, k, v)


@torch.library.custom_op("hiera_video::attend_windows_backward", mutates_args=())
def attend_windows_backward(
    q: Tensor, k: Tensor, v: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `attend_windows` with respect to `q`, `k` and `v`, of their shapes and types.

    Args:
        q: as in `attend_windows`.
        k: likewise.
        v: likewise.
        grad: of its output, of the same shape and type.
    """
    from hiera_video.models import window_kernels

    return window_kernels.attend_backward(q, k, v, grad)


@attend_windows.register_fake
def _(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    from hiera_video.models import window_kernels

    return window_kernels.result(q)


@attend_windows_backward.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    from hiera_video.models import window_kernels

    return window_kernels.result(q), window_kernels.result(k), window_kernels.result(v)


def _save(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return attend_windows_backward(*ctx.saved_tensors, grad)


attend_windows.register_autograd(_backward, setup_context=_save)
