"""What a data plane knows: one immutable, self-consistent snapshot.

Values only. `shell/wire.py` makes them from the contract's messages and refuses what `check()` would not pass.
Times are seconds, sizes bytes.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import NamedTuple

from ccr_data.core.amounts import NO_LIMITS, Allowance, Scope, higher
from ccr_data.core.client_limits import ClientRules
from ccr_data.core.generations import Generation, generation_of
from ccr_data.core.hedging import Hedging
from ccr_data.core.limits import ORGANISATION_SCOPE
from ccr_data.core.matching import Asked, Conditions, holds
from ccr_data.core.patterns import best_fit, fits, fits_any
from ccr_data.core.waiting import QueueRules

MAX_ROUTED_MODELS = 4096  # names come from clients, so the memo of routed names is bounded
MAX_WARMED = 32  # of them are routed anew before a snapshot is served
MAX_MADE = 64  # names that a provider keeps targets for


class ProviderType(enum.Enum):
    """The kinds of upstream."""

    ANTHROPIC = "anthropic"
    ZAI = "zai"
    OLLAMA = "ollama"
    COMPATIBLE = "anthropic-compatible"
    BEDROCK = "bedrock"
    AZURE = "azure"
    VERTEX = "vertex"
    CLAUDE_AWS = "claude-aws"
    CLAUDE_GCP = "claude-gcp"


class WireFormat(enum.Enum):
    """How requests and answers are written."""

    ANTHROPIC = "anthropic"
    BEDROCK_INVOKE = "bedrock-invoke"
    VERTEX = "vertex"


class AuthStyle(enum.Enum):
    """How a provider wants its key."""

    X_API_KEY = "x-api-key"
    BEARER = "bearer"
    BOTH = "both"
    NONE = "none"
    SIGV4 = "sigv4"
    AZURE = "azure"


class AuthMode(enum.Enum):
    """Whether clients need a relay key."""

    KEYS = "keys"
    NONE = "none"


class SystemTurns(enum.Enum):
    """What to do with `role: "system"` entries of `messages`."""

    PASS = "pass"  # noqa: S105 (no password)
    FOLD = "fold"
    REJECT = "reject"


class Strategy(enum.Enum):
    """How a route orders its candidates."""

    SIMPLE_SHUFFLE = "simple-shuffle"
    ROUND_ROBIN = "round-robin"
    WEIGHTED_ROUND_ROBIN = "weighted-round-robin"
    FAILOVER = "failover"
    LEAST_LOADED = "least-loaded"
    COST_BASED = "cost-based"
    LATENCY_BASED = "latency-based"
    MODEL_BASED = "model-based"


class KeySelection(enum.Enum):
    """How the keys of a provider share its requests."""

    LEAST_LOADED = "least-loaded"
    WEIGHTED = "weighted"
    ROUND_ROBIN = "round-robin"
    PRIORITY = "priority"


class KeyState(enum.Enum):
    """Who gets a key."""

    ACTIVE = "active"
    DEPRECATED = "deprecated"  # only sessions that are pinned to it
    DISABLED = "disabled"


class Origin(NamedTuple):
    """Where a connection goes. Two providers with equal origins share connections. A tuple, because it is hashed often."""

    scheme: str  # "http" or "https"
    host: str
    port: int
    ca_pem: str = ""  # trusted instead of the system's certificates
    is_public: bool = False  # no private address is connected to, whatever the name resolves to

    @property
    def authority(self) -> str:
        """The value of a Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == {"http": 80, "https": 443}[self.scheme] else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class AwsCredentials:
    """What AWS requests are signed with."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str = field(default="", repr=False)  # empty: none


@dataclass(frozen=True, slots=True)
class AwsSigning:
    """What an AWS signature is made for."""

    region: str
    service: str


NEVER_S = float("inf")


@dataclass(frozen=True, slots=True)
class Key:
    """One credential of a provider."""

    label: str
    secret: str = field(repr=False)
    scope: str
    weight: int = 1
    priority: int = 0
    limits: Allowance = NO_LIMITS  # of its scope
    state: KeyState = KeyState.ACTIVE
    aws: AwsCredentials | None = None  # instead of the secret, where requests are signed
    expires_at_s: float = NEVER_S  # Unix time; it is not used from then on
    is_open: bool = False  # the circuit of its scope is open or half-open: requests pass it by

    @property
    def material(self) -> tuple[str, AwsCredentials | None]:
        """What the provider takes or refuses: a short-lived credential keeps its label when it is renewed."""
        return self.secret, self.aws

    @property
    def holder(self) -> str:
        """What stands for its account: the secret, unless that is renewed every hour."""
        if self.expires_at_s != NEVER_S:
            return self.label
        return self.aws.access_key_id if self.aws is not None else self.secret


# Parts of a conversation's tokens, for comparing prices: with a prompt cache nearly all input is read from it.
CACHED_MIX = {"input": 0.02, "output": 0.02, "cache_read": 0.90, "cache_write": 0.06}
PLAIN_MIX = {"input": 0.98, "output": 0.02, "cache_read": 0.0, "cache_write": 0.0}
UNKNOWN_PRICE = float("inf")


@dataclass(frozen=True, slots=True)
class ModelPrice:
    """What a model costs, in USD per million tokens."""

    pattern: str
    input: float
    output: float
    cache_read: float
    cache_write: float  # to a five-minute cache

    def blended(self, *, has_cache: bool) -> float:
        """The price of a million tokens of a usual conversation."""
        mix = CACHED_MIX if has_cache else PLAIN_MIX
        return (
            mix["input"] * self.input
            + mix["output"] * self.output
            + mix["cache_read"] * self.cache_read
            + mix["cache_write"] * self.cache_write
        )


def price_of(prices: tuple[ModelPrice, ...], model: str) -> ModelPrice | None:
    """The entry with the most literal characters that fits; None if none does."""
    pattern = best_fit([(one.pattern, one.pattern) for one in prices], model)
    return next((one for one in prices if one.pattern == pattern), None) if pattern is not None else None


@dataclass(frozen=True, slots=True)
class Model:
    """A model that can be asked for, as `GET /v1/models` shows it."""

    id: str
    display_name: str
    created_at: str


@dataclass(frozen=True, slots=True)
class Traits:
    """What a provider can and cannot do."""

    count_tokens: bool = True
    system_turns: SystemTurns = SystemTurns.PASS
    documents: bool = True
    prompt_caching: bool = True
    batches_and_files: bool = False
    anthropic_signatures: bool = False


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long to wait for a provider."""

    connect_s: float = 5.0
    first_byte_s: float = 600.0
    idle_s: float = 360.0
    total_s: float = math.inf


