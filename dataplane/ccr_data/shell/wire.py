"""The contract's messages and our values: snapshots in, records out. Nothing past this module handles protobuf.

A snapshot that must not be served is refused here, with a reason for the operator that holds no secret.
"""

from __future__ import annotations

import math
import re
from urllib.parse import urlsplit

from ccr_rpc.v1 import snapshot_pb2, usage_pb2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp

from ccr_data.core.budget import Allowance
from ccr_data.core.errors import SnapshotInvalid
from ccr_data.core.failures import FailureSighting
from ccr_data.core.folding import SumKey, UsageSum
from ccr_data.core.matching import Conditions, RequestClass
from ccr_data.core.records import (
    AttemptRecord,
    Decision,
    Endpoint,
    Outcome,
    PinUse,
    RateLimitSighting,
    Record,
    Tokens,
)
from ccr_data.core.snapshot import (
    AuthMode,
    AuthPolicy,
    AuthStyle,
    Candidate,
    Key,
    KeySelection,
    KeyState,
    Model,
    ModelPrice,
    Origin,
    Provider,
    ProviderType,
    RelayPolicy,
    Route,
    Snapshot,
    Strategy,
    SystemTurns,
    Timeouts,
    Traits,
)

_TYPES = {
    snapshot_pb2.PROVIDER_TYPE_ANTHROPIC: ProviderType.ANTHROPIC,
    snapshot_pb2.PROVIDER_TYPE_ZAI: ProviderType.ZAI,
    snapshot_pb2.PROVIDER_TYPE_OLLAMA: ProviderType.OLLAMA,
    snapshot_pb2.PROVIDER_TYPE_COMPATIBLE: ProviderType.COMPATIBLE,
}
_STYLES = {
    snapshot_pb2.AUTH_STYLE_X_API_KEY: AuthStyle.X_API_KEY,
    snapshot_pb2.AUTH_STYLE_BEARER: AuthStyle.BEARER,
    snapshot_pb2.AUTH_STYLE_BOTH: AuthStyle.BOTH,
    snapshot_pb2.AUTH_STYLE_NONE: AuthStyle.NONE,
}
_SYSTEM_TURNS = {
    snapshot_pb2.SYSTEM_TURNS_PASS: SystemTurns.PASS,
    snapshot_pb2.SYSTEM_TURNS_FOLD: SystemTurns.FOLD,
    snapshot_pb2.SYSTEM_TURNS_REJECT: SystemTurns.REJECT,
}
_STRATEGIES = {
    snapshot_pb2.STRATEGY_SIMPLE_SHUFFLE: Strategy.SIMPLE_SHUFFLE,
    snapshot_pb2.STRATEGY_ROUND_ROBIN: Strategy.ROUND_ROBIN,
    snapshot_pb2.STRATEGY_WEIGHTED_ROUND_ROBIN: Strategy.WEIGHTED_ROUND_ROBIN,
    snapshot_pb2.STRATEGY_FAILOVER: Strategy.FAILOVER,
    snapshot_pb2.STRATEGY_LEAST_LOADED: Strategy.LEAST_LOADED,
    snapshot_pb2.STRATEGY_COST_BASED: Strategy.COST_BASED,
    snapshot_pb2.STRATEGY_LATENCY_BASED: Strategy.LATENCY_BASED,
    snapshot_pb2.STRATEGY_MODEL_BASED: Strategy.MODEL_BASED,
}
_KEY_SELECTIONS = {
    snapshot_pb2.KEY_SELECTION_UNSPECIFIED: KeySelection.LEAST_LOADED,
    snapshot_pb2.KEY_SELECTION_LEAST_LOADED: KeySelection.LEAST_LOADED,
    snapshot_pb2.KEY_SELECTION_WEIGHTED: KeySelection.WEIGHTED,
    snapshot_pb2.KEY_SELECTION_ROUND_ROBIN: KeySelection.ROUND_ROBIN,
    snapshot_pb2.KEY_SELECTION_PRIORITY: KeySelection.PRIORITY,
}
_KEY_STATES = {
    snapshot_pb2.KEY_STATE_UNSPECIFIED: KeyState.ACTIVE,
    snapshot_pb2.KEY_STATE_ACTIVE: KeyState.ACTIVE,
    snapshot_pb2.KEY_STATE_DEPRECATED: KeyState.DEPRECATED,
    snapshot_pb2.KEY_STATE_DISABLED: KeyState.DISABLED,
}
_CLASSES = {
    snapshot_pb2.REQUEST_CLASS_MAIN: RequestClass.MAIN,
    snapshot_pb2.REQUEST_CLASS_SUBAGENT: RequestClass.SUBAGENT,
    snapshot_pb2.REQUEST_CLASS_BACKGROUND: RequestClass.BACKGROUND,
    snapshot_pb2.REQUEST_CLASS_COUNT_TOKENS: RequestClass.COUNT_TOKENS,
}
_PIN_USES = {PinUse.KEPT: usage_pb2.PIN_USE_KEPT, PinUse.LEFT: usage_pb2.PIN_USE_LEFT}
_MOST_TOLD = 16  # candidates of a decision
_AUTH_MODES = {snapshot_pb2.AUTH_MODE_KEYS: AuthMode.KEYS, snapshot_pb2.AUTH_MODE_NONE: AuthMode.NONE}
_ENDPOINTS = {
    Endpoint.MESSAGES: usage_pb2.ENDPOINT_MESSAGES,
    Endpoint.COUNT_TOKENS: usage_pb2.ENDPOINT_COUNT_TOKENS,
    Endpoint.BATCHES: usage_pb2.ENDPOINT_BATCHES,
    Endpoint.FILES: usage_pb2.ENDPOINT_FILES,
}
_OUTCOMES = {
    Outcome.SERVED: usage_pb2.OUTCOME_SERVED,
    Outcome.FAILED: usage_pb2.OUTCOME_FAILED,
    Outcome.BROKEN: usage_pb2.OUTCOME_BROKEN,
    Outcome.CLIENT_LEFT: usage_pb2.OUTCOME_CLIENT_LEFT,
    Outcome.REFUSED: usage_pb2.OUTCOME_REFUSED,
}
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_PATH = re.compile(r"(/[!-~]+)?")
_FRAMING = frozenset(("host", "content-length", "transfer-encoding", "connection", "accept-encoding"))


