"""What a set of measurements says."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

QUANTILES = (0.5, 0.9, 0.99, 0.999)


def quantile(ordered: Sequence[float], part: float) -> float:
    """Return the value that `part` of `ordered` (rising, not empty) do not exceed."""
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def described(values: Sequence[float], digits: int = 3) -> dict[str, float]:
    """Return count, extremes, mean and quantiles of `values`; of none, the count."""
    if not values:
        return {"count": 0}
    ordered = sorted(values)
    kept = {
        "min": ordered[0],
        **{f"p{str(part * 100).removesuffix('.0')}": quantile(ordered, part) for part in QUANTILES},
        "max": ordered[-1],
        "mean": sum(ordered) / len(ordered),
    }
    return {"count": len(ordered), **{name: round(value, digits) for name, value in kept.items()}}


def ratios(over: Sequence[float], under: Sequence[float]) -> float:
    """Return the ratio of medians of what was measured in turns."""
    return median(over) / median(under)
