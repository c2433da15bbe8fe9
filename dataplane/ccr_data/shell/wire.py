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

from ccr_data.core.amounts import Allowance
from ccr_data.core.client_limits import ClientRules
from ccr_data.core.errors import SnapshotInvalid
from ccr_data.core.failures import FailureSighting
from ccr_data.core.folding import SumKey, UsageSum
from ccr_data.core.hedging import Hedging
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
    NEVER_S,
    AuthMode,
    AuthPolicy,
    AuthStyle,
    AwsCredentials,
    AwsSigning,
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
    WireFormat,
)
from ccr_data.core.waiting import QueueRules

_TYPES = {
    snapshot_pb2.PROVIDER_TYPE_ANTHROPIC: ProviderType.ANTHROPIC,
    snapshot_pb2.PROVIDER_TYPE_ZAI: ProviderType.ZAI,
    snapshot_pb2.PROVIDER_TYPE_OLLAMA: ProviderType.OLLAMA,
    snapshot_pb2.PROVIDER_TYPE_COMPATIBLE: ProviderType.COMPATIBLE,
    snapshot_pb2.PROVIDER_TYPE_BEDROCK: ProviderType.BEDROCK,
    snapshot_pb2.PROVIDER_TYPE_AZURE: ProviderType.AZURE,
    snapshot_pb2.PROVIDER_TYPE_VERTEX: ProviderType.VERTEX,
    snapshot_pb2.PROVIDER_TYPE_CLAUDE_AWS: ProviderType.CLAUDE_AWS,
    snapshot_pb2.PROVIDER_TYPE_CLAUDE_GCP: ProviderType.CLAUDE_GCP,
}
_STYLES = {
    snapshot_pb2.AUTH_STYLE_X_API_KEY: AuthStyle.X_API_KEY,
    snapshot_pb2.AUTH_STYLE_BEARER: AuthStyle.BEARER,
    snapshot_pb2.AUTH_STYLE_BOTH: AuthStyle.BOTH,
    snapshot_pb2.AUTH_STYLE_NONE: AuthStyle.NONE,
    snapshot_pb2.AUTH_STYLE_SIGV4: AuthStyle.SIGV4,
    snapshot_pb2.AUTH_STYLE_AZURE: AuthStyle.AZURE,
}
_WIRE_FORMATS = {
    snapshot_pb2.WIRE_FORMAT_UNSPECIFIED: WireFormat.ANTHROPIC,
    snapshot_pb2.WIRE_FORMAT_ANTHROPIC: WireFormat.ANTHROPIC,
    snapshot_pb2.WIRE_FORMAT_BEDROCK_INVOKE: WireFormat.BEDROCK_INVOKE,
    snapshot_pb2.WIRE_FORMAT_VERTEX: WireFormat.VERTEX,
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
_PASSED_BY = (snapshot_pb2.CIRCUIT_STATE_OPEN, snapshot_pb2.CIRCUIT_STATE_HALF_OPEN)
_CLASSES = {
    snapshot_pb2.REQUEST_CLASS_MAIN: RequestClass.MAIN,
    snapshot_pb2.REQUEST_CLASS_SUBAGENT: RequestClass.SUBAGENT,
    snapshot_pb2.REQUEST_CLASS_BACKGROUND: RequestClass.BACKGROUND,
    snapshot_pb2.REQUEST_CLASS_COUNT_TOKENS: RequestClass.COUNT_TOKENS,
}
_PIN_USES = {PinUse.KEPT: usage_pb2.PIN_USE_KEPT, PinUse.LEFT: usage_pb2.PIN_USE_LEFT}
_MOST_TOLD = 16  # candidates of a decision
UNDERSTOOD: frozenset[str] = frozenset()  # of the words in Snapshot.needs: none has been needed so far
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
_BETA = re.compile(r"[A-Za-z0-9._-]+")
_AWS_NAME = re.compile(r"[a-z0-9-]+")  # of a region or a service: it stands between slashes in a signature
_FRAMING = frozenset(("host", "content-length", "transfer-encoding", "connection", "accept-encoding"))


class Parts:
    """Providers and keys of the newest snapshot by their serialised form.

    The next one has most of them, too, and they are not made again.
    """

    __slots__ = ("keys", "providers")

    def __init__(self) -> None:
        self.providers: dict[bytes, Provider] = {}
        self.keys: dict[bytes, Key] = {}

    def forget_others(self, newest: snapshot_pb2.Snapshot) -> None:
        """Leave the parts of the newest snapshot, and as many keys again: those of a provider that stays the same are not touched."""
        for _ in range(len(self.providers) - len(newest.providers)):
            del self.providers[next(iter(self.providers))]
        for _ in range(len(self.keys) - 2 * sum(len(provider.keys) for provider in newest.providers)):
            del self.keys[next(iter(self.keys))]


def parse_snapshot(wire: bytes) -> Snapshot:
    """The snapshot in serialised form. Raises SnapshotInvalid."""
    try:
        return to_snapshot(snapshot_pb2.Snapshot.FromString(wire))
    except DecodeError:
        raise SnapshotInvalid("the snapshot is damaged: it does not parse") from None


def to_snapshot(message: snapshot_pb2.Snapshot, known: Parts | None = None) -> Snapshot:
    """The snapshot as values, checked for all that the data plane relies on. Raises SnapshotInvalid.

    `known` gives what this snapshot has in common with the one before, and takes what is new.
    """
    _require(message.version > 0, "the snapshot has no version")
    unknown = sorted(set(message.needs) - UNDERSTOOD)
    _require(not unknown, f"it needs what this node does not understand ({', '.join(unknown)}): a newer version does")
    _require(message.auth.mode in _AUTH_MODES, "auth.mode is unknown to this node")
    _require(
        all(len(client.key_sha256) == 32 for client in message.auth.clients), "a client's key hash is not 32 bytes"
    )
    sharing = max(1, message.relay.sharing_nodes)
    auth = AuthPolicy(
        _AUTH_MODES[message.auth.mode],
        {client.key_sha256: client.name for client in message.auth.clients},
        message.auth.allow_subscription,
        {
            client.name: rules
            for client in message.auth.clients
            if (rules := _client_rules(client, sharing)) is not None
        },
    )
    providers = {provider.name: _known_provider(provider, known) for provider in message.providers}
    _require(len(providers) == len(message.providers), "two providers have the same name")
    routes = tuple(_route(route, providers) for route in message.routes)
    is_last_open = bool(routes) and not routes[-1].models and routes[-1].conditions is None
    _require(is_last_open, "the last route does not fit every request")
    prices = tuple(_price(price, "prices") for price in message.prices)
    return Snapshot(message.version, auth, providers, routes, _relay(message.relay), prices)


def _known_provider(message: snapshot_pb2.Provider, known: Parts | None) -> Provider:
    if known is None:
        return _provider(message, None)
    form = message.SerializeToString(deterministic=True)
    provider = known.providers.pop(form, None)
    if provider is None:
        provider = _provider(message, known)
    known.providers[form] = provider  # now among the newest
    return provider


def _client_rules(message: snapshot_pb2.Client, sharing_nodes: int) -> ClientRules | None:
    """A client's limits as far as this node is to hold it to them; None if it has none."""
    limits = (message.limits.requests, message.limits.tokens, message.limits.concurrency)
    _require(min(limits) >= 0, f"a limit of client {message.name} is negative")
    if not any(limits) and not message.HasField("spent_until"):
        return None
    requests, tokens, concurrency = (max(1, limit // sharing_nodes) if limit else 0 for limit in limits)
    return ClientRules(
        requests,
        tokens,
        concurrency,
        message.spent_until.seconds if message.HasField("spent_until") else 0.0,
        message.spent_budget,
    )


def _queue(message: snapshot_pb2.QueuePolicy) -> QueueRules:
    _require(message.max_depth > 0, "relay.queue.max_depth is not positive")
    return QueueRules(_seconds(message.max_wait, "relay.queue.max_wait"), message.max_depth)


def _require(holds: bool, reason: str) -> None:
    if not holds:
        raise SnapshotInvalid(reason)


def _provider(message: snapshot_pb2.Provider, known: Parts | None) -> Provider:
    where = f"provider {message.name}"
    _require(bool(message.name), "a provider has no name")
    _require(message.type in _TYPES, f"{where}: its type is unknown to this node")
    _require(message.auth_style in _STYLES, f"{where}: its auth style is unknown to this node")
    _require(message.traits.system_turns in _SYSTEM_TURNS, f"{where}: its system_turns are unknown to this node")
    _require(message.wire_format in _WIRE_FORMATS, f"{where}: its wire format is unknown to this node")
    _require(message.key_selection in _KEY_SELECTIONS, f"{where}: its key selection is unknown to this node")
    _require(0 <= message.price_factor < math.inf, f"{where}: its price factor is no number of 0 or more")
    headers = tuple((header.name, header.value) for header in message.headers)
    _require(
        all(
            _HEADER_NAME.fullmatch(name) and name not in _FRAMING and _HEADER_VALUE.fullmatch(v) for name, v in headers
        ),
        f"{where}: a header is malformed, or not the configuration's to set",
    )
    _require(
        all(_BETA.fullmatch(beta) for beta in message.betas.renamed.values()),
        f"{where}: a beta's new name is malformed",
    )
    origin, path = _origin(message, where)
    is_signed = message.auth_style == snapshot_pb2.AUTH_STYLE_SIGV4
    signing = message.aws_signing
    _require(not is_signed or _is_signable(signing), f"{where}: what to sign for is missing or malformed")
    keys = tuple(_known_key(key, where, is_signed, known) for key in message.keys)
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
            _seconds(message.timeouts.total, f"{where}: timeouts.total")
            if message.timeouts.HasField("total")
            else math.inf,
        ),
        headers=headers,
        allowed_betas=None if message.betas.forward_all else frozenset(message.betas.allowed),
        accepts_subscription=message.accepts_subscription,
        key_selection=_KEY_SELECTIONS[message.key_selection],
        prices=tuple(_price(price, where) for price in message.prices),
        price_factor=message.price_factor if message.HasField("price_factor") else 1.0,
        is_enabled=message.enabled,
        is_open=message.circuit in _PASSED_BY,
        is_draining=message.draining,
        wire_format=_WIRE_FORMATS[message.wire_format],
        aws_signing=AwsSigning(signing.region, signing.service) if is_signed else None,
        renamed_betas=tuple(message.betas.renamed.items()),
        dropped_betas=frozenset(message.betas.dropped),
        adjusts_renamed=message.adjust_renamed,
    )


def _origin(message: snapshot_pb2.Provider, where: str) -> tuple[Origin, str]:
    try:
        url = urlsplit(message.base_url)
        port = url.port or {"http": 80, "https": 443}.get(url.scheme, 0)
    except ValueError:
        raise SnapshotInvalid(f"{where}: its base URL is malformed") from None
    _require(url.scheme in ("http", "https") and bool(url.hostname), f"{where}: its base URL is malformed")
    _require(_PATH.fullmatch(url.path) is not None, f"{where}: its base URL is malformed")
    return Origin(url.scheme, url.hostname or "", port, message.ca_pem, message.public_only), url.path


def _is_signable(signing: snapshot_pb2.AwsSigning) -> bool:
    return all(_AWS_NAME.fullmatch(part) for part in (signing.region, signing.service))


def _known_key(message: snapshot_pb2.Key, where: str, is_signed: bool, known: Parts | None) -> Key:
    if known is None:
        return _key(message, where, is_signed=is_signed)
    form = b"%d%b" % (is_signed, message.SerializeToString(deterministic=True))
    key = known.keys.pop(form, None)
    if key is None:
        key = _key(message, where, is_signed=is_signed)
    known.keys[form] = key
    return key


def _key(message: snapshot_pb2.Key, where: str, *, is_signed: bool) -> Key:
    _require(message.state in _KEY_STATES, f"{where}: the state of key {message.label} is unknown to this node")
    state = _KEY_STATES[message.state]
    aws = None
    if is_signed:
        given = message.aws
        aws = AwsCredentials(given.access_key_id, given.secret_access_key, given.session_token)
    has_secret = bool(aws.access_key_id and aws.secret_access_key) if aws else bool(message.secret)
    has_secret = has_secret or state is KeyState.DISABLED
    _require(bool(message.label) and has_secret, f"{where}: a key lacks its label or secret")
    sent = (message.secret,) if aws is None else (aws.access_key_id, aws.session_token)
    _require(
        all(_HEADER_VALUE.fullmatch(text) is not None and text == text.strip() for text in sent),
        f"{where}: key {message.label} has characters that no header can carry",
    )
    expires_at_s = NEVER_S
    if message.HasField("expires_at"):
        expires_at_s = message.expires_at.seconds + message.expires_at.nanos / 1e9
    _require(message.weight > 0, f"{where}: key {message.label} has no weight")
    limits = Allowance(
        message.limits.requests, message.limits.input_tokens, message.limits.output_tokens, message.limits.tokens
    )
    _require(min(limits) >= 0, f"{where}: a limit of key {message.label} is negative")
    return Key(
        message.label,
        message.secret,
        message.scope,
        message.weight,
        message.priority,
        limits,
        state,
        aws,
        expires_at_s,
        message.circuit in _PASSED_BY,
    )


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
        hedging=_hedging(message.hedging) if message.HasField("hedging") else None,
        drops_last_candidate=message.drop_last_candidate,
        queue=_queue(message.queue) if message.HasField("queue") else None,
    )


