"""ProviderService: how the providers are, and what an operator may do about them: circuits, state, share, strategy."""

# ruff: noqa: ARG002, N802 - names and arguments of handlers are the contract's

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf
from typing import Any, NoReturn

import grpc
import grpc.aio
from ccr_rpc.v1 import providers_pb2, providers_pb2_grpc
from google.protobuf.duration_pb2 import Duration

from ccr_control.core.circuits import Closed, Open
from ccr_control.core.compile import PROVIDER_TYPES, STRATEGIES
from ccr_control.core.errors import Malformed, NoSuchThing, NotPossible, OutOfDate
from ccr_control.core.health import Event, ProbeResult, ProviderHealth, ScopeHealth, state_name
from ccr_control.core.overlay import (
    ALL_ROUTES,
    Overlay,
    ProviderState,
    Value,
    applied,
    configured,
    configured_state,
    etag,
    provider_resource,
    provider_state,
    provider_view,
    strategy_resource,
)
from ccr_control.core.provider_schema import ProviderConfig
from ccr_control.core.snapshot_check import PRIORITIES, WEIGHTS
from ccr_control.services.wire import timestamp
from ccr_control.shell.access import caller
from ccr_control.shell.changes import Altered, Changes
from ccr_control.shell.config_file import ConfigFile
from ccr_control.shell.credentials import Held
from ccr_control.shell.events import EventLog
from ccr_control.shell.health import CIRCUIT_STATES, Asking, HealthKeeper
from ccr_control.shell.prober import Prober
from ccr_control.shell.publisher import Publisher
from ccr_control.store.actor import StoreUnavailable

EVENTS_UNLESS_SAID = 100

CredentialsOf = Callable[[str], Iterable[Held]]

_STATES: dict[int, ProviderState] = {
    providers_pb2.PROVIDER_STATE_ENABLED: "enabled",
    providers_pb2.PROVIDER_STATE_DRAINING: "draining",
    providers_pb2.PROVIDER_STATE_DISABLED: "disabled",
}
_STATE_NUMBERS: dict[ProviderState, providers_pb2.ProviderState.ValueType] = {
    "enabled": providers_pb2.PROVIDER_STATE_ENABLED,
    "draining": providers_pb2.PROVIDER_STATE_DRAINING,
    "disabled": providers_pb2.PROVIDER_STATE_DISABLED,
}
_ACTIONS: dict[ProviderState, str] = {"enabled": "enable", "draining": "drain", "disabled": "disable"}
_STRATEGY_NAMES = {number: name for name, number in STRATEGIES.items()}