def parse_snapshot(wire: bytes) -> Snapshot:
    """The snapshot in serialised form. Raises SnapshotInvalid."""
    try:
        return to_snapshot(snapshot_pb2.Snapshot.FromString(wire))
    except DecodeError:
        raise SnapshotInvalid("the snapshot is damaged: it does not parse") from None


def to_snapshot(message: snapshot_pb2.Snapshot) -> Snapshot:
    """The snapshot as values, checked for all that the data plane relies on. Raises SnapshotInvalid."""
    _require(message.version > 0, "the snapshot has no version")
    _require(message.auth.mode in _AUTH_MODES, "auth.mode is unknown to this node")
    _require(
        all(len(client.key_sha256) == 32 for client in message.auth.clients), "a client's key hash is not 32 bytes"
    )
    auth = AuthPolicy(
        _AUTH_MODES[message.auth.mode],
        {client.key_sha256: client.name for client in message.auth.clients},
        message.auth.allow_subscription,
    )
    providers = {provider.name: _provider(provider) for provider in message.providers}
    _require(len(providers) == len(message.providers), "two providers have the same name")
    routes = tuple(_route(route, providers) for route in message.routes)
    is_last_open = bool(routes) and not routes[-1].models and routes[-1].conditions is None
    _require(is_last_open, "the last route does not fit every request")
    prices = tuple(_price(price, "prices") for price in message.prices)
    return Snapshot(message.version, auth, providers, routes, _relay(message.relay), prices)


def _require(holds: bool, reason: str) -> None:
    if not holds:
        raise SnapshotInvalid(reason)


