"""The peak of a GPU in matrix products, as its data sheet states it.

Lightning has such a table, too (`lightning.fabric.utilities.throughput`). But its numbers for the
H100 NVL and the H200 are with sparsity, twice the dense ones; it does not know an H200 by the name
that the driver gives it, and takes an L40 for an L4.
"""

import re

import torch

# Name of the device -> dense operations per second in float16 and bfloat16, as 1e12.
_HALF_PRECISION = {
    r"B200$": 2250.0,
    r"H200$": 989.4,
    r"H100 80GB HBM3$": 989.4,  # SXM
    r"H100 PCIe$": 756.0,
    r"A100\b": 312.0,
    r"L40S$": 362.0,
    r"L40$": 181.0,
    r"L4$": 121.0,
    r"A40$": 149.7,
    r"A10$": 125.0,
}


def device_peak(device: torch.device, precision: str) -> float | None:
    """Greatest number of floating-point operations that a device makes in a second.

    Args:
        device: of one process.
        precision: ``trainer.precision``, such as ``bf16-mixed``.

    Returns:
        Operations per second, a multiply-add being two; None: not known.
    """
    if device.type != "cuda":
        return None
    return chip_peak(torch.cuda.get_device_name(device), precision)


def chip_peak(name: str, precision: str) -> float | None:
    """`device_peak` of a chip.

    Args:
        name: as the driver says it, such as ``NVIDIA H100 80GB HBM3``.
        precision: as in `device_peak`. In ``32-true``, matrix products are TensorFloat-32, at half
            the rate, unless PyTorch's float32 matmul precision is "highest".
    """
    peaks = [peak for chip, peak in _HALF_PRECISION.items() if re.search(rf"\b{chip}", name)]
    if not peaks or "MIG" in name:  # a part of a GPU
        return None
    peak = peaks[0] * 1e12
    if precision in ("bf16-mixed", "16-mixed", "bf16-true", "16-true"):
        return peak
    if precision == "32-true" and torch.get_float32_matmul_precision() != "highest":
        return peak / 2
    return None
