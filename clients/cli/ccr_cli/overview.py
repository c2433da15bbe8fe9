"""How the relay is: values for `ccr status`, what is wrong with them, and how they read.

Pure. Latencies are milliseconds, times ISO 8601 in UTC.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ConfigState:
    """The configuration in force."""

    source: str
    config_hash: str
    snapshot_version: int
    loaded_at: str | None
    refused_at: str | None
    refusal_problems: tuple[str, ...]
    restart_needed: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NodeState:
    """One ccr-data worker."""

    node_id: str
    is_connected: bool
    software_version: str
    pid: int
    served_version: int
    offered_version: int
    rejected_version: int  # 0: none
    rejection_reason: str
    open_requests: int
    unauthorized_total: int  # requests refused for a wrong or missing credential
    spooled_bytes: int
    resident_bytes: int
    last_seen_at: str | None


@dataclass(frozen=True, slots=True)
class ProviderState:
    """What went to one provider."""

    provider: str
    requests: int
    failed: int
    failed_attempts: int
    requests_per_s: float
    first_byte_ms_p50: float
    first_byte_ms_p99: float
    total_ms_p50: float
    total_ms_p99: float
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    open_requests: int = 0  # under way there now


@dataclass(frozen=True, slots=True)
class HealthEvent:
    """A circuit changed its state."""

    at: str
    circuit: str
    reason: str
    provider: str = ""
    scope: str = ""  # empty: the provider's


@dataclass(frozen=True, slots=True)
class ScopeHealth:
    """The circuit of a scope: an account, whose faults are not the provider's. None: there was no probe with its keys."""

    scope: str
    key_labels: tuple[str, ...]
    circuit: str
    circuit_since: str
    open_until: str | None
    last_failure_reason: str | None
    last_failure_at: str | None
    probe_at: str | None = None
    probe_is_alive: bool | None = None
    probe_problem: str = ""


@dataclass(frozen=True, slots=True)
class CredentialState:
    """A credential that the control plane finds and renews."""

    key: str
    is_usable: bool
    expires_at: str | None
    problem: str


@dataclass(frozen=True, slots=True)
class ProviderHealth:
    """The circuit of a configured provider, and what the last probe found. None: there was none."""

    provider: str
    type: str
    is_enabled: bool
    circuit: str  # "closed", "open", "half-open"
    circuit_since: str
    open_until: str | None
    last_failure_reason: str | None
    last_failure_at: str | None
    probe_at: str | None
    probe_is_alive: bool | None
    probe_ms: float | None
    probe_status: int  # 0: no HTTP answer
    probe_problem: str
    events: tuple[HealthEvent, ...]
    scopes: tuple[ScopeHealth, ...] = ()
    credentials: tuple[CredentialState, ...] = ()


@dataclass(frozen=True, slots=True)
class Overview:
    """Everything that `ccr status` shows."""

    control: str
    relay: str | None  # base URL; None: unknown
    relay_answers: bool | None  # None: not asked
    newest_version: int
    window_s: float
    config: ConfigState
    nodes: tuple[NodeState, ...]
    providers: tuple[ProviderState, ...]
    health: tuple[ProviderHealth, ...] = ()


def problems(overview: Overview) -> list[str]:
    """What is not as it should be, in words; empty if all is well."""
    found = [f"the changed configuration was refused: {problem}" for problem in overview.config.refusal_problems]
    connected = [node for node in overview.nodes if node.is_connected]
    if not connected:
        found.append("no worker is connected to the control plane")
    for node in connected:
        if node.rejected_version:
            found.append(f"{node.node_id} rejects version {node.rejected_version}: {node.rejection_reason}")
        elif is_behind(node, overview.newest_version):
            found.append(f"{node.node_id} serves version {node.served_version}, newest is {overview.newest_version}")
    for one in overview.health:
        found += [
            f"{one.provider}: the credential of {held.key} {credential_words(held)}"
            for held in one.credentials
            if held.problem or not held.is_usable
        ]
        if one.circuit != "closed" and one.is_enabled:
            why = f" ({one.last_failure_reason})" if one.last_failure_reason else ""
            found.append(f"{one.provider} is passed by since {one.circuit_since}: its circuit is {one.circuit}{why}")
        for scope in passed_by(one):
            why = f" ({scope.last_failure_reason})" if scope.last_failure_reason else ""
            labels = ", ".join(scope.key_labels)
            found.append(
                f"{one.provider}/{scope.scope} is passed by since {scope.circuit_since} (keys: {labels}): "
                f"its circuit is {scope.circuit}{why}"
            )
    if overview.relay_answers is False:
        found.append(f"the relay does not answer at {overview.relay}")
    return found


