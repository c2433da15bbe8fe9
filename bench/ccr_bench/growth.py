"""Does a figure grow? A straight line through it, and how sure its slope is. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, sqrt

WARM_UP = 0.25  # share of the points that is not looked at: caches fill
SURE = 3.0  # errors that a slope has to differ from 0 by


@dataclass(frozen=True, slots=True)
class Slope:
    """Growth for each unit of x, and its standard error."""

    each: float
    error: float

    def grows(self, tolerated: float) -> bool:
        """Whether there is surely more growth than is tolerated."""
        return self.each - SURE * self.error > tolerated


def slope(xs: Sequence[float], ys: Sequence[float]) -> Slope:
    """Least squares. With fewer than three points nothing is sure."""
    count = len(xs)
    if count < 3:
        return Slope(0.0, inf)
    mean_x, mean_y = sum(xs) / count, sum(ys) / count
    spread = sum((x - mean_x) ** 2 for x in xs)
    each = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / spread
    rest = sum((y - mean_y - each * (x - mean_x)) ** 2 for x, y in zip(xs, ys, strict=True))
    return Slope(each, sqrt(rest / (count - 2) / spread))


def after_warm_up(xs: Sequence[float], ys: Sequence[float]) -> Slope:
    """The slope of what came after the first points."""
    first = int(len(xs) * WARM_UP)
    return slope(xs[first:], ys[first:])
