"""Who goes next when there is room again? The bounded, fair queue of requests that found none.

Pure. Main turns go before subagents, these before background requests. Inside a class sessions take turns, so that one with many
waiting subagents does not hold up the others; inside a session the first to come goes first. Requests that could go to the same
places are in one lane: what the first of a lane has no room for, the rest of it does not ask for. Nor does anybody behind take
room that somebody before waits for, or small requests would pass large ones for ever. Times are seconds of the caller's monotonic
clock.

Who finds the queue full takes the place of the last in it, if that is of a lesser class, or one of more than a fair share.
"""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, NamedTuple, TypeVar

MAIN, SUBAGENT, BACKGROUND = range(3)  # ranks: lower goes first


class QueueRules(NamedTuple):
    """How long requests of a node wait, and how many of them."""

    max_wait_s: float
    max_depth: int


_T = TypeVar("_T")


class Place(Generic[_T]):
    """A request's place in the queue."""

    __slots__ = ("entered_s", "is_kept", "lane", "rank", "session", "until_s", "what")

    def __init__(self, what: _T, session: str, rank: int, lane: Hashable, entered_s: float, until_s: float) -> None:
        self.what = what
        self.session = session
        self.rank = rank
        self.lane = lane
        self.entered_s = entered_s
        self.until_s = until_s
        self.is_kept = True


class Round(NamedTuple, Generic[_T]):
    """What a look at the queue came to."""

    granted: list[Place[_T]]  # have taken their room and left, in this order
    expired: list[Place[_T]]  # have waited for as long as anybody may, and left
    look_again_s: float  # when, if nothing happens before; infinite: nobody waits


# Takes room for a request, except what is in the set, and says 0; or adds to the set what it waits for, and says for how many
# seconds from now there will be none (infinite: nobody knows).
Take = Callable[[_T, set[Hashable]], float]


class Queue(Generic[_T]):
    """The requests that wait."""

    def __init__(self, rules: QueueRules) -> None:
        self.rules = rules  # may be replaced: new ones are for who comes from then on
        self._ranks: tuple[OrderedDict[str, deque[Place[_T]]], ...] = (OrderedDict(), OrderedDict(), OrderedDict())
        self._lanes: dict[Hashable, int] = {}  # how many wait in each
        self._ends: list[tuple[float, int, Place[_T]]] = []  # a heap; some have left
        self._count = 0
        self._serial = 0

    def __len__(self) -> int:
        return self._count

    def enter(
        self, what: _T, session: str, rank: int, lane: Hashable, now_s: float
    ) -> tuple[Place[_T], Place[_T] | None]:
        """The request's place, and who has to go for it: nobody, somebody else, or, if their places are the same, itself."""
        place = Place(what, session, rank, lane, now_s, now_s + self.rules.max_wait_s)
        loser = None
        if self._count >= self.rules.max_depth:
            loser = self._loser(session, rank)
            if loser is None:
                place.is_kept = False
                return place, place
            self.leave(loser)
        self._ranks[rank].setdefault(session, deque()).append(place)
        self._lanes[lane] = self._lanes.get(lane, 0) + 1
        self._count += 1
        self._serial += 1
        heapq.heappush(self._ends, (place.until_s, self._serial, place))
        return place, loser

    def _loser(self, session: str, rank: int) -> Place[_T] | None:
        """Who gives way to a newcomer where there is no place left; None: nobody."""
        last = max((at for at, sessions in enumerate(self._ranks) if sessions), default=-1)
        if last < rank:
            return None
        crowd = max(self._ranks[last].values(), key=len)
        own = len(self._ranks[last].get(session, ()))
        return crowd[-1] if last > rank or own + 1 < len(crowd) else None

    def leave(self, place: Place[_T]) -> None:
        """The request waits no longer. Nothing happens if it has left before."""
        if not place.is_kept:
            return
        place.is_kept = False
        sessions = self._ranks[place.rank]
        waiting = sessions[place.session]
        waiting.remove(place)
        if not waiting:
            del sessions[place.session]
        left = self._lanes.pop(place.lane) - 1
        if left:
            self._lanes[place.lane] = left
        self._count -= 1
        if len(self._ends) > 2 * self._count + 64:
            self._ends = [entry for entry in self._ends if entry[2].is_kept]
            heapq.heapify(self._ends)

    def end_by(self, until_s: float) -> None:
        """Nobody waits for longer than this any more."""
        for _, _, place in self._ends:
            place.until_s = min(place.until_s, until_s)
        self._ends = [(place.until_s, serial, place) for _, serial, place in self._ends]
        heapq.heapify(self._ends)

    def in_order(self) -> Iterator[Place[_T]]:
        """Everybody, in the order in which they would get room now. Not to be changed meanwhile."""
        for sessions in self._ranks:
            depth = 0
            while True:
                turn = [waiting[depth] for waiting in sessions.values() if len(waiting) > depth]
                if not turn:
                    break
                yield from turn
                depth += 1

    def look(self, take: Take[_T], now_s: float) -> Round[_T]:
        """Let go who has waited for too long, and grant what room there is."""
        expired = []
        while self._ends and (self._ends[0][0] <= now_s or not self._ends[0][2].is_kept):
            place = heapq.heappop(self._ends)[2]
            if place.is_kept:
                self.leave(place)
                expired.append(place)
        granted: list[Place[_T]] = []
        awaited: set[Hashable] = set()  # what somebody before waits for
        stuck: set[Hashable] = set()  # lanes that have nothing to hope for before that
        room_in_s = math.inf
        while len(stuck) < len(self._lanes):
            place = next(one for one in self.in_order() if one.lane not in stuck)
            wait_s = take(place.what, awaited)
            if wait_s > 0:
                stuck.add(place.lane)
                room_in_s = min(room_in_s, wait_s)
                continue
            self._grant(place)
            granted.append(place)
        ends_s = self._ends[0][0] if self._ends else math.inf
        return Round(granted, expired, min(ends_s, now_s + room_in_s))

    def _grant(self, place: Place[_T]) -> None:
        """The request goes, and its session has had its turn."""
        self.leave(place)
        sessions = self._ranks[place.rank]
        if place.session in sessions:
            sessions.move_to_end(place.session)