def passed_by(one: ProviderHealth) -> list[ScopeHealth]:
    """The scopes of a provider whose circuit is not closed."""
    return [scope for scope in one.scopes if scope.circuit != "closed"] if one.is_enabled else []


def is_behind(node: NodeState, newest_version: int) -> bool:
    """Whether a connected node serves something else than the newest snapshot; normal for some milliseconds."""
    return node.is_connected and node.served_version != newest_version


def facts(overview: Overview) -> list[tuple[str, str]]:
    """The lines above the tables, each a label and its words."""
    config = overview.config
    answers = {True: "", False: " (does not answer)", None: " (not asked)"}[overview.relay_answers]
    return [
        ("control plane", f"up at {overview.control}"),
        ("relay", f"{overview.relay}{answers}" if overview.relay else "unknown"),
        ("config", f"{config.source} ({config.config_hash[:12]}, snapshot {config.snapshot_version})"),
        *([("loaded", config.loaded_at)] if config.loaded_at else []),
        *([("refused", f"{config.refused_at}, the one before stays in force")] if config.refused_at else []),
        *([("restart for", ", ".join(config.restart_needed))] if config.restart_needed else []),
        *(("warning", warning) for warning in config.warnings),
    ]


NODE_COLUMNS = (
    "node",
    "state",
    "serves",
    "offered",
    "rejected",
    "open",
    "refused",
    "spooled",
    "memory",
    "pid",
    "software",
)
NODE_NUMBERS = frozenset({2, 3, 4, 5, 6, 7, 8, 9})


def node_rows(nodes: Sequence[NodeState], newest_version: int) -> list[tuple[str, ...]]:
    """One row for each node."""
    return [
        (
            node.node_id,
            _node_state(node, newest_version),
            _or_dash(node.served_version),
            _or_dash(node.offered_version),
            _or_dash(node.rejected_version),
            str(node.open_requests),
            count_words(node.unauthorized_total),
            size_words(node.spooled_bytes),
            size_words(node.resident_bytes),
            _or_dash(node.pid),
            node.software_version or "-",
        )
        for node in nodes
    ]


def _node_state(node: NodeState, newest_version: int) -> str:
    if not node.is_connected:
        return f"gone ({node.last_seen_at})" if node.last_seen_at else "gone"
    if node.rejected_version:
        return "rejecting"
    return "behind" if is_behind(node, newest_version) else "serving"


PROVIDER_COLUMNS = (
    "provider",
    "circuit",
    "probe",
    "requests",
    "failed",
    "moved on",
    "req/s",
    "in flight",
    "first byte p50/p99",
    "total p50/p99",
    "in",
    "out",
    "cache read",
    "cache write",
)
PROVIDER_NUMBERS = frozenset(range(3, 14))


def provider_rows(overview: Overview) -> list[tuple[str, ...]]:
    """One row for each provider that is configured or was asked anything."""
    health = {one.provider: one for one in overview.health}
    asked = {one.provider for one in overview.providers}
    everything = [*overview.providers, *(_unasked(name) for name in health if name not in asked)]
    return [
        (
            one.provider,
            circuit_words(health.get(one.provider)),
            probe_words(health.get(one.provider)),
            str(one.requests),
            str(one.failed),
            str(one.failed_attempts),
            f"{one.requests_per_s:.2f}",
            str(one.open_requests),
            f"{time_words(one.first_byte_ms_p50)} / {time_words(one.first_byte_ms_p99)}",
            f"{time_words(one.total_ms_p50)} / {time_words(one.total_ms_p99)}",
            count_words(one.input_tokens),
            count_words(one.output_tokens),
            count_words(one.cache_read_tokens),
            count_words(one.cache_write_tokens),
        )
        for one in everything
    ]


