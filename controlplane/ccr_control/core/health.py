"""How every provider and each of its scopes is: circuits, last probes, and what happened to them lately.

Pure. Evidence and probe results in, events out; the caller publishes whenever there was an event.
Times are seconds since 1970, given by the caller.

**Whose fault is a failure?** A provider with one scope has all of them itself. With several scopes:

- Where no connection came about, no scope has a part in it: it is the provider's.
- Everything else that counts (core/circuits.py) is counted for the scope and for the provider. The scope's circuit opens
  when its own failures reach the thresholds. The provider's opens when failures in a row reach them and at least two of
  them are not of the scope that has most; when the rate is reached without the scope that fails most; or when the last
  of its scopes has opened: what hits all scopes is the provider's.
- When a scope opens, the provider's row begins anew. While the provider's circuit is not closed, nothing is counted for
  its scopes, and when it closes they begin anew.

**Refused keys** (401, 403) never open a provider's circuit: a client's own login may go there all the same. A scope opens
when each of its keys was refused and none was accepted since; a probe with one of its keys closes it when that is
accepted. A rate limit (429) opens nothing; it is for budgets and cooldowns.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from ccr_control.core.circuits import (
    COUNTED,
    Circuit,
    CircuitPolicy,
    Closed,
    Failures,
    HalfOpen,
    Open,
    Slice,
    Successes,
    after_failures,
    after_probe,
    after_successes,
    after_waiting,
    failed_in,
    opened,
    put_back,
)

MAX_EVENTS = 50
"""Events remembered of each provider; the store keeps more (store/health_tables.py)."""

MAX_JOURNALS = 4096
"""Journals whose last batch number is remembered, so that a batch sent again is no news."""

BY_OPERATOR = "reset by an operator"
BY_PROBE = "a probe found it alive"
BY_ANSWERS = "its probes find nothing but errors: requests decide"
BY_REQUEST = "a request was served"
REFUSED = "key_refused"
NO_CONNECTION = "connect"

State: TypeAlias = Literal["closed", "open", "half_open"]
Evidence: TypeAlias = Failures | Successes


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What a probe found."""

    at_s: float
    is_alive: bool
    latency_ms: float
    status: int = 0  # HTTP status; 0: none came
    problem: str = ""  # why it is not alive, or what is wrong although it is; empty: nothing

    @property
    def refuses_key(self) -> bool:
        """Whether the provider is alive, but not for this key."""
        return self.status in (401, 403)


@dataclass(frozen=True, slots=True)
class Event:
    """A circuit changed its state."""

    at_s: float
    provider: str
    state: State
    reason: str
    open_for_s: float = 0.0  # of an opening
    scope: str = ""  # empty: of the provider


@dataclass(frozen=True, slots=True)
class ScopeSetup:
    """A scope in the configuration."""

    identity: str  # differs if its keys do
    labels: frozenset[str]  # of its keys that requests go out with


@dataclass(frozen=True, slots=True)
class ProviderSetup:
    """A provider in the configuration."""

    identity: str  # differs if something else goes by the name now
    scopes: Mapping[str, ScopeSetup] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SavedCircuit:
    """A circuit as it outlives the control plane."""

    provider: str
    scope: str  # empty: the provider's
    identity: str
    circuit: Circuit  # without what was counted while closed
    has_probed_well: bool = False


@dataclass(slots=True)
class ScopeHealth:
    """One scope. Mutable: it is what is known so far."""

    setup: ScopeSetup
    circuit: Circuit
    last_failure: Failures | None = None
    probe: ProbeResult | None = None
    refused: set[str] = field(default_factory=set)  # labels of keys that were refused and not accepted since


@dataclass(slots=True)
class ProviderHealth:
    """One provider. Mutable: it is what is known so far."""

    identity: str
    circuit: Circuit
    last_failure: Failures | None = None
    probe: ProbeResult | None = None
    has_probed_well: bool = False  # a probe has found it alive at some time
    events: deque[Event] = field(default_factory=lambda: deque(maxlen=MAX_EVENTS))
    scopes: dict[str, ScopeHealth] = field(default_factory=dict)

    def scope_of(self, key_label: str) -> str:
        """The scope that a key belongs to; empty for one that is not the configuration's."""
        return next((name for name, one in self.scopes.items() if key_label in one.setup.labels), "")


