"""The configuration's shape: every section, key, default and range.

Pure. Fields judge themselves here; rules between fields are in `crosscheck`, because a field's own place in the text
is where a mistake must be shown. Durations and sizes carry units. A key whose value is left out (`keys:` with nothing
behind it) counts as absent.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from ccr_control.core.addresses import Address, BaseUrl, Listen, LoopbackListen, Origin
from ccr_control.core.scalars import (
    CaFile,
    DisplayName,
    Flag,
    HeaderName,
    Int,
    Label,
    ModelName,
    Pattern,
    PositiveDuration,
    ProviderName,
    ServesPattern,
    Size,
    Timestamp,
    ZeroDuration,
    one_or_many,
    unavailable,
)
from ccr_control.core.secret import Credential, HeaderValue

_Type = Literal["anthropic", "zai", "ollama", "anthropic-compatible"]
ProviderType = Annotated[
    _Type, BeforeValidator(unavailable("bedrock", "azure", "vertex", available=_Type, what="the provider type"))
]
PresetName = Literal["minimax", "moonshot", "deepseek", "openrouter", "vllm", "llama-cpp", "lm-studio"]
AuthStyle = Literal["x-api-key", "bearer", "both", "none"]
SystemTurns = Literal["pass", "fold", "reject"]
_Ordering = Literal["simple-shuffle", "round-robin", "weighted-round-robin", "failover"]
Strategy = Annotated[
    _Ordering,
    BeforeValidator(
        unavailable(
            "cost-based", "latency-based", "least-loaded", "model-based", available=_Ordering, what="the strategy"
        )
    ),
]
Weight = Annotated[Int, Field(ge=1, le=1_000_000)]
Priority = Annotated[Int, Field(ge=0, le=1_000_000)]


class Section(BaseModel):
    """A part of the configuration: frozen, unknown keys refused, inputs kept out of messages."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _empty_is_absent(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return {key: value for key, value in data.items() if value is not None or key not in cls.model_fields}


class ClientConfig(Section):
    """A holder of a relay key."""

    name: Label
    """Name shown in logs and statistics."""
    key: Credential
    """The relay key that this client sends."""


class AuthConfig(Section):
    """Who may use the relay."""

    mode: Literal["keys", "none"] = "keys"
    """`none`: no credential is needed, on loopback only."""
    keys: tuple[ClientConfig, ...] = ()
    """Relay keys, one for each client."""
    allow_subscription: Flag = False
    """Accept a client's own claude.ai subscription token, passed on to `subscription_origins` only."""
    subscription_origins: tuple[Origin, ...] = ("https://api.anthropic.com",)
    """Origins that a subscription token may be sent to."""


class ServerConfig(Section):
    """How clients reach the relay."""

    listen: Listen = Address("127.0.0.1", 8787)
    """Address of the relay. Beyond loopback it needs client keys."""
    workers: Annotated[Int, Field(ge=1, le=256)] = 1
    """Processes that share the port."""
    max_body: Annotated[Size, Field(ge=1024, le=2**32)] = 32 * 2**20
    """Largest request body."""
    drain_timeout: ZeroDuration = timedelta(seconds=30)
    """How long open streams may go on after SIGTERM."""
    read_timeout: PositiveDuration = timedelta(seconds=60)
    """Longest time for a client to send its request's head, and then each further part of its body."""
    auth: AuthConfig | None = None
    """Who may use the relay. Absent: everybody on this machine."""
    answer_headers: Flag = True
    """Add `x-cc-relay-*` headers to answers."""
    log_format: Literal["json", "text", "auto"] = "auto"
    """`auto`: text on a terminal, JSON elsewhere."""


class ControlConfig(Section):
    """How people and scripts reach the control plane."""

    listen: LoopbackListen = Address("127.0.0.1", 9090)
    """Address of the gRPC API."""
    web_listen: LoopbackListen = Address("127.0.0.1", 9091)
    """Address of the web page and grpc-web."""


