"""Random numbers from seeds that travel with the samples.

The numbers of a ``torch.Generator`` depend on the device and on the other samples of a batch. Here
the numbers of a sample are a hash of its seed, computed for a whole batch on its device.
"""

import math

import torch
from torch import Tensor

_GOLDEN = -0x61C8864680B583EB  # 2**64 / golden ratio as a signed 64-bit number


def uniform(seed: Tensor, count: int, stream: int) -> Tensor:
    """Independent uniform numbers for each sample (SplitMix64: Steele et al., OOPSLA 2014).

    Args:
        seed: int64 ``(B,)``.
        count: numbers for each sample.
        stream: one for each use of a seed; the numbers of different streams are independent.

    Returns:
        float32 ``(B, count)`` in [0, 1), equal on every device.
    """
    start = _mix(seed + _wrap64(_GOLDEN * (stream + 1)))  # (B,)
    counter = torch.arange(1, count + 1, device=seed.device) * _GOLDEN  # (count,)
    bits = _mix(start[:, None] + counter[None, :])  # (B, count)
    # A float32 below one holds exactly the upper 24 bits.
    return _shift_right(bits, 40).to(torch.float32) * 2.0**-24


def normal(seed: Tensor, count: int, stream: int) -> Tensor:
    """Independent standard normal numbers for each sample (Box and Muller, 1958).

    Args:
        seed: int64 ``(B,)``.
        count: numbers for each sample.
        stream: as for `uniform`, which must not use the same one.

    Returns:
        float32 ``(B, count)`` in [-5.8, 5.8], equal on every device up to rounding.
    """
    half = (count + 1) // 2
    drawn = uniform(seed, 2 * half, stream)  # (B, 2 * half)
    radius = (1 - drawn[:, :half]).log().mul(-2).sqrt()  # 1 - drawn is in (0, 1]
    angle = drawn[:, half:] * (2 * math.pi)
    return torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)[:, :count]


def _wrap64(value: int) -> int:
    return (value + 2**63) % 2**64 - 2**63


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Logical shift; torch's operator keeps the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift_right(x, 30)) * -0x40A7B892E31B1A47
    x = (x ^ _shift_right(x, 27)) * -0x6B2FB644ECCEEE15
    return x ^ _shift_right(x, 31)
