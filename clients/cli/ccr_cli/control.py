"""Talks to the control plane over gRPC; what goes wrong there becomes one line and an exit code."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # before the import: its C core writes to stderr by itself

import grpc
from ccr_rpc.v1 import (
    config_pb2,
    config_pb2_grpc,
    fleet_pb2,
    fleet_pb2_grpc,
    providers_pb2,
    providers_pb2_grpc,
    routes_pb2,
    routes_pb2_grpc,
    stats_pb2,
    stats_pb2_grpc,
)

from ccr_cli.failure import EXIT_DENIED, EXIT_INTERNAL, EXIT_NOT_WELL, EXIT_UNREACHABLE, EXIT_USAGE, Failure
from ccr_cli.places import START_HINT, Door

ANSWER_WITHIN_S = 10.0
PROBED_WITHIN_S = 60.0  # its own limit is the configuration's
_MAX_MESSAGE_BYTES = 64 << 20

_OPTIONS = (
    ("grpc.enable_http_proxy", 0),  # the control plane is ours, not the web's
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
)


class ControlPlane:
    """The calls that the command line makes. Each raises grpc.RpcError; `dialled` turns that into a Failure."""

    def __init__(self, channel: grpc.Channel, token: str | None) -> None:
        self._config = config_pb2_grpc.ConfigServiceStub(channel)
        self._fleet = fleet_pb2_grpc.FleetServiceStub(channel)
        self._stats = stats_pb2_grpc.StatsServiceStub(channel)
        self._providers = providers_pb2_grpc.ProviderServiceStub(channel)
        self._routes = routes_pb2_grpc.RouteServiceStub(channel)
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()

    def config(self) -> config_pb2.GetConfigResponse:
        """The effective configuration."""
        return self._config.GetConfig(config_pb2.GetConfigRequest(), timeout=ANSWER_WITHIN_S, metadata=self._metadata)

    def validate(self, text: str, *, is_toml: bool) -> config_pb2.ValidateConfigResponse:
        """What is wrong with a configuration text, in the control plane's environment."""
        form = config_pb2.CONFIG_FORMAT_TOML if is_toml else config_pb2.CONFIG_FORMAT_YAML
        request = config_pb2.ValidateConfigRequest(text=text, format=form)
        return self._config.ValidateConfig(request, timeout=ANSWER_WITHIN_S, metadata=self._metadata)

    def reload(self) -> config_pb2.ReloadConfigResponse:
        """Have the file read again."""
        return self._config.ReloadConfig(
            config_pb2.ReloadConfigRequest(), timeout=ANSWER_WITHIN_S, metadata=self._metadata
        )

    def nodes(self) -> fleet_pb2.ListNodesResponse:
        """The fleet."""
        return self._fleet.ListNodes(fleet_pb2.ListNodesRequest(), timeout=ANSWER_WITHIN_S, metadata=self._metadata)

    def stats(self) -> stats_pb2.Stats:
        """Rates, latencies and tokens."""
        request = stats_pb2.GetStatsRequest()
        return self._stats.GetStats(request, timeout=ANSWER_WITHIN_S, metadata=self._metadata).stats

    def providers(self) -> list[providers_pb2.ProviderStatus]:
        """Circuits and probes of all configured providers."""
        request = providers_pb2.ListProvidersRequest()
        return list(self._providers.ListProviders(request, timeout=ANSWER_WITHIN_S, metadata=self._metadata).providers)

    def health_events(self, provider: str, limit: int) -> list[providers_pb2.HealthEvent]:
        """What happened to circuits, newest first; `provider` empty: of all."""
        request = providers_pb2.ListHealthEventsRequest(provider=provider, limit=limit)
        answer = self._providers.ListHealthEvents(request, timeout=ANSWER_WITHIN_S, metadata=self._metadata)
        return list(answer.events)

    def probe(self, provider: str, scope: str = "") -> providers_pb2.ProviderStatus:
        """Have a provider probed now, maybe with a key of this scope."""
        request = providers_pb2.ProbeProviderRequest(provider=provider, scope=scope)
        return self._providers.ProbeProvider(request, timeout=PROBED_WITHIN_S, metadata=self._metadata).provider

    def explain(self, request_id: str) -> routes_pb2.ExplainRequestResponse:
        """The record of a finished request, with its decision."""
        request = routes_pb2.ExplainRequestRequest(request_id=request_id)
        return self._routes.ExplainRequest(request, timeout=ANSWER_WITHIN_S, metadata=self._metadata)

    def explain_route(self, request: routes_pb2.ExplainRouteRequest) -> routes_pb2.ExplainRouteResponse:
        """Where a request would go. Raises Failure if no node can say, or the configuration given is bad."""
        try:
            return self._routes.ExplainRoute(request, timeout=ANSWER_WITHIN_S, metadata=self._metadata)
        except grpc.RpcError as error:
            raise _refusal(error) or error from None

    def reset_circuit(self, provider: str, scope: str = "") -> providers_pb2.ProviderStatus:
        """Have the circuits of a provider closed, or that of one scope."""
        request = providers_pb2.ResetCircuitRequest(provider=provider, scope=scope)
        return self._providers.ResetCircuit(request, timeout=ANSWER_WITHIN_S, metadata=self._metadata).provider


@contextmanager
def dialled(door: Door) -> Iterator[ControlPlane]:
    """The control plane behind a door. Raises Failure for whatever gRPC reports within the block."""
    with grpc.insecure_channel(door.target, options=_OPTIONS) as channel:
        try:
            yield ControlPlane(channel, door.token)
        except grpc.RpcError as error:
            raise _failure(error, door) from error


def _refusal(error: Any) -> Failure | None:
    """What the control plane itself says; None if it is something else that went wrong."""
    match dict(error.trailing_metadata() or ()).get("ccr-cause"):
        case "config":
            return Failure(f"the configuration has problems\n{error.details()}", EXIT_NOT_WELL)
        case "no-node":
            return Failure(f"no worker can say it: {error.details()}", EXIT_UNREACHABLE)
    if error.code() is grpc.StatusCode.INVALID_ARGUMENT:
        return Failure(error.details(), EXIT_USAGE)
    return None


def _failure(error: Any, door: Door) -> Failure:
    """`error` is a grpc.RpcError that is a grpc.Call, too: the stub promises it, the types do not know it."""
    code: grpc.StatusCode = error.code()
    details: str = error.details() or code.name.lower()
    match code:
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.DEADLINE_EXCEEDED:
            return Failure(f"no control plane answers at {door.target}: {START_HINT}", EXIT_UNREACHABLE)
        case grpc.StatusCode.UNAUTHENTICATED | grpc.StatusCode.PERMISSION_DENIED:
            return Failure(
                f"the control plane at {door.target} refuses us ({details}): set $CCR_CONTROL_TOKEN to the content of "
                "control.token in its state directory",
                EXIT_DENIED,
            )
        case grpc.StatusCode.NOT_FOUND:
            return Failure(details, EXIT_USAGE)
        case grpc.StatusCode.UNIMPLEMENTED:
            return Failure(f"the control plane at {door.target} does not know this command: update it", EXIT_INTERNAL)
        case _:
            return Failure(f"the control plane at {door.target} reports {code.name}: {details}", EXIT_INTERNAL)
