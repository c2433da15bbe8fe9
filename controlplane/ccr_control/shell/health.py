"""The providers' health as this control plane knows it: takes evidence, says what changed, has it published."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

from ccr_rpc.v1 import snapshot_pb2

from ccr_control.core.circuits import CircuitPolicy
from ccr_control.core.health import Event, Evidence, Health, ProbeResult, ProviderHealth, State
from ccr_control.core.provider_schema import ProviderConfig
from ccr_control.core.schema import Config
from ccr_control.shell.log import Log

log = Log("health")

CIRCUIT_STATES: dict[State, snapshot_pb2.CircuitState.ValueType] = {
    "closed": snapshot_pb2.CIRCUIT_STATE_CLOSED,
    "open": snapshot_pb2.CIRCUIT_STATE_OPEN,
    "half_open": snapshot_pb2.CIRCUIT_STATE_HALF_OPEN,
}


class HealthKeeper:
    """Holds the circuits. All methods are for the event loop, and none waits."""

    def __init__(self, config: Callable[[], Config], publish: Callable[[], None], now: Callable[[], float]) -> None:
        """`config` gives the configuration in force; `publish` has the snapshot published with the states of now."""
        self._config, self._publish, self._now = config, publish, now
        self._health = Health()
        self._known: Config | None = None
        self.news = asyncio.Event()  # set whenever a circuit changed

    def settings(self) -> Config:
        """The configuration in force; whatever it changes about the circuits has happened."""
        config = self._config()
        if config is not self._known:
            self._known = config
            identities = {one.name: f"{one.type} {one.base_url} {one.enabled}" for one in config.providers}
            self._health.configure(policy_of(config), identities, self._now())
            self.news.set()
        return config

    def overlay(self, snapshot: snapshot_pb2.Snapshot) -> None:
        """Write the states of now into a snapshot."""
        self.settings()
        for provider in snapshot.providers:
            provider.circuit = CIRCUIT_STATES[self._health.state_of(provider.name)]

    def heard(self, journal: str, number: int, evidence: Iterable[Evidence]) -> None:
        """A node told what happened. A batch that was told before is no news."""
        if self._health.is_news(journal, number):
            self.settings()
            self._tell(self._health.note(evidence, self._now()))

    def probed(self, name: str, result: ProbeResult) -> None:
        """A probe has ended."""
        self.settings()
        known = self._health.providers().get(name)
        before = known.probe if known is not None else None
        if before is None or (before.is_alive, before.problem) != (result.is_alive, result.problem):
            log.info(
                "probe_changed",
                provider=name,
                is_alive=result.is_alive,
                status=result.status,
                latency_ms=round(result.latency_ms, 1),
                problem=result.problem,
            )
        self._tell(self._health.probed(name, result))

    def pass_time(self) -> None:
        """Half-open what has been open for long enough."""
        self.settings()
        self._tell(self._health.pass_time(self._now()))

    def reset(self, name: str) -> None:
        """Close a circuit. Raises KeyError for an unknown provider."""
        self.settings()
        self._tell(self._health.reset(name, self._now()))

    def providers(self) -> Sequence[tuple[ProviderConfig, ProviderHealth]]:
        """All configured providers and how they are, in the order of the configuration."""
        config, health = self.settings(), self._health.providers()
        return [(one, health[one.name]) for one in config.providers]

    def _tell(self, events: list[Event]) -> None:
        if not events:
            return
        for event in events:
            self._log(event)
        self.news.set()
        self._publish()

    def _log(self, event: Event) -> None:
        match event.state:
            case "open":
                failure = self._health.providers()[event.provider].last_failure
                late_s = event.at_s - failure.ended_s if failure is not None else 0.0
                log.warning(
                    "circuit_opened",
                    provider=event.provider,
                    reason=event.reason,
                    open_for_s=event.open_for_s,
                    after_failure_ms=round(late_s * 1000, 1),
                )
            case "half_open":
                log.info("circuit_half_open", provider=event.provider, opened_for=event.reason)
            case "closed":
                log.info("circuit_closed", provider=event.provider, reason=event.reason)


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
