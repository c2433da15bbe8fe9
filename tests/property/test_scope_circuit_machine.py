"""Circuits of scopes and their provider, over any order of events, against the rule in words of its own."""

from __future__ import annotations

from ccr_control.core.circuits import COUNTED, CircuitPolicy, Closed, Failures, HalfOpen, Open, Successes
from ccr_control.core.health import REFUSED, Event, Health, ProbeResult, ProviderSetup, ScopeSetup
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

POLICY = CircuitPolicy(failures=4, failure_rate=0.6, min_requests=8, window_s=20.0, open_for_s=5.0, max_open_for_s=40.0)
KEYS = {"a1": "a", "a2": "a", "b1": "b", "c1": "c"}
SCOPES = ("a", "b", "c")
KEY = st.sampled_from(sorted(KEYS))
OF_SCOPES = sorted(COUNTED - {"connect"})
SETUP = ProviderSetup(
    "1",
    {scope: ScopeSetup("1", frozenset(key for key, owner in KEYS.items() if owner == scope)) for scope in SCOPES},
)


class ScopesMachine(RuleBasedStateMachine):
    """A provider with three scopes, one of them with two keys."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 1_000_000.0
        self.health = Health()
        self.health.configure(POLICY, {"p": SETUP}, self.now_s)
        self.events: list[Event] = []
        self.failed_lately: dict[str, int] = {}  # in a row, by scope; "": no connection
        self.refused: set[str] = set()

    def state(self, scope: str = "") -> str:
        return self.health.state_of("p", scope)

    def take(self, events: list[Event]) -> None:
        self.events += events
        for event in events:
            if event.state == "closed":
                self.refused -= {key for key, owner in KEYS.items() if owner == event.scope}

    @rule(seconds=st.sampled_from([0.01, 0.5, 5.0, 60.0]))
    def time_passes(self, seconds: float) -> None:
        self.now_s += seconds
        self.take(self.health.pass_time(self.now_s))

    @rule(key=KEY, count=st.integers(1, 5), reason=st.sampled_from(OF_SCOPES))
    def attempts_fail(self, key: str, count: int, reason: str) -> None:
        scope, before = KEYS[key], {one: self.state(one) for one in ("", *SCOPES)}
        failures = Failures("p", reason, count, self.now_s, self.now_s, count, count, key)
        events = self.health.note([failures], self.now_s)
        self.take(events)
        if before[""] != "closed" or before[scope] != "closed":
            assert not events, "what is passed by is not judged by requests"
            return
        opened = {event.scope for event in events}
        assert opened <= {"", scope}, "no other scope"
        assert all(event.state == "open" for event in events)
        if count >= POLICY.failures:
            assert opened, "so many in a row open the one or the other"
        if opened == {"", scope}:
            assert all(self.state(one) != "closed" for one in SCOPES), "the last one of them takes the provider along"

    @rule(count=st.integers(1, 3))
    def nothing_connects(self, count: int) -> None:
        before = self.state()
        failures = Failures("p", "connect", count, self.now_s, self.now_s, count, count, "a1")
        events = self.health.note([failures], self.now_s)
        self.take(events)
        assert {event.scope for event in events} <= {""}, "no scope has a part in that"
        assert before == "closed" or not events

    @rule(key=KEY)
    def an_attempt_succeeds(self, key: str) -> None:
        before = {one: self.state(one) for one in ("", *SCOPES)}
        events = self.health.note([Successes("p", 1, self.now_s, self.now_s, key)], self.now_s)
        self.take(events)
        self.refused.discard(key)
        expected = {one for one in ("", KEYS[key]) if before[one] == "half_open"}
        assert {event.scope for event in events} == expected
        assert all(event.state == "closed" for event in events)

    @rule(key=KEY)
    def a_key_is_refused(self, key: str) -> None:
        scope = KEYS[key]
        before, provider = self.state(scope), self.health.providers()["p"].circuit
        failures = Failures("p", REFUSED, 1, self.now_s, self.now_s, 1, 1, key)
        events = self.health.note([failures], self.now_s)
        assert self.health.providers()["p"].circuit == provider, "the provider has nothing to do with it"
        if before == "closed":
            self.refused.add(key)
            is_all = self.refused >= {one for one, owner in KEYS.items() if owner == scope}
            assert bool(events) == is_all
        else:
            assert not events
        self.take(events)

    @rule(scope=st.sampled_from(["", *SCOPES]), status=st.sampled_from([0, 200, 401, 404, 503]))
    def a_probe_ends(self, scope: str, status: int) -> None:
        before = self.state(scope)
        is_alive = 0 < status < 500
        # A probe of this provider has told something before: an error means that it is ill.
        self.health.providers()["p"].has_probed_well = True
        self.take(self.health.probed("p", ProbeResult(self.now_s, is_alive, 1.0, status), scope))
        closes = before == "half_open" and is_alive and not (scope and status == 401)
        assert self.state(scope) == ("closed" if closes else before)

    @rule()
    def it_is_restarted(self) -> None:
        """What is open stays so, and nothing else is made up."""
        before = {one: self.state(one) for one in ("", *SCOPES)}
        saved = self.health.saved()
        self.health = Health()
        self.health.configure(POLICY, {"p": SETUP}, self.now_s)
        self.health.restore(saved, self.events[-500:])
        self.refused.clear()
        assert before == {one: self.state(one) for one in ("", *SCOPES)}

    @rule(scope=st.sampled_from(["", *SCOPES]))
    def an_operator_resets(self, scope: str) -> None:
        self.take(self.health.reset("p", self.now_s, scope))
        for one in [scope] if scope else ["", *SCOPES]:
            assert self.state(one) == "closed"
        self.refused -= {key for key, owner in KEYS.items() if not scope or owner == scope}

    @invariant()
    def states_follow_one_another(self) -> None:
        states = dict.fromkeys(("", *SCOPES), "closed")
        for event in self.events:
            allowed = {"closed": {"open"}, "open": {"half_open", "closed"}, "half_open": {"closed"}}
            assert event.state in allowed[states[event.scope]]
            states[event.scope] = event.state
        assert states == {one: self.state(one) for one in states}

    @invariant()
    def only_all_of_them_or_the_provider_itself_pass_it_by(self) -> None:
        """A fault of one scope alone leaves the others in use."""
        known = self.health.providers()["p"]
        assert len(known.events) <= 50
        for one in known.scopes.values():
            assert isinstance(one.circuit, Closed | Open | HalfOpen)
            assert one.refused == {key for key in one.setup.labels if key in self.refused}


ScopesMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestScopes = ScopesMachine.TestCase
