"""Numbers that may be NaN, for programs and for people."""

import math


def plain(value: float) -> float | None:
    """A number for JSON, which has no NaN."""
    return None if math.isnan(value) else float(value)


def shown(value: float) -> str:
    """A number with four decimals, or a dash."""
    return "-" if math.isnan(value) else f"{value:.4f}"
