"""Between requests and the budgets of core/limits.py: what is told in snapshots, heads and bodies, with the time of day.

Counted are messages with the relay's own keys. A client's own subscription has limits of its own, which are the client's business;
counting tokens has others.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from time import perf_counter, time

from ccr_data.core import planner
from ccr_data.core.amounts import Scope
from ccr_data.core.budget import Budget, Reservation
from ccr_data.core.http1 import AnswerHead
from ccr_data.core.limit_headers import MARK, limits_told, rest_asked, told_by
from ccr_data.core.limits import MAX_MEMO, Limits
from ccr_data.core.snapshot import Snapshot, Target

ORGANISATION = b"anthropic-organization-id"
_MAX_NAME = 256
RETRY_S = 0.05  # where a budget's words and its deeds differ by a rounding


class Budgeting:
    """The budgets of one node."""

    def __init__(self) -> None:
        self.limits = Limits()
        self._followed: Snapshot | None = None
        self._spent_rest_s = 3600.0
        self._told_s: dict[tuple[Scope, str], float] = {}

    def follow(self, snapshot: Snapshot) -> bool:
        """Requests begin to be served by this snapshot; whether it is another one than before."""
        if snapshot is self._followed:
            return False
        self._followed = snapshot
        limits, holders, learned = snapshot.accounts
        self._spent_rest_s = snapshot.relay.spent_rest_s
        self._told_s.clear()
        renamed = self.limits.renamed(holders)
        self.limits.configure(limits, holders, snapshot.relay.sharing_nodes)
        for scope, account in renamed:
            self.limits.note_account(scope, account, perf_counter())
        for scope, organisation in learned:  # what was used here moves there; who waits for the key waits there
            self.limits.note_organisation(scope, organisation, perf_counter())
        return True

    def looked_at(self, snapshot: Snapshot) -> Limits:
        """The limits as a snapshot has them, whether or not it is served, with what has been used. To be read only."""
        if snapshot is self._followed:
            return self.limits
        return self.limits.as_configured(snapshot.accounts.limits, snapshot.relay.sharing_nodes)

    def choose(
        self, targets: Sequence[Target], model: str, size_bytes: int, now_s: float
    ) -> tuple[int, Reservation | None]:
        """Which target takes the request, with room reserved there if that is limited. -1: none has room."""
        for at, target in enumerate(targets):
            budget = self.limits.budget(target.scope, target.model or model)
            if budget is None:
                return at, None
            part = budget.try_reserve(size_bytes, now_s)
            if part is not None:
                return at, part
        return -1, None

    def choose_in_turn(
        self, targets: Sequence[Target], model: str, size_bytes: int, now_s: float, awaited: set[Hashable]
    ) -> tuple[int, Reservation | None, float]:
        """As `choose`, for a request that waits: not where others wait before it, and with the seconds until there may be room.

        Budgets without room are added to those that are waited for. Nothing is noted of a vain try.
        """
        found: list[Budget] = []
        wait_s = math.inf
        for at, target in enumerate(targets):
            budget = self.limits.budget(target.scope, target.model or model)
            if budget is None:
                return at, None, 0.0
            if budget in awaited:
                continue
            room_in_s = budget.room_in_s(size_bytes, now_s)
            part = budget.try_reserve(size_bytes, now_s) if room_in_s <= 0 else None
            if part is not None:
                return at, part, 0.0
            found.append(budget)
            wait_s = min(wait_s, room_in_s or RETRY_S)
        awaited.update(found)
        return -1, None, wait_s

    def room_in_s(self, target: Target, model: str, size_bytes: int, now_s: float) -> float:
        """Seconds until a target has room, if nobody else takes it; 0: now; infinite: nobody knows."""
        budget = self.limits.budget(target.scope, target.model or model)
        return 0.0 if budget is None else budget.room_in_s(size_bytes, now_s)

    def unlimited(self, targets: Iterable[Target], model: str) -> int:
        """The first target that nothing limits. -1: all are limited."""
        for at, target in enumerate(targets):
            if self.limits.budget(target.scope, target.model or model) is None:
                return at
        return -1

    def note_asked(self, targets: Iterable[Target], model: str, now_s: float) -> None:
        """A request wants room with one of these targets, and does not try: others go before."""
        for budget, _ in self._of(targets, model):
            if budget is not None:
                budget.note_asked(now_s)

    def sure_wait_s(self, targets: Iterable[Target], model: str, now_s: float) -> float:
        """Seconds for which none of these targets will have room, whatever open requests turn out to take."""
        return min(
            (budget.sure_wait_s(now_s) if budget else 0.0 for budget, _ in self._of(targets, model)), default=0.0
        )

    def note_head(self, target: Target, model: str, head: AnswerHead, part: Reservation | None, now_s: float) -> None:
        """An answer from one of our keys begins. Of a crowd of answers a few are enough: at most ten a second, account and model."""
        special = head.special
        organisation = special.get(ORGANISATION)
        if organisation and target.key is not None and not target.key.scope:
            self.limits.note_organisation(target.scope, organisation[:_MAX_NAME].decode("latin-1"), now_s)
        if MARK in special:
            place = (target.scope, target.model or model)  # what class that is of would be dearer to say
            if now_s - self._told_s.get(place, 0.0) < 0.1:
                return
            if len(self._told_s) >= MAX_MEMO:
                self._told_s.clear()
            self._told_s[place] = now_s
            self.limits.note_told(target.scope, target.model or model, *limits_told(told_by(head)), part, now_s)

    def note_limited(self, target: Target, model: str, head: AnswerHead, body: bytes, now_s: float) -> None:
        """One of our keys got a 429, and this is all of it."""
        rest = rest_asked(told_by(head), body, time(), self._spent_rest_s)
        if rest is not None:
            self.limits.note_limited(target.scope, target.model or model, rest, now_s)

    def no_room(self, targets: Iterable[Target], model: str, size_bytes: int, now_s: float) -> planner.NoRoom:
        """What to answer if none of these targets, which are all limited, has room."""
        return planner.no_room([budget for budget, _ in self._of(targets, model) if budget], size_bytes, now_s, time())

    def heed_pool(self, head: AnswerHead, targets: Sequence[Target], model: str, size_bytes: int, now_s: float) -> None:
        """Make a provider's 429 tell when the first of all targets has room. As it came if there is but one account."""
        found = self._of(targets, model)
        if len({account for _, account in found}) < 2:
            return
        budgets = [budget for budget, _ in found if budget is not None]
        if not budgets or len(budgets) < len(found):  # one of them is not known to be limited
            return
        wait_s = planner.retry_after_s(budgets, size_bytes, now_s)
        head.lines = planner.told_for_pool(head.lines, head.special, wait_s)

    def _of(self, targets: Iterable[Target], model: str) -> list[tuple[Budget | None, Scope]]:
        found = []
        for target in targets:
            budget = self.limits.budget(target.scope, target.model or model)
            found.append((budget, budget.scope if budget else target.scope))
        return found
