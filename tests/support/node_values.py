"""Snapshots and records for tests of a node."""

from __future__ import annotations

from collections.abc import Mapping

from ccr_data.core.node import NodeIdentity
from ccr_data.core.records import AttemptRecord, Endpoint, Outcome, Reason, Record, Tokens
from ccr_rpc.v1 import snapshot_pb2
from google.protobuf.duration_pb2 import Duration

NODE = NodeIdentity("laptop/worker-0", "instance-1", "0.1.0", 4711)
STARTED_AT_S = 1_790_000_000.25


def snapshot_message(version: int, secret: str = "sk-ant-secret-0001", providers: int = 1) -> snapshot_pb2.Snapshot:
    """A valid snapshot."""
    second = Duration(seconds=1)
    return snapshot_pb2.Snapshot(
        version=version,
        auth=snapshot_pb2.AuthPolicy(mode=snapshot_pb2.AUTH_MODE_NONE),
        providers=[
            snapshot_pb2.Provider(
                name=f"p{index}",
                type=snapshot_pb2.PROVIDER_TYPE_ANTHROPIC,
                base_url="https://api.example.com",
                auth_style=snapshot_pb2.AUTH_STYLE_X_API_KEY,
                keys=[snapshot_pb2.Key(label="k", secret=secret, weight=1)],
                traits=snapshot_pb2.Traits(system_turns=snapshot_pb2.SYSTEM_TURNS_PASS),
                timeouts=snapshot_pb2.Timeouts(connect=second, first_byte=second, idle=second),
                enabled=True,
            )
            for index in range(providers)
        ],
        routes=[
            snapshot_pb2.Route(
                name="default",
                candidates=[snapshot_pb2.Candidate(provider="p0", weight=1)],
                strategy=snapshot_pb2.STRATEGY_FAILOVER,
            )
        ],
        relay=snapshot_pb2.RelayPolicy(
            failover_timeout=second,
            max_attempts=3,
            silence_bound=second,
            max_body_bytes=1 << 20,
            read_timeout=second,
        ),
    )


def record(name: str, *, failed: bool = False, client: str = "laptop", started_at_s: float = STARTED_AT_S) -> Record:
    """A finished request; with `failed` its first attempt moved on."""
    attempts = [AttemptRecord("anthropic", "team-a", "org-a", "claude-test", 1.0, 200, None, 0.4, 9.1)]
    if failed:
        attempts.insert(0, AttemptRecord("zai", "z", "z", "glm", 1.0, 529, Reason.OVERLOADED, 0.1, 0.1))
    one = Record(name, Endpoint.MESSAGES, started_at_s, client)
    one.session = "0b1f7c1e-93e1-4d5e-8a0e-0123456789ab"
    one.model_asked = "claude-test"
    one.route = "default"
    one.streamed = True
    one.status = 200
    one.outcome = Outcome.SERVED
    one.attempts = attempts
    one.first_byte_s, one.total_s, one.overhead_s = 0.412, 9.31, 0.0003
    one.tokens = Tokens(input=5120, output=811, cache_read=100)
    one.request_bytes, one.answer_bytes = 51234, 9999
    one.snapshot_version = 12
    one.upstream_request_id = "req_up"
    return one


def with_fields(one: Record, fields: Mapping[str, object]) -> Record:
    """The same record, with these fields set."""
    for name, value in fields.items():
        setattr(one, name, value)
    return one
