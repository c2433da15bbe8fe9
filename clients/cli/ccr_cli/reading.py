"""Turns what the control plane answers into the values of `overview`."""

from __future__ import annotations

from ccr_rpc.v1 import config_pb2, fleet_pb2, stats_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from ccr_cli.overview import ConfigState, NodeState, ProviderState


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
    )


def problem_text(problem: config_pb2.ConfigProblem) -> str:
    """`ccr.yaml:3:5: providers[0].name: what is wrong`, as the control plane's own log has it."""
    place = f"{problem.file}:{problem.line}:{problem.column}"
    return f"{place}: {problem.path}: {problem.message}" if problem.path else f"{place}: {problem.message}"


def time_text(at: Timestamp) -> str:
    """ISO 8601, UTC, seconds."""
    return at.ToDatetime().isoformat(timespec="seconds") + "Z"