class ProviderServicer(providers_pb2_grpc.ProviderServiceServicer):
    """Shows providers, probes and changes them, and resets their circuits."""

    def __init__(
        self,
        keeper: HealthKeeper,
        prober: Prober,
        publisher: Publisher,
        store: Asking,
        file: ConfigFile,
        changes: Changes,
        events: EventLog,
        credentials: CredentialsOf = lambda _: (),
    ) -> None:
        """`credentials` gives those of a provider that have to be found."""
        self._file, self._changes, self._events = file, changes, events
        self._keeper, self._prober, self._publisher, self._store = keeper, prober, publisher, store
        self._credentials = credentials

    async def ListProviders(
        self, request: providers_pb2.ListProvidersRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> providers_pb2.ListProvidersResponse:
        """All of them, in the order of the configuration."""
        return providers_pb2.ListProvidersResponse(
            providers=[self._message(config, health) for config, health in self._keeper.providers()]
        )

    async def ResetCircuit(
        self, request: providers_pb2.ResetCircuitRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> providers_pb2.ResetCircuitResponse:
        """Close circuits; published when this returns."""
        _, before = await self._found(request.provider, context, request.scope)
        was = _circuit_view(before, request.scope)
        self._keeper.reset(request.provider, request.scope)
        await self._publisher.settled()
        config, health = await self._found(request.provider, context)
        self._note("provider.reset", config.name, was, _circuit_view(health, request.scope))
        return providers_pb2.ResetCircuitResponse(provider=self._message(config, health))

    async def ProbeProvider(
        self, request: providers_pb2.ProbeProviderRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> providers_pb2.ProbeProviderResponse:
        """Probe now."""
        config, before = await self._found(request.provider, context, request.scope)
        was = _circuit_view(before, request.scope)
        await self._prober.probe(config, request.scope)
        await self._publisher.settled()
        config, health = await self._found(request.provider, context)
        self._note("provider.probe", config.name, was, _circuit_view(health, request.scope))
        return providers_pb2.ProbeProviderResponse(provider=self._message(config, health))

    async def ListHealthEvents(
        self, request: providers_pb2.ListHealthEventsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> providers_pb2.ListHealthEventsResponse:
        """What happened to circuits, from the store."""
        limit = request.limit if request.limit > 0 else EVENTS_UNLESS_SAID
        since_s = request.since.seconds + request.since.nanos / 1e9
        try:
            events = await self._store.ask(lambda tables: tables.health.events(request.provider, since_s, limit))
        except StoreUnavailable as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, f"the store cannot be read now: {error}")
        return providers_pb2.ListHealthEventsResponse(events=[_event(event) for event in events])

    async def SetProviderState(
        self, request: providers_pb2.SetProviderStateRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> providers_pb2.ProviderResponse:
        """Enable, drain or disable."""
        state = _STATES.get(request.state)
        if state is None:
            raise Malformed("STATE_MISSING", "state: say ENABLED, DRAINING or DISABLED")

        def wanted(provider: ProviderConfig) -> dict[str, Value | None]:
            return {"state": None if state == configured_state(provider) else state}

        return await self._changed(f"provider.{_ACTIONS[state]}", request.provider, request.etag, wanted)

    async def UpdateProvider(
        self, request: providers_pb2.UpdateProviderRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> providers_pb2.ProviderResponse:
        """Change weight or priority."""
        weight = request.weight if request.HasField("weight") else None
        priority = request.priority if request.HasField("priority") else None
        checked_share(weight, priority)

        def wanted(provider: ProviderConfig) -> dict[str, Value | None]:
            return share_wanted(weight, priority, provider.weight, provider.priority)

        return await self._changed("provider.update", request.provider, request.etag, wanted)

    async def _changed(
        self, action: str, name: str, upon: str, wanted: Callable[[ProviderConfig], dict[str, Value | None]]
    ) -> providers_pb2.ProviderResponse:
        who, at_s = caller().name, self._changes.now()

        def alter(overlay: Overlay) -> Altered | None:
            provider = self._configured(name)
            before = self._view(provider, overlay)
            if upon and upon != etag(name, before):
                raise OutOfDate("ETAG_OUT_OF_DATE", f"provider {name} was changed meanwhile: look again, then decide")
            altered = overlay.with_changed(provider_resource(name), wanted(provider), who, at_s)
            after = self._view(provider, altered)
            if before == after:
                return None
            if after["state"] != "disabled" and before["state"] == "disabled" and not self._is_usable(name, altered):
                raise NotPossible("NO_CREDENTIAL", f"{name} has no key that could be used: add one, or enable one")
            resource = provider_resource(name)
            return Altered(
                altered, [self._events.made("audit", action, resource, actor=who, before=before, after=after)]
            )

        version = await self._changes.change(alter)
        for config, health in self._keeper.providers():
            if config.name == name:
                return providers_pb2.ProviderResponse(provider=self._message(config, health), snapshot_version=version)
        raise no_such_provider(name)  # a new configuration came right after it

    async def SetStrategy(
        self, request: providers_pb2.SetStrategyRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> providers_pb2.SetStrategyResponse:
        """Change how candidates are ordered."""
        strategy = _STRATEGY_NAMES.get(request.strategy)
        if strategy is None:
            raise Malformed("STRATEGY_MISSING", "strategy: say which")
        who, at_s, resource = caller().name, self._changes.now(), strategy_resource(request.route)

        def alter(overlay: Overlay) -> Altered | None:
            config = self._file.revision.config
            if request.route and all(route.name != request.route for route in config.routing.routes):
                raise NoSuchThing("NO_SUCH_ROUTE", f"there is no route {request.route[:100]!r} in the configuration")
            said = configured(config, resource, "strategy")
            before = overlay.said(resource, "strategy") or said or config.routing.strategy
            wanted = {"strategy": None if strategy == said else strategy}
            altered = overlay.with_changed(resource, wanted, who, at_s)
            if altered == overlay:
                return None
            event = self._events.made(
                "audit",
                "strategy.set",
                "routing" if resource == ALL_ROUTES else resource,
                actor=who,
                before={"strategy": before},
                after={"strategy": strategy},
            )
            return Altered(altered, [event])

        return providers_pb2.SetStrategyResponse(snapshot_version=await self._changes.change(alter))

    def _configured(self, name: str) -> ProviderConfig:
        """A provider as the configuration has it. Raises NoSuchThing."""
        for provider in self._file.revision.config.providers:
            if provider.name == name:
                return provider
        raise no_such_provider(name)

    def _is_usable(self, name: str, overlay: Overlay) -> bool:
        return any(one.name == name and one.enabled for one in applied(self._file.revision.config, overlay).providers)

    def _view(self, configured: ProviderConfig, overlay: Overlay) -> dict[str, object]:
        """What of a provider can be changed, with the changes of an overlay."""
        config = self._file.revision.config
        effective = next(one for one in applied(config, overlay).providers if one.name == configured.name)
        return provider_view(effective, provider_state(configured, overlay))

    def _note(self, action: str, name: str, before: dict[str, object], after: dict[str, object]) -> None:
        self._events.note("audit", action, provider_resource(name), actor=caller().name, before=before, after=after)

    def _message(self, config: ProviderConfig, health: ProviderHealth) -> providers_pb2.ProviderStatus:
        message = status_message(config, health, self._credentials(config.name))
        overlay = self._changes.overlay
        configured = next((one for one in self._file.revision.config.providers if one.name == config.name), config)
        state = provider_state(configured, overlay)
        message.state = _STATE_NUMBERS[state]
        message.etag = etag(config.name, provider_view(config, state))
        message.changed.extend(sorted(overlay.of(provider_resource(config.name))))
        return message

    async def _found(
        self, name: str, context: grpc.aio.ServicerContext[Any, Any], scope: str = ""
    ) -> tuple[ProviderConfig, ProviderHealth]:
        for config, health in self._keeper.providers():
            if config.name == name:
                if scope and scope not in health.scopes:
                    await _no_such(f"provider {name} has no scope {scope[:100]!r}", context)
                return config, health
        return await _no_such(f"there is no provider {name[:100]!r}", context)


def no_such_provider(name: str) -> NoSuchThing:
    """The refusal of a call about a provider that is not there."""
    return NoSuchThing("NO_SUCH_PROVIDER", f"there is no provider {name[:100]!r} in the configuration")


def checked_share(weight: int | None, priority: int | None) -> None:
    """Raises Malformed if one of them is out of range."""
    if weight is not None and weight not in WEIGHTS:
        raise Malformed("OUT_OF_RANGE", f"weight: must be 1 to 1000000, not {weight}")
    if priority is not None and priority not in PRIORITIES:
        raise Malformed("OUT_OF_RANGE", f"priority: must be 0 to 1000000, not {priority}")


def share_wanted(
    weight: int | None, priority: int | None, configured_weight: int, configured_priority: int
) -> dict[str, Value | None]:
    """The entries for what is to change; what is as the configuration has it needs none."""
    wanted: dict[str, Value | None] = {}
    if weight is not None:
        wanted["weight"] = None if weight == configured_weight else str(weight)
    if priority is not None:
        wanted["priority"] = None if priority == configured_priority else str(priority)
    return wanted


def _circuit_view(health: ProviderHealth, scope: str) -> dict[str, object]:
    known = health.scopes.get(scope) if scope else None
    return {"circuit": state_name((known or health).circuit)} | ({"scope": scope} if scope else {})


async def _no_such(what: str, context: grpc.aio.ServicerContext[Any, Any]) -> NoReturn:
    await context.abort(grpc.StatusCode.NOT_FOUND, f"{what} in the configuration")


def status_message(
    config: ProviderConfig, health: ProviderHealth, credentials: Iterable[Held] = ()
) -> providers_pb2.ProviderStatus:
    """How a provider is."""
    message = providers_pb2.ProviderStatus(
        name=config.name,
        type=PROVIDER_TYPES[config.type],
        enabled=config.enabled,
        circuit=CIRCUIT_STATES[state_name(health.circuit)],
        circuit_since=timestamp(health.circuit.since_s),
        weight=config.weight,
        priority=config.priority,
        base_url=config.base_url or "",
        events=[_event(event) for event in health.events],
        scopes=[_scope(scope, one) for scope, one in health.scopes.items()],
        credentials=[_credential(held) for held in credentials],
    )
    if isinstance(health.circuit, Open):
        message.open_until.CopyFrom(timestamp(health.circuit.until_s))
    if health.last_failure is not None:
        message.last_failure_reason = health.last_failure.reason
        message.last_failure_at.CopyFrom(timestamp(health.last_failure.ended_s))
    elif not isinstance(health.circuit, Closed):
        message.last_failure_reason = health.circuit.reason
    if health.probe is not None:
        message.last_probe.CopyFrom(_probe(health.probe))
    return message


def _credential(held: Held) -> providers_pb2.CredentialStatus:
    standing = held.standing
    message = providers_pb2.CredentialStatus(
        key_label=held.label,
        usable=held.material is not None,
        failures=standing.failures,
        problem=standing.problem,
    )
    if standing.is_found:
        message.found_at.CopyFrom(timestamp(standing.found_s))
        if standing.expires_s != inf:
            message.expires_at.CopyFrom(timestamp(standing.expires_s))
    return message


def _scope(scope: str, health: ScopeHealth) -> providers_pb2.ScopeStatus:
    message = providers_pb2.ScopeStatus(
        scope=scope,
        key_labels=sorted(health.setup.labels),
        circuit=CIRCUIT_STATES[state_name(health.circuit)],
        circuit_since=timestamp(health.circuit.since_s),
    )
    if isinstance(health.circuit, Open):
        message.open_until.CopyFrom(timestamp(health.circuit.until_s))
    if health.last_failure is not None:
        message.last_failure_reason = health.last_failure.reason
        message.last_failure_at.CopyFrom(timestamp(health.last_failure.ended_s))
    elif not isinstance(health.circuit, Closed):
        message.last_failure_reason = health.circuit.reason
    if health.probe is not None:
        message.last_probe.CopyFrom(_probe(health.probe))
    return message


def _event(event: Event) -> providers_pb2.HealthEvent:
    message = providers_pb2.HealthEvent(
        at=timestamp(event.at_s),
        circuit=CIRCUIT_STATES[event.state],
        reason=event.reason,
        provider=event.provider,
        scope=event.scope,
    )
    if event.state == "open":
        message.open_for.CopyFrom(_duration(event.open_for_s))
    return message


def _probe(result: ProbeResult) -> providers_pb2.ProbeReport:
    return providers_pb2.ProbeReport(
        at=timestamp(result.at_s),
        alive=result.is_alive,
        latency=_duration(result.latency_ms / 1000),
        status=result.status,
        problem=result.problem,
    )


def _duration(seconds: float) -> Duration:
    message = Duration()
    message.FromMicroseconds(round(seconds * 1_000_000))
    return message
