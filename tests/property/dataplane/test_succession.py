"""Workers that take each other's place: whenever that is, and whoever asks whom, together they keep to one budget."""

from __future__ import annotations

from ccr_data.core.amounts import NO_LIMITS, Allowance, Handed
from ccr_data.core.budget import SLOTS_PER_S, Budget, Reservation
from ccr_data.core.client_limits import ClientLimits, ClientRules
from ccr_data.core.errors import ClientLimited
from ccr_data.core.limits import Limits
from ccr_data.core.records import Tokens
from ccr_data.core.succession import aged, dated
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

SCOPE, MODEL = ("p", "org"), "claude-opus-4-1"
TOLD_EVERY_S = 1.0  # at the latest
START_S = 1000.0


def as_filed(parts: list[Handed], now_s: float) -> list[Handed]:
    """As another worker reads them, a moment later."""
    slot = int(now_s * SLOTS_PER_S)
    return dated(aged(parts, slot), slot)


class Worker:
    """One process: its limits, and the connections that it has."""

    def __init__(self, limit: int) -> None:
        self.limits = Limits()
        self.limits.configure({SCOPE: Allowance(requests=limit)}, {}, 1)
        self.connections = 8
        self.open: list[Reservation] = []
        self.is_named = False  # whether it has told anything of its budget since it began to finish

    @property
    def budget(self) -> Budget:
        found = self.limits.budget(SCOPE, MODEL)
        assert found is not None
        return found


class Line(RuleBasedStateMachine):
    """One worker after the other, the last of which has the place."""

    @initialize(limit=st.integers(1, 40))
    def begin(self, limit: int) -> None:
        self.now, self.limit = START_S, limit
        self.place = Worker(limit)
        self.finishing: list[Worker] = []
        self.sent: list[tuple[float, Worker]] = []

    @rule(seconds=st.sampled_from([0.01, 0.3, 1.0, 20.0, 59.5]))
    def time_passes(self, seconds: float) -> None:
        until_s = self.now + seconds
        while self.now < until_s:
            self.now = min(until_s, self.now + TOLD_EVERY_S)
            self.told()

    def told(self) -> None:
        for worker in self.finishing:
            parts = list(worker.limits.keep(worker.connections, self.now))
            worker.is_named = bool(parts)
            self.place.limits.finishing.note(str(id(worker)), as_filed(parts, self.now), self.now, worker.connections)

    @rule(count=st.integers(1, 30), whom=st.integers(0, 3))
    def clients_ask(self, count: int, whom: int) -> None:
        worker = [self.place, *self.finishing][whom % (1 + len(self.finishing))]
        for _ in range(count):
            part = worker.budget.try_reserve(100, self.now)
            if part is not None:
                self.sent.append((self.now, worker))
                worker.open.append(part)

    @rule(whom=st.integers(0, 3), is_sent=st.booleans())
    def a_request_ends(self, whom: int, is_sent: bool) -> None:
        worker = [self.place, *self.finishing][whom % (1 + len(self.finishing))]
        if not worker.open:
            return
        part = worker.open.pop()
        if is_sent:
            part.settle(Tokens(input=3, output=5), self.now)
        elif self.sent and self.sent[-1] == (self.now, worker):
            part.refund(self.now, is_sent=False)
            self.sent.pop()

    @precondition(lambda self: len(self.finishing) < 4)
    @rule(waiting=st.integers(0, 5))
    def the_next_one_takes_the_place(self, waiting: int) -> None:
        before, self.place = self.place, Worker(self.limit)
        handed = list(before.limits.hand_over(before.connections, waiting, self.now))
        self.place.limits.recall((), self.now, 0.0, as_filed(handed, self.now))
        self.finishing.append(before)
        self.told()

    @rule(left=st.integers(0, 8))
    def connections_end(self, left: int) -> None:
        for worker in self.finishing:
            worker.connections = min(worker.connections, left)

    @rule(is_told=st.booleans())
    def the_oldest_has_finished(self, is_told: bool) -> None:
        if not self.finishing:
            return
        worker = self.finishing.pop(0)
        if is_told:
            parts = [part._replace(kept=NO_LIMITS) for part in worker.limits.keep(0, self.now)]
            self.place.limits.finishing.note(str(id(worker)), as_filed(parts, self.now), self.now)
        elif not worker.is_named:  # killed within the second in which it first used it: nobody can know
            self.sent = [one for one in self.sent if one[1] is not worker]
        self.place.limits.finishing.ended(str(id(worker)), self.now, is_told=is_told)

    @invariant()
    def no_minute_holds_too_much(self) -> None:
        if hasattr(self, "sent"):
            assert sum(at > self.now - 60 for at, _ in self.sent) <= self.limit


Line.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestLine = Line.TestCase


