"""Where requests wait for room in the rate limits: core/waiting.py's queue, with a clock and a timer.

The queue is looked at when somebody enters, when something happened that may have made room (a lease, the end of a request, a
snapshot), and when a budget or somebody's patience said. Nothing is asked again and again meanwhile. `is_busy` is all that a request
looks at while nobody waits.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Hashable
from time import perf_counter
from typing import Protocol

from ccr_data.core.waiting import Place, Queue, QueueRules

MIN_TIMER_S = 0.001  # timers may fire that much early


class Waiter(Protocol):
    """A request that found no room."""

    def take_room(self, awaited: set[Hashable], now_s: float) -> float:
        """As core/waiting.py's Take."""
        ...

    def room_found(self, waited_s: float) -> None:
        """It has taken its room: it goes on."""
        ...

    def turned_away(self, waited_s: float) -> None:
        """It is to be answered as if nothing had been waited for."""
        ...


class WaitingRoom:
    """The requests of a node that wait."""

    def __init__(self) -> None:
        self.is_busy = False
        self._queue: Queue[Waiter] = Queue(QueueRules(0.0, 0))
        self._places: dict[Waiter, Place[Waiter]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._is_due = False
        self._ends_s = math.inf

    @property
    def count(self) -> int:
        """How many wait."""
        return len(self._places)

    def enter(self, waiter: Waiter, rules: QueueRules, session: str, rank: int, lane: Hashable) -> bool:
        """Wait; whether there is a place. `waiter` may have been told of its room when this returns."""
        now_s = perf_counter()
        self._queue.rules = rules
        place, loser = self._queue.enter(waiter, session, rank, lane, now_s)
        if loser is place:
            return False
        self._places[waiter] = place
        self.is_busy = True
        if place.until_s > self._ends_s:
            self._queue.end_by(self._ends_s)
        if loser is not None:
            self._turn_away(loser, now_s)
        self._look()
        return True

    def leave(self, waiter: Waiter) -> float | None:
        """The client has left; says how long it waited. None: it did not."""
        place = self._places.pop(waiter, None)
        if place is None:
            return None
        self._queue.leave(place)
        self.wake()  # somebody may have waited behind it
        return perf_counter() - place.entered_s

    def wake(self) -> None:
        """Something happened that may have made room."""
        if self.is_busy and not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._look)

    def end_by(self, until_s: float) -> None:
        """The node is about to stop: nobody waits for longer than this."""
        self._ends_s = until_s
        self._queue.end_by(until_s)
        self.wake()

    def _look(self) -> None:
        self._is_due = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now_s = perf_counter()
        found = self._queue.look(lambda waiter, awaited: waiter.take_room(awaited, now_s), now_s)
        self.is_busy = bool(len(self._queue))
        if self.is_busy and math.isfinite(found.look_again_s):
            delay_s = max(MIN_TIMER_S, found.look_again_s - now_s)
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._look)
        for place in found.granted:
            del self._places[place.what]
            place.what.room_found(now_s - place.entered_s)
        for place in found.expired:
            self._turn_away(place, now_s)

    def _turn_away(self, place: Place[Waiter], now_s: float) -> None:
        del self._places[place.what]
        place.what.turned_away(now_s - place.entered_s)