class MatchConfig(Section):
    """Which requests a route is for."""

    model: Annotated[tuple[Pattern, ...], one_or_many(), Field(min_length=1)] | None = None
    """Patterns of the model name the client says; `*` stands for any run. Absent: every model."""


class CandidateConfig(Section):
    """One place a request may go to."""

    provider: Annotated[str, Field(min_length=1)]
    """Name of a provider."""
    model: ModelName | None = None
    """The model name to use there. Absent: the client's, after the provider's `model_mapping`."""
    weight: Weight | None = None
    """Share among the candidates. Absent: the provider's."""
    priority: Priority | None = None
    """Lower is tried first by `failover`. Absent: the provider's."""


class RouteConfig(Section):
    """A rule: what fits `match` goes to one of `to`."""

    name: Label | None = None
    """Unique name. Absent: `route-1`, `route-2`, … by position."""
    match: MatchConfig = MatchConfig()
    """Which requests. Absent: all."""
    to: Annotated[tuple[CandidateConfig, ...], Field(min_length=1)]
    """Where they may go."""
    strategy: Strategy | None = None
    """How the candidates are ordered. Absent: `routing.strategy`."""


class RoutingConfig(Section):
    """How requests find a provider."""

    strategy: Strategy = "simple-shuffle"
    """How candidates are ordered."""
    failover_timeout: ZeroDuration = timedelta(seconds=30)
    """No further attempt starts after this time. It never cuts one that is running."""
    max_attempts: Annotated[Int, Field(ge=1, le=100)] = 5
    """Attempts of one request, at most."""
    silence_bound: PositiveDuration = timedelta(seconds=15)
    """The longest a streaming client waits in silence before the relay sends pings."""
    cooldown: ZeroDuration = timedelta(seconds=5)
    """How long a node passes over a target that just failed."""
    affinity: Literal["session", "none"] = "session"
    """`session`: a conversation stays on its provider and key while that is healthy."""
    routes: tuple[RouteConfig, ...] = ()
    """The first that matches decides; what none matches goes to any provider that serves the model."""


class KeyConfig(Section):
    """One credential of a provider."""

    label: Label | None = None
    """Public name. Absent: `key-1`, `key-2`, … by position."""
    key: Credential
    """The credential, best as `${VARIABLE}`."""
    scope: Label | None = None
    """The account whose limits and caches it shares with other keys. Absent: its own."""
    rpm_limit: Annotated[Int, Field(ge=1)] | None = None
    """Requests a minute. Absent: the provider's own headers decide."""
    tpm_limit: Annotated[Int, Field(ge=1)] | None = None
    """Tokens a minute. Absent: the provider's own headers decide."""
    weight: Weight = 1
    """Share among keys of equal priority."""
    priority: Priority = 0
    """Lower is tried first."""


class ModelConfig(Section):
    """A model that clients can ask for."""

    id: ModelName
    """The name a client says."""
    display_name: DisplayName | None = None
    """The name for people. Absent: made from the id."""
    created_at: Timestamp | None = None
    """When it was published, RFC 3339."""


def _model_by_id(value: Any) -> Any:
    return {"id": value} if isinstance(value, str) else value


def _forward_drop_or_list(value: Any) -> Any:
    if value in ("forward", "drop") or (isinstance(value, list | tuple) and all(isinstance(v, str) for v in value)):
        return value
    raise ValueError("must be forward, drop, or a list of the values to forward")


class TimeoutsConfig(Section):
    """How long to wait for a provider."""

    connect: PositiveDuration = timedelta(seconds=5)
    """TCP connect and TLS handshake."""
    first_byte: PositiveDuration = timedelta(minutes=10)
    """From the end of the request to the first byte of the answer. Long thinking is normal."""
    idle: PositiveDuration = timedelta(minutes=6)
    """Between two bytes of an answer."""


