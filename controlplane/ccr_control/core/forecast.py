"""How long until a budget is used up, if things go on as they do now?

Pure. What counts of a budget is what was used in its last minute: at an even rate it grows for one minute, and then stays. So only
a rate that leads beyond the limit uses it up, and it does so within a minute. The rate is that of the last RATE_S; a shorter burst
says little, as its minute may have nothing else in it. Times are seconds of the caller's clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from ccr_control.core.leases import Amounts, BudgetName

SAMPLE_EVERY_S = 10.0
WINDOW_S = 60.0
RATE_S = 30.0
LOOKS_BACK_S = 120.0
MAX_BUDGETS = 4096

Flow = tuple[float, ...]  # of each kind of amount, so much


@dataclass(frozen=True, slots=True)
class _Step:
    """What was used between two looks."""

    from_s: float
    to_s: float
    flow: Flow

    def within(self, from_s: float, to_s: float) -> float:
        """The part of it that lies between two times."""
        passed_s = self.to_s - self.from_s
        return max(0.0, min(to_s, self.to_s) - max(from_s, self.from_s)) / passed_s if passed_s > 0 else 0.0


@dataclass(slots=True)
class _Trend:
    """One budget: what flowed into its minute, found from what the minute held at each look."""

    steps: deque[_Step]

    def at(self, used: Amounts, now_s: float) -> list[_Step]:
        """The steps until now, when so much is used."""
        steps = list(self.steps)
        last_s = steps[-1].to_s
        if now_s <= last_s:
            return steps
        kept = _flowed(steps, now_s - WINDOW_S, last_s)
        came = tuple(now - before for now, before in zip(used, kept, strict=True))
        # Less than was there: it was corrected, or a node was forgotten. What is left came as evenly as what was.
        parts = [now / before if flow < 0 else 1.0 for now, before, flow in zip(used, kept, came, strict=True)]
        if min(parts) < 1.0:
            steps = [_Step(one.from_s, one.to_s, _times(one.flow, parts)) for one in steps]
        return [*steps, _Step(last_s, now_s, tuple(max(0.0, one) for one in came))]


@dataclass
class Trends:
    """What was used of each budget lately."""

    _seen: dict[BudgetName, _Trend] = field(default_factory=dict)

    def note(self, name: BudgetName, used: Amounts, now_s: float) -> None:
        """So much was used in the minute until now."""
        trend = self._seen.get(name)
        if trend is None:
            if len(self._seen) >= MAX_BUDGETS:
                del self._seen[next(iter(self._seen))]
            first = _Step(now_s - WINDOW_S, now_s, tuple(map(float, used)))  # nobody knows when in its minute
            self._seen[name] = _Trend(deque([first]))
        elif now_s - trend.steps[-1].to_s >= SAMPLE_EVERY_S:
            trend.steps = deque(one for one in trend.at(used, now_s) if now_s - one.to_s < LOOKS_BACK_S)

    def exhausted_in_s(self, name: BudgetName, limits: Amounts, used: Amounts, now_s: float) -> float | None:
        """Seconds until the tightest limit is reached; None: not in sight."""
        found = [0.0 for limit, now in zip(limits, used, strict=True) if limit and now >= limit]
        trend = self._seen.get(name)
        if found or trend is None:
            return min(found, default=None)
        steps = trend.at(used, now_s)
        lately = _flowed(steps, now_s - RATE_S, now_s)
        rates = [min(flow, now) / RATE_S for flow, now in zip(lately, used, strict=True)]
        for kind, (limit, now, rate) in enumerate(zip(limits, used, rates, strict=True)):
            if limit and rate * WINDOW_S >= limit:
                leaving = (
                    (one.to_s + WINDOW_S - now_s, one.from_s + WINDOW_S - now_s, one.flow[kind]) for one in steps
                )
                found.append(_reached_in_s(limit - now, rate, leaving))
        return min(found, default=None)


def _reached_in_s(left: float, rate: float, leaving: Iterable[tuple[float, float, float]]) -> float:
    """Seconds until as much has come at this rate, without what has left, as is left.

    `leaving` are steps in their order: until when one leaves, from when, and how much. The rate is one that gets there.
    """
    for until_s, from_s, flow in leaving:
        if until_s <= 0:
            continue
        passed_s, begins_s = until_s - from_s, max(0.0, from_s)
        net = rate - (flow / passed_s if passed_s > 0 else 0.0)
        if net * (until_s - begins_s) >= left:
            return min(WINDOW_S, begins_s + left / net)
        left -= net * (until_s - begins_s)
    return WINDOW_S


def _flowed(steps: Iterable[_Step], from_s: float, to_s: float) -> Flow:
    """What was used between two times."""
    found = [0.0] * len(Amounts._fields)
    for one in steps:
        part = one.within(from_s, to_s)
        if part > 0:
            found = [so_far + part * flow for so_far, flow in zip(found, one.flow, strict=True)]
    return tuple(found)


def _times(flow: Flow, parts: Iterable[float]) -> Flow:
    return tuple(one * part for one, part in zip(flow, parts, strict=True))
