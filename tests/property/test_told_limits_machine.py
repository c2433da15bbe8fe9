"""A relay by itself before a provider that only tells its limits: whatever restarts, what the provider has room for is not refused."""

from __future__ import annotations

from collections import deque

from ccr_control.core.leases import Amounts, BudgetName, Leases, Use
from ccr_data.core.amounts import Allowance, Learned, Spent
from ccr_data.core.budget import SLOTS_PER_S, Lease
from ccr_data.core.limits import Limits
from ccr_data.core.records import Tokens
from ccr_data.core.succession import aged, dated
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

SCOPE, MODEL = ("p", "org"), "claude-opus-4-1"
TOKENS = 1_000_000  # so many that they are never short
START_S, REPORT_S = 1000.0, 1.0


class Provider:
    """Requests of one account: a bucket that refills evenly."""

    def __init__(self, limit: int, now_s: float) -> None:
        self.limit = limit
        self._left, self._at_s = float(limit), now_s

    def left(self, now_s: float) -> float:
        self._left = min(self.limit, self._left + (now_s - self._at_s) * self.limit / 60)
        self._at_s = now_s
        return self._left

    def serves(self, now_s: float) -> bool:
        if self.left(now_s) < 1:
            return False
        self._left -= 1
        return True


class Alone(RuleBasedStateMachine):
    """One worker after the other and one control plane after the other, each by itself."""

    @initialize(limit=st.integers(20, 80), sharing=st.integers(1, 3), configured=st.sampled_from([0, 1, 4]))
    def begin(self, limit: int, sharing: int, configured: int) -> None:
        """`configured`: how many times what the provider allows; 0: nothing is."""
        self.now, self.serial, self.instance, self.sharing = START_S, 1, 0, sharing
        self.provider = Provider(limit, self.now)
        self.configured = Allowance(requests=limit * configured)
        self.asked: deque[float] = deque()
        self.leases = Leases(self.now - 100.0)
        self.limits = self.started()
        self.kept: tuple[float, list[Spent], list[Learned]] = (self.now, [], [])
        self.next_report_s = self.now + REPORT_S

    def started(self) -> Limits:
        self.instance += 1
        limits = Limits()
        limits.configure({SCOPE: self.configured}, {}, self.sharing)
        return limits

    def report(self) -> None:
        uses = {
            BudgetName(*use.scope, use.model_class): Use(
                Amounts(*use.limits), Amounts(*use.share), Amounts(*use.used), use.asked, use.serial
            )
            for use in self.limits.uses(self.now)
        }
        for lease in self.leases.reported("n", str(self.instance), uses, self.now):
            share, limits = Allowance(*lease.share), Allowance(*lease.limits)
            self.limits.take_lease(
                Lease((lease.name.provider, lease.name.scope), lease.name.model_class, share, lease.serial, limits)
            )
        self.kept = (self.now, *self.written())

    def written(self) -> tuple[list[Spent], list[Learned]]:
        return self.limits.spent(self.now), list(self.limits.each_learned(lambda: self.now))

    @rule(seconds=st.sampled_from([0.01, 0.3, 1.0, 4.0, 20.0, 61.0]))
    def time_passes(self, seconds: float) -> None:
        until_s = self.now + seconds
        while self.next_report_s <= until_s:
            self.now = self.next_report_s
            self.report()
            self.next_report_s += REPORT_S
        self.now = until_s

    @rule(count=st.integers(1, 12), tells_tokens=st.booleans())
    def clients_ask(self, count: int, tells_tokens: bool) -> None:
        for _ in range(count):
            had, calm = self.provider.left(self.now), self.provider.limit / 4
            self.asked.append(self.now)
            budget = self.limits.budget(SCOPE, MODEL)
            part = budget.try_reserve(10, self.now) if budget is not None else None
            if budget is not None and part is None:
                # While one worker's last second is unknown, or nodes that are not there may share, parts are smaller.
                lately = sum(at > self.now - 62 for at in self.asked)
                assert had < self.provider.limit / 2 or lately > calm, "the provider has room"
                continue
            is_served = self.provider.serves(self.now)
            limits = Allowance(self.provider.limit, *([TOKENS, TOKENS] if tells_tokens else []))
            left = Allowance(int(self.provider.left(self.now)), *([TOKENS, TOKENS] if tells_tokens else []))
            self.limits.note_told(SCOPE, MODEL, limits, left, part, self.now)
            if part is not None:
                part.settle(Tokens(input=3, output=5), self.now) if is_served else part.refund(self.now)

    @rule()
    def the_worker_is_replaced(self) -> None:
        """Its successor begins with what it handed over."""
        spent, learned = self.written()
        handed = list(self.limits.hand_over(0, 0, self.now))
        slot = int(self.now * SLOTS_PER_S)
        self.limits = self.started()
        self.limits.recall(spent, self.now, 0.0, dated(aged(handed, slot), slot), learned)

    @rule()
    def the_worker_is_killed(self) -> None:
        """Its successor begins with what it had written down."""
        at_s, spent, learned = self.kept
        self.limits = self.started()
        if self.now - at_s < 60:
            self.limits.recall(spent, self.now, self.now - at_s, (), learned)

    @rule()
    def the_control_plane_is_killed(self) -> None:
        self.serial += 1_000_000
        self.leases = Leases(self.now, first_serial=self.serial)

    @invariant()
    def what_was_leased_is_known_to_be_a_part_of_something(self) -> None:
        if hasattr(self, "limits"):
            spent, learned = self.written()
            leased_of = {(one.scope, one.model_class): one.leased_of for one in learned}
            assert all(any(leased_of[one.scope, one.model_class]) for one in spent if one.lease is not None)


Alone.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAlone = Alone.TestCase