class Health:
    """All providers of the configuration, by name."""

    def __init__(self, policy: CircuitPolicy | None = None) -> None:
        self._policy = policy or CircuitPolicy()
        self._providers: dict[str, ProviderHealth] = {}
        self._last_numbers: OrderedDict[str, int] = OrderedDict()
        self._now_s = 0.0  # when anything was heard last

    def configure(self, policy: CircuitPolicy, setups: Mapping[str, ProviderSetup], now_s: float) -> None:
        """The configuration in force. A provider or scope that is new, or something else than before, begins closed."""
        self._look_at_clock(now_s)
        self._policy = policy
        providers: dict[str, ProviderHealth] = {}
        for name, setup in setups.items():
            known = self._providers.get(name)
            if known is None or known.identity != setup.identity:
                known = ProviderHealth(setup.identity, Closed(now_s))
            known.scopes = {
                scope: _kept(known.scopes.get(scope), one, now_s) for scope, one in setup.scopes.items() if one.labels
            }
            providers[name] = known
        self._providers = providers

    def providers(self) -> Mapping[str, ProviderHealth]:
        """All of them, in the order of the configuration."""
        return self._providers

    def state_of(self, name: str, scope: str = "") -> State:
        """The state of the circuit of a provider, or of one of its scopes; that of an unknown one is closed."""
        known = self._providers.get(name)
        found = known.scopes.get(scope) if known is not None and scope else known
        return state_name(found.circuit) if found is not None else "closed"

    def is_news(self, journal: str, number: int) -> bool:
        """Whether a batch is heard of for the first time; notes it."""
        last = self._last_numbers.pop(journal, 0)
        self._last_numbers[journal] = max(last, number)
        while len(self._last_numbers) > MAX_JOURNALS:
            self._last_numbers.popitem(last=False)
        return number > last

    def note(self, evidence: Iterable[Evidence], now_s: float) -> list[Event]:
        """What requests say, in the order of time."""
        self._look_at_clock(now_s)
        events: list[Event] = []
        for one in evidence:
            known = self._providers.get(one.provider)
            if known is None:
                continue
            if isinstance(one, Failures):
                failures = replace(one, began_s=min(one.began_s, now_s), ended_s=min(one.ended_s, now_s))
                events += self._failed(known, failures, now_s)
            else:
                successes = replace(one, answered_s=min(one.answered_s, now_s), asked_s=min(one.asked_s, now_s))
                events += self._served(known, successes, now_s)
        return events

    def probed(self, name: str, result: ProbeResult, scope: str = "") -> list[Event]:
        """What a probe found: of a provider, or with a key of one of its scopes."""
        known = self._providers.get(name)
        if known is None:
            return []
        self._look_at_clock(result.at_s)
        known.has_probed_well |= result.is_alive
        is_telling, is_answered = known.has_probed_well, result.status > 0
        if scope:
            one = known.scopes.get(scope)
            if one is None:
                return []
            one.probe = result
            is_alive = result.is_alive and not result.refuses_key
            circuit = after_probe(
                one.circuit,
                is_alive=is_alive,
                now_s=result.at_s,
                is_answered=is_answered and not result.refuses_key,
                is_telling=is_telling,
            )
            return self._become(name, known, scope, circuit, result.at_s, BY_PROBE if is_alive else BY_ANSWERS)
        known.probe = result
        circuit = after_probe(
            known.circuit,
            is_alive=result.is_alive,
            now_s=result.at_s,
            is_answered=is_answered,
            is_telling=is_telling,
        )
        return self._become(name, known, "", circuit, result.at_s, BY_PROBE if result.is_alive else BY_ANSWERS)

    def pass_time(self, now_s: float) -> list[Event]:
        """Half-open what has been open for long enough."""
        self._look_at_clock(now_s)
        events: list[Event] = []
        for name, known in self._providers.items():
            for scope, circuit in _circuits(known):
                events += self._become(name, known, scope, after_waiting(circuit, now_s), now_s)
        return events

    def reset(self, name: str, now_s: float, scope: str = "") -> list[Event]:
        """Close the circuits of a provider and its scopes, or of one scope, and forget what led to their opening.

        Raises KeyError for an unknown provider or scope.
        """
        known = self._providers[name]
        chosen = [scope] if scope else ["", *known.scopes]
        events: list[Event] = []
        for one in chosen:
            if one:
                known.scopes[one].refused.clear()
            events += self._become(name, known, one, Closed(now_s), now_s, BY_OPERATOR)
        return events

    # --- beyond one life ----------------------------------------------------------------------------------------------

    def saved(self) -> list[SavedCircuit]:
        """All circuits as they should outlive the control plane."""
        found: list[SavedCircuit] = []
        for name, known in self._providers.items():
            found.append(SavedCircuit(name, "", known.identity, _bare(known.circuit), known.has_probed_well))
            found += [
                SavedCircuit(name, scope, one.setup.identity, _bare(one.circuit)) for scope, one in known.scopes.items()
            ]
        return found

    def restore(self, circuits: Iterable[SavedCircuit], events: Iterable[Event]) -> None:
        """What an earlier life knew of the providers that are still the same. What has happened since then stays."""
        for saved in circuits:
            known = self._providers.get(saved.provider)
            if known is None:
                continue
            if not saved.scope and known.identity == saved.identity:
                known.has_probed_well |= saved.has_probed_well
                if _is_untouched(known.circuit):
                    known.circuit = put_back(saved.circuit, self._now_s)
                continue
            one = known.scopes.get(saved.scope)
            if one is not None and one.setup.identity == saved.identity and _is_untouched(one.circuit):
                one.circuit = put_back(saved.circuit, self._now_s)
        earlier: dict[str, list[Event]] = {}
        for event in events:
            earlier.setdefault(event.provider, []).append(event)
        for name, known in self._providers.items():
            since_then = list(known.events)
            known.events.clear()
            known.events.extend([*earlier.get(name, ()), *since_then])

    def _look_at_clock(self, now_s: float) -> None:
        if now_s < self._now_s:  # it was put back
            for known in self._providers.values():
                known.circuit = put_back(known.circuit, now_s)
                for one in known.scopes.values():
                    one.circuit = put_back(one.circuit, now_s)
        self._now_s = now_s

    # --- evidence -----------------------------------------------------------------------------------------------------

    def _served(self, known: ProviderHealth, successes: Successes, now_s: float) -> list[Event]:
        scope = known.scope_of(successes.key_label)
        one = known.scopes.get(scope)
        is_apart = one is not None and len(known.scopes) > 1
        events: list[Event] = []
        if one is not None:
            one.refused.discard(successes.key_label)
            circuit = after_successes(one.circuit, self._policy, successes, now_s, is_counted=is_apart)
            events += self._become(successes.provider, known, scope, circuit, now_s, BY_REQUEST)
        circuit = after_successes(known.circuit, self._policy, successes, now_s, is_counted=not is_apart)
        return events + self._become(successes.provider, known, "", circuit, now_s, BY_REQUEST)

    def _failed(self, known: ProviderHealth, failures: Failures, now_s: float) -> list[Event]:
        name, scope = failures.provider, known.scope_of(failures.key_label)
        one = known.scopes.get(scope)
        if one is not None and failures.reason != NO_CONNECTION:
            one.last_failure = failures
        if failures.reason == REFUSED:
            return self._refused(known, scope, failures, now_s) if one is not None else []
        known.last_failure = failures
        if one is None or len(known.scopes) == 1 or failures.reason == NO_CONNECTION:
            circuit = after_failures(
                known.circuit, self._policy, replace(failures, scope=""), now_s, self._shared_tallies(known)
            )
            return self._become(name, known, "", circuit, now_s)
        if not isinstance(known.circuit, Closed) or not isinstance(one.circuit, Closed):
            return []
        own = replace(failures, scope="", in_a_row=failures.in_scope_row)
        after = after_failures(one.circuit, self._policy, own, now_s)
        if isinstance(after, Closed):
            one.circuit = after
        circuit = after_failures(
            known.circuit, self._policy, replace(failures, scope=scope), now_s, self._shared_tallies(known)
        )
        if not isinstance(circuit, Closed) or not isinstance(after, Open):
            return self._become(name, known, "", circuit, now_s)
        known.circuit = replace(circuit, row=(), run_began_s=0.0)
        events = self._become(name, known, scope, after, now_s)
        if all(_is_failing(other.circuit) for other in known.scopes.values()):
            events += self._become(name, known, "", opened(circuit, self._policy, failures.reason, now_s), now_s)
        return events

    def _refused(self, known: ProviderHealth, scope: str, failures: Failures, now_s: float) -> list[Event]:
        one = known.scopes[scope]
        circuit = one.circuit
        is_old = failures.ended_s < max(circuit.since_s, now_s - self._policy.window_s)
        if not isinstance(circuit, Closed) or is_old:
            return []
        one.refused.add(failures.key_label)
        if one.refused < one.setup.labels:
            return []
        return self._become(failures.provider, known, scope, opened(circuit, self._policy, REFUSED, now_s), now_s)

    def _shared_tallies(self, known: ProviderHealth) -> Sequence[tuple[Slice, ...]]:
        """What was counted for scopes whose circuit is closed, without the one that fails most."""
        tallies = [one.circuit.tally for one in known.scopes.values() if isinstance(one.circuit, Closed)]
        return sorted(tallies, key=failed_in)[:-1]

    def _become(
        self, name: str, known: ProviderHealth, scope: str, circuit: Circuit, now_s: float, reason: str = ""
    ) -> list[Event]:
        holder = known.scopes[scope] if scope else known
        before, holder.circuit = holder.circuit, circuit
        if type(before) is type(circuit):
            return []
        if isinstance(holder, ScopeHealth) and isinstance(circuit, Closed):
            holder.refused.clear()
        if isinstance(holder, ProviderHealth):  # for its scopes begins, or ends, a time in which nothing is counted
            for one in holder.scopes.values():
                if isinstance(one.circuit, Closed):
                    one.circuit = Closed(now_s, one.circuit.openings)
        event = Event(now_s, name, state_name(circuit), reason, scope=scope)
        if isinstance(circuit, Open):
            event = replace(event, reason=circuit.reason, open_for_s=circuit.until_s - circuit.since_s)
        elif isinstance(circuit, HalfOpen):
            event = replace(event, reason=circuit.reason)
        known.events.append(event)
        return [event]


def _kept(known: ScopeHealth | None, setup: ScopeSetup, now_s: float) -> ScopeHealth:
    if known is None or known.setup.identity != setup.identity:
        return ScopeHealth(setup, Closed(now_s))
    known.setup = setup
    known.refused &= setup.labels
    return known


def _circuits(known: ProviderHealth) -> Iterator[tuple[str, Circuit]]:
    yield "", known.circuit
    for scope, one in list(known.scopes.items()):
        yield scope, one.circuit


def _bare(circuit: Circuit) -> Circuit:
    return Closed(circuit.since_s, circuit.openings) if isinstance(circuit, Closed) else circuit


def _is_untouched(circuit: Circuit) -> bool:
    return isinstance(circuit, Closed) and not circuit.openings and not circuit.row and not circuit.tally


def _is_failing(circuit: Circuit) -> bool:
    return not isinstance(circuit, Closed) and circuit.reason in COUNTED


def state_name(circuit: Circuit) -> State:
    """The word for a state."""
    match circuit:
        case Closed():
            return "closed"
        case Open():
            return "open"
        case HalfOpen():
            return "half_open"
