"""Events on their way: into the store, and to whoever watches.

A change and its event are kept together by whoever makes the change (shell/changes.py); everything else is noted here, queued, and
kept as soon as the store takes it. Watchers see each event once, in the order of their numbers, and only after it is kept.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol, TypeVar

from ccr_control.core.events import Event, Kind, as_json
from ccr_control.shell.log import Log
from ccr_control.store.actor import StoreUnavailable, Tables

MAX_WAITING = 2000  # beyond it the oldest that was not kept yet is lost
MAX_RECENT = 1000
MAX_AT_ONCE = 200
KEEP_AGAIN_S = 1.0

_T = TypeVar("_T")

log = Log("events")


class Asking(Protocol):
    """The part of the store that is needed here."""

    async def ask(self, question: Callable[[Tables], _T]) -> _T:
        """Have this done with the database. Raises StoreUnavailable."""


class EventLog:
    """What happened. All methods are for the event loop."""

    def __init__(self, store: Asking, now: Callable[[], float]) -> None:
        self._store, self._now = store, now
        self._waiting: deque[Event] = deque(maxlen=MAX_WAITING)
        self._is_waiting = asyncio.Event()
        self._recent: deque[Event] = deque(maxlen=MAX_RECENT)  # kept ones, without a gap
        self._early: dict[int, Event] = {}  # kept ones whose predecessor has not been told of yet
        self._last = self._began_at = 0
        self._beginnings = 0
        self._news = asyncio.Event()  # replaced by each event, so that nobody misses one

    def begin(self, last_number: int) -> None:
        """A store was opened; its newest event has this number."""
        self._last = self._began_at = last_number
        self._beginnings += 1
        self._early.clear()
        self._recent.clear()

    @property
    def last_number(self) -> int:
        """Of the newest event that was kept."""
        return self._last

    def note(
        self,
        kind: Kind,
        action: str,
        resource: str = "",
        *,
        actor: str = "",
        before: Mapping[str, object] | None = None,
        after: Mapping[str, object] | None = None,
        message: str = "",
    ) -> None:
        """Something happened; it is kept soon. No secrets and no words of a request, please."""
        event = self.made(kind, action, resource, actor=actor, before=before, after=after, message=message)
        if len(self._waiting) == MAX_WAITING:
            log.warning("event_lost", action=self._waiting[0].action, effect="the store takes none")
        self._waiting.append(event)
        self._is_waiting.set()

    def made(
        self,
        kind: Kind,
        action: str,
        resource: str = "",
        *,
        actor: str = "",
        before: Mapping[str, object] | None = None,
        after: Mapping[str, object] | None = None,
        message: str = "",
    ) -> Event:
        """An event of now, for whoever keeps it with a change."""
        return Event(kind, action, resource, actor, as_json(before), as_json(after), message, self._now())

    def told(self, kept: Sequence[Event]) -> None:
        """These were kept, and have their numbers."""
        for event in kept:
            self._early[event.number] = event
        while (following := self._early.pop(self._last + 1, None)) is not None:
            self._last = following.number
            self._recent.append(following)
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def run(self) -> None:
        """Have everything noted kept, until cancelled."""
        while True:
            await self._is_waiting.wait()
            self._is_waiting.clear()
            while self._waiting:
                some = list(self._waiting)[:MAX_AT_ONCE]
                try:
                    kept = await self._store.ask(lambda tables: tables.changes.add_events(some))  # noqa: B023 - done when this returns
                except StoreUnavailable:  # the store has said why
                    await asyncio.sleep(KEEP_AGAIN_S)
                    continue
                for _ in range(len(some)):  # those that were lost meanwhile were the oldest: these
                    if self._waiting and self._waiting[0] in some:
                        self._waiting.popleft()
                self.told(kept)

    async def after(self, number: int) -> list[Event]:
        """Events after one, oldest first, as soon as there is any. Raises StoreUnavailable. The caller limits the wait."""
        beginnings = self._beginnings
        while self._last <= number:
            number = min(number, self._last)  # it may be of a database that is no more
            await self._news.wait()
            if beginnings != self._beginnings:
                number, beginnings = self._began_at, self._beginnings
        if self._recent and self._recent[0].number <= number + 1:
            return [event for event in self._recent if event.number > number][:MAX_AT_ONCE]
        found = await self._store.ask(lambda tables: tables.changes.events_after(number, MAX_AT_ONCE))
        return [replace(event) for event in found if event.number <= self._last]
