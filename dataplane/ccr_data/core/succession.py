"""Two workers of one name for a while: one finishes what it has begun, the other has its place. Together they keep to one budget.

Pure. The one that finishes hands over what counts by then and keeps of what is left only what its open connections may need. It goes
on telling what it has used since and what it may yet use, and lets go of that as connections end. The one in its place counts the
first as its own and leaves the second alone. Each telling replaces the one before, so that it does not matter which of them are read.
Times are seconds of the caller's monotonic clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ccr_data.core.amounts import Handed, Scope, Slot
from ccr_data.core.budget import SLOTS, SLOTS_PER_S, Budget

Place = tuple[Scope, str]  # of a budget: scope and class of models
Counting = Callable[[Scope, str], Budget | None]


@dataclass(frozen=True, slots=True)
class _Noted:
    """What a worker told of a budget, and where it was put down."""

    part: Handed
    budget: Budget | None
    is_assumed: bool = False  # the worker did not say anything of it

    def withdraw(self, now_s: float) -> None:
        budget = self.owner
        if budget is not None:
            budget.note_beside(self.part.used, self.part.kept, now_s, -1)

    @property
    def owner(self) -> Budget | None:
        """The budget that it counts in by now."""
        budget = self.budget
        while budget is not None and budget.merged_into is not None:
            budget = budget.merged_into
        return budget


class Finishing:
    """The workers before this one that still finish, as far as its budgets are concerned."""

    def __init__(self, counting: Counting) -> None:
        """`counting` knows the budget that something counts in; None: nothing is limited there, as far as is known."""
        self._counting = counting
        self._noted: dict[str, dict[Place, _Noted]] = {}
        self._requests: dict[str, int] = {}
        self._begun: list[Budget] = []

    def note(self, worker: str, parts: Iterable[Handed], now_s: float, requests: int = 0) -> None:
        """All that a worker tells, which so many requests may still come to: of budgets that it does not name, too."""
        before, told = self._noted.setdefault(worker, {}), {}
        is_new = worker not in self._requests
        self._requests[worker] = requests
        for part in parts:
            place = (part.scope, part.model_class)
            known = before.pop(place, None)
            if known is not None and known.part == part and known.owner is not None:
                told[place] = known
                continue
            if known is not None:
                known.withdraw(now_s)
            told[place] = noted = _Noted(part, self._counting(part.scope, part.model_class))
            if noted.budget is not None:
                noted.budget.note_beside(part.used, part.kept, now_s)
        self._noted[worker] = told
        for gone in before.values():
            gone.withdraw(now_s)
            if gone.is_assumed and gone.owner is not None:
                self._assume(worker, gone.owner, now_s)
        for budget in self._begun if is_new else ():
            if budget.merged_into is None:
                self._assume(worker, budget, now_s)

    def begun(self, budget: Budget, now_s: float) -> None:
        """A budget begins to be used here. Those that finish may do so at the same moment."""
        self._begun.append(budget)
        for worker in self._requests:
            self._assume(worker, budget, now_s)

    def _assume(self, worker: str, budget: Budget, now_s: float) -> None:
        place, noted = (budget.scope, budget.model_class), self._noted.setdefault(worker, {})
        if place not in noted and self._requests[worker]:
            part = Handed(*place, [], budget.kept_anew(self._requests[worker]))
            noted[place] = _Noted(part, budget, is_assumed=True)
            budget.note_beside((), part.kept, now_s)

    def ended(self, worker: str, now_s: float, *, is_told: bool) -> None:
        """A worker has ended. If that is not by its own word, it may have used all that it kept."""
        self._requests.pop(worker, None)
        for one in self._noted.pop(worker, {}).values():
            budget, kept = one.owner, one.part.kept
            if budget is None:
                continue
            budget.note_beside((), kept, now_s, -1)
            if not is_told:
                budget.count([(int(now_s * SLOTS_PER_S), kept.requests, kept.input, kept.output)], now_s)

    def counted_in(self, budget: Budget) -> list[Slot]:
        """What of a budget's use these workers tell of themselves."""
        return [
            slot
            for noted in self._noted.values()
            for one in noted.values()
            if one.owner is budget
            for slot in one.part.used
        ]


def aged(parts: Iterable[Handed], slot: int) -> list[Handed]:
    """With slots by their age at that one, as files have them: numbers of slots mean nothing to another machine's clock."""
    return [part._replace(used=[(slot - at, one, two, three) for at, one, two, three in part.used]) for part in parts]


def dated(parts: Iterable[Handed], slot: int) -> list[Handed]:
    """The reverse, for ages as they were when it was that slot. What does not count any more, or cannot be, is left out."""
    return aged((part._replace(used=[one for one in part.used if 0 <= one[0] < SLOTS]) for part in parts), slot)