_CLOUDS = frozenset(
    (
        ProviderType.BEDROCK,
        ProviderType.AZURE,
        ProviderType.VERTEX,
        ProviderType.CLAUDE_AWS,
        ProviderType.CLAUDE_GCP,
    )
)


class Account(NamedTuple):
    """What the keys of one scope say of it."""

    scope: Scope
    holders: frozenset[str]
    limits: Allowance  # the largest that any of them says
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Provider:
    """A configured upstream."""

    name: str
    type: ProviderType
    origin: Origin
    base_path: str  # path prefix without a trailing slash, often empty
    auth_style: AuthStyle
    keys: tuple[Key, ...]
    model_rules: tuple[tuple[str, str], ...] = ()
    serves: tuple[str, ...] = ("*",)
    never_serves: tuple[str, ...] = ()
    models: tuple[Model, ...] = ()
    traits: Traits = Traits()
    timeouts: Timeouts = Timeouts()
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    allowed_betas: frozenset[str] | None = None  # None: all
    accepts_subscription: bool = False
    is_enabled: bool = True
    is_open: bool = False  # its circuit is open or half-open: requests pass it by
    is_draining: bool = False  # only sessions that are pinned to it still go there
    key_selection: KeySelection = KeySelection.LEAST_LOADED
    prices: tuple[ModelPrice, ...] = ()
    price_factor: float = 1.0
    wire_format: WireFormat = WireFormat.ANTHROPIC
    aws_signing: AwsSigning | None = None  # set if auth_style is SIGV4
    renamed_betas: tuple[tuple[str, str], ...] = ()  # the client's value → the provider's
    dropped_betas: frozenset[str] = frozenset()  # never forwarded, whatever allowed_betas says
    adjusts_renamed: bool = False  # a request that gets another generation's model is made fit for it
    edits_lines: bool = field(init=False, default=False)  # whether a client's header lines are not just passed on
    # Snapshots come often and mostly change little: what follows from a provider alone is kept with it, over all of them.
    accounts: tuple[Account, ...] = field(init=False, default=(), compare=False, repr=False)
    _made: dict[object, Made] = field(init=False, default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        edits = self.headers or self.allowed_betas is not None or self.renamed_betas or self.dropped_betas
        object.__setattr__(self, "edits_lines", bool(edits))
        object.__setattr__(self, "accounts", _accounts(self))

    def made(self, model: str | None, generation: Generation | None) -> Made:
        """Its targets for a name that is put into requests, and what else is done to them."""
        known = self._made.get((model, generation))
        if known is None:
            if len(self._made) >= MAX_MADE:
                self._made.clear()
            known = self._made[model, generation] = _made(self, model, generation)
        return known

    @property
    def is_cloud(self) -> bool:
        """Whether an adapter of its own speaks to it (providers/clouds.py), not just the Anthropic-shaped one."""
        return (
            self.type in _CLOUDS or self.wire_format is not WireFormat.ANTHROPIC or self.auth_style is AuthStyle.SIGV4
        )

    def takes_beta(self, beta: str) -> bool:
        """Whether this `anthropic-beta` value is forwarded, by whatever name."""
        if beta in self.dropped_betas:
            return False
        return self.allowed_betas is None or beta in self.allowed_betas

    def does_serve(self, model: str) -> bool:
        """Whether it is a candidate for a model that no route of its own sends there."""
        if best_fit(self.model_rules, model) is not None:
            return True
        return fits_any(self.serves, model) and not fits_any(self.never_serves, model)

    def own_name(self, model: str) -> str:
        """What it calls the model."""
        return best_fit(self.model_rules, model) or model

    def exactness(self, model: str) -> int:
        """How exactly its rules and patterns name the model: literal characters of the best; a whole name beats all."""
        patterns = (*(pattern for pattern, _ in self.model_rules), *self.serves)
        fitting = [pattern for pattern in patterns if fits(pattern, model)]
        return max((1 << 20 if "*" not in one else len(one) - one.count("*") for one in fitting), default=-1)

    def blended_price(self, model: str, table: tuple[ModelPrice, ...]) -> float:
        """What a million tokens of its own model name cost in a usual conversation; UNKNOWN_PRICE if nobody says."""
        has_cache = self.traits.prompt_caching
        own = price_of(self.prices, model)
        if own is not None:
            return own.blended(has_cache=has_cache)
        if not self.price_factor:
            return 0.0
        listed = price_of(table, model)
        return UNKNOWN_PRICE if listed is None else listed.blended(has_cache=has_cache) * self.price_factor


@dataclass(frozen=True, slots=True)
class Candidate:
    """One place that a route may send a request to."""

    provider: str
    model: str | None  # None: the client's name after the provider's rules
    weight: int = 1
    priority: int = 0
    only_served: bool = False


@dataclass(frozen=True, slots=True)
class Route:
    """Which requests go where."""

    name: str
    models: tuple[str, ...]  # empty: all
    candidates: tuple[Candidate, ...]
    strategy: Strategy
    conditions: Conditions | None = None  # None: nothing but the model counts

    @property
    def aside(self) -> str:
        """Its name, if it takes only what is asked beside a conversation; else empty."""
        return self.name if self.conditions is not None and self.conditions.is_aside else ""


@dataclass(frozen=True, slots=True)
class RelayPolicy:
    """How attempts, waiting and answers are bounded."""

    failover_timeout_s: float = 30.0
    max_attempts: int = 5
    silence_bound_s: float = 15.0
    max_body_bytes: int = 32 << 20
    read_timeout_s: float = 60.0
    cooldown_s: float = 5.0
    has_answer_headers: bool = True
    has_session_affinity: bool = True
    spent_rest_s: float = 3600.0
    sharing_nodes: int = 1
    hedging: Hedging | None = None
    drops_last_candidate: bool = False  # where all circuits are open: answer 529 instead of trying
    queue: QueueRules | None = None  # None: who finds no room is answered at once


@dataclass(frozen=True, slots=True)
class AuthPolicy:
    """Who may use the relay."""

    mode: AuthMode
    clients: Mapping[bytes, str] = field(default_factory=dict, repr=False)  # SHA-256 of a key → name of its holder
    allow_subscription: bool = False
    rules: Mapping[str, ClientRules] = field(default_factory=dict)  # of clients that are limited, by name


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """A candidate and a key: what one attempt is sent to. Its request-line prefix and own header lines are made once."""

    provider: Provider
    key: Key | None  # None: no credential, or the client's own token
    model: str | None  # the name to put into the request; None: leave the client's
    path_prefix: bytes
    header_lines: bytes = field(repr=False)  # Host, credentials, the provider's own headers; each ends in CRLF
    answer_lines: bytes  # the beginning of what the relay adds to answers from here
    label: str  # the key's public name; empty without one
    scope: tuple[str, str]  # the account behind it, unique over providers
    load_key: tuple[str, str]  # provider and label
    is_cloud: bool = False  # whether providers/clouds.py speaks to it
    generation: Generation | None = None  # what requests are made fit for; None: they are left as they are


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """A candidate for one model name, with a target for each of its keys."""

    provider: Provider
    weight: int
    priority: int
    targets: tuple[Target, ...]  # with the relay's active keys; empty if it has none
    subscription_target: Target | None  # for a client's own token
    draining: tuple[
        Target, ...
    ]  # with deprecated keys, or of a draining provider: for sessions that are pinned to them
    model: str  # its own name of the model
    rank: float  # lower goes first, where the strategy asks for something that stays the same (price, exactness)
    lone_key: tuple[str, str] | None  # of its target, if it has just one
    measured: tuple[tuple[str, str, bool], tuple[str, str, bool]]  # what its times are kept by: in one piece, streamed
    may_expire: bool = False  # whether one of its keys does
    passed_by: tuple[Target, ...] = ()  # with active keys of open circuits: for want of anything else
    is_open: bool = False  # its provider's circuit is open, or those of all its active keys
    weights: tuple[int, ...] = ()  # of the keys of `targets`, else `passed_by`, that come first, added up one by one


@dataclass(frozen=True, slots=True, eq=False)
class RoutedModel:
    """What the snapshot says of one model name."""

    route: Route
    choices: tuple[Choice, ...]
    only_target: Target | None  # set where there is nothing to choose
    reads_documents: bool  # whether all choices do
    keeps_last: bool = True  # go to an open circuit where there is nothing else
    may_expire: bool = False  # whether a key of one of its choices does


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """Everything a data plane knows."""

    version: int
    auth: AuthPolicy
    providers: Mapping[str, Provider]
    routes: tuple[Route, ...]
    relay: RelayPolicy
    prices: tuple[ModelPrice, ...] = ()
    _routed: dict[str, tuple[RoutedModel, ...]] = field(default_factory=dict, repr=False)
    _accounts: list[Accounts] = field(default_factory=list, repr=False)

    @property
    def accounts(self) -> Accounts:
        """Those of all providers. Remembered, because there may be thousands."""
        if not self._accounts:
            self._accounts.append(_all_accounts(self.providers.values()))
        return self._accounts[0]

    def routes_of(self, model: str) -> tuple[RoutedModel, ...]:
        """The routes that a model name can take: the first whose conditions hold, and only the last has none.

        Remembered, because a client asks for few names and often. Most often there is but one.
        """
        known = self._routed.get(model)
        if known is None:
            if len(self._routed) >= MAX_ROUTED_MODELS:
                self._routed.clear()
            known = self._routed[model] = tuple(route_model(self, model, route) for route in _fitting(self, model))
        return known

    def warm(self, before: Snapshot) -> None:
        """Make what requests will need, as far as the one that is still served tells. May be done in a thread, before this one is."""
        _ = self.accounts
        for model in [*before._routed][:MAX_WARMED]:
            self.routes_of(model)

    def routed(self, model: str, asked: Asked | None = None) -> RoutedModel:
        """Route and choices of a request; without `asked`, of one that meets no condition."""
        *conditional, last = self.routes_of(model)
        if asked is not None:
            for one in conditional:
                if one.route.conditions is not None and holds(one.route.conditions, asked):
                    return one
        return last


class Accounts(NamedTuple):
    """What all keys say of their scopes."""

    limits: dict[Scope, Allowance]  # of those that have any
    holders: dict[Scope, frozenset[str]]
    learned: tuple[tuple[Scope, str], ...]  # keys whose scope is an organisation that some node has learned of


def _all_accounts(providers: Iterable[Provider]) -> Accounts:
    every = [account for provider in providers for account in provider.accounts]
    return Accounts(
        {account.scope: account.limits for account in every if account.limits != NO_LIMITS},
        {account.scope: account.holders for account in every},
        tuple(
            ((account.scope[0], label), account.scope[1].removeprefix(ORGANISATION_SCOPE))
            for account in every
            if account.scope[1].startswith(ORGANISATION_SCOPE)
            for label in account.labels
        ),
    )


def _fitting(snapshot: Snapshot, model: str) -> list[Route]:
    """The routes whose models fit, up to the first without conditions."""
    fitting = []
    for route in snapshot.routes:
        if not route.models or fits_any(route.models, model):
            fitting.append(route)
            if route.conditions is None:
                break
    return fitting


def route_model(snapshot: Snapshot, model: str, route: Route) -> RoutedModel:
    """What a route makes of a model name: its candidates that are enabled and serve it.

    Where only one candidate is enabled there is nothing to choose: it gets also names that it is not known to serve, and says
    itself what it makes of them.
    """
    enabled = [candidate for candidate in route.candidates if snapshot.providers[candidate.provider].is_enabled]
    serving = [one for one in enabled if not one.only_served or snapshot.providers[one.provider].does_serve(model)]
    choices = tuple(
        _choice(snapshot, one, model, route.strategy) for one in (enabled if len(enabled) == 1 else serving)
    )
    lone = choices[0] if len(choices) == 1 else None
    only = None
    if lone is not None and len(lone.targets) == 1 and not lone.draining and not lone.passed_by:
        only = lone.targets[0]
    keeps_last = not snapshot.relay.drops_last_candidate
    if only is not None and only.provider.is_open and not keeps_last:
        only = None
    reads_documents = all(choice.provider.traits.documents for choice in choices)
    may_expire = any(choice.may_expire for choice in choices)
    if may_expire:
        only = None
    return RoutedModel(route, choices, only, reads_documents, keeps_last, may_expire)


def _choice(snapshot: Snapshot, candidate: Candidate, model: str, strategy: Strategy) -> Choice:
    provider = snapshot.providers[candidate.provider]
    own_name = candidate.model or provider.own_name(model)
    rename = own_name if own_name != model else None
    fit = _other_generation(model, own_name) if provider.adjusts_renamed and rename is not None else None
    targets, passed_by, draining, own_token, may_expire, weights = provider.made(rename, fit)
    rank = 0.0
    if strategy is Strategy.COST_BASED:
        rank = provider.blended_price(own_name, snapshot.prices)
    elif strategy is Strategy.MODEL_BASED:
        rank = -provider.exactness(model)
    return Choice(
        provider,
        candidate.weight,
        candidate.priority,
        targets,
        own_token,
        draining,
        own_name,
        rank,
        targets[0].load_key if len(targets) == 1 else None,
        ((provider.name, own_name, False), (provider.name, own_name, True)),
        may_expire,
        passed_by,
        provider.is_open or (bool(passed_by) and not targets),
        weights,
    )


class Made(NamedTuple):
    """The targets of a provider for one name."""

    targets: tuple[Target, ...]
    passed_by: tuple[Target, ...]
    draining: tuple[Target, ...]
    own_token: Target | None
    may_expire: bool
    weights: tuple[int, ...]  # see Choice


def _made(provider: Provider, rename: str | None, fit: Generation | None) -> Made:
    by_priority = sorted(provider.keys, key=_priority)
    active = [target(provider, key, rename, fit) for key in by_priority if key.state is KeyState.ACTIVE]
    targets = tuple(one for one in active if one.key is not None and not one.key.is_open)
    passed_by = tuple(one for one in active if one.key is not None and one.key.is_open)
    draining = tuple(target(provider, key, rename, fit) for key in provider.keys if key.state is KeyState.DEPRECATED)
    if not provider.keys and provider.auth_style is AuthStyle.NONE:
        targets = (target(provider, None, rename, fit),)
    if provider.is_draining:
        targets, passed_by, draining = (), (), (*targets, *passed_by, *draining)
    own_token = target(provider, None, rename, fit) if provider.accepts_subscription else None
    may_expire = any(key.expires_at_s != NEVER_S for key in provider.keys)
    return Made(targets, passed_by, draining, own_token, may_expire, _weights(targets or passed_by))


def _weights(by_priority: Sequence[Target]) -> tuple[int, ...]:
    """Of those that come first, added up."""
    keys = [target.key for target in by_priority if target.key is not None]
    return tuple(accumulate(key.weight for key in keys if key.priority == keys[0].priority))


def _priority(key: Key) -> int:
    return key.priority


def _accounts(provider: Provider) -> tuple[Account, ...]:
    """The scopes of its keys, each once."""
    by_scope: dict[str, list[Key]] = {}
    for key in provider.keys:
        by_scope.setdefault(key.scope or key.label, []).append(key)
    found = []
    for name, keys in by_scope.items():
        limits = keys[0].limits
        for key in keys[1:]:
            limits = higher(limits, key.limits)
        labels = tuple([key.label for key in keys])
        found.append(Account((provider.name, name), frozenset([key.holder for key in keys]), limits, labels))
    return tuple(found)


def _other_generation(asked: str, own_name: str) -> Generation | None:
    """The generation of the provider's model, if the one asked for is of another."""
    generation = generation_of(own_name)
    return None if generation == generation_of(asked) else generation


def target(provider: Provider, key: Key | None, model: str | None, generation: Generation | None = None) -> Target:
    """A target with its request-line prefix and header lines made."""
    lines = [f"host: {provider.origin.authority}", "accept-encoding: identity"]
    if key is not None and provider.auth_style in (AuthStyle.X_API_KEY, AuthStyle.BOTH, AuthStyle.AZURE):
        lines.append(f"x-api-key: {key.secret}")
    if key is not None and provider.auth_style in (AuthStyle.BEARER, AuthStyle.BOTH):
        lines.append(f"authorization: Bearer {key.secret}")
    if key is not None and provider.auth_style is AuthStyle.AZURE:
        lines.append(f"api-key: {key.secret}")
    lines += [f"{name}: {value}" for name, value in provider.headers]
    head = "".join(f"{line}\r\n" for line in lines).encode("latin-1")
    answer_lines = f"x-cc-relay-provider: {provider.name}\r\nx-cc-relay-request-id: ".encode("latin-1")
    label = key.label if key else ""
    scope = (provider.name, key.scope or label) if key else (provider.name, "")
    load_key = (provider.name, label)
    return Target(
        provider,
        key,
        model,
        provider.base_path.encode("ascii"),
        head,
        answer_lines,
        label,
        scope,
        load_key,
        provider.is_cloud,
        generation,
    )
