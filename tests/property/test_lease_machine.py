"""Leases: whatever is lost or late, all nodes together never spend more of a minute than the budget."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from ccr_control.core.leases import (
    FORGET_AFTER_S,
    LEARN_S,
    LINGER_S,
    NOTHING,
    Amounts,
    BudgetName,
    Lease,
    Leases,
    Use,
    apportioned,
    demand_weights,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

NAME = BudgetName("p", "org", "opus-4")
NODES = ("n0", "n1", "n2", "n3")


@dataclass
class Node:
    """A node as it should be: it keeps to its share in every sliding minute."""

    instance: int
    share: int
    serial: int = 0
    spent: deque[float] = field(default_factory=deque)
    asked: deque[float] = field(default_factory=deque)
    reports: deque[Use] = field(default_factory=deque)  # on their way
    answers: deque[Lease] = field(default_factory=deque)

    def within(self, times: deque[float], now: float) -> int:
        return sum(at > now - 60.5 for at in times)

    def ask(self, now: float) -> None:
        self.asked.append(now)
        if self.within(self.spent, now) < self.share:
            self.spent.append(now)


class Fleet(RuleBasedStateMachine):
    """Four nodes, one control plane, and streams that hold things back and break."""

    @initialize(limit=st.integers(4, 60))
    def begin(self, limit: int) -> None:
        self.now = 0.0
        self.has_lapsed = False
        self.limit = limit
        self.leases = Leases(self.now)
        for name in NODES:  # their first reports speak of no budget yet
            self.leases.reported(name, "0", {}, self.now)
        self.now += LEARN_S
        self.nodes = {name: Node(0, limit // len(NODES)) for name in NODES}
        self.serial = 1

    @rule(seconds=st.sampled_from([0.01, 0.5, 1.0, 5.0, 20.0, 59.0, 61.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(name=st.sampled_from(NODES), count=st.integers(1, 60))
    def clients_ask(self, name: str, count: int) -> None:
        for _ in range(count):
            self.nodes[name].ask(self.now)

    @rule(name=st.sampled_from(NODES))
    def node_reports(self, name: str) -> None:
        node = self.nodes[name]
        used = Amounts(node.within(node.spent, self.now))
        use = Use(Amounts(self.limit), Amounts(node.share), used, node.within(node.asked, self.now), node.serial)
        node.reports.append(use)

    @rule(name=st.sampled_from(NODES))
    def report_arrives(self, name: str) -> None:
        node = self.nodes[name]
        if node.reports:
            node.answers.extend(
                self.leases.reported(name, str(node.instance), {NAME: node.reports.popleft()}, self.now)
            )

    @rule(name=st.sampled_from(NODES))
    def lease_arrives(self, name: str) -> None:
        node = self.nodes[name]
        if node.answers:
            lease = node.answers.popleft()
            if lease.serial > node.serial:
                node.share, node.serial = lease.share.requests, lease.serial

    @rule(name=st.sampled_from(NODES))
    def everything_arrives(self, name: str) -> None:
        self.node_reports(name)
        for _ in range(len(self.nodes[name].reports)):
            self.report_arrives(name)
        for _ in range(len(self.nodes[name].answers)):
            self.lease_arrives(name)

    @rule(name=st.sampled_from(NODES))
    def stream_breaks(self, name: str) -> None:
        self.nodes[name].reports.clear()
        self.nodes[name].answers.clear()

    @rule()
    def control_plane_restarts(self) -> None:
        """All nodes come back within the time that it listens."""
        self.leases = Leases(
            self.now, first_serial=max([10**6 * self.serial, *(n.serial for n in self.nodes.values())])
        )
        self.serial += 1
        for name in NODES:
            self.stream_breaks(name)
            self.node_reports(name)
            self.report_arrives(name)
            assert not self.nodes[name].answers
        self.now += LEARN_S

    @invariant()
    def no_minute_holds_too_much(self) -> None:
        if not hasattr(self, "nodes"):
            return
        self.has_lapsed = self.has_lapsed or self.now >= FORGET_AFTER_S + self._heard()
        if self.has_lapsed:
            return
        spent = sum(sum(at > self.now - 60 for at in node.spent) for node in self.nodes.values())
        assert spent <= self.limit
        claims = self.leases.claims(NAME, self.now)
        if len(claims) == len(NODES):
            assert sum(one.requests for one in claims.values()) <= self.limit

    @invariant()
    def sums_are_not_below_what_they_sum(self) -> None:
        if not hasattr(self, "nodes"):
            return
        for name, holders in self.leases._holders.items():
            known = self.leases._sums[name]
            for kind, claimed in zip(known.claimed._fields, known.claimed, strict=True):
                assert claimed == sum(getattr(one.counted, kind) for one in holders.values())
                assert claimed >= sum(getattr(one.claim(self.now), kind) for one in holders.values())

    def _heard(self) -> float:
        """Beyond this nodes count as gone: what they were given is given to others, as documented."""
        holders = self.leases._holders.get(NAME, {})
        return min((holder.heard_s for holder in holders.values()), default=0.0)


Fleet.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestFleet = Fleet.TestCase


def use(limit: int, share: int, used: int, asked: int, serial: int) -> Use:
    return Use(Amounts(limit), Amounts(share), Amounts(used), asked, serial)


def test_a_node_alone_gets_all() -> None:
    """Also if it began with a part."""
    leases = Leases(0.0)
    (lease,) = leases.reported("n", "i", {NAME: use(60, 15, 3, 3, 0)}, 10.0)
    assert lease.share.requests == 60
    assert leases.reported("n", "i", {NAME: use(60, 60, 3, 3, lease.serial)}, 11.0) == []


def test_demand_moves_the_shares() -> None:
    """The busy node gets nearly all, once the other has let go of its part."""
    leases = Leases(0.0)
    state = {"a": (30, 0), "b": (30, 0)}
    for round_ in range(6):
        for node, asked in (("a", 200), ("b", 0)):
            share, serial = state[node]
            for lease in leases.reported(node, "i", {NAME: use(60, share, 0, asked, serial)}, 10.0 + round_):
                state[node] = (lease.share.requests, lease.serial)
    assert state["a"][0] + state["b"][0] == 60
    assert state["a"][0] >= 57


def test_what_nobody_wants_is_everybodys() -> None:
    """As long as there is enough, a node has what it asks for, and an even part of the rest; if there is not, next to nothing."""
    for asked, most_of_idle in (((6, 0, 0, 0), 12), ((80, 0, 0, 0), 1)):
        leases, state = Leases(0.0, expected_nodes=4), {f"n{n}": (12, 0) for n in range(4)}
        for round_ in range(8):
            for (node, (share, serial)), demand in zip(tuple(state.items()), asked, strict=True):
                told = {NAME: use(50, share, 0, demand, serial)}
                for lease in leases.reported(node, "i", told, 10.0 + round_):
                    state[node] = (lease.share.requests, lease.serial)
        shares = [share for share, _ in state.values()]
        assert sum(shares) <= 50
        assert shares[0] >= min(47, asked[0] + 8)
        assert most_of_idle - 3 <= min(shares) <= max(shares[1:]) <= most_of_idle


def test_what_a_dead_process_used_counts_for_its_successor() -> None:
    """The provider does not know of our processes."""
    leases = Leases(0.0)
    (lease,) = leases.reported("n", "one", {NAME: use(60, 60, 0, 9, 0)}, 10.0)
    leases.reported("n", "one", {NAME: use(60, 60, 50, 9, lease.serial)}, 11.0)
    (after,) = leases.reported("n", "two", {NAME: use(60, 60, 0, 0, 0)}, 12.0)
    assert after.share.requests == 10
    (later,) = leases.reported("n", "two", {NAME: use(60, 10, 0, 0, after.serial)}, 80.0)
    assert later.share.requests == 60


def test_a_worker_that_finishes_changes_nothing_for_its_successor() -> None:
    """Both report for a while, under one name; one of an earlier release goes on telling its budgets."""
    leases = Leases(0.0)
    (lease,) = leases.reported("n", "one", {NAME: use(60, 60, 0, 9, 0)}, 10.0)
    leases.reported("n", "two", {NAME: use(60, 60, 30, 9, lease.serial)}, 11.0)
    claims = dict(leases.claims(NAME, 11.0))
    assert leases.reported("n", "one", {NAME: use(60, 60, 55, 90, lease.serial)}, 11.5) == []
    assert leases.reported("n", "one", {}, 11.6) == []
    assert leases.claims(NAME, 11.6) == claims


@given(st.integers(0, 10_000), st.lists(st.integers(0, 1000), min_size=1, max_size=20))
def test_parts_have_the_sum_of_the_whole(whole: int, asked: list[int]) -> None:
    """No request of a budget is lost to rounding."""
    parts = apportioned(whole, demand_weights(asked))
    assert sum(parts) == whole
    assert min(parts) >= 0


def test_no_part_grows_while_a_node_that_holds_one_is_silent() -> None:
    """After a restart of the control plane (simulation, seed 66): two nodes, one of which needs longer to come back."""
    leases = Leases(0.0, 1000, expected_nodes=2)
    leases.reported("a", "i", {NAME: use(60, 20, 10, 90, 7)}, 1.0)
    (kept,) = leases.reported("a", "i", {NAME: use(60, 20, 10, 90, 7)}, LEARN_S + 1)
    assert kept.share.requests == 20
    (shrunk,) = leases.reported("b", "i", {NAME: use(60, 40, 0, 0, 8)}, LEARN_S + 2)
    assert shrunk.share.requests < 40
    leases.reported("b", "i", {NAME: use(60, shrunk.share.requests, 0, 0, shrunk.serial)}, LEARN_S + 4)
    (grown,) = leases.reported("a", "i", {NAME: use(60, 20, 10, 90, kept.serial)}, LEARN_S + 5)
    assert grown.share.requests == 60 - shrunk.share.requests


def test_a_node_that_has_not_spoken_yet_keeps_its_even_part() -> None:
    """At the first start of a fleet (simulation, seed 99), for as long as it may take."""
    leases = Leases(0.0, expected_nodes=3)
    (lease,) = leases.reported("a", "i", {NAME: use(60, 20, 3, 9, 0)}, LEARN_S)
    assert lease.share.requests == 20
    (later,) = leases.reported("a", "i", {NAME: use(60, 20, 3, 9, lease.serial)}, FORGET_AFTER_S)
    assert later.share.requests == 60


def test_a_budget_without_known_limits_has_no_leases() -> None:
    """A new process goes on with the lease of the one before, until an answer tells it the limits again."""
    leases = Leases(0.0)
    (lease,) = leases.reported("n", "one", {NAME: use(60, 60, 3, 9, 0)}, 10.0)
    assert leases.reported("n", "two", {NAME: use(0, 60, 0, 0, lease.serial)}, 11.0) == []
    (after,) = leases.reported("n", "two", {NAME: use(60, 60, 3, 1, lease.serial)}, 12.0)
    assert after.share.requests == 57, "less what only the process before is known to have used"


def test_a_lease_says_which_limits_it_is_a_part_of() -> None:
    """One that says nothing of input tokens is followed by one that does, as soon as somebody knows their limit."""
    leases = Leases(0.0)
    (lease,) = leases.reported("n", "i", {NAME: use(60, 60, 3, 9, 0)}, 10.0)
    assert lease.limits == Amounts(60)
    both = Amounts(60, 900)
    (after,) = leases.reported("n", "i", {NAME: Use(both, both, NOTHING, 9, lease.serial)}, 11.0)
    assert (after.limits, after.share) == (both, both)


def test_what_is_limited_no_more_is_not_shown() -> None:
    """A limit was taken out of the configuration, and comes back: the lease has been in force all the time."""
    leases = Leases(0.0)
    (lease,) = leases.reported("n", "i", {NAME: use(60, 60, 30, 9, 0)}, 10.0)
    leases.reported("n", "i", {NAME: use(60, 60, 30, 9, lease.serial)}, 11.0)
    leases.reported("n", "i", {}, 12.0)
    assert leases.held(12.0) == []
    assert leases.claims(NAME, 12.0)["n"].requests == 60
    leases.reported("n", "i", {NAME: use(40, 40, 30, 9, lease.serial)}, 13.0)
    assert [(held.limits.requests, held.used.requests) for held in leases.held(13.0)] == [(40, 30)]


def test_what_a_node_had_that_ended_in_order_is_the_others_after_a_minute() -> None:
    """The other one is not refused for as long as if it had been cut off; one that starts anew in time goes on with its part."""
    leases = Leases(0.0, expected_nodes=2)
    leases.reported("a", "i", {NAME: use(60, 30, 3, 9, 0)}, 10.0)
    leases.reported("b", "j", {NAME: use(60, 30, 3, 9, 0)}, 10.0)
    leases.ended("b", "another", 11.0)
    leases.ended("b", "j", 11.0)

    def part_of_a(now_s: float) -> int:
        leases.reported("a", "i", {NAME: use(60, 30, 3, 9, 0)}, now_s)
        return leases.claims(NAME, now_s)["a"].requests

    assert part_of_a(11.0 + LINGER_S - 1.0) == 30
    assert part_of_a(11.0 + LINGER_S) == 60
    leases.reported("b", "k", {NAME: use(60, 30, 0, 0, 0)}, 73.0)
    leases.ended("b", "j", 73.5)
    assert "b" in leases.claims(NAME, 73.0 + 2 * LINGER_S), "what the one before says is nothing new"
