"""The newest finished requests, for whoever looks at them, follows them, or asks why one went where it went.

Pure. Bounded, and without their text. Each has a number, which grows: who has seen one asks for those after it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from ccr_control.core.patterns import fits

MAX_RECENT = 5000


@dataclass(frozen=True, slots=True)
class About:
    """What records can be asked for by."""

    started_at_s: float = 0.0
    client: str = ""
    session: str = ""
    tried: tuple[tuple[str, str], ...] = ()  # provider and key label of each attempt
    model: str = ""  # asked for
    outcome: int = 0  # the contract's number
    status: int = 0
    has_failed_attempt: bool = False
    total_us: int = 0
    route: str = ""


@dataclass(frozen=True, slots=True)
class Noted:
    """A record in the contract's serialised form (a few hundred bytes), as a whole and with what else is known of it."""

    number: int
    request_id: str
    node_id: str
    record: bytes
    stored: bytes  # as StoredRecord
    about: About


@dataclass(frozen=True, slots=True)
class Filter:
    """Which records: everything that is set must fit."""

    client: str = ""
    session: str = ""
    provider: str = ""
    key_label: str = ""
    model: str = ""  # a pattern
    outcome: int = 0
    min_status: int = 0
    with_failed_attempt: bool = False
    min_total_us: int = 0
    route: str = ""
    since_s: float = 0.0

    def fits(self, about: About) -> bool:
        """Whether a record is one of these."""
        return (
            (not self.client or self.client == about.client)
            and (not self.session or self.session == about.session)
            and (not (self.provider or self.key_label) or self._was_tried(about))
            and (not self.model or fits(self.model, about.model))
            and (not self.outcome or self.outcome == about.outcome)
            and about.status >= self.min_status
            and (about.has_failed_attempt or not self.with_failed_attempt)
            and about.total_us >= self.min_total_us
            and (not self.route or self.route == about.route)
            and about.started_at_s >= self.since_s
        )

    def _was_tried(self, about: About) -> bool:
        """One attempt must fit both: a key's label is unique within its provider only."""
        return any(self.provider in ("", provider) and self.key_label in ("", label) for provider, label in about.tried)


EVERYTHING = About()


class Recent:
    """The newest records, oldest first out."""

    def __init__(self, limit: int = MAX_RECENT) -> None:
        self._records: deque[Noted] = deque()
        self._numbers: dict[str, int] = {}  # by request id
        self._limit = limit
        self.last = 0  # the number of the newest

    def __len__(self) -> int:
        return len(self._records)

    def note(
        self, request_id: str, node_id: str, record: bytes, stored: bytes = b"", about: About = EVERYTHING
    ) -> None:
        """Keep a record. One that is told twice stays one, where it was."""
        if request_id in self._numbers:
            return
        self.last += 1
        self._numbers[request_id] = self.last
        self._records.append(Noted(self.last, request_id, node_id, record, stored, about))
        if len(self._records) > self._limit:
            oldest = self._records.popleft()
            del self._numbers[oldest.request_id]

    def of(self, request_id: str) -> tuple[str, bytes] | None:
        """Node and record of a request; None if it is not among the newest."""
        number = self._numbers.get(request_id)
        if number is None:
            return None
        found = self._records[number - self._records[0].number]
        return found.node_id, found.record

    def before(self, number: int, which: Filter) -> Iterator[Noted]:
        """Those that fit, newest first, that have a smaller number."""
        for one in reversed(self._records):
            if one.number < number and which.fits(one.about):
                yield one

    def after(self, number: int, most: int) -> tuple[list[Noted], int]:
        """Those with a larger number, oldest first, but only the newest `most`; and how many were left out."""
        wanted = self.last - number
        some = min(wanted, most, len(self._records))
        newest = [self._records[place] for place in range(-some, 0)]
        return newest, wanted - some
