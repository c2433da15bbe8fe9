"""Between the contract's messages and our values, both ways. Pure; used by the servicers only."""

from __future__ import annotations

from collections.abc import Callable

from ccr_rpc.v1 import config_pb2, fleet_pb2, snapshot_pb2, usage_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from ccr_control.core.errors import Problem
from ccr_control.core.fleet import MAX_PROVIDERS, Introduction, Node, Status
from ccr_control.core.ledger import Counters, Finished, FoldedSum, LedgerKey, Outcome, Tokens
from ccr_control.core.sightings import Sighting
from ccr_control.core.spending import Bill

_OUTCOMES: tuple[Outcome, ...] = ("unknown", "served", "failed", "broken", "client_left", "refused")
_ENDPOINTS = ("", "messages", "count_tokens", "batches", "files")


def timestamp(at_s: float) -> Timestamp:
    """Seconds since 1970 as a Timestamp, to the microsecond."""
    stamp = Timestamp()
    stamp.FromMicroseconds(round(at_s * 1_000_000))
    return stamp


def introduction(hello: snapshot_pb2.NodeHello) -> Introduction:
    """Who opened a watch stream."""
    return Introduction(
        node_id=hello.node_id,
        instance_id=hello.instance_id,
        software_version=hello.software_version,
        pid=hello.pid,
        served_version=hello.served_version,
    )


Pricing = Callable[[str, str, str, Tokens, int], Bill]
"""What tokens cost at a provider, with a key, of a model there, for so many requests."""


def unpriced(_provider: str, _key_label: str, _model: str, _tokens: Tokens, _requests: int) -> Bill:
    """Nobody asks for costs."""
    return Bill()


def finished(record: usage_pb2.RequestRecord, pricing: Pricing = unpriced) -> Finished:
    """What we need of a record. An enum number of a newer node becomes "unknown" or ""."""
    attempts = record.attempts
    last = attempts[-1] if attempts else None
    outcome, endpoint, tokens = record.outcome, _endpoint(record.endpoint), _tokens(record.tokens)
    provider, key_label = (last.provider, last.key_label) if last else ("", "")
    bill = pricing(provider, key_label, record.model_used, tokens, 1)
    return Finished(
        started_at_s=record.started_at.seconds,
        provider=provider,
        key_label=key_label,
        model_used=record.model_used,
        client=record.client,
        endpoint=endpoint,
        outcome=_OUTCOMES[outcome] if outcome < len(_OUTCOMES) else "unknown",
        first_byte_us=record.first_byte_us,
        total_us=record.total_us,
        overhead_us=record.overhead_us,
        tokens=tokens,
        left_behind=tuple((one.provider, one.key_label, one.scope) for one in attempts[:-1])
        if len(attempts) > 1
        else (),
        scope=last.scope if last else "",
        tried=tuple((one.provider, one.key_label, one.reason) for one in attempts),
        session=record.session,
        agent=record.agent,
        model_asked=record.model_asked,
        request_class=_request_class(record, endpoint),
        cost_micro_usd=bill.cost_micro_usd,
        saved_micro_usd=bill.saved_micro_usd,
        unpriced=bill.unpriced_requests,
    )


def _request_class(record: usage_pb2.RequestRecord, endpoint: str) -> str:
    """What it was for, in the configuration's words; empty for what is not a turn of a conversation."""
    if endpoint == "messages":
        return "subagent" if record.agent else "main"
    return "count_tokens" if endpoint == "count_tokens" else ""


def folded(part: usage_pb2.UsageSum, pricing: Pricing = unpriced) -> FoldedSum:
    """A sum that a node folded by itself."""
    key = LedgerKey(
        part.hour.seconds // 3600,
        part.provider,
        part.key_label,
        part.model_used,
        part.client,
        _endpoint(part.endpoint),
        part.scope,
    )
    tokens = _tokens(part.tokens)
    bill = pricing(part.provider, part.key_label, part.model_used, tokens, part.requests)
    counters = Counters(
        requests=part.requests,
        served=part.served,
        failed=part.failed,
        broken=part.broken,
        client_left=part.client_left,
        refused=part.refused,
        failed_attempts=part.failed_attempts,
        first_byte_us=part.first_byte_us,
        total_us=part.total_us,
        cost_micro_usd=bill.cost_micro_usd,
        saved_micro_usd=bill.saved_micro_usd,
        unpriced_requests=bill.unpriced_requests,
    )
    counters.add_tokens(tokens)
    return FoldedSum(key, counters.within_bounds(), part.ended_at.seconds, max(0, part.overhead_us))


def _endpoint(number: int) -> str:
    """The word for an endpoint; empty for one of a newer node."""
    return _ENDPOINTS[number] if number < len(_ENDPOINTS) else ""


def _tokens(tokens: usage_pb2.TokenUsage) -> Tokens:
    return Tokens(
        tokens.input,
        tokens.output,
        tokens.cache_read,
        tokens.cache_write_5m,
        tokens.cache_write_1h,
        tokens.thinking,
    )


def status(message: usage_pb2.NodeStatus) -> Status:
    """How a node says it is."""
    return Status(
        open_requests=message.open_requests,
        open_connections=message.open_connections,
        unauthorized_total=message.unauthorized_total,
        spooled_bytes=message.spooled_bytes,
        resident_bytes=message.resident_bytes,
        open=tuple((one.provider, one.requests) for one in message.open[:MAX_PROVIDERS] if one.requests > 0),
    )


def sighting(message: usage_pb2.RateLimitSighting) -> Sighting:
    """Rate-limit headers of one answer."""
    seen = message.seen_at
    return Sighting(seen.seconds + seen.nanos / 1e9, message.status, dict(message.headers))


def node_message(node: Node) -> fleet_pb2.Node:
    """A node as the fleet view shows it."""
    message = fleet_pb2.Node(
        node_id=node.node_id,
        instance_id=node.instance_id,
        software_version=node.software_version,
        pid=node.pid,
        connected=node.is_connected,
        last_seen_at=timestamp(node.last_seen_s),
        served_version=node.served_version,
        offered_version=node.offered_version,
    )
    if node.connected_s is not None:
        message.connected_at.CopyFrom(timestamp(node.connected_s))
    if node.served_since_s is not None and node.served_version:
        message.served_since.CopyFrom(timestamp(node.served_since_s))
    if node.rejection is not None:
        message.rejected_version = node.rejection.version
        message.rejection_reason = node.rejection.reason
    if (known := node.status) is not None:
        message.status.CopyFrom(
            usage_pb2.NodeStatus(
                open_requests=known.open_requests,
                open_connections=known.open_connections,
                unauthorized_total=known.unauthorized_total,
                spooled_bytes=known.spooled_bytes,
                resident_bytes=known.resident_bytes,
                open=[usage_pb2.OpenRequests(provider=provider, requests=count) for provider, count in known.open],
            )
        )
    return message


def problem_message(problem: Problem) -> config_pb2.ConfigProblem:
    """One mistake in a configuration."""
    return config_pb2.ConfigProblem(
        file=problem.file, line=problem.line, column=problem.column, path=problem.path, message=problem.message
    )
