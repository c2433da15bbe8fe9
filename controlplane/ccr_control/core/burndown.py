"""How much of each budget was used and leased over the last hour, so that a curve is there before anybody looks.

Pure and bounded: a row of points for each limit, all of them taken at the same times, as whole thousandths of the limit of then.
1,000 budgets with three limits each take 4.5 MB (measured). Times are seconds since 1970, given by the caller.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from ccr_control.core.leases import Amounts, BudgetName, Held

POINTS = 360
"""An hour of them, one every ten seconds (forecast.SAMPLE_EVERY_S)."""

MAX_BUDGETS = 1000
WHOLE = 1000  # the limit itself
MOST = 65_535


class LineName(NamedTuple):
    """A limit of a budget."""

    budget: BudgetName
    kind: str  # a field of Amounts


def _row() -> array[int]:
    return array("H")


@dataclass(slots=True)
class _Line:
    """What one limit had, the newest last."""

    used: array[int] = field(default_factory=_row)
    leased: array[int] = field(default_factory=_row)

    def note(self, limit: int, used: int, leased: int) -> None:
        if len(self.used) == POINTS:
            del self.used[0], self.leased[0]
        self.used.append(min(MOST, used * WHOLE // limit))
        self.leased.append(min(MOST, leased * WHOLE // limit))


class LinePoints(NamedTuple):
    """Points of one limit, the newest last; fewer than were asked for if it was not known before."""

    name: LineName
    used: Sequence[int]
    leased: Sequence[int]


class BurnDown:
    """The rows of all limits."""

    def __init__(self) -> None:
        self.number = 0  # of the newest point; 0: there is none
        self._at_s: deque[float] = deque(maxlen=POINTS)
        self._lines: dict[BudgetName, dict[str, _Line]] = {}

    def note(self, held: Iterable[Held], now_s: float) -> None:
        """Take a point. What is not among the budgets any more has no row any more; a limit that is new begins one."""
        before, self._lines = self._lines, {}
        known = {one.name: one for one in held}
        kept = [name for name in before if name in known]
        new = [name for name in known if name not in before]
        for name in [*kept, *new][:MAX_BUDGETS]:
            self._lines[name] = _noted(before.get(name, {}), known[name])
        self._at_s.append(now_s)
        self.number += 1

    def budgets(self, provider: str = "", scope: str = "") -> list[BudgetName]:
        """Those with a row: of a provider or (empty) of all, of an account or of all; in order."""
        return sorted(name for name in self._lines if provider in ("", name.provider) and scope in ("", name.scope))

    def times(self, after: int, until: int) -> list[float]:
        """When the points were taken that have numbers above one and up to another, as far as they are kept."""
        first = self.number - len(self._at_s) + 1
        return list(islice(self._at_s, max(0, after + 1 - first), max(0, until + 1 - first)))

    def lines(self, budgets: Iterable[BudgetName], after: int, until: int) -> Iterator[LinePoints]:
        """The same points of some budgets."""
        for name in budgets:
            for kind, line in self._lines.get(name, {}).items():
                end = len(line.used) - (self.number - until)
                begin = max(0, len(line.used) - (self.number - after))
                if begin < end:
                    yield LinePoints(LineName(name, kind), line.used[begin:end], line.leased[begin:end])


def _noted(lines: dict[str, _Line], held: Held) -> dict[str, _Line]:
    found = {}
    for kind, limit, used, leased in zip(Amounts._fields, held.limits, held.used, held.leased, strict=True):
        if limit > 0:
            line = found[kind] = lines.get(kind) or _Line()
            line.note(limit, used, leased)
    return found
