"""How every provider is: its circuit, its last probe, and what happened to it lately.

Pure. Evidence and probe results in, events out; the caller publishes whenever there was an event.
Times are seconds since 1970, given by the caller.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from ccr_control.core.circuits import (
    Circuit,
    CircuitPolicy,
    Closed,
    Failures,
    HalfOpen,
    Open,
    Successes,
    after_failures,
    after_probe,
    after_successes,
    after_waiting,
)

MAX_EVENTS = 50
"""Events remembered of each provider."""

MAX_JOURNALS = 4096
"""Journals whose last batch number is remembered, so that a batch sent again is no news."""

BY_OPERATOR = "reset by an operator"

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


@dataclass(frozen=True, slots=True)
class Event:
    """A circuit changed its state."""

    at_s: float
    provider: str
    state: State
    reason: str
    open_for_s: float = 0.0  # of an opening


@dataclass(slots=True)
class ProviderHealth:
    """One provider. Mutable: it is what is known so far."""

    identity: str  # differs if something else goes by the name now
    circuit: Circuit
    last_failure: Failures | None = None
    probe: ProbeResult | None = None
    events: deque[Event] = field(default_factory=lambda: deque(maxlen=MAX_EVENTS))


class Health:
    """All providers of the configuration, by name."""

    def __init__(self, policy: CircuitPolicy | None = None) -> None:
        self._policy = policy or CircuitPolicy()
        self._providers: dict[str, ProviderHealth] = {}
        self._last_numbers: OrderedDict[str, int] = OrderedDict()

    def configure(self, policy: CircuitPolicy, identities: Mapping[str, str], now_s: float) -> None:
        """The configuration in force. A provider that is new, or something else than before, begins closed."""
        self._policy = policy
        self._providers = {
            name: known
            if (known := self._providers.get(name)) is not None and known.identity == identity
            else ProviderHealth(identity, Closed(now_s))
            for name, identity in identities.items()
        }

    def providers(self) -> Mapping[str, ProviderHealth]:
        """All of them, in the order of the configuration."""
        return self._providers

    def state_of(self, name: str) -> State:
        """The state of a provider's circuit; that of an unknown one is closed."""
        known = self._providers.get(name)
        return state_name(known.circuit) if known is not None else "closed"

    def is_news(self, journal: str, number: int) -> bool:
        """Whether a batch is heard of for the first time; notes it."""
        last = self._last_numbers.pop(journal, 0)
        self._last_numbers[journal] = max(last, number)
        while len(self._last_numbers) > MAX_JOURNALS:
            self._last_numbers.popitem(last=False)
        return number > last

    def note(self, evidence: Iterable[Evidence], now_s: float) -> list[Event]:
        """What requests say, in the order of time."""
        events: list[Event] = []
        for one in evidence:
            known = self._providers.get(one.provider)
            if known is None:
                continue
            if isinstance(one, Failures):
                failures = replace(one, began_s=min(one.began_s, now_s), ended_s=min(one.ended_s, now_s))
                known.last_failure = failures
                circuit = after_failures(known.circuit, self._policy, failures, now_s)
            else:
                circuit = after_successes(
                    known.circuit, self._policy, replace(one, answered_s=min(one.answered_s, now_s)), now_s
                )
            events += self._become(one.provider, known, circuit, now_s)
        return events

    def probed(self, name: str, result: ProbeResult) -> list[Event]:
        """What a probe found."""
        known = self._providers.get(name)
        if known is None:
            return []
        known.probe = result
        circuit = after_probe(known.circuit, is_alive=result.is_alive, now_s=result.at_s)
        return self._become(name, known, circuit, result.at_s, "a probe found it alive")

    def pass_time(self, now_s: float) -> list[Event]:
        """Half-open what has been open for long enough."""
        return self._each(lambda circuit: after_waiting(circuit, now_s), now_s)

    def reset(self, name: str, now_s: float) -> list[Event]:
        """Close a circuit and forget what led to its opening. Raises KeyError for an unknown provider."""
        known = self._providers[name]
        was_closed = isinstance(known.circuit, Closed)
        events = self._become(name, known, Closed(now_s), now_s, BY_OPERATOR)
        return [] if was_closed else events

    def _each(self, change: Callable[[Circuit], Circuit], now_s: float) -> list[Event]:
        events: list[Event] = []
        for name, known in self._providers.items():
            events += self._become(name, known, change(known.circuit), now_s)
        return events

    def _become(
        self, name: str, known: ProviderHealth, circuit: Circuit, now_s: float, reason: str = ""
    ) -> list[Event]:
        before, known.circuit = known.circuit, circuit
        if type(before) is type(circuit):
            return []
        event = Event(now_s, name, state_name(circuit), reason)
        if isinstance(circuit, Open):
            event = replace(event, reason=circuit.reason, open_for_s=circuit.until_s - circuit.since_s)
        elif isinstance(circuit, HalfOpen):
            event = replace(event, reason=circuit.reason)
        known.events.append(event)
        return [event]


def state_name(circuit: Circuit) -> State:
    """The word for a state."""
    match circuit:
        case Closed():
            return "closed"
        case Open():
            return "open"
        case HalfOpen():
            return "half_open"
