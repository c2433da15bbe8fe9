"""Circuits against a model that remembers everything, over any order of events."""

from __future__ import annotations

from ccr_control.core.circuits import (
    COUNTED,
    SLICES,
    CircuitPolicy,
    Closed,
    Failures,
    HalfOpen,
    Open,
    Successes,
)
from ccr_control.core.health import Event, Health, ProbeResult, ProviderSetup
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

POLICY = CircuitPolicy(failures=4, failure_rate=0.6, min_requests=8, window_s=20.0, open_for_s=5.0, max_open_for_s=40.0)
REASONS = sorted(COUNTED)
OTHERS = ["rate_limited", "key_refused", "client_left", ""]


class CircuitMachine(RuleBasedStateMachine):
    """One provider. The model keeps the time of every attempt that may still count."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 1_000_000.0
        self.health = Health()
        self.health.configure(POLICY, {"p": ProviderSetup("1")}, self.now_s)
        self.events: list[Event] = []
        self.row = 0
        self.attempts: list[tuple[float, bool]] = []  # since it closed
        self.has_passed_probe = False

    @property
    def circuit(self) -> Closed | Open | HalfOpen:
        return self.health.providers()["p"].circuit

    def take(self, events: list[Event]) -> None:
        self.events += events

    @rule(seconds=st.sampled_from([0.01, 0.5, 2.0, 5.0, 19.0, 60.0]))
    def time_passes(self, seconds: float) -> None:
        self.now_s += seconds
        before = self.circuit
        self.take(self.health.pass_time(self.now_s))
        if isinstance(before, Open):
            assert isinstance(self.circuit, HalfOpen) == (self.now_s >= before.until_s)

    @rule(count=st.integers(1, 3), reason=st.sampled_from(REASONS))
    def attempts_fail(self, count: int, reason: str) -> None:
        before = self.circuit
        self.take(self.health.note([Failures("p", reason, count, self.now_s, self.now_s, count)], self.now_s))
        if not isinstance(before, Closed):
            assert self.circuit == before
            return
        self.row += count
        self.attempts += [(self.now_s, True)] * count
        if self.row >= POLICY.failures:
            assert isinstance(self.circuit, Open), "so many in a row open it"
        elif isinstance(self.circuit, Open):
            # The window slides in steps: what is as old as one of them may be in it or not.
            sure_s = self.now_s - POLICY.window_s * (SLICES - 1) / SLICES
            begins = {at_s for at_s, _ in self.attempts if self.now_s - POLICY.window_s < at_s <= sure_s} | {sure_s}
            windows = [[has_failed for at_s, has_failed in self.attempts if at_s >= begin_s] for begin_s in begins]
            assert any(
                len(one) >= POLICY.min_requests and sum(one) >= POLICY.failure_rate * len(one) * 0.999
                for one in windows
            )
        else:
            # The window slides in steps: what is younger than all but one of them counts for sure.
            sure_s = self.now_s - POLICY.window_s * (SLICES - 1) / SLICES
            sure = [has_failed for at_s, has_failed in self.attempts if at_s > sure_s]
            all_s = [has_failed for at_s, has_failed in self.attempts if at_s > self.now_s - POLICY.window_s]
            if sure == all_s and len(sure) >= POLICY.min_requests:
                assert sum(sure) < POLICY.failure_rate * len(sure), "the rate should have opened it"
        if isinstance(self.circuit, Open):
            longest = max(POLICY.open_for_s, POLICY.max_open_for_s)
            assert POLICY.open_for_s <= self.circuit.until_s - self.now_s <= longest
            self.row, self.attempts = 0, []

    @rule(count=st.integers(1, 3))
    def attempts_succeed(self, count: int) -> None:
        before = self.circuit
        self.take(self.health.note([Successes("p", count, self.now_s)], self.now_s))
        assert type(self.circuit) is type(before), "a success moves nothing"
        if isinstance(before, Closed):
            self.row = 0
            self.attempts += [(self.now_s, False)] * count

    @precondition(lambda self: isinstance(self.circuit, HalfOpen))
    @rule(early_s=st.sampled_from([-0.5, 0.0, 0.01]))
    def one_went_there_all_the_same(self, early_s: float) -> None:
        before = self.circuit
        asked_s = before.since_s - early_s
        self.now_s = max(self.now_s, asked_s)
        self.take(self.health.note([Successes("p", 1, self.now_s, asked_s)], self.now_s))
        assert isinstance(self.circuit, Closed) == (early_s <= 0)
        if isinstance(self.circuit, Closed):
            self.row, self.attempts = 0, []

    @rule(count=st.integers(1, 50), reason=st.sampled_from(OTHERS))
    def others_fail(self, count: int, reason: str) -> None:
        before = self.circuit
        self.take(self.health.note([Failures("p", reason, count, self.now_s, self.now_s, count)], self.now_s))
        assert self.circuit == before

    @rule(age_s=st.floats(POLICY.window_s + 0.1, 1e6))
    def the_past_is_told(self, age_s: float) -> None:
        before, at_s = self.circuit, self.now_s - age_s
        self.take(self.health.note([Failures("p", "connect", 99, at_s, at_s, 99)], self.now_s))
        assert self.circuit == before

    @rule(is_alive=st.booleans())
    def a_probe_ends(self, is_alive: bool) -> None:
        before = self.circuit
        self.take(self.health.probed("p", ProbeResult(self.now_s, is_alive, 1.0)))
        if isinstance(before, HalfOpen) and is_alive:
            assert self.circuit == Closed(self.now_s, before.openings)
            self.row, self.attempts = 0, []
        else:
            assert self.circuit == before

    @precondition(lambda self: not isinstance(self.circuit, Closed))
    @rule()
    def an_operator_resets(self) -> None:
        self.take(self.health.reset("p", self.now_s))
        assert self.circuit == Closed(self.now_s)
        self.row, self.attempts = 0, []

    @invariant()
    def states_follow_one_another(self) -> None:
        """Closed → open → half-open → closed; an operator may close at any time."""
        state = "closed"
        for event in self.events:
            allowed = {"closed": {"open"}, "open": {"half_open", "closed"}, "half_open": {"closed"}}[state]
            assert event.state in allowed
            state = event.state
        assert state == self.health.state_of("p")

    @invariant()
    def memory_is_bounded(self) -> None:
        assert len(self.health.providers()["p"].events) <= 50
        if isinstance(self.circuit, Closed):
            assert len(self.circuit.tally) <= SLICES


CircuitMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestCircuits = CircuitMachine.TestCase
