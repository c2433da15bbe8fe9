"""How long until a budget is used up, if things go on as they did?

Pure. Times are seconds of the caller's clock.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from ccr_control.core.leases import Amounts, BudgetName

SAMPLE_EVERY_S = 10.0
LOOKS_BACK_S = 120.0
IN_SIGHT_S = 3600.0
MAX_BUDGETS = 4096


@dataclass
class Trends:
    """What was used of each budget lately."""

    _seen: dict[BudgetName, deque[tuple[float, Amounts]]] = field(default_factory=dict)

    def note(self, name: BudgetName, used: Amounts, now_s: float) -> None:
        """So much was used in the minute until now."""
        seen = self._seen.get(name)
        if seen is None:
            if len(self._seen) >= MAX_BUDGETS:
                del self._seen[next(iter(self._seen))]
            seen = self._seen[name] = deque()
        if not seen or now_s - seen[-1][0] >= SAMPLE_EVERY_S:
            seen.append((now_s, used))
        while seen and now_s - seen[0][0] > LOOKS_BACK_S:
            seen.popleft()

    def exhausted_in_s(self, name: BudgetName, limits: Amounts, used: Amounts, now_s: float) -> float | None:
        """Seconds until the tightest limit is reached; None: not in sight."""
        seen = self._seen.get(name)
        began_s, before = seen[0] if seen else (now_s, used)
        found = [
            one
            for limit, then, now in zip(limits, before, used, strict=True)
            if limit and (one := _reached_in_s(limit, then, now, now_s - began_s)) is not None
        ]
        return min(found, default=None)


def _reached_in_s(limit: int, then: int, now: int, passed_s: float) -> float | None:
    if now >= limit:
        return 0.0
    if now <= then or passed_s <= 0:
        return None
    left_s = (limit - now) * passed_s / (now - then)
    return left_s if left_s <= IN_SIGHT_S else None
