"""DashboardService: everything that a screen shows, on one stream.

Parts that all screens share are made and encoded once in a tick, however many watch; a message is their bytes, one after the other.
"""

# ruff: noqa: N802 - names and arguments of handlers are the contract's

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeAlias, cast

import grpc
import grpc.aio
from ccr_rpc.v1 import dashboard_pb2, stats_pb2
from google.protobuf.message import Message

from ccr_control.core.burndown import BurnDown
from ccr_control.core.errors import Malformed, Refused
from ccr_control.core.events import Event
from ccr_control.core.history import HOUR
from ccr_control.core.recent import Recent
from ccr_control.core.stats import Stats
from ccr_control.services.events import event_message
from ccr_control.services.figures_wire import point_message, session_message
from ccr_control.services.leasing import history_message
from ccr_control.services.record_wire import as_it_is, field_of, filter_of, tail_bytes
from ccr_control.services.records import Tail
from ccr_control.services.wire import timestamp
from ccr_control.shell.events import EventLog
from ccr_control.store.actor import StoreUnavailable

MIN_INTERVAL_S = 0.1
MAX_INTERVAL_S = 60.0
INTERVAL_UNLESS_SAID_S = 0.25
MAX_EVENTS = 50
MAX_RECORDS = 200
MAX_SESSIONS = 200
BUDGETS_AT_ONCE = 100
SESSIONS_OF_S = 15 * 60.0
FRESH_S = 0.09  # what was made within this time is new enough: a little less than the shortest interval

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"  # generic for type checkers only
Make = Callable[[], Awaitable[Message]]
_FIELDS = dashboard_pb2.WatchResponse.DESCRIPTOR.fields_by_name


def _tag(name: str) -> int:
    return _FIELDS[name].number << 3 | 2


PARTS = ("stats", "providers", "keys", "scopes", "nodes", "config", "sessions")
"""What is sent whole whenever it changed."""


class Part:
    """A message that all watchers share, encoded as a field of theirs, and a number that grows when it changes."""

    def __init__(self, name: str, make: Make) -> None:
        self.number = 0
        self.encoded = b""
        self._tag, self._make = _tag(name), make
        self._compared = b""
        self._made_s = float("-inf")
        self._making = asyncio.Lock()

    async def refresh(self) -> None:
        """Make it anew, unless that was done a moment ago. What cannot be made now stays as it was."""
        async with self._making:
            if time.monotonic() - self._made_s < FRESH_S:
                return
            self._made_s = time.monotonic()
            with contextlib.suppress(Refused, StoreUnavailable):
                message = await self._make()
                compared = _without_time(message)
                if compared != self._compared:
                    self._compared = compared
                    self.number += 1
                    self.encoded = field_of(self._tag, message.SerializeToString(deterministic=True))


def _without_time(message: Message) -> bytes:
    """What must differ for it to be news: not the moment itself."""
    if isinstance(message, stats_pb2.Stats):
        known = stats_pb2.Stats()
        known.CopyFrom(message)
        known.ClearField("at")
        return known.SerializeToString(deterministic=True)
    return message.SerializeToString(deterministic=True)


@dataclass(slots=True)
class Place:
    """How far a watcher has come."""

    tail: Tail | None
    event: int
    parts: dict[str, int] = field(default_factory=dict)
    points: Mapping[int, bytes] = field(default_factory=dict)  # as they were sent, by when they begin
    budgets: int = 0  # the number of the newest point that it has
    is_first: bool = True


