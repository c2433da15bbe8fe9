"""ProviderService: how the providers are, and what an operator may do about their circuits."""

# ruff: noqa: ARG002, N802 - names and arguments of handlers are the contract's

from __future__ import annotations

from typing import Any, NoReturn

import grpc
import grpc.aio
from ccr_rpc.v1 import providers_pb2, providers_pb2_grpc
from google.protobuf.duration_pb2 import Duration

from ccr_control.core.circuits import Open
from ccr_control.core.compile import PROVIDER_TYPES
from ccr_control.core.health import Event, ProbeResult, ProviderHealth, state_name
from ccr_control.core.provider_schema import ProviderConfig
from ccr_control.services.wire import timestamp
from ccr_control.shell.health import CIRCUIT_STATES, HealthKeeper
from ccr_control.shell.prober import Prober
from ccr_control.shell.publisher import Publisher


class ProviderServicer(providers_pb2_grpc.ProviderServiceServicer):
    """Shows providers, probes them and resets their circuits."""

    def __init__(self, keeper: HealthKeeper, prober: Prober, publisher: Publisher) -> None:
        self._keeper, self._prober, self._publisher = keeper, prober, publisher

    async def ListProviders(
        self, request: providers_pb2.ListProvidersRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> providers_pb2.ListProvidersResponse:
        """All of them, in the order of the configuration."""
        return providers_pb2.ListProvidersResponse(
            providers=[status_message(config, health) for config, health in self._keeper.providers()]
        )

    async def ResetCircuit(
        self, request: providers_pb2.ResetCircuitRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> providers_pb2.ResetCircuitResponse:
        """Close a circuit; published when this returns."""
        await self._found(request.provider, context)
        self._keeper.reset(request.provider)
        await self._publisher.settled()
        config, health = await self._found(request.provider, context)
        return providers_pb2.ResetCircuitResponse(provider=status_message(config, health))

    async def ProbeProvider(
        self, request: providers_pb2.ProbeProviderRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> providers_pb2.ProbeProviderResponse:
        """Probe now."""
        config, _ = await self._found(request.provider, context)
        await self._prober.probe(config)
        await self._publisher.settled()
        config, health = await self._found(request.provider, context)
        return providers_pb2.ProbeProviderResponse(provider=status_message(config, health))

    async def _found(
        self, name: str, context: grpc.aio.ServicerContext[Any, Any]
    ) -> tuple[ProviderConfig, ProviderHealth]:
        for config, health in self._keeper.providers():
            if config.name == name:
                return config, health
        return await _no_such(name, context)


async def _no_such(name: str, context: grpc.aio.ServicerContext[Any, Any]) -> NoReturn:
    await context.abort(grpc.StatusCode.NOT_FOUND, f"there is no provider {name[:100]!r} in the configuration")


def status_message(config: ProviderConfig, health: ProviderHealth) -> providers_pb2.ProviderStatus:
    """How a provider is."""
    message = providers_pb2.ProviderStatus(
        name=config.name,
        type=PROVIDER_TYPES[config.type],
        enabled=config.enabled,
        circuit=CIRCUIT_STATES[state_name(health.circuit)],
        circuit_since=timestamp(health.circuit.since_s),
        events=[_event(event) for event in health.events],
    )
    if isinstance(health.circuit, Open):
        message.open_until.CopyFrom(timestamp(health.circuit.until_s))
    if health.last_failure is not None:
        message.last_failure_reason = health.last_failure.reason
        message.last_failure_at.CopyFrom(timestamp(health.last_failure.ended_s))
    if health.probe is not None:
        message.last_probe.CopyFrom(_probe(health.probe))
    return message


def _event(event: Event) -> providers_pb2.HealthEvent:
    message = providers_pb2.HealthEvent(
        at=timestamp(event.at_s), circuit=CIRCUIT_STATES[event.state], reason=event.reason
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