def _provider(message: snapshot_pb2.Provider) -> Provider:
    where = f"provider {message.name}"
    _require(bool(message.name), "a provider has no name")
    _require(message.type in _TYPES, f"{where}: its type is unknown to this node")
    _require(message.auth_style in _STYLES, f"{where}: its auth style is unknown to this node")
    _require(message.traits.system_turns in _SYSTEM_TURNS, f"{where}: its system_turns are unknown to this node")
    _require(message.key_selection in _KEY_SELECTIONS, f"{where}: its key selection is unknown to this node")
    _require(0 <= message.price_factor < math.inf, f"{where}: its price factor is no number of 0 or more")
    headers = tuple((header.name, header.value) for header in message.headers)
    _require(
        all(
            _HEADER_NAME.fullmatch(name) and name not in _FRAMING and _HEADER_VALUE.fullmatch(v) for name, v in headers
        ),
        f"{where}: a header is malformed, or not the configuration's to set",
    )
    origin, path = _origin(message, where)
    keys = tuple(_key(key, where) for key in message.keys)
    _require(len({key.label for key in keys}) == len(keys), f"{where}: two keys have the same label")
    return Provider(
        name=message.name,
        type=_TYPES[message.type],
        origin=origin,
        base_path=path,
        auth_style=_STYLES[message.auth_style],
        keys=keys,
        model_rules=tuple((rule.pattern, rule.model) for rule in message.model_rules),
        serves=tuple(message.serves),
        never_serves=tuple(message.never_serves),
        models=tuple(Model(model.id, model.display_name, model.created_at) for model in message.models),
        traits=Traits(
            count_tokens=message.traits.count_tokens,
            system_turns=_SYSTEM_TURNS[message.traits.system_turns],
            documents=message.traits.documents,
            prompt_caching=message.traits.prompt_caching,
            batches_and_files=message.traits.batches_and_files,
            anthropic_signatures=message.traits.anthropic_signatures,
        ),
        timeouts=Timeouts(
            _seconds(message.timeouts.connect, f"{where}: timeouts.connect"),
            _seconds(message.timeouts.first_byte, f"{where}: timeouts.first_byte"),
            _seconds(message.timeouts.idle, f"{where}: timeouts.idle"),
        ),
        headers=headers,
        allowed_betas=None if message.betas.forward_all else frozenset(message.betas.allowed),
        accepts_subscription=message.accepts_subscription,
        key_selection=_KEY_SELECTIONS[message.key_selection],
        prices=tuple(_price(price, where) for price in message.prices),
        price_factor=message.price_factor if message.HasField("price_factor") else 1.0,
        is_enabled=message.enabled,
        is_open=message.circuit in (snapshot_pb2.CIRCUIT_STATE_OPEN, snapshot_pb2.CIRCUIT_STATE_HALF_OPEN),
    )


def _origin(message: snapshot_pb2.Provider, where: str) -> tuple[Origin, str]:
    try:
        url = urlsplit(message.base_url)
        port = url.port or {"http": 80, "https": 443}.get(url.scheme, 0)
    except ValueError:
        raise SnapshotInvalid(f"{where}: its base URL is malformed") from None
    _require(url.scheme in ("http", "https") and bool(url.hostname), f"{where}: its base URL is malformed")
    _require(_PATH.fullmatch(url.path) is not None, f"{where}: its base URL is malformed")
    return Origin(url.scheme, url.hostname or "", port, message.ca_pem), url.path


def _key(message: snapshot_pb2.Key, where: str) -> Key:
    _require(message.state in _KEY_STATES, f"{where}: the state of key {message.label} is unknown to this node")
    state = _KEY_STATES[message.state]
    has_secret = bool(message.secret) or state is KeyState.DISABLED
    _require(bool(message.label) and has_secret, f"{where}: a key lacks its label or secret")
    _require(
        _HEADER_VALUE.fullmatch(message.secret) is not None and message.secret == message.secret.strip(),
        f"{where}: key {message.label} has characters that no header can carry",
    )
    _require(message.weight > 0, f"{where}: key {message.label} has no weight")
    limits = Allowance(
        message.limits.requests, message.limits.input_tokens, message.limits.output_tokens, message.limits.tokens
    )
    _require(min(limits) >= 0, f"{where}: a limit of key {message.label} is negative")
    return Key(message.label, message.secret, message.scope, message.weight, message.priority, limits, state)


