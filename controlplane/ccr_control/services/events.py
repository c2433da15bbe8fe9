"""EventService: what happened besides requests."""

# ruff: noqa: ARG002, N802 - names and arguments of handlers are the contract's

from __future__ import annotations

from typing import Any, TypeAlias

import grpc.aio
from ccr_rpc.v1 import events_pb2, events_pb2_grpc

from ccr_control.core.errors import Malformed, NotNow
from ccr_control.core.events import Event, Kind
from ccr_control.services.wire import timestamp
from ccr_control.shell.events import Asking, EventLog
from ccr_control.store.actor import StoreUnavailable
from ccr_control.store.change_tables import MAX_EVENTS_TOLD

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"  # generic for type checkers only

EVENTS_UNLESS_SAID = 100

KINDS: dict[Kind, events_pb2.EventKind.ValueType] = {
    "audit": events_pb2.EVENT_KIND_AUDIT,
    "health": events_pb2.EVENT_KIND_HEALTH,
    "config": events_pb2.EVENT_KIND_CONFIG,
    "alert": events_pb2.EVENT_KIND_ALERT,
    "node": events_pb2.EVENT_KIND_NODE,
    "drift": events_pb2.EVENT_KIND_DRIFT,
}
_NAMES: dict[int, Kind] = {number: name for name, number in KINDS.items()}


class EventServicer(events_pb2_grpc.EventServiceServicer):
    """Shows events."""

    def __init__(self, events: EventLog, store: Asking) -> None:
        self._events, self._store = events, store

    async def ListEvents(
        self, request: events_pb2.ListEventsRequest, context: Context
    ) -> events_pb2.ListEventsResponse:
        """A page of events, newest first."""
        size = page_size(request.page_size, EVENTS_UNLESS_SAID, MAX_EVENTS_TOLD)
        kind, below = _kind(request.kind), page_begin(request.page_token)
        try:
            found = await self._store.ask(
                lambda tables: tables.changes.events_before(kind, request.resource, below, size)
            )
        except StoreUnavailable as error:
            raise NotNow("STORE_UNAVAILABLE", f"the store cannot be read now: {error}") from error
        is_more = len(found) == size and found[-1].number > 1
        return events_pb2.ListEventsResponse(
            events=map(event_message, found), next_page_token=str(found[-1].number) if is_more else ""
        )

    async def WatchEvents(  # type: ignore[override]  # it writes
        self, request: events_pb2.WatchEventsRequest, context: Context
    ) -> None:
        """Events as they happen, until the caller hangs up."""
        kind = _kind(request.kind)
        if request.after_id < 0:
            raise Malformed("OUT_OF_RANGE", f"after_id: must be 0 or more, not {request.after_id}")
        number = request.after_id or self._events.last_number
        while True:
            try:
                found = await self._events.after(number)
            except StoreUnavailable as error:
                raise NotNow("STORE_UNAVAILABLE", f"the store cannot be read now: {error}") from error
            for event in found:
                number = event.number
                if kind in ("", event.kind):
                    await context.write(events_pb2.WatchEventsResponse(event=event_message(event)))


def page_size(asked: int, unless_said: int, most: int) -> int:
    """How many a page holds. Raises Malformed."""
    if not 0 <= asked <= most:
        raise Malformed("OUT_OF_RANGE", f"page_size: must be 1 to {most}, not {asked}")
    return asked or unless_said


def page_begin(token: str) -> int:
    """The number below which a page begins; 0: with the newest. Raises Malformed."""
    if not token:
        return 0
    if not token.isascii() or not token.isdigit() or len(token) > 18 or not int(token):
        raise Malformed("PAGE_TOKEN", "page_token: is not one of an answer")
    return int(token)


def event_message(event: Event) -> events_pb2.Event:
    """An event as the contract has it."""
    return events_pb2.Event(
        id=event.number,
        at=timestamp(event.at_s),
        kind=KINDS.get(event.kind, events_pb2.EVENT_KIND_UNSPECIFIED),
        action=event.action,
        resource=event.resource,
        actor=event.actor,
        before_json=event.before_json,
        after_json=event.after_json,
        message=event.message,
    )


def _kind(number: int) -> Kind | str:
    if number and number not in _NAMES:
        raise Malformed("NO_SUCH_KIND", f"kind: there is none of number {number}")
    return _NAMES[number] if number else ""
