"""What Prometheus scrapes of requests: counters and histograms since this process started.

Pure and bounded: so many combinations of labels, beyond which further ones are counted together as "other".
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from ccr_control.core.ledger import OTHER, Counters, Finished, FoldedSum, Sums, counters_of

MAX_USES = 500
MAX_PROVIDERS = 100
MAX_ATTEMPTS = 1000

SLOW_BOUNDS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
FAST_BOUNDS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5)


class Use(NamedTuple):
    """Labels of what is counted by use."""

    provider: str
    model: str
    client: str


class Tried(NamedTuple):
    """Labels of what is counted by attempt."""

    provider: str
    key_label: str
    reason: str  # empty: it was the answer


@dataclass(slots=True)
class Histogram:
    """Durations by bucket. Mutable: it is an accumulator."""

    bounds_s: tuple[float, ...]
    counts: list[int] = field(default_factory=list)  # of each bound, and of what is beyond the last
    sum_us: int = 0

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds_s) + 1)

    def add(self, duration_us: int, times: int = 1) -> None:
        """Count a duration."""
        self.counts[bisect_left(self.bounds_s, duration_us / 1e6)] += times
        self.sum_us += duration_us * times

    def cumulated(self) -> list[tuple[float, int]]:
        """How many took no longer than each bound; the last bound is infinite."""
        found, total = [], 0
        for bound, count in zip((*self.bounds_s, float("inf")), self.counts, strict=True):
            total += count
            found.append((bound, total))
        return found


@dataclass(slots=True)
class Timing:
    """How long the requests of a provider took."""

    first_byte: Histogram = field(default_factory=lambda: Histogram(SLOW_BOUNDS_S))
    total: Histogram = field(default_factory=lambda: Histogram(SLOW_BOUNDS_S))
    overhead: Histogram = field(default_factory=lambda: Histogram(FAST_BOUNDS_S))


class Meters:
    """Everything since the process started."""

    def __init__(self) -> None:
        self.uses: dict[Use, Counters] = {}
        self.attempts: dict[Tried, int] = defaultdict(int)
        self.timings: dict[str, Timing] = {}
        self.batches = 0

    def count(self, finished: Iterable[Finished], folded: Iterable[FoldedSum], sums: Sums) -> None:
        """Count a batch. A request that a node folded has the mean duration of its sum."""
        self.batches += 1
        for key, counters in sums.items():
            use = Use(key.provider, key.model_used, key.client)
            if use not in self.uses and len(self.uses) >= MAX_USES:
                use = Use(OTHER, OTHER, OTHER)
            counters_of(self.uses, use).add(counters)
        for request in finished:
            self._time(request.provider, 1, request.first_byte_us, request.total_us, request.overhead_us)
            for provider, key_label, reason in request.tried:
                self._try(Tried(provider, key_label, reason), 1)
        for part in folded:
            counters, key = part.counters, part.key
            if count := counters.requests:
                mean = (counters.first_byte_us // count, counters.total_us // count, part.overhead_us // count)
                self._time(key.provider, count, *mean)
                if key.provider:
                    self._try(Tried(key.provider, key.key_label, ""), count)
            if counters.failed_attempts:
                self._try(Tried(key.provider, key.key_label, OTHER), counters.failed_attempts)

    def _time(self, provider: str, times: int, first_byte_us: int, total_us: int, overhead_us: int) -> None:
        if not provider:
            return
        timing = self.timings.get(provider)
        if timing is None:
            if len(self.timings) >= MAX_PROVIDERS:
                provider = OTHER
            timing = self.timings.setdefault(provider, Timing())
        if first_byte_us > 0:
            timing.first_byte.add(first_byte_us, times)
        timing.total.add(max(total_us, 0), times)
        timing.overhead.add(max(overhead_us, 0), times)

    def _try(self, tried: Tried, times: int) -> None:
        if tried not in self.attempts and len(self.attempts) >= MAX_ATTEMPTS:
            tried = Tried(OTHER, OTHER, OTHER)
        self.attempts[tried] += times
