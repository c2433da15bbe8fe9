"""The configuration's shape: every section, key, default and range.

Pure. Fields judge themselves here; rules between fields are in `crosscheck`, because a field's own place in the text
is where a mistake must be shown. Durations and sizes carry units. A key whose value is left out (`keys:` with nothing
behind it) counts as absent.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from ccr_control.core.addresses import Address, Listen, LoopbackListen, Origin
from ccr_control.core.provider_schema import Priority, ProviderConfig, Weight
from ccr_control.core.scalars import (
    Flag,
    HeaderName,
    Int,
    Label,
    ModelName,
    NamePattern,
    Pattern,
    PositiveDuration,
    Share,
    Size,
    Usd,
    ZeroDuration,
    one_or_many,
)
from ccr_control.core.secret import Credential, Secret
from ccr_control.core.section import Section

Strategy = Literal[
    "simple-shuffle",
    "round-robin",
    "weighted-round-robin",
    "failover",
    "least-loaded",
    "cost-based",
    "latency-based",
    "model-based",
]
RequestClass = Literal["main", "subagent", "background", "count_tokens"]


def _at_least_a_day(value: timedelta) -> timedelta:
    if value < timedelta(days=1):
        raise ValueError("must be at least a day, such as 365d")
    return value


def _https(value: Secret) -> Secret:
    if not value.reveal().startswith("https://"):
        raise ValueError("must be an https URL: it may hold a secret, and says what happens here")
    return value


Count = Annotated[Int, Field(ge=1, le=10**12)]
LedgerTime = Annotated[PositiveDuration, AfterValidator(_at_least_a_day)]
Webhook = Annotated[Credential, AfterValidator(_https)]


class ClientLimitsConfig(Section):
    """What a client may do. Each worker holds it to its part: the limit divided by `server.workers`, at least 1."""

    rpm: Count | None = None
    """Requests in any sixty seconds."""
    tpm: Count | None = None
    """Tokens in any sixty seconds, input (without cache reads) and output together."""
    concurrency: Count | None = None
    """Requests at a time."""


class ClientBudgetConfig(Section):
    """What a client may spend, by the prices that the relay knows. Whoever has spent it gets 429 until it begins anew."""

    day: Usd | None = None
    """In a day, UTC: `5 USD`."""
    month: Usd | None = None
    """In a calendar month, UTC: `100 USD`."""


class ClientConfig(Section):
    """A holder of a relay key."""

    name: Label
    """Name shown in logs and statistics."""
    key: Credential
    """The relay key that this client sends."""
    limits: ClientLimitsConfig | None = None
    """Absent: it may do as much as it likes."""
    budget: ClientBudgetConfig | None = None
    """Absent: it may spend as much as it likes."""


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


FileName = Annotated[str, Field(min_length=1, max_length=4096)]


class ControlTlsConfig(Section):
    """Certificates for the gRPC API's port and, beyond loopback, the web page's. `ccr tls init` makes some."""

    cert_file: FileName
    """PEM certificate of the server, followed by what leads to its authority."""
    key_file: FileName
    """PEM private key of the server."""
    client_ca_file: FileName | None = None
    """PEM certificates: only clients with a certificate by one of them get as far as showing a token."""


class ControlConfig(Section):
    """How people and scripts reach the control plane."""

    listen: Listen = Address("127.0.0.1", 9090)
    """Address of the gRPC API. Beyond loopback it needs `tls`."""
    tls: ControlTlsConfig | None = None
    """Absent: without TLS, which is for loopback only."""
    web_listen: Listen = Address("127.0.0.1", 9091)
    """Address of the web page and grpc-web. Beyond loopback it needs `tls`, and is https with the same files."""
    metrics_listen: LoopbackListen | None = None
    """Address of `/metrics`, for Prometheus. Absent: none."""


class LedgerConfig(Section):
    """What was used and what it cost, by the hour."""

    keep: LedgerTime = timedelta(days=365)
    """How long hours are kept, at least a day. What is older stays in the totals only."""


class AlertsConfig(Section):
    """Telling people that something is nearly or wholly used, or that tokens are being guessed: an event, and a webhook."""

    at: Share = 0.8
    """The share of a budget or limit at which people are told."""
    webhook: Webhook | None = None
    """Gets each alert as a JSON object by POST: an https URL. It may hold a secret, and is not shown."""
    allow_private: Flag = False
    """Whether the webhook may be on this machine or a private network."""


class MatchConfig(Section):
    """Which requests a route is for."""

    model: Annotated[tuple[Pattern, ...], one_or_many(), Field(min_length=1)] | None = None
    """Patterns of the model name the client says; `*` stands for any run. Absent: every model."""
    client: Annotated[tuple[NamePattern, ...], one_or_many(), Field(min_length=1)] | None = None
    """Patterns of the client's name; `subscription` for a client's own token."""
    agent: Literal["main", "subagent"] | None = None
    """Who in Claude Code asks."""
    request_class: Annotated[tuple[RequestClass, ...], one_or_many(), Field(min_length=1)] | None = None
    """`main` and `subagent`: turns of a conversation. `background`: without tools (titles, summaries). `count_tokens`."""
    thinking: Flag | None = None
    """Whether it asks for thinking."""
    min_input_tokens: Annotated[Int, Field(ge=0, le=10**9)] | None = None
    """Estimated input tokens, at least: 3.5 bytes of the request each."""
    max_input_tokens: Annotated[Int, Field(ge=0, le=10**9)] | None = None
    """Estimated input tokens, at most."""
    images: Flag | None = None
    """Whether it holds images."""
    documents: Flag | None = None
    """Whether it holds documents (PDFs and text)."""
    tools: Flag | None = None
    """Whether it offers tools."""
    headers: Mapping[HeaderName, NamePattern] = Field(default_factory=dict)
    """Headers that it has: name → pattern of the value."""


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


class HedgingConfig(Section):
    """A second attempt beside a slow first one, for streams; the first of the two to begin with content is the answer."""

    after: PositiveDuration
    """How long to wait for content before the second attempt begins."""
    max_share: Share = 0.05
    """The largest share of requests that are sent twice."""


class QueueConfig(Section):
    """How requests wait while every account that could serve them is at its rate limit: in turn, main turns first."""

    max_wait: PositiveDuration = timedelta(seconds=20)
    """The longest that one waits; then the answer is 429."""
    max_depth: Annotated[Int, Field(ge=1, le=10_000)] = 200
    """How many of a worker wait at a time. Further ones get 429 at once."""


class RoutingConfig(Section):
    """How requests find a provider."""

    strategy: Strategy = "simple-shuffle"
    """How candidates are ordered: see docs/how-to/routing.md."""
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
    spent_rest: PositiveDuration = timedelta(hours=1)
    """How long an account rests after it has reached a spend limit."""
    queue: QueueConfig | None = None
    """Absent: where no account has room the answer is 429 at once."""
    hedging: HedgingConfig | None = None
    """Absent: no request is sent twice. A session that has a home is never."""
    routes: tuple[RouteConfig, ...] = ()
    """The first that matches decides; what none matches goes to any provider that serves the model."""


class CircuitConfig(Section):
    """When a provider is passed by. Failures are 5xx, timeouts, and broken connections and streams; a 4xx never is."""

    failures: Annotated[Int, Field(ge=1, le=1000)] = 5
    """Failures in a row that open the circuit."""
    failure_rate: Share = 0.5
    """Share of failures within `window` that opens it, too."""
    min_requests: Annotated[Int, Field(ge=1, le=1_000_000)] = 20
    """Requests within `window` below which `failure_rate` says nothing."""
    window: PositiveDuration = timedelta(seconds=30)
    """Length of the sliding window of `failure_rate`. What happened before it does not count at all."""
    open_for: PositiveDuration = timedelta(seconds=30)
    """How long it stays open before probes decide. Twice as long each time that it opens again soon."""
    max_open_for: PositiveDuration = timedelta(minutes=5)
    """The longest that it stays open before probes decide."""
    last_candidate: Literal["keep", "drop"] = "keep"
    """`keep`: where all that could serve a request are open, they are tried all the same. `drop`: the answer is 529."""


class ProbeConfig(Section):
    """How a provider is asked whether it is alive: by a free request of the relay's own, never by a user's."""

    interval: PositiveDuration = timedelta(seconds=10)
    """Time between two probes of a provider that is passed by."""
    idle_interval: ZeroDuration = timedelta(seconds=60)
    """Time between two probes of one that is well; for information only. 0: none."""
    timeout: PositiveDuration = timedelta(seconds=5)
    """The longest that a probe may take."""


class HealthConfig(Section):
    """Circuits and probes: a provider that keeps failing is passed by until it is back."""

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
    ledger: LedgerConfig = LedgerConfig()
    """What was used and what it cost."""
    alerts: AlertsConfig = AlertsConfig()
    """Telling people in time."""
