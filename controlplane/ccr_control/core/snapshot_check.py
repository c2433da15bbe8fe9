"""What would make a node reject a snapshot?

Pure. Asked before publishing, so that a mistake of the control plane stays with it (docs/architecture.md, "What always
holds"). The rules are the promises of snapshot.proto's comments.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

from ccr_rpc.v1 import snapshot_pb2 as pb
from google.protobuf.duration_pb2 import Duration

from ccr_control.core.material import is_awaited

WEIGHTS = range(1, 1_000_001)
PRIORITIES = range(1_000_001)
CLOUD_TYPES = frozenset(
    (
        pb.PROVIDER_TYPE_BEDROCK,
        pb.PROVIDER_TYPE_AZURE,
        pb.PROVIDER_TYPE_VERTEX,
        pb.PROVIDER_TYPE_CLAUDE_AWS,
        pb.PROVIDER_TYPE_CLAUDE_GCP,
    )
)
"""Their keys may be empty until they are filled in (core/material.py)."""


def check(snapshot: pb.Snapshot) -> list[str]:
    """The problems, in words for an operator, without secrets. Empty: nodes will take it."""
    return list(
        chain(
            _whole(snapshot),
            _auth(snapshot.auth),
            *(_provider(provider) for provider in snapshot.providers),
            *(_route(route, {provider.name for provider in snapshot.providers}) for route in snapshot.routes),
            _relay(snapshot.relay),
        )
    )


def _whole(snapshot: pb.Snapshot) -> Iterator[str]:
    if snapshot.version < 1:
        yield "the version must be positive"
    if not snapshot.HasField("created_at"):
        yield "created_at is not set"
    if len(snapshot.config_hash) != 64:
        yield "config_hash is not a SHA-256 in hex"
    if not snapshot.providers:
        yield "there is no provider"
    if not snapshot.routes or snapshot.routes[-1].models or snapshot.routes[-1].HasField("conditions"):
        yield "the last route must fit every request"
    yield from _repeated("provider", (provider.name for provider in snapshot.providers))
    yield from _repeated("route", (route.name for route in snapshot.routes))


def _auth(auth: pb.AuthPolicy) -> Iterator[str]:
    if auth.mode == pb.AUTH_MODE_UNSPECIFIED:
        yield "the auth mode is not set"
    if auth.mode == pb.AUTH_MODE_KEYS and not auth.clients and not auth.allow_subscription:
        yield "nobody could use the relay: keys are needed, and there are none"
    yield from _repeated("client", (client.name for client in auth.clients))
    for client in auth.clients:
        if len(client.key_sha256) != 32:
            yield f"client {client.name!r}: the digest of its key is not 32 bytes long"
        if min(client.limits.requests, client.limits.tokens, client.limits.concurrency) < 0:
            yield f"client {client.name!r}: a limit is negative"


def _provider(provider: pb.Provider) -> Iterator[str]:
    who = f"provider {provider.name!r}"
    if provider.type == pb.PROVIDER_TYPE_UNSPECIFIED:
        yield f"{who}: the type is not set"
    if not provider.base_url.startswith(("https://", "http://")) or provider.base_url.endswith("/"):
        yield f"{who}: the base URL must begin with https:// or http:// and end without a slash"
    if provider.auth_style == pb.AUTH_STYLE_UNSPECIFIED:
        yield f"{who}: the auth style is not set"
    if provider.traits.system_turns == pb.SYSTEM_TURNS_UNSPECIFIED:
        yield f"{who}: system_turns is not set"
    if provider.enabled and not _has_credential(provider):
        yield f"{who}: it needs a key and has none"
    for rule in provider.model_rules:
        if not rule.pattern or not rule.model:
            yield f"{who}: a model rule is incomplete"
    if provider.auth_style == pb.AUTH_STYLE_SIGV4 and not (
        provider.aws_signing.region and provider.aws_signing.service
    ):
        yield f"{who}: what to sign for is not set"
    yield from _attached(who, provider)
    timeouts = provider.timeouts
    for name, value in (("connect", timeouts.connect), ("first_byte", timeouts.first_byte), ("idle", timeouts.idle)):
        if _nanoseconds(value) <= 0:
            yield f"{who}: the {name} timeout must be positive"


def _attached(who: str, provider: pb.Provider) -> Iterator[str]:
    """What is added to requests: keys and headers."""
    yield from _repeated(f"{who}: key", (key.label for key in provider.keys))
    for key in provider.keys:
        if is_awaited(key) and provider.type not in CLOUD_TYPES:
            yield f"{who}: key {key.label!r} is empty"
        if key.HasField("aws") and not (key.aws.access_key_id and key.aws.secret_access_key):
            yield f"{who}: key {key.label!r} is incomplete"
        yield from _ranges(f"{who}: key {key.label!r}", key)
    for header in provider.headers:
        if header.name != header.name.lower() or any(char in header.value for char in "\r\n\0"):
            yield f"{who}: header {header.name!r} cannot be sent"


def _has_credential(provider: pb.Provider) -> bool:
    has_key = any(key.state != pb.KEY_STATE_DISABLED for key in provider.keys)
    return has_key or provider.accepts_subscription or provider.auth_style == pb.AUTH_STYLE_NONE


def _route(route: pb.Route, providers: set[str]) -> Iterator[str]:
    who = f"route {route.name!r}"
    if route.strategy == pb.STRATEGY_UNSPECIFIED:
        yield f"{who}: the strategy is not set"
    if not route.candidates:
        yield f"{who}: it has no candidate"
    if pb.REQUEST_CLASS_UNSPECIFIED in route.conditions.classes:
        yield f"{who}: a request class is not set"
    for candidate in route.candidates:
        if candidate.provider not in providers:
            yield f"{who}: there is no provider {candidate.provider!r}"
        yield from _ranges(f"{who}: candidate {candidate.provider!r}", candidate)


def _relay(relay: pb.RelayPolicy) -> Iterator[str]:
    if not 1 <= relay.max_attempts <= 100:
        yield "max_attempts must be between 1 and 100"
    if relay.max_body_bytes < 1:
        yield "max_body_bytes must be positive"
    if relay.HasField("queue") and (relay.queue.max_depth < 1 or _nanoseconds(relay.queue.max_wait) <= 0):
        yield "the queue's max_depth and max_wait must be positive"
    for name, value in (("silence_bound", relay.silence_bound), ("read_timeout", relay.read_timeout)):
        if _nanoseconds(value) <= 0:
            yield f"{name} must be positive"
    for name, value in (("failover_timeout", relay.failover_timeout), ("cooldown", relay.cooldown)):
        if _nanoseconds(value) < 0:
            yield f"{name} must not be negative"


def _ranges(who: str, of: pb.Key | pb.Candidate) -> Iterator[str]:
    if of.weight not in WEIGHTS:
        yield f"{who}: the weight must be between 1 and 1000000"
    if of.priority not in PRIORITIES:
        yield f"{who}: the priority must be between 0 and 1000000"


def _repeated(what: str, names: Iterable[str]) -> Iterator[str]:
    seen: set[str] = set()
    for name in names:
        if not name:
            yield f"a {what} has no name"
        elif name in seen:
            yield f"{what} {name!r} is there twice"
        seen.add(name)


def _nanoseconds(duration: Duration) -> int:
    return duration.seconds * 1_000_000_000 + duration.nanos
