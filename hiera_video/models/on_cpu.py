"""Quicker ways for a CPU to compute the same.

Other devices do not take them, nor does code that `torch.compile`, `torch.export` or
`torch.jit.trace` makes, which is for batches of any size and for any processor.
"""

from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Tokens for each thread that go through a block of windows at once: what it makes of them stays in
# the caches.
TOKENS = 1024
# Of these types, which instructions of an x86 processor take their products; without, each product
# is emulated, which takes several times as long as in float32.
INSTRUCTIONS = {
    torch.bfloat16: ("amx_bf16", "avx512_bf16"),
    torch.float16: ("amx_fp16", "avx512_fp16"),
}


def takes_parts(x: Tensor) -> bool:
    """Whether windows ``(B, U, L, C)`` should go through a block by `in_parts`: in inference."""
    return _runs(x) and not torch.is_grad_enabled() and x.numel() > _tokens() * x.shape[-1]


def in_parts(block: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Take windows through a block a few at a time.

    Args:
        block: maps ``(1, n, L, C)`` to ``(1, n, L', C')``, each of n windows by itself. Hooks on
            modules within it see these parts.
        x: ``(B, U, L, C)``.

    Returns:
        ``(B, U, L', C')``.
    """
    parts = x.flatten(0, 1).split(max(1, _tokens() // x.shape[2]))  # (n, L, C) each
    return torch.cat([block(part[None])[0] for part in parts]).unflatten(0, x.shape[:2])


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`torch.nn.functional.linear`, in float32 where a CPU would emulate its products.

    Args:
        x: ``(..., n)``.
        weight: ``(m, n)``, of the same type.
        bias: ``(m,)``, likewise.

    Returns:
        ``(..., m)``, of the type of `x`.
    """
    if not is_emulated(x, weight):
        return F.linear(x, weight, bias)
    return F.linear(x.float(), weight.float(), None if bias is None else bias.float()).to(x.dtype)


def apply(layer: nn.Linear, x: Tensor) -> Tensor:
    """Call a layer; where a CPU would emulate its products, compute it by `linear`, without hooks.

    A layer of another kind that has taken its place, quantised or with adapters, is always called.

    Args:
        layer: maps n channels to m.
        x: ``(..., n)``.

    Returns:
        ``(..., m)``.
    """
    if type(layer) is nn.Linear and is_emulated(x, layer.weight):
        return linear(x, layer.weight, layer.bias)
    return layer(x)


def is_emulated(*tensors: Tensor) -> bool:
    """Whether a CPU emulates products of tensors of this type; not if they are wrapped."""
    dtype = tensors[0].dtype
    return (
        dtype in INSTRUCTIONS
        and _runs(tensors[0])
        and all(type(t) in (Tensor, nn.Parameter) and t.dtype == dtype for t in tensors)
        and not torch.is_autocast_enabled("cpu")
        and emulates(dtype)
    )


@cache
def emulates(dtype: torch.dtype) -> bool:
    """Whether this processor has no instructions for products of a type of `INSTRUCTIONS`."""
    abilities = torch.cpu.get_capabilities()
    is_x86 = abilities.get("architecture") == "x86_64"
    return is_x86 and all(abilities.get(name) is False for name in INSTRUCTIONS[dtype])


def _runs(x: Tensor) -> bool:
    if x.device.type != "cpu":  # first, as it costs other devices the least time of the host
        return False
    tracing = torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
    return not tracing and not torch.compiler.is_compiling()


def _tokens() -> int:
    return TOKENS * torch.get_num_threads()
