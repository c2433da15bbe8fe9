"""ProviderService: how the providers are, and what an operator may do about their circuits."""

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
from ccr_control.core.compile import PROVIDER_TYPES
from ccr_control.core.health import Event, ProbeResult, ProviderHealth, ScopeHealth, state_name
from ccr_control.core.provider_schema import ProviderConfig
from ccr_control.services.wire import timestamp
from ccr_control.shell.credentials import Held
from ccr_control.shell.health import CIRCUIT_STATES, Asking, HealthKeeper
from ccr_control.shell.prober import Prober
from ccr_control.shell.publisher import Publisher
from ccr_control.store.actor import StoreUnavailable

EVENTS_UNLESS_SAID = 100

CredentialsOf = Callable[[str], Iterable[Held]]


class ProviderServicer(providers_pb2_grpc.ProviderServiceServicer):
    """Shows providers, probes them and resets their circuits."""

    def __init__(
        self,
        keeper: HealthKeeper,
        prober: Prober,
        publisher: Publisher,
        store: Asking,
        credentials: CredentialsOf = lambda _: (),
    ) -> None:
        """`credentials` gives those of a provider that have to be found."""
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
        await self._found(request.provider, context, request.scope)
        self._keeper.reset(request.provider, request.scope)
        await self._publisher.settled()
        config, health = await self._found(request.provider, context)
        return providers_pb2.ResetCircuitResponse(provider=self._message(config, health))

    async def ProbeProvider(
        self, request: providers_pb2.ProbeProviderRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> providers_pb2.ProbeProviderResponse:
        """Probe now."""
        config, _ = await self._found(request.provider, context, request.scope)
        await self._prober.probe(config, request.scope)
        await self._publisher.settled()
        config, health = await self._found(request.provider, context)
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

    def _message(self, config: ProviderConfig, health: ProviderHealth) -> providers_pb2.ProviderStatus:
        return status_message(config, health, self._credentials(config.name))

    async def _found(
        self, name: str, context: grpc.aio.ServicerContext[Any, Any], scope: str = ""
    ) -> tuple[ProviderConfig, ProviderHealth]:
        for config, health in self._keeper.providers():
            if config.name == name:
                if scope and scope not in health.scopes:
                    await _no_such(f"provider {name} has no scope {scope[:100]!r}", context)
                return config, health
        return await _no_such(f"there is no provider {name[:100]!r}", context)


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