def _hedging(message: snapshot_pb2.HedgingPolicy) -> Hedging:
    _require(0 < message.max_share <= 1, "relay.hedging.max_share is not between 0 and 1")
    return Hedging(_seconds(message.after, "relay.hedging.after"), message.max_share)


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
    if record.queued_s:
        message.queued_us = int(record.queued_s * 1e6)
    if record.upstream_request_id:
        message.upstream_request_id = record.upstream_request_id
    if record.decision is not None:
        fill_decision(message.decision, record.decision, record.model_asked)


def fill_decision(
    message: usage_pb2.Decision, decision: Decision, model_asked: str, most: int | None = _MOST_TOLD
) -> None:
    """Write a decision into a new message, with `most` of its candidates and of what was passed over."""
    message.strategy = decision.strategy.value
    message.candidate_count = len(decision.targets)
    scores = decision.scores()
    for target in decision.targets[:most]:
        told = message.candidates.add()
        told.provider = target.provider.name
        told.key_label = target.label
        told.model = target.model or model_asked
        if scores and (score := scores.get((told.provider, told.model))) is not None:
            told.score = score
    for what, why in decision.passed_over[:most]:
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
    message.served_4xx = part.served_4xx
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
        provider=failure.provider,
        reason=failure.reason.value,
        count=min(failure.count, 1_000_000),
        key_label=failure.key_label,
        scope=failure.scope,
    )
    _fill_time(message.first_at, failure.first_at_s)
    _fill_time(message.last_at, failure.last_at_s)
    return message
