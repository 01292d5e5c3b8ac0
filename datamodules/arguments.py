"""Checks of arguments, shared by the data modules; their messages are for users."""

import math
from collections.abc import Sequence
from numbers import Integral


def check_positive(**values: float) -> None:
    """Raise a ValueError that names the first value that is not above 0."""
    for name, value in values.items():
        if not value > 0:  # nor NaN
            raise ValueError(f"{name} must be positive, not {value}")


def check_whole(**values: float) -> None:
    """Raise a ValueError that names the first value that is not a whole number."""
    for name, value in values.items():
        if value % 1:  # of infinity, that is NaN
            raise ValueError(f"{name} must be a whole number, not {value}")


def check_numbers(name: str, values: Sequence[int], parts: str, multiple: int = 1) -> None:
    """Raise a ValueError unless the values are whole numbers above 0, one for each part.

    Args:
        name: of the argument, for the message.
        values: the argument.
        parts: what its numbers are, such as ``height, width``.
        multiple: of which all must be multiples.
    """
    numbers = [values] if isinstance(values, int | float | None) else values
    are_right = all(isinstance(n, Integral) and n > 0 and n % multiple == 0 for n in numbers)
    if len(numbers) != len(parts.split(", ")) or not are_right:
        kind = "whole numbers above 0" if multiple == 1 else f"multiples of {multiple}"
        raise ValueError(f"{name} must be [{parts}], {kind}, not {values}")


def check_range(name: str, values: Sequence[float], most: float = math.inf) -> None:
    """Raise a ValueError unless the values are [least, greatest], in (0, ``most``]."""
    if isinstance(values, int | float | None) or len(values) != 2:
        raise ValueError(f"{name} must be [least, greatest], not {values}")
    if not 0 < values[0] <= values[1] <= most:
        limit = f" and at most {most:g}" if most < math.inf else ""
        raise ValueError(f"{name} must be above 0, in ascending order{limit}, not {list(values)}")


def check_short_side(values: Sequence[int], crop: int) -> None:
    """Raise a ValueError unless the values are a range of whole pixels that the crop fits in.

    Args:
        values: least and greatest short side, pixels.
        crop: longer side of the crop, pixels.
    """
    check_range("short_side", values)
    check_whole(**{"short_side": values[0], "greatest short_side": values[1]})
    if values[0] < crop:
        raise ValueError(f"short_side={list(values)} is less than the crop of {crop} pixels")
