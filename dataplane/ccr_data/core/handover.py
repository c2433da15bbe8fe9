"""Which thinking blocks of a session were made where: what to leave out at a target that cannot verify them.

Pure. Only sessions that have moved between readers (core/thinking.py), or whose blocks a provider refused, are in here. What is
known of a block never depends on the target that a request ends up at, so attempts may fail and move on as they like.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping

from ccr_data.core.pins import SessionKey

MAX_SESSIONS = 5_000
MAX_MARKS = 50_000  # about 8 MB
MAX_MARKS_OF_SESSION = 8_192
NOWHERE = ""  # a provider refused the block

Homes = dict[bytes, str]  # mark of a block → the reader it was made for


class Handovers:
    """The blocks of one node's sessions: bounded, least recently used first out."""

    def __init__(self, max_sessions: int = MAX_SESSIONS, max_marks: int = MAX_MARKS) -> None:
        self._homes: OrderedDict[SessionKey, Homes] = OrderedDict()
        self._max_sessions = max_sessions
        self._max_marks = max_marks
        self._mark_count = 0
        self.changed: dict[SessionKey, Homes] = {}  # since the last time it was emptied, by who tells others

    def __bool__(self) -> bool:
        return bool(self._homes)

    def __contains__(self, session: SessionKey) -> bool:
        return session in self._homes

    def foreign(self, session: SessionKey, reader: str) -> frozenset[bytes]:
        """The marks of the blocks that this reader does not verify, as far as is known."""
        homes = self._homes.get(session)
        if homes is None:
            return frozenset()
        self._homes.move_to_end(session)
        return frozenset(mark for mark, home in homes.items() if home != reader)

    def moves(self, session: SessionKey, marks: Iterable[bytes], home: str) -> None:
        """The session leaves its home: blocks of which nothing is known were made there."""
        homes = self._homes.get(session, {})
        self._note(session, {mark: home for mark in marks if mark not in homes})

    def refused(self, session: SessionKey, marks: Iterable[bytes]) -> None:
        """A provider refused the blocks, and took the conversation without them."""
        homes = self._homes.get(session, {})
        self._note(session, {mark: NOWHERE for mark in marks if homes.get(mark) != NOWHERE})

    def learn(self, session: SessionKey, homes: Mapping[bytes, str]) -> None:
        """Another node's note."""
        self._take(session, homes)

    def all(self) -> dict[SessionKey, Homes]:
        """A copy of everything, least recently used first."""
        return {session: dict(homes) for session, homes in self._homes.items()}

    def _note(self, session: SessionKey, news: Homes) -> None:
        if news:
            self._take(session, news)
            if len(self.changed) < self._max_sessions or session in self.changed:
                self.changed.setdefault(session, {}).update(news)

    def _take(self, session: SessionKey, news: Mapping[bytes, str]) -> None:
        homes = self._homes.setdefault(session, {})
        before = len(homes)
        homes.update(news)
        while len(homes) > MAX_MARKS_OF_SESSION:
            del homes[next(iter(homes))]
        self._mark_count += len(homes) - before
        self._homes.move_to_end(session)
        while len(self._homes) > self._max_sessions or (self._mark_count > self._max_marks and len(self._homes) > 1):
            _, dropped = self._homes.popitem(last=False)
            self._mark_count -= len(dropped)