def _price(message: snapshot_pb2.ModelPrice, where: str) -> ModelPrice:
    cache_read = message.cache_read if message.HasField("cache_read") else message.input
    cache_write = message.cache_write_5m if message.HasField("cache_write_5m") else message.input
    prices = (message.input, message.output, cache_read, cache_write)
    _require(all(0 <= price < math.inf for price in prices), f"{where}: a price is no number of 0 or more")
    return ModelPrice(message.pattern, *prices)


def _route(message: snapshot_pb2.Route, providers: dict[str, Provider]) -> Route:
    where = f"route {message.name}"
    _require(message.strategy in _STRATEGIES, f"{where}: its strategy is unknown to this node")
    _require(bool(message.candidates), f"{where}: it leads nowhere")
    candidates = []
    for candidate in message.candidates:
        _require(candidate.provider in providers, f"{where}: there is no provider {candidate.provider}")
        _require(candidate.weight > 0, f"{where}: candidate {candidate.provider} has no weight")
        candidates.append(
            Candidate(
                candidate.provider, candidate.model or None, candidate.weight, candidate.priority, candidate.only_served
            )
        )
    conditions = _conditions(message.conditions, where) if message.HasField("conditions") else None
    return Route(message.name, tuple(message.models), tuple(candidates), _STRATEGIES[message.strategy], conditions)


def _conditions(message: snapshot_pb2.RouteConditions, where: str) -> Conditions:
    _require(all(kind in _CLASSES for kind in message.classes), f"{where}: a request class is unknown to this node")
    return Conditions(
        clients=tuple(message.clients),
        subagent=message.subagent if message.HasField("subagent") else None,
        classes=frozenset(_CLASSES[kind] for kind in message.classes),
        thinking=message.thinking if message.HasField("thinking") else None,
        min_input_tokens=message.min_input_tokens if message.HasField("min_input_tokens") else None,
        max_input_tokens=message.max_input_tokens if message.HasField("max_input_tokens") else None,
        images=message.images if message.HasField("images") else None,
        documents=message.documents if message.HasField("documents") else None,
        tools=message.tools if message.HasField("tools") else None,
        headers=tuple((header.name, header.value) for header in message.headers),
    )


def _relay(message: snapshot_pb2.RelayPolicy) -> RelayPolicy:
    _require(message.max_attempts > 0, "relay.max_attempts is not positive")
    _require(message.max_body_bytes > 0, "relay.max_body_bytes is not positive")
    return RelayPolicy(
        failover_timeout_s=_seconds(message.failover_timeout, "relay.failover_timeout"),
        max_attempts=message.max_attempts,
        silence_bound_s=_seconds(message.silence_bound, "relay.silence_bound"),
        max_body_bytes=message.max_body_bytes,
        read_timeout_s=_seconds(message.read_timeout, "relay.read_timeout"),
        cooldown_s=message.cooldown.seconds + message.cooldown.nanos / 1e9,
        has_answer_headers=message.answer_headers,
        has_session_affinity=message.session_affinity,
        spent_rest_s=_seconds(message.spent_rest, "relay.spent_rest") if message.HasField("spent_rest") else 3600.0,
        sharing_nodes=max(1, message.sharing_nodes),
        drops_last_candidate=message.drop_last_candidate,
    )


def _seconds(duration: Duration, where: str) -> float:
    seconds = duration.seconds + duration.nanos / 1e9
    _require(seconds > 0, f"{where} is not positive")
    return seconds


def fill_record(message: usage_pb2.RequestRecord, record: Record) -> None:
    """Write a record into a new message. Filling it in place takes half the time of handing over finished parts."""
    message.request_id = record.request_id
    _fill_time(message.started_at, record.started_at_s)
    message.endpoint = _ENDPOINTS[record.endpoint]
    message.client = record.client
    message.session = record.session
    if record.agent:
        message.agent = record.agent
    message.model_asked = record.model_asked
    message.route = record.route
    if record.streamed:
        message.streamed = True
    message.status = record.status
    message.outcome = _OUTCOMES[record.outcome]
    for attempt in record.attempts:
        _fill_attempt(message.attempts.add(), attempt)
    if record.attempts:
        message.model_used = record.attempts[-1].model
    message.first_byte_us = int(record.first_byte_s * 1e6)
    message.total_us = int(record.total_s * 1e6)
    message.overhead_us = int(record.overhead_s * 1e6)
    _fill_tokens(message.tokens, record.tokens)
    message.request_bytes = record.request_bytes
    message.answer_bytes = record.answer_bytes
    message.snapshot_version = record.snapshot_version
    if record.upstream_request_id:
        message.upstream_request_id = record.upstream_request_id
    if record.decision is not None:
        _fill_decision(message.decision, record.decision, record.model_asked)