class TraitsConfig(Section):
    """What a provider can and cannot do. Absent: as its type or preset is known to be."""

    count_tokens: Flag | None = None
    """Has `/v1/messages/count_tokens`."""
    system_turns: SystemTurns | None = None
    """What to do with `role: "system"` entries of `messages`: pass them, fold them into user turns, or reject."""
    documents: Flag | None = None
    """Reads `document` blocks (PDFs and text)."""
    prompt_caching: Flag | None = None
    """Honours `cache_control`, or ignores it harmlessly."""
    batches_and_files: Flag | None = None
    """Has `/v1/messages/batches` and `/v1/files`."""
    anthropic_signatures: Flag | None = None
    """Its signed thinking blocks verify at Anthropic."""


class ProviderConfig(Section):
    """An upstream."""

    name: ProviderName
    """Unique name: lower-case letters, digits, `-`, `_` and `.`."""
    type: ProviderType
    """What kind of upstream it is."""
    preset: PresetName | None = None
    """A known service, for `anthropic-compatible` only: sets what is not said otherwise."""
    enabled: Flag = True
    """A disabled provider gets no request."""
    base_url: BaseUrl | None = None
    """Where it is; `/v1/messages` is appended. Absent: as the type or preset knows."""
    allow_private: Flag = False
    """Allow a private or loopback address, and plain http."""
    ca_file: CaFile | None = None
    """PEM certificates to trust for it instead of the system's."""
    auth_style: AuthStyle | None = None
    """How a key is attached. Absent: as the type or preset knows."""
    keys: tuple[KeyConfig, ...] = ()
    """Its credentials."""
    model_mapping: Mapping[Pattern, ModelName] = Field(default_factory=dict)
    """Client's model name (or a pattern with `*`) → the name there. The rule with the most literal characters wins."""
    models: (
        tuple[Annotated[ModelConfig, BeforeValidator(_model_by_id, json_schema_input_type=str | ModelConfig)], ...]
        | None
    ) = None
    """What it has, for `GET /v1/models` and, unless `serves` says otherwise, for routing."""
    serves: tuple[ServesPattern, ...] | None = None
    """Patterns of the models it may be asked for without a route; `!` in front excludes."""
    weight: Weight = 1
    """Share among providers."""
    priority: Priority = 0
    """Lower is tried first by `failover`."""
    headers: Mapping[HeaderName, HeaderValue] = Field(default_factory=dict)
    """Headers added to every request to it."""
    betas: Annotated[Literal["forward", "drop"] | tuple[str, ...], BeforeValidator(_forward_drop_or_list)] = "forward"
    """What happens to `anthropic-beta` values."""
    timeouts: TimeoutsConfig = TimeoutsConfig()
    """How long to wait for it."""
    traits: TraitsConfig = TraitsConfig()
    """What it can and cannot do."""


class CircuitConfig(Section):
    """When a provider is passed by."""

    failures: Annotated[Int, Field(ge=1, le=1000)] = 5
    """Failures in a row that open the circuit."""
    open_for: PositiveDuration = timedelta(seconds=30)
    """How long it stays open before a probe."""


class ProbeConfig(Section):
    """How a provider is tried again."""

    interval: PositiveDuration = timedelta(seconds=10)
    """Time between two probes."""


class HealthConfig(Section):
    """Circuits and probes. Checked, but without effect until the health subsystem lands."""

    circuit: CircuitConfig = CircuitConfig()
    """When a provider is passed by."""
    probe: ProbeConfig = ProbeConfig()
    """How it is tried again."""


def _known_version(value: Any) -> Any:
    if value != 1 or isinstance(value, bool | float):
        raise ValueError("must be 1, the only version of the configuration that this release reads")
    return value


class Config(Section):
    """The whole configuration."""

    version: Annotated[Literal[1], BeforeValidator(_known_version)]
    """Version of this format: 1."""
    server: ServerConfig = ServerConfig()
    """How clients reach the relay."""
    control: ControlConfig = ControlConfig()
    """How people and scripts reach the control plane."""
    routing: RoutingConfig = RoutingConfig()
    """How requests find a provider."""
    providers: Annotated[tuple[ProviderConfig, ...], Field(min_length=1)]
    """The upstreams."""
    health: HealthConfig = HealthConfig()
    """Circuits and probes."""
