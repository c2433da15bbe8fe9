"""Turns what the control plane answers into the values of `overview`."""

from __future__ import annotations

from ccr_rpc.v1 import config_pb2, fleet_pb2, providers_pb2, snapshot_pb2, stats_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from ccr_cli.overview import (
    ConfigState,
    CredentialState,
    HealthEvent,
    NodeState,
    ProviderHealth,
    ProviderState,
    ScopeHealth,
)


def config_state(answer: config_pb2.GetConfigResponse) -> ConfigState:
    """The configuration in force."""
    is_refused = answer.HasField("refusal")
    return ConfigState(
        source=answer.source,
        config_hash=answer.config_hash,
        snapshot_version=answer.snapshot_version,
        loaded_at=time_text(answer.loaded_at) if answer.HasField("loaded_at") else None,
        refused_at=time_text(answer.refusal.refused_at) if is_refused else None,
        refusal_problems=tuple(map(problem_text, answer.refusal.problems)) if is_refused else (),
        restart_needed=tuple(answer.restart_needed),
        warnings=tuple(map(problem_text, answer.warnings)),
    )


def node_state(node: fleet_pb2.Node) -> NodeState:
    """One node."""
    return NodeState(
        node_id=node.node_id,
        is_connected=node.connected,
        software_version=node.software_version,
        pid=node.pid,
        served_version=node.served_version,
        offered_version=node.offered_version,
        rejected_version=node.rejected_version,
        rejection_reason=node.rejection_reason,
        open_requests=node.status.open_requests,
        unauthorized_total=node.status.unauthorized_total,
        spooled_bytes=node.status.spooled_bytes,
        resident_bytes=node.status.resident_bytes,
        last_seen_at=time_text(node.last_seen_at) if node.HasField("last_seen_at") else None,
    )


def provider_state(one: stats_pb2.ProviderFigures) -> ProviderState:
    """One provider."""
    figures, tokens = one.figures, one.figures.tokens
    return ProviderState(
        provider=one.provider,
        requests=figures.requests,
        failed=figures.failed,
        failed_attempts=one.failed_attempts,
        requests_per_s=round(figures.requests_per_s, 3),
        first_byte_ms_p50=figures.first_byte.p50_us / 1000,
        first_byte_ms_p99=figures.first_byte.p99_us / 1000,
        total_ms_p50=figures.total.p50_us / 1000,
        total_ms_p99=figures.total.p99_us / 1000,
        input_tokens=tokens.input,
        output_tokens=tokens.output,
        cache_read_tokens=tokens.cache_read,
        cache_write_tokens=tokens.cache_write_5m + tokens.cache_write_1h,
        open_requests=figures.open_requests,
    )


_CIRCUITS = {
    snapshot_pb2.CIRCUIT_STATE_CLOSED: "closed",
    snapshot_pb2.CIRCUIT_STATE_OPEN: "open",
    snapshot_pb2.CIRCUIT_STATE_HALF_OPEN: "half-open",
}


def _type(number: snapshot_pb2.ProviderType.ValueType) -> str:
    """A provider's type as the configuration calls it; its number if a newer control plane has more of them."""
    found = snapshot_pb2.ProviderType.DESCRIPTOR.values_by_number.get(number)
    return str(number) if found is None else str(found.name).removeprefix("PROVIDER_TYPE_").lower()


def provider_health(one: providers_pb2.ProviderStatus) -> ProviderHealth:
    """One provider's circuit and last probe."""
    probe = one.last_probe if one.HasField("last_probe") else None
    return ProviderHealth(
        provider=one.name,
        type=_type(one.type),
        is_enabled=one.enabled,
        circuit=_CIRCUITS.get(one.circuit, "unknown"),
        circuit_since=time_text(one.circuit_since),
        open_until=time_text(one.open_until) if one.HasField("open_until") else None,
        last_failure_reason=one.last_failure_reason or None,
        last_failure_at=time_text(one.last_failure_at) if one.HasField("last_failure_at") else None,
        probe_at=time_text(probe.at) if probe else None,
        probe_is_alive=probe.alive if probe else None,
        probe_ms=round(probe.latency.ToTimedelta().total_seconds() * 1000, 1) if probe else None,
        probe_status=probe.status if probe else 0,
        probe_problem=probe.problem if probe else "",
        events=tuple(map(health_event, one.events)),
        scopes=tuple(map(_scope_health, one.scopes)),
        credentials=tuple(
            CredentialState(
                held.key_label,
                held.usable,
                time_text(held.expires_at) if held.HasField("expires_at") else None,
                held.problem,
            )
            for held in one.credentials
        ),
    )


def _scope_health(one: providers_pb2.ScopeStatus) -> ScopeHealth:
    probe = one.last_probe if one.HasField("last_probe") else None
    return ScopeHealth(
        scope=one.scope,
        key_labels=tuple(one.key_labels),
        circuit=_CIRCUITS.get(one.circuit, "unknown"),
        circuit_since=time_text(one.circuit_since),
        open_until=time_text(one.open_until) if one.HasField("open_until") else None,
        last_failure_reason=one.last_failure_reason or None,
        last_failure_at=time_text(one.last_failure_at) if one.HasField("last_failure_at") else None,
        probe_at=time_text(probe.at) if probe else None,
        probe_is_alive=probe.alive if probe else None,
        probe_problem=probe.problem if probe else "",
    )


def health_event(event: providers_pb2.HealthEvent) -> HealthEvent:
    """A change of a circuit."""
    circuit = _CIRCUITS.get(event.circuit, "unknown")
    return HealthEvent(time_text(event.at), circuit, event.reason, event.provider, event.scope)


def problem_text(problem: config_pb2.ConfigProblem) -> str:
    """`ccr.yaml:3:5: providers[0].name: what is wrong`, as the control plane's own log has it."""
    place = f"{problem.file}:{problem.line}:{problem.column}"
    return f"{place}: {problem.path}: {problem.message}" if problem.path else f"{place}: {problem.message}"


def time_text(at: Timestamp) -> str:
    """ISO 8601, UTC, seconds."""
    return at.ToDatetime().isoformat(timespec="seconds") + "Z"