def _fill_decision(message: usage_pb2.Decision, decision: Decision, model_asked: str) -> None:
    message.strategy = decision.strategy.value
    message.candidate_count = len(decision.targets)
    for target in decision.targets[:_MOST_TOLD]:
        told = message.candidates.add()
        told.provider = target.provider.name
        told.key_label = target.label
        told.model = target.model or model_asked
    for what, why in decision.passed_over[:_MOST_TOLD]:
        over = message.passed_over.add()
        over.what = what
        over.why = why
    if decision.pin is not PinUse.NONE:
        message.pin = _PIN_USES[decision.pin]


def _fill_attempt(message: usage_pb2.Attempt, attempt: AttemptRecord) -> None:
    message.provider = attempt.provider
    message.key_label = attempt.key_label
    message.scope = attempt.scope
    message.status = attempt.status
    if attempt.reason is not None:
        message.reason = attempt.reason.value
    message.first_byte_us = int(attempt.first_byte_s * 1e6)
    message.total_us = int(attempt.total_s * 1e6)


def fill_sum(message: usage_pb2.UsageSum, key: SumKey, part: UsageSum) -> None:
    """Write folded requests into a new message."""
    message.hour.seconds = key.hour * 3600
    if key.ended_s:
        message.ended_at.seconds = key.ended_s
    message.provider = key.provider
    message.key_label = key.key_label
    message.scope = key.scope
    message.model_used = key.model_used
    message.client = key.client
    message.endpoint = _ENDPOINTS[key.endpoint]
    message.requests = part.requests
    message.served = part.outcomes.get(Outcome.SERVED, 0)
    message.failed = part.outcomes.get(Outcome.FAILED, 0)
    message.broken = part.outcomes.get(Outcome.BROKEN, 0)
    message.client_left = part.outcomes.get(Outcome.CLIENT_LEFT, 0)
    message.refused = part.outcomes.get(Outcome.REFUSED, 0)
    message.failed_attempts = part.failed_attempts
    message.first_byte_us = round(part.first_byte_s * 1e6)
    message.total_us = round(part.total_s * 1e6)
    message.overhead_us = round(part.overhead_s * 1e6)
    _fill_tokens(message.tokens, part.tokens)


def _fill_tokens(message: usage_pb2.TokenUsage, tokens: Tokens) -> None:
    """Most kinds are 0 most of the time; looking costs less than writing."""
    if tokens.input:
        message.input = tokens.input
    if tokens.output:
        message.output = tokens.output
    if tokens.cache_read:
        message.cache_read = tokens.cache_read
    if tokens.cache_write_5m:
        message.cache_write_5m = tokens.cache_write_5m
    if tokens.cache_write_1h:
        message.cache_write_1h = tokens.cache_write_1h
    if tokens.thinking:
        message.thinking = tokens.thinking


def _fill_time(message: Timestamp, at_s: float) -> None:
    """To the microsecond."""
    seconds, fraction = divmod(at_s, 1)
    message.seconds = int(seconds)
    message.nanos = int(fraction * 1e6) * 1000


def from_sighting(sighting: RateLimitSighting) -> usage_pb2.RateLimitSighting:
    """The newest rate-limit headers of a key as the contract has them."""
    message = usage_pb2.RateLimitSighting(
        provider=sighting.provider, key_label=sighting.key_label, status=sighting.status, headers=sighting.headers
    )
    _fill_time(message.seen_at, sighting.seen_at_s)
    return message


def from_failure(failure: FailureSighting) -> usage_pb2.FailureSighting:
    """News of failed attempts as the contract has them."""
    message = usage_pb2.FailureSighting(
        provider=failure.provider, reason=failure.reason.value, count=min(failure.count, 1_000_000)
    )
    _fill_time(message.first_at, failure.first_at_s)
    _fill_time(message.last_at, failure.last_at_s)
    return message