@given(used=st.integers(0, 20), connections=st.integers(0, 30), late=st.integers(0, 30))
def test_nothing_is_lost_either(used: int, connections: int, late: int) -> None:
    """What the one that finishes did not need is there for its successor."""
    before, after = Worker(20), Worker(20)
    for _ in range(used):
        assert before.budget.try_reserve(1, START_S) is not None
    handed = list(before.limits.hand_over(connections, 0, START_S))
    after.limits.recall((), START_S, 0.0, as_filed(handed, START_S))
    after.limits.finishing.note("w", list(before.limits.keep(connections, START_S)), START_S, connections)
    served = sum(before.budget.try_reserve(1, START_S) is not None for _ in range(late))
    assert served == min(late, connections, 20 - used)
    others = sum(after.budget.try_reserve(1, START_S) is not None for _ in range(40))
    assert others == 20 - used - min(connections, 20 - used)
    after.limits.finishing.note("w", list(before.limits.keep(0, START_S)), START_S)
    after.limits.finishing.ended("w", START_S, is_told=True)
    rest = sum(after.budget.try_reserve(1, START_S) is not None for _ in range(40))
    assert used + served + others + rest == 20
    assert after.budget.used(START_S).requests == 20


def test_who_waits_gets_the_room_of_the_oldest() -> None:
    """A queue at the one that finishes goes on: it keeps the requests that will count no more first."""
    before, after = Worker(4), Worker(4)
    for second in range(4):
        assert before.budget.try_reserve(1, START_S + second * 10) is not None
    now_s = START_S + 31
    handed = list(before.limits.hand_over(2, 2, now_s))
    after.limits.recall((), now_s, 0.0, as_filed(handed, now_s))
    served = []
    for worker, second in [
        (before, 31),
        (after, 31),
        (before, 62),
        (after, 62),
        (before, 72),
        (before, 82),
        (after, 82),
    ]:
        now_s = START_S + second
        after.limits.finishing.note("w", list(before.limits.keep(2, now_s)), now_s)
        served.append(worker.budget.try_reserve(1, now_s) is not None)
    assert served == [False, False, True, False, True, False, True]


def test_tokens_are_kept_for_large_requests() -> None:
    """Half of what is left, as long as there are connections; never more than there is, and not a large one alone."""
    before, after = Budget(SCOPE, "", Allowance(input=1000)), Budget(SCOPE, "", Allowance(input=1000))
    assert before.try_reserve(2400, START_S) is not None  # 600 tokens
    after.count(before.hand_over((), 0, START_S), START_S)
    used, kept = before.keep(1, START_S)
    after.note_beside(used, kept, START_S)
    assert kept.input == 200
    assert before.try_reserve(2400, START_S) is None
    assert after.try_reserve(1200, START_S) is None
    assert before.try_reserve(790, START_S) is not None
    assert after.try_reserve(780, START_S) is not None


def test_output_that_is_under_way_is_held() -> None:
    before, after = Budget(SCOPE, "", Allowance(output=1000)), Budget(SCOPE, "", Allowance(output=1000))
    part = before.try_reserve(100, START_S)  # 500 of output
    assert part is not None
    after.count(before.hand_over((), 0, START_S), START_S)
    told = before.keep(0, START_S)
    assert told[1].output == 500
    after.note_beside(*told, START_S)
    assert after.try_reserve(100, START_S) is None
    part.settle(Tokens(input=3, output=40), START_S + 1)
    after.note_beside(*told, START_S + 1, -1)
    after.note_beside(*before.keep(0, START_S + 1), START_S + 1)
    assert after.used(START_S + 1).output == 41  # one stands for all that a large request must not ignore
    assert after.try_reserve(100, START_S + 1) is not None


def test_a_client_keeps_its_limits_too() -> None:
    """Requests a minute, and those at a time that the worker before still has open."""
    rules = ClientRules(requests=5, concurrency=2)
    before, after = ClientLimits(), ClientLimits()
    before.take("laptop", rules, 10, START_S, 0.0)
    after.recall((), START_S, 0.0, as_filed(list(before.hand_over(0, START_S)), START_S))
    after.note_finishing("w", list(before.keep(0, START_S)), START_S)
    after.take("laptop", rules, 10, START_S, 0.0)
    assert refused(after, rules) == "client laptop has 2 requests open, which is all that it may have at a time"
    after.finished("w", START_S, is_told=True)
    after.take("laptop", rules, 10, START_S, 0.0)
    free = ClientRules(requests=5)
    for _ in range(2):
        after.take("laptop", free, 10, START_S, 0.0)
    assert refused(after, free) == "client laptop is at its limit of 5 requests a minute; there is room again in 61 s"
    assert refused(before, free).endswith("there is room again in 1 s")  # where it comes then, it is known


def refused(limits: ClientLimits, rules: ClientRules) -> str:
    try:
        limits.take("laptop", rules, 10, START_S, 0.0)
    except ClientLimited as error:
        return str(error)
    raise AssertionError("it was let in")
