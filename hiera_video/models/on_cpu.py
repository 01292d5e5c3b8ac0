"""Quicker ways for a CPU to compute the same in inference.

Other devices do not take them, nor does code that `torch.compile` or `torch.export` makes.
"""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn

# Tokens that go through a block of windows at once: what it makes of them stays in the caches.
TOKENS = 2048
# Of these types, which instructions of an x86 processor take their products; without, each product
# is emulated, which takes several times as long as in float32.
INSTRUCTIONS = {
    torch.bfloat16: ("amx_bf16", "avx512_bf16"),
    torch.float16: ("amx_fp16", "avx512_fp16"),
}


def takes_parts(x: Tensor) -> bool:
    """Whether windows ``(B, U, L, C)`` should go through a block by `in_parts`."""
    return _infers(x) and x.numel() > TOKENS * x.shape[-1]


def in_parts(block: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Take windows through a block a few at a time.

    Args:
        block: maps ``(1, n, L, C)`` to ``(1, n, L', C')``, each of n windows by itself.
        x: ``(B, U, L, C)``.

    Returns:
        ``(B, U, L', C')``.
    """
    rows = x.flatten(0, 1).split(max(1, TOKENS // x.shape[2]))  # (n, L, C) each
    return torch.cat([block(part[None])[0] for part in rows]).unflatten(0, x.shape[:2])


def is_emulated(module: nn.Module, x: Tensor) -> bool:
    """Whether a CPU emulates products of this type, so that `in_float32` is quicker.

    Args:
        module: whose weights have the type of `x`.
        x: its input.
    """
    if x.dtype not in INSTRUCTIONS or not _infers(x) or torch.is_autocast_enabled("cpu"):
        return False
    plain = all(type(p) is nn.Parameter for p in module.parameters())  # not sharded
    return plain and emulates(x.dtype)


def in_float32(module: nn.Module, x: Tensor) -> Tensor:
    """Run a module with float32 copies of its weights, and round its output to the type of `x`."""
    weights = {name: p.float() for name, p in module.named_parameters()}
    return torch.func.functional_call(module, weights, (x.float(),)).to(x.dtype)


@cache
def emulates(dtype: torch.dtype) -> bool:
    """Whether this processor has no instructions for products of a type of `INSTRUCTIONS`."""
    abilities = torch.cpu.get_capabilities()
    is_x86 = abilities.get("architecture") == "x86_64"
    return is_x86 and not any(abilities.get(name) for name in INSTRUCTIONS[dtype])


def _infers(x: Tensor) -> bool:
    compiling = torch.compiler.is_compiling()
    return x.device.type == "cpu" and not torch.is_grad_enabled() and not compiling
