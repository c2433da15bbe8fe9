"""Names of states and kinds in words and tones, the same on every screen.

Pure. A word never depends on its colour: each state has a sign of its own for terminals without any.
"""

from __future__ import annotations

import datetime

from ccr_rpc.v1 import access_pb2, events_pb2, keys_pb2, providers_pb2, snapshot_pb2, stats_pb2, usage_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from ccr_tui.core import figures
from ccr_tui.core.table import Cell, Tone
from ccr_tui.core.world import seconds

CIRCUITS: dict[int, Cell] = {
    snapshot_pb2.CIRCUIT_STATE_UNSPECIFIED: ("● closed", "good"),
    snapshot_pb2.CIRCUIT_STATE_CLOSED: ("● closed", "good"),
    snapshot_pb2.CIRCUIT_STATE_OPEN: ("✗ open", "bad"),
    snapshot_pb2.CIRCUIT_STATE_HALF_OPEN: ("◐ half-open", "warn"),
}
PROVIDER_STATES: dict[int, Cell] = {
    providers_pb2.PROVIDER_STATE_ENABLED: ("enabled", "plain"),
    providers_pb2.PROVIDER_STATE_DRAINING: ("↓ draining", "warn"),
    providers_pb2.PROVIDER_STATE_DISABLED: ("○ disabled", "dim"),
}
KEY_STATES: dict[int, Cell] = {
    snapshot_pb2.KEY_STATE_UNSPECIFIED: ("active", "plain"),
    snapshot_pb2.KEY_STATE_ACTIVE: ("active", "plain"),
    snapshot_pb2.KEY_STATE_DEPRECATED: ("↓ deprecated", "warn"),
    snapshot_pb2.KEY_STATE_DISABLED: ("○ disabled", "dim"),
}
ORIGINS = {
    keys_pb2.KeyStatus.ORIGIN_CONFIG: "config",
    keys_pb2.KeyStatus.ORIGIN_CONFIG_CHANGED: "changed",
    keys_pb2.KeyStatus.ORIGIN_ADDED: "added",
}
OUTCOMES: dict[int, Cell] = {
    usage_pb2.OUTCOME_SERVED: ("served", "good"),
    usage_pb2.OUTCOME_FAILED: ("✗ failed", "bad"),
    usage_pb2.OUTCOME_BROKEN: ("✗ broken", "bad"),
    usage_pb2.OUTCOME_CLIENT_LEFT: ("client left", "warn"),
    usage_pb2.OUTCOME_REFUSED: ("refused", "warn"),
}
EVENT_KINDS: dict[int, Cell] = {
    events_pb2.EVENT_KIND_AUDIT: ("audit", "info"),
    events_pb2.EVENT_KIND_HEALTH: ("health", "warn"),
    events_pb2.EVENT_KIND_CONFIG: ("config", "info"),
    events_pb2.EVENT_KIND_ALERT: ("alert", "bad"),
    events_pb2.EVENT_KIND_NODE: ("node", "plain"),
    events_pb2.EVENT_KIND_DRIFT: ("drift", "warn"),
}
ROLES: dict[int, str] = {
    access_pb2.ROLE_VIEWER: "viewer",
    access_pb2.ROLE_OPERATOR: "operator",
    access_pb2.ROLE_ADMIN: "admin",
}
STRATEGIES: dict[int, str] = {
    number: name.removeprefix("STRATEGY_").lower().replace("_", "-")
    for name, number in snapshot_pb2.Strategy.items()
    if number
}


def provider_type(number: int) -> str:
    """The type as the configuration calls it; its number if a newer control plane has more of them."""
    found = snapshot_pb2.ProviderType.DESCRIPTOR.values_by_number.get(number)
    return str(number) if found is None else str(found.name).removeprefix("PROVIDER_TYPE_").lower()


def named(names: dict[int, Cell], number: int) -> Cell:
    """A state in words; a number that this version does not know is shown as one."""
    return names.get(number, (f"? {number}", "warn"))


def provider_state(one: providers_pb2.ProviderStatus) -> Cell:
    """Whether requests go there as far as people decide it; older control planes say it only by `enabled`."""
    if one.state:
        return named(PROVIDER_STATES, one.state)
    return ("enabled", "plain") if one.enabled else ("○ disabled", "dim")


def status(code: int) -> Cell:
    """An HTTP status."""
    if not code:
        return (figures.NOTHING, "dim")
    tone: Tone = "plain" if code < 400 else "warn" if code < 500 and code != 429 else "bad"
    return (str(code), tone)


def clock(at: Timestamp, now_s: float) -> str:
    """A time of day in UTC; with the day if it was not within the last 24 hours."""
    then_s = seconds(at)
    when = datetime.datetime.fromtimestamp(then_s, datetime.UTC)
    return when.strftime("%H:%M:%S" if abs(now_s - then_s) < 86_400 else "%m-%d %H:%M")


def ago(at: Timestamp, now_s: float) -> str:
    """How long ago a time is."""
    return figures.age(now_s - seconds(at))


def tokens(usage: usage_pb2.TokenUsage) -> int:
    """All of them."""
    return prompt_tokens(usage) + usage.output


def prompt_tokens(usage: usage_pb2.TokenUsage) -> int:
    """Everything that went in, from wherever."""
    return usage.input + usage.cache_read + usage.cache_write_5m + usage.cache_write_1h


def cache_share(usage: usage_pb2.TokenUsage) -> str:
    """The part of what went in that was read from a prompt cache."""
    return figures.share(usage.cache_read, prompt_tokens(usage))


def percentiles(one: stats_pb2.Percentiles) -> str:
    """Half, 90 % and 99 %."""
    return f"p50 {figures.micros(one.p50_us)}  p90 {figures.micros(one.p90_us)}  p99 {figures.micros(one.p99_us)}"