def _unasked(name: str) -> ProviderState:
    return ProviderState(name, *[0] * 12)


def circuit_words(one: ProviderHealth | None) -> str:
    """`closed`, `open (connect)`, `closed but for org-a`, `disabled`; a dash for a provider that is configured no more."""
    if one is None:
        return "-"
    if not one.is_enabled:
        return "disabled"
    if one.circuit == "closed" and (scopes := passed_by(one)):
        return f"closed but for {', '.join(scope.scope for scope in scopes)}"
    why = f" ({one.last_failure_reason})" if one.circuit != "closed" and one.last_failure_reason else ""
    return one.circuit + why


def probe_words(one: ProviderHealth | None) -> str:
    """`alive 12 ms`, `alive, it refuses the key`, `no connection: …`; a dash before the first probe."""
    if one is None or one.probe_is_alive is None:
        return "-"
    if not one.probe_is_alive:
        return one.probe_problem or "not alive"
    return f"alive, {one.probe_problem}" if one.probe_problem else f"alive {time_words(one.probe_ms or 0.0)}"


def credential_words(held: CredentialState) -> str:
    """`is good until …`, `is missing: …`, `cannot be renewed, and ends …: …`."""
    why = f": {held.problem}" if held.problem else ""
    if not held.is_usable:
        return f"is missing{why}"
    until = f" until {held.expires_at}" if held.expires_at else ""
    return f"cannot be renewed, and is good{until}{why}" if why else f"is good{until}"


HEALTH_COLUMNS = ("provider", "type", "circuit", "in flight", "since", "last failure", "probe", "probed", "credentials")
HEALTH_NUMBERS = frozenset({3})


def health_rows(health: Sequence[ProviderHealth], now_open: Mapping[str, int]) -> list[tuple[str, ...]]:
    """One row for each configured provider, and below it one for each of its scopes that is passed by.

    `now_open` are the requests under way at each provider.
    """
    rows: list[tuple[str, ...]] = []
    for one in health:
        rows.append(
            (
                one.provider,
                one.type,
                circuit_words(one),
                str(now_open.get(one.provider, 0)),
                one.circuit_since,
                f"{one.last_failure_reason} {one.last_failure_at or ''}".strip() if one.last_failure_reason else "-",
                probe_words(one),
                one.probe_at or "-",
                "; ".join(f"{held.key} {credential_words(held)}" for held in one.credentials) or "-",
            )
        )
        rows += [_scope_row(one.provider, scope) for scope in passed_by(one)]
    return rows


def _scope_row(provider: str, one: ScopeHealth) -> tuple[str, ...]:
    reason = one.last_failure_reason
    alive = {True: "alive", False: "not alive", None: "-"}[one.probe_is_alive]
    return (
        f"{provider}/{one.scope}",
        f"keys: {', '.join(one.key_labels)}",
        f"{one.circuit} ({reason})" if reason else one.circuit,
        "",
        one.circuit_since,
        f"{reason} {one.last_failure_at or ''}".strip() if reason else "-",
        f"alive, {one.probe_problem}" if one.probe_is_alive and one.probe_problem else one.probe_problem or alive,
        one.probe_at or "-",
        "-",
    )


EVENT_COLUMNS = ("when", "provider", "circuit", "reason")


def event_rows(events: Sequence[HealthEvent]) -> list[tuple[str, ...]]:
    """One row for each change of a circuit."""
    return [
        (one.at, f"{one.provider}/{one.scope}" if one.scope else one.provider, one.circuit, one.reason)
        for one in events
    ]


def _or_dash(number: int) -> str:
    return str(number) if number else "-"


def time_words(time_ms: float) -> str:
    """`850 ms`, `12.3 s`; a dash for nothing measured."""
    if not time_ms:
        return "-"
    return f"{time_ms / 1000:.1f} s" if time_ms >= 1000 else f"{time_ms:.3g} ms"


def count_words(count: int) -> str:
    """`950`, `12.3k`, `4.5M`."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            return f"{count / size:.1f}{unit}"
    return str(count)


def size_words(size_bytes: int) -> str:
    """`0 B`, `12 KiB`, `48 MiB`."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size_bytes >= size:
            return f"{size_bytes / size:.0f} {unit}"
    return f"{size_bytes} B"
