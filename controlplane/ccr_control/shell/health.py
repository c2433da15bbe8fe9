"""The providers' health as this control plane knows it: takes evidence, says what changed, has it published and kept.

What keys without a configured scope have turned out to belong to is kept here, too: scopes are what circuits are about.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar

from ccr_rpc.v1 import snapshot_pb2

from ccr_control.core.circuits import CircuitPolicy
from ccr_control.core.health import (
    Event,
    Evidence,
    Health,
    ProbeResult,
    ProviderHealth,
    ProviderSetup,
    ScopeSetup,
    State,
)
from ccr_control.core.organisations import Learned, Organisations, organisation_in
from ccr_control.core.provider_schema import KeyConfig, ProviderConfig
from ccr_control.core.remembered import Remembered
from ccr_control.core.schema import Config
from ccr_control.core.sightings import Sighting
from ccr_control.shell.log import Log
from ccr_control.store.actor import StoreUnavailable, Tables

MAX_UNSAVED_EVENTS = 1000
SAVE_AGAIN_S = 1.0

_T = TypeVar("_T")

log = Log("health")

CIRCUIT_STATES: dict[State, snapshot_pb2.CircuitState.ValueType] = {
    "closed": snapshot_pb2.CIRCUIT_STATE_CLOSED,
    "open": snapshot_pb2.CIRCUIT_STATE_OPEN,
    "half_open": snapshot_pb2.CIRCUIT_STATE_HALF_OPEN,
}


class Asking(Protocol):
    """The part of the store that is needed here."""

    async def ask(self, question: Callable[[Tables], _T]) -> _T:
        """Have this done with the database. Raises StoreUnavailable."""


class HealthKeeper:
    """Holds the circuits. All methods are for the event loop, and none but `keep_saved` waits."""

    def __init__(
        self,
        config: Callable[[], Config],
        publish: Callable[[], None],
        now: Callable[[], float],
        tell: Callable[[Event], None] = lambda _: None,
    ) -> None:
        """`config` gives the configuration in force; `publish` has the snapshot published with the states of now.

        `tell` gets what happens to circuits.
        """
        self._told = tell
        self._config, self._publish, self._now = config, publish, now
        self._health = Health()
        self._organisations = Organisations()
        self._known: Config | None = None
        self.news = asyncio.Event()  # set whenever a circuit changed
        self._unsaved = asyncio.Event()
        self._unsaved_events: deque[Event] = deque(maxlen=MAX_UNSAVED_EVENTS)

    def settings(self) -> Config:
        """The configuration in force; whatever it changes about the circuits has happened."""
        config = self._config()
        if config is not self._known:
            self._known = config
            setups = {one.name: setup_of(one, self._organisations) for one in config.providers}
            self._health.configure(policy_of(config), setups, self._now())
            self.news.set()
            self._unsaved.set()
        return config

    def overlay(self, snapshot: snapshot_pb2.Snapshot) -> None:
        """Write the states of now into a snapshot, and the scopes that keys have turned out to belong to."""
        config = {one.name: one for one in self.settings().providers}
        for provider in snapshot.providers:
            provider.circuit = CIRCUIT_STATES[self._health.state_of(provider.name)]
            configured = {key.label: key for key in config[provider.name].keys} if provider.name in config else {}
            for key in provider.keys:
                if (known := configured.get(key.label)) is None:
                    continue
                scope = scope_of(provider.name, known, self._organisations)
                if not key.scope and scope != key.label:
                    key.scope = scope
                if (state := self._health.state_of(provider.name, scope)) != "closed":
                    key.circuit = CIRCUIT_STATES[state]

    def restore(self, remembered: Remembered) -> None:
        """What an earlier life knew."""
        self._organisations.restore(remembered.organisations)
        self._known = None
        self.settings()
        self._health.restore(remembered.circuits, remembered.events)
        self.news.set()
        for name, known in self._health.providers().items():
            for scope in ("", *known.scopes):
                if (state := self._health.state_of(name, scope)) != "closed":
                    log.info("circuit_restored", provider=name, **_named(scope), state=state)
        self._publish()

    def sighted(self, provider: str, key_label: str, sighting: Sighting) -> None:
        """An answer told whose key it was."""
        organisation = organisation_in(sighting.headers)
        key = self._key(provider, key_label) if organisation else None
        if key is None or key.scope:
            return
        if self._organisations.note(Learned(provider, key_label, fingerprint(key), organisation)):
            log.info("organisation_learned", provider=provider, key=key_label, organisation=organisation[:64])
            self._known = None
            self.settings()
            self._publish()

    def _key(self, provider: str, key_label: str) -> KeyConfig | None:
        for one in self.settings().providers:
            if one.name == provider:
                return next((key for key in one.keys if key.label == key_label), None)
        return None

    def remembered(self) -> Remembered:
        """All that should outlive this control plane; of the events those that are not kept yet."""
        return Remembered(tuple(self._health.saved()), tuple(self._unsaved_events), tuple(self._organisations.all()))

    async def keep_saved(self, store: Asking) -> None:
        """Have every change kept, until cancelled. Needs `settings` to have been called."""
        while True:
            await self._unsaved.wait()
            self._unsaved.clear()
            saved, now_s = self.remembered(), self._now()
            try:
                await store.ask(lambda tables: tables.health.keep(saved, now_s))  # noqa: B023 - done when this returns
            except StoreUnavailable:  # the store has said why
                self._unsaved.set()
                await asyncio.sleep(SAVE_AGAIN_S)
            else:
                for _ in saved.events:
                    self._unsaved_events.popleft()

    def heard(self, journal: str, number: int, evidence: Iterable[Evidence]) -> None:
        """A node told what happened. A batch that was told before is no news."""
        if self._health.is_news(journal, number):
            self.settings()
            self._tell(self._health.note(evidence, self._now()))

    def probed(self, name: str, result: ProbeResult, scope: str = "") -> None:
        """A probe has ended: of a provider, or with a key of one of its scopes."""
        self.settings()
        known = self._health.providers().get(name)
        probed = known.scopes.get(scope) if known is not None and scope else known
        before = probed.probe if probed is not None else None
        if before is None or (before.is_alive, before.problem) != (result.is_alive, result.problem):
            log.info(
                "probe_changed",
                provider=name,
                **_named(scope),
                is_alive=result.is_alive,
                status=result.status,
                latency_ms=round(result.latency_ms, 1),
                problem=result.problem,
            )
        self._tell(self._health.probed(name, result, scope))

    def pass_time(self) -> None:
        """Half-open what has been open for long enough."""
        self.settings()
        self._tell(self._health.pass_time(self._now()))

    def reset(self, name: str, scope: str = "") -> None:
        """Close the circuits of a provider, or that of one scope. Raises KeyError for an unknown one."""
        self.settings()
        self._tell(self._health.reset(name, self._now(), scope))

    def providers(self) -> Sequence[tuple[ProviderConfig, ProviderHealth]]:
        """All configured providers and how they are, in the order of the configuration."""
        config, health = self.settings(), self._health.providers()
        return [(one, health[one.name]) for one in config.providers]

    def keys_of(self, provider: ProviderConfig, scope: str = "") -> list[KeyConfig]:
        """The keys that requests go out with, those of one scope or of all; the ones of closed circuits first."""
        usable = [key for key in provider.keys if key.state != "disabled"]
        known = [(scope_of(provider.name, key, self._organisations), key) for key in usable]
        if scope:
            return [key for name, key in known if name == scope]
        known.sort(key=lambda one: self._health.state_of(provider.name, one[0]) != "closed")
        return [key for _, key in known]

    def _tell(self, events: list[Event]) -> None:
        if not events:
            return
        for event in events:
            self._log(event)
            self._told(event)
        self._unsaved_events.extend(events)
        self._unsaved.set()
        self.news.set()
        self._publish()

    def _log(self, event: Event) -> None:
        named = {"provider": event.provider, **_named(event.scope)}
        match event.state:
            case "open":
                known = self._health.providers()[event.provider]
                failure = (known.scopes[event.scope] if event.scope else known).last_failure
                late_s = event.at_s - failure.ended_s if failure is not None else 0.0
                log.warning(
                    "circuit_opened",
                    **named,
                    reason=event.reason,
                    open_for_s=event.open_for_s,
                    after_failure_ms=round(late_s * 1000, 1),
                )
            case "half_open":
                log.info("circuit_half_open", **named, opened_for=event.reason)
            case "closed":
                log.info("circuit_closed", **named, reason=event.reason)


def _named(scope: str) -> dict[str, str]:
    return {"scope": scope} if scope else {}


def scope_of(provider: str, key: KeyConfig, organisations: Organisations) -> str:
    """The account behind a key: configured, learned, or its own."""
    label = key.label or ""
    return key.scope or organisations.scope_of(provider, label, fingerprint(key)) or label


def fingerprint(key: KeyConfig) -> str:
    """Differs if the key does; tells nothing of it."""
    return key.digest()[:16]


def setup_of(provider: ProviderConfig, organisations: Organisations) -> ProviderSetup:
    """What circuits need to know of a provider."""
    members: dict[str, list[KeyConfig]] = {}
    for key in provider.keys:
        if key.state != "disabled":
            members.setdefault(scope_of(provider.name, key, organisations), []).append(key)
    scopes = {
        scope: ScopeSetup(
            hashlib.sha256(" ".join(sorted(map(fingerprint, keys))).encode()).hexdigest()[:16],
            frozenset(key.label or "" for key in keys),
        )
        for scope, keys in members.items()
    }
    return ProviderSetup(f"{provider.type} {provider.base_url} {provider.enabled}", scopes)


def policy_of(config: Config) -> CircuitPolicy:
    """The thresholds of a configuration."""
    circuit = config.health.circuit
    return CircuitPolicy(
        failures=circuit.failures,
        failure_rate=circuit.failure_rate,
        min_requests=circuit.min_requests,
        window_s=circuit.window.total_seconds(),
        open_for_s=circuit.open_for.total_seconds(),
        max_open_for_s=circuit.max_open_for.total_seconds(),
    )
