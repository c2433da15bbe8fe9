"""A `Config` → the snapshot that nodes serve.

Pure: version and time are arguments. Values are turned into the contract's messages here and nowhere else. `check`
says beforehand what a node would reject; `config_hash`, `redacted_yaml` and `json_schema` show a configuration.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from ccr_rpc.v1 import snapshot_pb2 as pb
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from ccr_control.core.cloud_schema import AwsConfig
from ccr_control.core.clouds import exact_names, id_there, own_factor, path_of, signing_of
from ccr_control.core.completion import completed, named
from ccr_control.core.crosscheck import DEFAULT_ROUTE, accepts_subscription
from ccr_control.core.editor_schema import json_schema
from ccr_control.core.patterns import is_exact
from ccr_control.core.presets import preset_of
from ccr_control.core.pricing import FREE, PRICES, Band, Price, table
from ccr_control.core.provider_schema import KeyConfig, ModelConfig, ProviderConfig
from ccr_control.core.schema import (
    AuthConfig,
    ClientLimitsConfig,
    Config,
    HedgingConfig,
    MatchConfig,
    QueueConfig,
    RouteConfig,
    Strategy,
)
from ccr_control.core.show import config_hash, redacted_yaml
from ccr_control.core.snapshot_check import check

__all__ = ["check", "compile_snapshot", "config_hash", "json_schema", "redacted_yaml"]

_AUTH_MODES = {"keys": pb.AUTH_MODE_KEYS, "none": pb.AUTH_MODE_NONE}
PROVIDER_TYPES = {
    "anthropic": pb.PROVIDER_TYPE_ANTHROPIC,
    "zai": pb.PROVIDER_TYPE_ZAI,
    "ollama": pb.PROVIDER_TYPE_OLLAMA,
    "anthropic-compatible": pb.PROVIDER_TYPE_COMPATIBLE,
    "bedrock": pb.PROVIDER_TYPE_BEDROCK,
    "azure": pb.PROVIDER_TYPE_AZURE,
    "vertex": pb.PROVIDER_TYPE_VERTEX,
    "claude-aws": pb.PROVIDER_TYPE_CLAUDE_AWS,
    "claude-gcp": pb.PROVIDER_TYPE_CLAUDE_GCP,
}
_AUTH_STYLES = {
    "x-api-key": pb.AUTH_STYLE_X_API_KEY,
    "bearer": pb.AUTH_STYLE_BEARER,
    "both": pb.AUTH_STYLE_BOTH,
    "none": pb.AUTH_STYLE_NONE,
    "azure": pb.AUTH_STYLE_AZURE,
    "sigv4": pb.AUTH_STYLE_SIGV4,
}
_SYSTEM_TURNS = {
    "pass": pb.SYSTEM_TURNS_PASS,
    "fold": pb.SYSTEM_TURNS_FOLD,
    "reject": pb.SYSTEM_TURNS_REJECT,
}
STRATEGIES = {
    "simple-shuffle": pb.STRATEGY_SIMPLE_SHUFFLE,
    "round-robin": pb.STRATEGY_ROUND_ROBIN,
    "weighted-round-robin": pb.STRATEGY_WEIGHTED_ROUND_ROBIN,
    "failover": pb.STRATEGY_FAILOVER,
    "least-loaded": pb.STRATEGY_LEAST_LOADED,
    "cost-based": pb.STRATEGY_COST_BASED,
    "latency-based": pb.STRATEGY_LATENCY_BASED,
    "model-based": pb.STRATEGY_MODEL_BASED,
}
_KEY_SELECTIONS = {
    "least-loaded": pb.KEY_SELECTION_LEAST_LOADED,
    "weighted": pb.KEY_SELECTION_WEIGHTED,
    "round-robin": pb.KEY_SELECTION_ROUND_ROBIN,
    "priority": pb.KEY_SELECTION_PRIORITY,
}
KEY_STATES = {
    "active": pb.KEY_STATE_ACTIVE,
    "deprecated": pb.KEY_STATE_DEPRECATED,
    "disabled": pb.KEY_STATE_DISABLED,
}
_CLASSES = {
    "main": pb.REQUEST_CLASS_MAIN,
    "subagent": pb.REQUEST_CLASS_SUBAGENT,
    "background": pb.REQUEST_CLASS_BACKGROUND,
    "count_tokens": pb.REQUEST_CLASS_COUNT_TOKENS,
}


def compile_snapshot(config: Config, *, version: int, created_at: datetime) -> pb.Snapshot:
    """The snapshot of a configuration. The same arguments give the same snapshot.

    `created_at` carries a time zone.
    """
    full = completed(config)
    created = Timestamp()
    created.FromDatetime(created_at)
    asked = _names_asked_for(full)
    providers = {provider.name: provider for provider in full.providers}
    return pb.Snapshot(
        version=version,
        created_at=created,
        config_hash=config_hash(full),
        auth=_auth(full),
        providers=[_provider(provider, full.server.auth, asked) for provider in full.providers],
        routes=[
            *(_route(route, full.routing.strategy, providers) for route in full.routing.routes),
            _default_route(full),
        ],
        relay=_relay(full),
        prices=[_price(pattern, price) for pattern, price in table()] if _goes_by_cost(full) else [],
    )


def _auth(config: Config) -> pb.AuthPolicy:
    auth = config.server.auth or AuthConfig(mode="none")
    return pb.AuthPolicy(
        mode=_AUTH_MODES[auth.mode],
        clients=[
            pb.Client(name=client.name, key_sha256=client.key.sha256(), limits=_client_limits(client.limits))
            for client in auth.keys
        ],
        allow_subscription=auth.allow_subscription,
    )


def _client_limits(limits: ClientLimitsConfig | None) -> pb.ClientLimits | None:
    if limits is None:
        return None
    found = pb.ClientLimits(requests=limits.rpm or 0, tokens=limits.tpm or 0, concurrency=limits.concurrency or 0)
    return found if found.ByteSize() else None


def _queue(queue: QueueConfig | None) -> pb.QueuePolicy | None:
    if queue is None:
        return None
    return pb.QueuePolicy(max_wait=_duration(queue.max_wait), max_depth=queue.max_depth)


def _relay(config: Config) -> pb.RelayPolicy:
    server, routing = config.server, config.routing
    return pb.RelayPolicy(
        failover_timeout=_duration(routing.failover_timeout),
        max_attempts=routing.max_attempts,
        silence_bound=_duration(routing.silence_bound),
        max_body_bytes=server.max_body,
        read_timeout=_duration(server.read_timeout),
        cooldown=_duration(routing.cooldown),
        answer_headers=server.answer_headers,
        session_affinity=routing.affinity == "session",
        hedging=_hedging(routing.hedging),
        drop_last_candidate=config.health.circuit.last_candidate == "drop",
        spent_rest=_duration(routing.spent_rest),
        sharing_nodes=server.workers,
        queue=_queue(routing.queue),
    )


def _hedging(hedging: HedgingConfig | None) -> pb.HedgingPolicy | None:
    if hedging is None:
        return None
    return pb.HedgingPolicy(after=_duration(hedging.after), max_share=hedging.max_share)


def _provider(provider: ProviderConfig, auth: AuthConfig | None, asked: dict[str, list[str]]) -> pb.Provider:
    serves = provider.serves or ()
    timeouts = provider.timeouts
    return pb.Provider(
        name=provider.name,
        type=PROVIDER_TYPES[provider.type],
        base_url=f"{provider.base_url or ''}{path_of(provider)}",
        auth_style=_AUTH_STYLES[provider.auth_style or "none"],
        keys=[_key(key) for key in provider.keys],
        model_rules=[pb.ModelRule(pattern=name, model=model) for name, model in provider.model_mapping.items()],
        serves=[pattern for pattern in serves if not pattern.startswith("!")],
        never_serves=[pattern[1:] for pattern in serves if pattern.startswith("!")],
        models=_models(provider, asked.get(provider.name, [])),
        traits=_traits(provider),
        timeouts=pb.Timeouts(
            connect=_duration(timeouts.connect),
            first_byte=_duration(timeouts.first_byte),
            idle=_duration(timeouts.idle),
            total=None if timeouts.total is None else _duration(timeouts.total),
        ),
        headers=[pb.Header(name=name, value=value) for name, value in _headers(provider).items()],
        betas=_betas(provider),
        accepts_subscription=accepts_subscription(provider, auth),
        ca_pem=provider.ca_file.text if provider.ca_file else "",
        enabled=provider.enabled,
        draining=provider.draining,
        key_selection=_KEY_SELECTIONS[provider.key_selection],
        prices=_prices(provider),
        wire_format=_wire_format(provider),
        aws_signing=_signing(provider),
        adjust_renamed=provider.adjust_renamed,
        public_only=not (provider.allow_private or preset_of(provider).is_local),
        price_factor=provider.price_factor,
    )


def _wire_format(provider: ProviderConfig) -> pb.WireFormat.ValueType:
    if provider.type == "bedrock" and provider.endpoint == "invoke":
        return pb.WIRE_FORMAT_BEDROCK_INVOKE
    return pb.WIRE_FORMAT_VERTEX if provider.type == "vertex" else pb.WIRE_FORMAT_ANTHROPIC


def _signing(provider: ProviderConfig) -> pb.AwsSigning | None:
    signing = signing_of(provider)
    return pb.AwsSigning(region=signing.region, service=signing.service) if signing is not None else None


def _headers(provider: ProviderConfig) -> dict[str, str]:
    """What is added to requests: as configured, and where a cloud wants the workspace in a header."""
    said = {name: value.reveal() for name, value in provider.headers.items()}
    if provider.workspace is not None and provider.type in ("bedrock", "claude-aws"):
        return {"anthropic-workspace-id": provider.workspace} | said
    return said


def _aws(aws: AwsConfig | None) -> pb.AwsCredentials | None:
    """What is signed with, if the configuration says it; else it has to be found."""
    if aws is None or not aws.is_written_out or aws.access_key_id is None or aws.secret_access_key is None:
        return None
    return pb.AwsCredentials(
        access_key_id=aws.access_key_id.reveal(),
        secret_access_key=aws.secret_access_key.reveal(),
        session_token=aws.session_token.reveal() if aws.session_token is not None else "",
    )


def _key(key: KeyConfig) -> pb.Key:
    return pb.Key(
        label=key.label or "",
        secret="" if key.state == "disabled" else key.secret(),
        aws=None if key.state == "disabled" else _aws(key.aws),
        scope=key.scope or "",
        weight=key.weight,
        priority=key.priority,
        limits=_limits(key),
        state=KEY_STATES[key.state],
    )


def _limits(key: KeyConfig) -> pb.RateLimits | None:
    limits = pb.RateLimits(
        requests=key.rpm_limit or 0,
        input_tokens=key.itpm_limit or 0,
        output_tokens=key.otpm_limit or 0,
        tokens=key.tpm_limit or 0,
    )
    return limits if limits.ByteSize() else None


def _models(provider: ProviderConfig, asked: list[str]) -> list[pb.Model]:
    listed = list(provider.models or ())
    known = {model.id for model in listed}
    listed += [named(ModelConfig(id=name)) for name in asked if name not in known]
    return [
        pb.Model(id=model.id, display_name=model.display_name or "", created_at=model.created_at or "")
        for model in listed
    ]


def _names_asked_for(config: Config) -> dict[str, list[str]]:
    """The names that routes spell out, under the first provider of each: clients may ask for them, too."""
    asked: dict[str, list[str]] = {}
    for route in config.routing.routes:
        names = [name for name in route.match.model or () if is_exact(name)]
        asked.setdefault(route.to[0].provider, []).extend(names)
    return {provider: list(dict.fromkeys(names)) for provider, names in asked.items()}


def _traits(provider: ProviderConfig) -> pb.Traits:
    traits = provider.traits
    return pb.Traits(
        count_tokens=bool(traits.count_tokens),
        system_turns=_SYSTEM_TURNS[traits.system_turns or "pass"],
        documents=bool(traits.documents),
        prompt_caching=bool(traits.prompt_caching),
        batches_and_files=bool(traits.batches_and_files),
        anthropic_signatures=bool(traits.anthropic_signatures),
    )


def _betas(provider: ProviderConfig) -> pb.BetaPolicy:
    preset = preset_of(provider)
    match provider.betas:
        case "forward":
            return pb.BetaPolicy(forward_all=True, renamed=preset.renamed_betas, dropped=preset.dropped_betas)
        case "drop":
            return pb.BetaPolicy(forward_all=False)
        case allowed:
            return pb.BetaPolicy(forward_all=False, allowed=allowed, renamed=preset.renamed_betas)


def _prices(provider: ProviderConfig) -> Iterator[pb.ModelPrice]:
    """What the configuration says; a local runtime costs nothing unless it does."""
    for pattern, said in provider.prices.items():
        long = None if said.long_prompts is None else Band(said.long_prompts.above, said.long_prompts.factor)
        price = Price(said.input, said.output, said.cache_read, said.cache_write_5m, said.cache_write_1h, long)
        yield _price(pattern, price)
    if preset_of(provider).is_local and "*" not in provider.prices:
        yield _price("*", FREE)
    yield from _prices_by_id(provider)


def _prices_by_id(provider: ProviderConfig) -> Iterator[pb.ModelPrice]:
    """A cloud's models whose id does not tell the price: by another factor than the provider's, or an ARN."""
    factor = 1.0 if provider.price_factor is None else provider.price_factor
    for model in dict.fromkeys(provider.model_mapping.values()):
        own = own_factor(provider, model)
        if model in provider.prices or ((own is None or own == factor) and not model.startswith("arn:")):
            continue
        known = [PRICES[name] for name in exact_names(provider, model) if name in PRICES]
        if known:
            yield _price(model, known[0].times(factor if own is None else own))


def _price(pattern: str, price: Price) -> pb.ModelPrice:
    return pb.ModelPrice(
        pattern=pattern,
        input=price.input,
        output=price.output,
        cache_read=price.cache_read,
        cache_write_5m=price.cache_write_5m,
        cache_write_1h=price.cache_write_1h,
        long_prompt_tokens=0 if price.long is None else price.long.above_prompt_tokens,
        long_prompt_factor=0.0 if price.long is None else price.long.factor,
    )


def _goes_by_cost(config: Config) -> bool:
    routing = config.routing
    return "cost-based" in (routing.strategy, *(route.strategy for route in routing.routes))


def _conditions(match: MatchConfig) -> pb.RouteConditions | None:
    """What a route asks besides the model; None: nothing."""
    conditions = pb.RouteConditions(
        clients=match.client or (),
        subagent=None if match.agent is None else match.agent == "subagent",
        classes=[_CLASSES[name] for name in match.request_class or ()],
        thinking=match.thinking,
        min_input_tokens=match.min_input_tokens,
        max_input_tokens=match.max_input_tokens,
        images=match.images,
        documents=match.documents,
        tools=match.tools,
        headers=[pb.Header(name=name, value=pattern) for name, pattern in match.headers.items()],
    )
    return conditions if conditions.ListFields() else None


def _route(route: RouteConfig, strategy: Strategy, providers: dict[str, ProviderConfig]) -> pb.Route:
    return pb.Route(
        name=route.name or "",
        models=route.match.model or (),
        conditions=_conditions(route.match),
        strategy=STRATEGIES[route.strategy or strategy],
        candidates=[
            pb.Candidate(
                provider=candidate.provider,
                model=_asked_of(providers[candidate.provider], candidate.model),
                weight=providers[candidate.provider].weight if candidate.weight is None else candidate.weight,
                priority=providers[candidate.provider].priority if candidate.priority is None else candidate.priority,
            )
            for candidate in route.to
        ],
    )


def _asked_of(provider: ProviderConfig, model: str | None) -> str:
    """The model's name as the provider knows it. Empty: the client's, after the provider's rules."""
    return (id_there(provider, model) or model) if model is not None else ""


def _default_route(config: Config) -> pb.Route:
    """What no configured route matches goes to any enabled provider that serves the model."""
    enabled = [provider for provider in config.providers if provider.enabled]
    return pb.Route(
        name=DEFAULT_ROUTE,
        strategy=STRATEGIES[config.routing.strategy],
        candidates=[
            pb.Candidate(provider=provider.name, weight=provider.weight, priority=provider.priority, only_served=True)
            for provider in enabled or config.providers  # if all are disabled nodes refuse by themselves
        ],
    )


def _duration(duration: timedelta) -> Duration:
    message = Duration()
    message.FromTimedelta(duration)
    return message