class DashboardServicer:
    """One stream for each screen."""

    def __init__(
        self,
        stats: Stats,
        recent: Recent,
        events: EventLog,
        makers: Mapping[str, Make],
        events_before: Callable[[int], Awaitable[list[Event]]],
        now: Callable[[], float],
        burndown: BurnDown | None = None,
    ) -> None:
        """`makers` make the parts of `PARTS`; those that are not there are never sent. `events_before`: so many, newest first."""
        self._stats, self._recent, self._events, self._now = stats, recent, events, now
        self._events_before, self._burndown = events_before, burndown or BurnDown()
        self._new_budgets: tuple[int, int, bytes] = (0, 0, b"")  # points after one number up to another, encoded
        made = {"sessions": self._sessions, **makers}
        self._parts = {name: Part(name, made[name]) for name in PARTS if name in made}
        self._points: tuple[float, dict[int, bytes]] = (float("-inf"), {})

    async def Watch(self, request: dashboard_pb2.WatchRequest, context: Context) -> None:
        """What was asked for, at once and then whenever it changed, until the caller hangs up."""
        interval_s = _interval(request)
        write = cast("Callable[[bytes], Any]", context.write)  # its serializer takes what is encoded already
        wanted = _wanted(request)
        tail = Tail(self._recent, filter_of(request.records), MAX_RECORDS) if request.HasField("records") else None
        place = Place(tail, self._events.last_number)
        while True:
            message = await self._message(request, wanted, place)
            if message or place.is_first:
                at = dashboard_pb2.WatchResponse(at=timestamp(self._now())).SerializeToString()
                await write(at + message)
            if place.is_first and request.budgets:
                await self._whole_budgets(write, place)
            place.is_first = False
            await asyncio.sleep(interval_s - time.monotonic() % interval_s)  # all in step: what is made once serves all

    async def _message(self, request: dashboard_pb2.WatchRequest, wanted: tuple[str, ...], place: Place) -> bytes:
        found: list[bytes] = []
        for name in wanted:
            part = self._parts.get(name)
            if part is None:
                continue
            await part.refresh()
            if place.parts.get(name, 0) != part.number:
                place.parts[name] = part.number
                found.append(part.encoded)
        if request.events:
            found += [field_of(_tag("events"), one) for one in await self._new_events(place)]
        if place.tail is not None:
            found.append(_new_records(place.tail, is_first=place.is_first))
        if request.series:
            found += self._new_points(place)
        if request.budgets and not place.is_first:
            found.append(self._new_budget_points(place))
        return b"".join(found)

    async def _whole_budgets(self, write: Callable[[bytes], Any], place: Place) -> None:
        """The last hour, in messages that a client takes: all of 1,000 budgets would be more than gRPC's 4 MB."""
        burndown = self._burndown
        until, names = burndown.number, burndown.budgets()
        place.budgets = until
        for begin in range(0, len(names), BUDGETS_AT_ONCE):
            whole = history_message(burndown, names[begin : begin + BUDGETS_AT_ONCE], 0, until)
            await write(dashboard_pb2.WatchResponse(at=timestamp(self._now()), budgets=whole).SerializeToString())

    def _new_budget_points(self, place: Place) -> bytes:
        """Those after what was sent, made once for all who watch."""
        burndown = self._burndown
        after, until = place.budgets, burndown.number
        if after == until:
            return b""
        place.budgets = until
        if self._new_budgets[:2] != (after, until):
            news = history_message(burndown, burndown.budgets(), after, until).SerializeToString()
            self._new_budgets = (after, until, field_of(_tag("budgets"), news))
        return self._new_budgets[2]

    async def _new_events(self, place: Place) -> list[bytes]:
        try:
            if place.is_first:
                events = [one for one in (await self._events_before(MAX_EVENTS))[::-1] if one.number <= place.event]
            elif self._events.last_number > place.event:
                events = await self._events.after(place.event)
            else:
                return []
        except StoreUnavailable:
            return []
        if events:
            place.event = events[-1].number
        return [event_message(one).SerializeToString() for one in events]

    def _new_points(self, place: Place) -> list[bytes]:
        """Those of the last hour at first, then those that have grown since: also an older one, by what is told late."""
        now_s = self._now()
        if now_s - self._points[0] > FRESH_S:
            series = self._stats.history.series(HOUR, now_s)
            self._points = (
                now_s,
                {
                    start: field_of(_tag("series"), point_message(start, HOUR, part).SerializeToString())
                    for start, part in series
                },
            )
        sent, place.points = place.points, self._points[1]
        return [one for start, one in place.points.items() if sent.get(start) != one]

    async def _sessions(self) -> stats_pb2.ListSessionsResponse:
        now_s = self._now()
        newest = islice(self._stats.sessions.newest(now_s, now_s - SESSIONS_OF_S), MAX_SESSIONS)
        return stats_pb2.ListSessionsResponse(sessions=map(session_message, newest))


def _new_records(tail: Tail, *, is_first: bool) -> bytes:
    records, skipped = (tail.backlog(), 0) if is_first else tail.new()
    left_out = max(0, len(records) - MAX_RECORDS)
    if not records and not skipped:
        return b""
    return field_of(_tag("records"), tail_bytes(records[left_out:], skipped + left_out))


def _wanted(request: dashboard_pb2.WatchRequest) -> tuple[str, ...]:
    asked = {
        "stats": request.stats,
        "providers": request.providers,
        "keys": request.keys,
        "scopes": request.keys,
        "nodes": request.nodes,
        "config": request.config,
        "sessions": request.sessions,
    }
    return tuple(name for name in PARTS if asked[name])


def _interval(request: dashboard_pb2.WatchRequest) -> float:
    """Seconds between two messages. Raises Malformed."""
    if not request.HasField("interval"):
        return INTERVAL_UNLESS_SAID_S
    interval_s = request.interval.seconds + request.interval.nanos / 1e9
    if not MIN_INTERVAL_S <= interval_s <= MAX_INTERVAL_S:
        raise Malformed(
            "OUT_OF_RANGE", f"interval: must be {MIN_INTERVAL_S} s to {MAX_INTERVAL_S:.0f} s, not {interval_s} s"
        )
    return interval_s


def add_dashboard_servicer(servicer: DashboardServicer, server: grpc.aio.Server) -> None:
    """Add it to a server; what it writes is encoded already."""
    handler = grpc.unary_stream_rpc_method_handler(
        servicer.Watch,
        request_deserializer=dashboard_pb2.WatchRequest.FromString,
        response_serializer=as_it_is,
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("ccr.rpc.v1.DashboardService", {"Watch": handler}),)
    )


def stats_maker(message: Callable[[], stats_pb2.Stats]) -> Make:
    """A maker of what is there at once."""

    async def make() -> Message:
        return message()

    return make
