"""What the dashboard knows: everything the control plane said, and how the line to it is.

Pure. `after` takes one message of the stream; the shell calls it as often as messages come and paints when it likes.
The contract's messages are the values here: nobody changes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ccr_rpc.v1 import (
    access_pb2,
    config_pb2,
    dashboard_pb2,
    events_pb2,
    fleet_pb2,
    keys_pb2,
    providers_pb2,
    records_pb2,
    stats_pb2,
)
from google.protobuf.timestamp_pb2 import Timestamp

MAX_RECORDS = 1000
MAX_EVENTS = 1000
MAX_POINTS = 3600


@dataclass(frozen=True, slots=True)
class Connecting:
    """No answer yet."""


@dataclass(frozen=True, slots=True)
class Live:
    """Messages come."""


@dataclass(frozen=True, slots=True)
class Away:
    """The line broke, or was never there. It is tried again."""

    why: str
    retry_at_s: float  # wall clock


@dataclass(frozen=True, slots=True)
class Unable:
    """The control plane is there and does not do this: it is older, or refuses us."""

    why: str


Link = Connecting | Live | Away | Unable


@dataclass(frozen=True, slots=True)
class World:
    """Everything known. None: nothing was said about it yet."""

    base: Link = Connecting()  # the stream of what every view shows
    focus: Link = Connecting()  # the stream of what only the view in front shows
    clock_offset_s: float = 0.0  # the control plane's clock is ahead by so much
    me: access_pb2.WhoAmIResponse | None = None
    stats: stats_pb2.Stats | None = None
    providers: Sequence[providers_pb2.ProviderStatus] | None = None
    keys: Sequence[keys_pb2.KeyStatus] | None = None
    scopes: Sequence[keys_pb2.ScopeBudget] | None = None
    nodes: Sequence[fleet_pb2.Node] | None = None
    newest_version: int = 0
    config: config_pb2.GetConfigResponse | None = None
    sessions: Sequence[stats_pb2.Session] | None = None
    events: tuple[events_pb2.Event, ...] = ()  # newest first
    records: tuple[records_pb2.StoredRecord, ...] | None = None  # newest first
    skipped: int = 0  # records that the stream left out
    series: tuple[stats_pb2.SeriesPoint, ...] = ()  # oldest first
    figures: dict[str, stats_pb2.ProviderFigures] = field(default_factory=dict)  # by provider


def after(world: World, said: dashboard_pb2.WatchResponse, received_s: float) -> World:
    """The world after a message, which was received at `received_s` (wall clock)."""
    changed: dict[str, object] = {}
    if said.HasField("at"):
        changed["clock_offset_s"] = seconds(said.at) - received_s
    if said.HasField("stats"):
        changed["stats"] = said.stats
        changed["figures"] = {one.provider: one for one in said.stats.providers}
    if said.HasField("providers"):
        changed["providers"] = said.providers.providers
    if said.HasField("keys"):
        changed["keys"] = said.keys.keys
    if said.HasField("scopes"):
        changed["scopes"] = said.scopes.budgets
    if said.HasField("nodes"):
        changed["nodes"] = said.nodes.nodes
        changed["newest_version"] = said.nodes.newest_version
    if said.HasField("config"):
        changed["config"] = said.config
    if said.HasField("sessions"):
        changed["sessions"] = said.sessions.sessions
    if said.events:
        changed["events"] = merged_events(world.events, said.events)
    if said.HasField("records"):
        newest = tuple(reversed(said.records.records))
        changed["records"] = (newest + (world.records or ()))[:MAX_RECORDS]
        changed["skipped"] = world.skipped + said.records.skipped
    if said.series:
        changed["series"] = merged_points(world.series, said.series)
    return replace(world, **changed)  # type: ignore[arg-type] # the names above are fields of it


def merged_events(known: tuple[events_pb2.Event, ...], new: Sequence[events_pb2.Event]) -> tuple[events_pb2.Event, ...]:
    """Newest first, each once: a stream that begins again tells the newest again."""
    newest = known[0].id if known else -1
    if new[-1].id < newest:  # a store that was lost counts from the beginning
        return tuple(reversed(new))[:MAX_EVENTS]
    fresh = [event for event in reversed(new) if event.id > newest]
    return (*fresh, *known)[:MAX_EVENTS]


def merged_points(
    known: tuple[stats_pb2.SeriesPoint, ...], new: Sequence[stats_pb2.SeriesPoint]
) -> tuple[stats_pb2.SeriesPoint, ...]:
    """Oldest first; what is told again takes the place of what was told before."""
    by_begin = {seconds(point.at): point for point in (*known, *new)}
    return tuple(by_begin[begin_s] for begin_s in sorted(by_begin))[-MAX_POINTS:]


def without_records(world: World) -> World:
    """For another filter: what the one before let through is gone."""
    return replace(world, records=None, skipped=0)


def seconds(at: Timestamp) -> float:
    """Seconds since 1970."""
    return at.seconds + at.nanos / 1e9
