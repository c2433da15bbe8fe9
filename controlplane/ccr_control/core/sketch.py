"""Percentiles of many durations in little memory: a histogram whose buckets grow geometrically.

Pure. The bucket bounds are the same everywhere, so sketches merge by adding counts, in any order, without losing
accuracy, and can be subtracted again (DDSketch, Masson et al., VLDB 2019). Values are whole microseconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

ACCURACY = 0.02
"""Largest relative error of a quantile of values up to `MAX_VALUE`, rounding to whole microseconds included."""

MAX_VALUE = 1 << 40
"""Twelve days in microseconds. Larger values count as this one."""

_BUCKET_ERROR = 0.01  # below 50 µs rounding makes the answer exact, above it adds at most another 0.01
_GROWTH = (1 + _BUCKET_ERROR) / (1 - _BUCKET_ERROR)
_PER_LOG = 1 / math.log(_GROWTH)
_ESTIMATE = 2 / (_GROWTH + 1)  # of a bucket's upper bound: equally wrong, relatively, at both ends of the bucket
MAX_BUCKETS = 2 + int(math.log(MAX_VALUE) * _PER_LOG)
"""No sketch has more buckets than this."""


def _bucket(value: int) -> int:
    """The number of the bucket that holds `value`: 0 for what is below 1, then 1, 2, 3, …"""
    if value < 1:
        return 0
    return 1 + int(math.log(min(value, MAX_VALUE)) * _PER_LOG)


class Sketch:
    """Counts of values by bucket. Mutable: it is an accumulator."""

    __slots__ = ("_counts",)

    def __init__(self, values: Iterable[int] = ()) -> None:
        self._counts: dict[int, int] = {}
        for value in values:
            self.add(value)

    def __len__(self) -> int:
        """How many values were added."""
        return sum(self._counts.values())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sketch) and self._counts == other._counts

    __hash__ = None  # type: ignore[assignment]  # it changes

    def add(self, value: int) -> None:
        """Count one value. Negative ones count as 0."""
        bucket = _bucket(value)
        self._counts[bucket] = self._counts.get(bucket, 0) + 1

    def merge(self, other: Sketch) -> None:
        """Count every value of `other`, too."""
        counts = self._counts
        for bucket, count in other._counts.items():
            counts[bucket] = counts.get(bucket, 0) + count

    def subtract(self, other: Sketch) -> None:
        """Take away values that were merged before."""
        counts = self._counts
        for bucket, count in other._counts.items():
            left = counts[bucket] - count
            assert left >= 0, "only what was merged before can be subtracted"
            if left:
                counts[bucket] = left
            else:
                del counts[bucket]

    def quantiles(self, shares: Iterable[float]) -> list[int]:
        """For each share in (0, 1]: the smallest value that so many of the values do not exceed. Empty sketch: 0.

        `shares` must ascend.
        """
        buckets = sorted(self._counts.items())
        total = sum(count for _, count in buckets)
        answers: list[int] = []
        position, below = 0, 0
        for share in shares:
            rank = max(1, math.ceil(share * total))
            while position < len(buckets) and below + buckets[position][1] < rank:
                below += buckets[position][1]
                position += 1
            bucket = buckets[position][0] if total else 0
            answers.append(round(_ESTIMATE * _GROWTH**bucket) if bucket else 0)
        return answers
