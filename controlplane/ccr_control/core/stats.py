"""Live statistics: rates and percentiles of the last minute, totals since the ledger began, and what happened lately.

Pure. Times are seconds since 1970, given by the caller; durations are microseconds. A request belongs to the second in
which it ended, so usage that was spooled for an hour adds to the totals and not to the rates.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ccr_control.core.history import History
from ccr_control.core.ledger import OTHER, Counters, Finished, FoldedSum, Sums, counters_of
from ccr_control.core.meters import Meters
from ccr_control.core.sessions import Sessions
from ccr_control.core.sketch import Sketch

DAY_S = 86_400
KEPT_DAYS = 3
WINDOW_S = 60
"""Length of the sliding window."""

MAX_PROVIDERS = 1024
"""Providers kept apart, the removed ones included. Further ones are counted together as "other"."""

ITSELF = ""
"""In the place of a provider's name: the relay answered by itself."""

SHARES = (0.5, 0.9, 0.99)
"""The percentiles that are shown."""


@dataclass(slots=True)
class Slice:
    """Requests that ended within some time. Mutable: it is an accumulator."""

    requests: int = 0  # those that a node folded included; they are in no sketch
    first_byte: Sketch = field(default_factory=Sketch)
    total: Sketch = field(default_factory=Sketch)
    overhead: Sketch = field(default_factory=Sketch)

    def add(self, request: Finished) -> None:
        """Count one request. A time of 0 means that there was none, except for the relay's own share."""
        self.requests += 1
        if request.first_byte_us > 0:
            self.first_byte.add(request.first_byte_us)
        if request.total_us > 0:
            self.total.add(request.total_us)
        if request.provider:
            self.overhead.add(request.overhead_us)

    def merge(self, other: Slice) -> None:
        """Count everything in `other`, too."""
        self.requests += other.requests
        self.first_byte.merge(other.first_byte)
        self.total.merge(other.total)
        self.overhead.merge(other.overhead)

    def subtract(self, other: Slice) -> None:
        """Take away what was merged before."""
        self.requests -= other.requests
        self.first_byte.subtract(other.first_byte)
        self.total.subtract(other.total)
        self.overhead.subtract(other.overhead)


class Window:
    """The last `WINDOW_S` seconds: one slice for each, and their sum, so that reading costs nothing extra."""

    def __init__(self) -> None:
        self.sum = Slice()
        self._seconds: dict[int, Slice] = {}

    def merge(self, second: int, part: Slice) -> None:
        """Count requests that ended in `second`, which must lie within the window."""
        self._seconds.setdefault(second, Slice()).merge(part)
        self.sum.merge(part)

    def expire(self, now: int) -> None:
        """Forget what ended `WINDOW_S` seconds ago or earlier, or lies ahead because the clock was put back.

        Cost: the seconds with requests in them.
        """
        for second in [second for second in self._seconds if not now - WINDOW_S < second <= now]:
            self.sum.subtract(self._seconds.pop(second))


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of a set of requests; the percentiles are those of `SHARES`."""

    counters: Counters
    requests_per_s: float
    first_byte_us: tuple[int, ...]
    total_us: tuple[int, ...]
    overhead_us: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """All figures as of one moment."""

    total: Figures
    providers: dict[str, Figures]  # by name, ascending
    cost_today_micro_usd: int = 0  # of what began today, UTC
    saved_today_micro_usd: int = 0


class Stats:
    """What happened, as far as anybody wants to watch it live."""

    def __init__(self, totals: Mapping[str, Counters] | None = None) -> None:
        self.history, self.sessions, self.meters = History(), Sessions(), Meters()
        self.batches = 0  # that were counted: whoever shows figures knows by it whether they changed
        self._windows: dict[str, Window] = {}
        self._totals: dict[str, Counters] = {}
        self._days: dict[int, Counters] = {}  # what began on each; several, as the clock may be set
        self.begin(totals or {})

    def begin(self, totals: Mapping[str, Counters], today: Counters | None = None, now_s: float = 0.0) -> None:
        """Take the totals by provider, and today's, from a ledger that was just opened; the windows stay as they are."""
        self._totals = dict(totals)
        self._days = {int(now_s) // DAY_S: today or Counters()}

    def count(self, finished: Sequence[Finished], sums: Sums, now_s: float, folded: Sequence[FoldedSum] = ()) -> None:
        """Count a batch that the store has kept: its requests in the window, its ledger sums in the totals.

        `folded` are those of its requests that are not in `finished`.
        """
        now = int(now_s)
        parts: dict[tuple[str, int], Slice] = defaultdict(Slice)
        for request in finished:
            ended = min(now, request.started_at_s + request.total_us // 1_000_000)  # a node's clock may be ahead
            if ended > now - WINDOW_S:
                parts[request.provider, ended].add(request)
        for together in folded:
            ended = min(now, together.ended_at_s)
            if ended > now - WINDOW_S:
                parts[together.key.provider, ended].requests += together.counters.requests
        for (provider, ended), part in parts.items():
            window = self._window(provider)
            window.merge(ended, part)
            window.expire(now)
        today, counted_today = now // DAY_S, self._today(now)
        for key, counters in sums.items():
            counters_of(self._totals, self._known(key.provider)).add(counters)
            if key.hour // 24 == today:
                counted_today.add(counters)
        self.history.count(finished, folded, now_s)
        self.sessions.count(finished, now_s)
        self.meters.count(finished, folded, sums)
        self.batches += 1

    def totals(self) -> Mapping[str, Counters]:
        """Sums by provider since the ledger began; the empty name stands for what the relay answered by itself."""
        return self._totals

    def report(self, now_s: float) -> Report:
        """The figures as of `now_s`."""
        today = self._today(int(now_s))
        everything, all_counters = Slice(), Counters()
        for name in [*self._windows]:
            window = self._windows[name]
            window.expire(int(now_s))
            everything.merge(window.sum)
            if not window.sum.requests:
                del self._windows[name]
        for counters in self._totals.values():
            all_counters.add(counters)
        names = sorted((self._totals.keys() | self._windows.keys()) - {ITSELF})
        empty = Slice()
        return Report(
            total=_figures(all_counters, everything),
            providers={
                name: _figures(
                    self._totals.get(name, Counters()), self._windows[name].sum if name in self._windows else empty
                )
                for name in names
            },
            cost_today_micro_usd=today.cost_micro_usd,
            saved_today_micro_usd=today.saved_micro_usd,
        )

    def _today(self, now: int) -> Counters:
        day = now // DAY_S
        if day not in self._days and len(self._days) == KEPT_DAYS:
            del self._days[min(self._days)]
        return self._days.setdefault(day, Counters())

    def _window(self, provider: str) -> Window:
        return self._windows.setdefault(self._known(provider), Window())

    def _known(self, provider: str) -> str:
        if provider in self._totals or len(self._totals) < MAX_PROVIDERS:
            return provider
        return OTHER


def _figures(counters: Counters, window: Slice) -> Figures:
    return Figures(
        counters=counters,
        requests_per_s=window.requests / WINDOW_S,
        first_byte_us=tuple(window.first_byte.quantiles(SHARES)),
        total_us=tuple(window.total.quantiles(SHARES)),
        overhead_us=tuple(window.overhead.quantiles(SHARES)),
    )
