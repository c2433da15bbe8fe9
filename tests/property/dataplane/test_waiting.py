"""The queue: bounded in depth and time, fair, main turns first, and nobody waits beside room that is free."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass
from itertools import pairwise

from ccr_data.core.amounts import Allowance
from ccr_data.core.budget import Budget
from ccr_data.core.waiting import BACKGROUND, MAIN, SUBAGENT, Place, Queue, QueueRules
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

RANKS = (MAIN, SUBAGENT, BACKGROUND)
MAX_WAIT_S = 20.0


@dataclass(eq=False)
class Ask:
    """A request that could go to these accounts."""

    accounts: frozenset[str]
    took: str | None = None


class Accounts:
    """Room for so many requests in each account."""

    def __init__(self) -> None:
        self.room = dict.fromkeys("abc", 0)

    def take(self, ask: Ask, awaited: set[Hashable]) -> float:
        for name in sorted(ask.accounts - awaited):
            if self.room[name]:
                self.room[name] -= 1
                ask.took = name
                return 0.0
        awaited |= ask.accounts
        return math.inf


class QueueMachine(RuleBasedStateMachine):
    """Requests come and leave, room comes and goes, time passes."""

    @initialize(max_depth=st.integers(1, 12))
    def begin(self, max_depth: int) -> None:
        self.now = 0.0
        self.queue: Queue[Ask] = Queue(QueueRules(MAX_WAIT_S, max_depth))
        self.accounts = Accounts()
        self.waiting: list[Place[Ask]] = []

    @rule(
        session=st.sampled_from("stuv"), rank=st.sampled_from(RANKS), names=st.sets(st.sampled_from("abc"), min_size=1)
    )
    def somebody_comes(self, session: str, rank: int, names: set[str]) -> None:
        was_full = len(self.waiting) == self.queue.rules.max_depth
        ask = Ask(frozenset(names))
        place, loser = self.queue.enter(ask, session, rank, ask.accounts, self.now)
        assert (loser is not None) == was_full
        if loser is place:
            assert rank >= max(one.rank for one in self.waiting), (
                "who is told to go is of no better class than the last"
            )
            return
        if loser is not None:
            assert loser.rank >= rank
            assert loser.rank == max(one.rank for one in self.waiting)
            self.waiting.remove(loser)
        self.waiting.append(place)

    @rule(pick=st.integers(0, 100))
    def somebody_leaves(self, pick: int) -> None:
        if self.waiting:
            place = self.waiting.pop(pick % len(self.waiting))
            self.queue.leave(place)
            self.queue.leave(place)
        self.look()

    @rule(name=st.sampled_from("abc"), count=st.integers(1, 4))
    def room_comes(self, name: str, count: int) -> None:
        self.accounts.room[name] += count
        self.look()

    @rule(seconds=st.sampled_from([0.1, 3.0, 19.9, 21.0]))
    def time_passes(self, seconds: float) -> None:
        """The shell looks when it was told to."""
        until = self.now + seconds
        while (again := self.look()) <= until:
            self.now = again
        self.now = until
        self.look()

    @rule(seconds=st.sampled_from([1.0, 5.0]))
    def the_node_stops_soon(self, seconds: float) -> None:
        self.queue.end_by(self.now + seconds)
        assert all(place.until_s <= self.now + seconds for place in self.waiting)

    def look(self) -> float:
        before = list(self.queue.in_order())
        found = self.queue.look(self.accounts.take, self.now)
        for place in found.expired:
            assert place.until_s <= self.now
            assert place.what.took is None
        for place in (*found.granted, *found.expired):
            self.waiting.remove(place)
        for place in found.granted:
            assert place.what.took in place.what.accounts
            better = [one for one in self.waiting if one.rank < place.rank]
            assert all(place.what.took not in one.what.accounts for one in better), "a better class goes first"
        free = {name for name, room in self.accounts.room.items() if room}
        assert not any(place.what.accounts & free for place in self.waiting), "nobody waits beside room"
        if found.granted and len({place.lane for place in before}) == 1:
            assert found.granted[0] is next(one for one in before if one not in found.expired)
        return found.look_again_s

    @invariant()
    def all_that_is_promised_holds(self) -> None:
        if not hasattr(self, "queue"):
            return
        assert len(self.queue) == len(self.waiting) <= self.queue.rules.max_depth
        assert set(self.queue.in_order()) == set(self.waiting)
        assert [place.rank for place in self.queue.in_order()] == sorted(place.rank for place in self.waiting)
        assert all(self.now - place.entered_s <= MAX_WAIT_S for place in self.waiting if place.until_s > self.now)

    def teardown(self) -> None:
        """With room for everybody nobody is left."""
        if hasattr(self, "queue"):
            for name in "abc":
                self.accounts.room[name] += 100
            self.look()
            assert not self.waiting
            assert self.queue.look(self.accounts.take, self.now).look_again_s == math.inf


QueueMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestQueue = QueueMachine.TestCase


def one_by_one(queue: Queue[Ask], count: int) -> list[Place[Ask]]:
    """Who gets room, if it comes one at a time."""
    accounts, granted = Accounts(), []
    for _ in range(count):
        accounts.room["a"] += 1
        granted += queue.look(accounts.take, 0.0).granted
    return granted


@given(first=st.integers(1, 30), second=st.integers(1, 30), order=st.randoms(use_true_random=False))
def test_two_sessions_take_turns(first: int, second: int, order: object) -> None:
    """However many requests one of them has waiting, and in whatever order they came."""
    queue: Queue[Ask] = Queue(QueueRules(MAX_WAIT_S, 100))
    names = ["s"] * first + ["t"] * second
    order.shuffle(names)  # type: ignore[attr-defined]
    lane = frozenset("a")
    for name in names:
        queue.enter(Ask(lane), name, SUBAGENT, lane, 0.0)
    granted = [place.session for place in one_by_one(queue, first + second)]

    both = granted[: 2 * min(first, second)]
    assert all(one != other for one, other in pairwise(both))
    assert sorted(granted) == sorted(names)


@given(subagents=st.integers(0, 60))
def test_a_main_turn_is_next_whatever_waits_before_it(subagents: int) -> None:
    """Its wait does not grow with the number of subagents, not even if the queue is full of them."""
    queue: Queue[Ask] = Queue(QueueRules(MAX_WAIT_S, 30))
    lane = frozenset("a")
    for _ in range(subagents):
        queue.enter(Ask(lane), "s", SUBAGENT, lane, 0.0)
    place, _ = queue.enter(Ask(lane), "t", MAIN, lane, 0.0)

    assert one_by_one(queue, 1) == [place]


def test_a_session_that_fills_the_queue_makes_room_for_another() -> None:
    """Of equal class: down to a fair share."""
    queue: Queue[Ask] = Queue(QueueRules(MAX_WAIT_S, 4))
    lane = frozenset("a")
    mine = [queue.enter(Ask(lane), "s", SUBAGENT, lane, 0.0)[0] for _ in range(4)]
    losers = [queue.enter(Ask(lane), "t", SUBAGENT, lane, 0.0) for _ in range(3)]

    assert [loser for _, loser in losers[:2]] == [mine[3], mine[2]]
    assert losers[2][0] is losers[2][1], "no more than half of it"


@given(limit=st.integers(1, 5), count=st.integers(1, 30))
def test_who_waits_for_a_budget_goes_as_soon_as_it_has_room(limit: int, count: int) -> None:
    """On a virtual clock that stands still until the queue wants to be looked at: no wake-up is lost, none comes early."""
    queue: Queue[int] = Queue(QueueRules(2000.0, 100))
    budget = Budget(("p", "a"), "", Allowance(requests=limit))
    now, times = 1000.0, []

    def take(_: int, awaited: set[Hashable]) -> float:
        if budget in awaited:
            return math.inf
        wait_s = budget.room_in_s(400, now)
        if wait_s <= 0:
            part = budget.try_reserve(400, now)
            assert part is not None
            return 0.0
        awaited.add(budget)
        return wait_s

    for number in range(count):
        queue.enter(number, "s", MAIN, "a", now)
    while math.isfinite(now):
        found = queue.look(take, now)
        assert not found.expired
        times += [now] * len(found.granted)
        assert found.look_again_s > now
        now = found.look_again_s

    assert len(times) == count
    assert all(later - earlier >= 60 for earlier, later in zip(times, times[limit:], strict=False))
    assert times[-1] - 1000.0 <= 60.75 * ((count - 1) // limit)
