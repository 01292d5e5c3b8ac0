"""Precisions by the names that Lightning gives them."""

from typing import NamedTuple

import torch


class Precision(NamedTuple):
    """What a network computes in.

    Attributes:
        weights: their type.
        autocast: the type of autocast's products; None: without autocast.
    """

    weights: torch.dtype
    autocast: torch.dtype | None = None


PRECISIONS = {
    "32-true": Precision(torch.float32),
    "bf16-mixed": Precision(torch.float32, torch.bfloat16),
    "16-mixed": Precision(torch.float32, torch.float16),
    "bf16-true": Precision(torch.bfloat16),
    "16-true": Precision(torch.float16),
}
# Those with weights in float32, in which alone small steps of a training are kept: the type of
# autocast's products.
AUTOCAST = {name: p.autocast for name, p in PRECISIONS.items() if p.weights == torch.float32}
_SHORT = {"32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed"}


def full_name(precision: str | int) -> str:
    """The name of a precision in `PRECISIONS`, also of a short one such as ``bf16`` or 16.

    Others, which Lightning may know, are returned as they are.
    """
    return _SHORT.get(str(precision), str(precision))
