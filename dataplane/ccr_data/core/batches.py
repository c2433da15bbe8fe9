"""The journal of one process: finished requests in numbered batches, each of which the control plane counts exactly
once.

Pure. What is noted collects in an open part. `seal()` gives that part the next number, and from then on its bytes
never change; until acknowledged it is kept, to be sent again after a reconnect. What waits is bounded: beyond
`Limits` no request is told one by one; all are folded into sums (core/folding.py), which stay open, and so grow in
place, until there is room again.

What should be on disk for a successor while the control plane is away is decided here, too (`unspooled`,
`is_spool_spent`). A draft is the open part under the number it will get; a later draft, and at last the sealed
batch, replaces it there. Nothing is sent before it is sealed. Times are seconds of the caller's monotonic clock,
except those in records.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from ccr_data.core.drift import UnknownName
from ccr_data.core.failures import FailureNews, FailureSighting
from ccr_data.core.folding import SumKey, Sums, UsageSum, fold
from ccr_data.core.records import RateLimitSighting, Reason, Record

MAX_UNKNOWNS = 100
CUT_OFF_AFTER_S = 1.0  # a batch unacknowledged for longer belongs on disk


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is told one by one, and how much of it may wait for its acknowledgement."""

    told_a_period: int = 100  # 400 a second are more than anybody reads; each costs ten times as much as a folded one
    records: int = 20_000
    payload_bytes: int = 16 << 20
    sum_keys: int = 1000


LIMITS = Limits()


class Encoder(Protocol):
    """How batches are written: in parts, whose bytes, one after the other, are the batch. Never raises."""

    def head(self, journal: str, number: int) -> bytes:
        """The name of a batch."""
        ...

    def records(self, records: Sequence[Record]) -> bytes:
        """Finished requests, one by one."""
        ...

    def sums(self, sums: Mapping[SumKey, UsageSum]) -> bytes:
        """Finished requests, folded."""
        ...

    def sightings(self, sightings: Iterable[RateLimitSighting]) -> bytes:
        """Rate-limit headers."""
        ...

    def failures(self, failures: Iterable[FailureSighting]) -> bytes:
        """News of failed attempts."""
        ...

    def unknowns(self, unknowns: Mapping[UnknownName, int]) -> bytes:
        """Names that are not known, and how often they were seen."""
        ...


@dataclass(frozen=True, slots=True)
class Batch:
    """A numbered batch."""

    number: int
    payload: bytes = field(repr=False)
    weight: int  # records in it; at least 1
    sealed_at_s: float


@dataclass(frozen=True, slots=True)
class Draft:
    """The open part as it would be sealed now, for the disk only."""

    number: int
    payload: bytes = field(repr=False)
    revision: int


@dataclass(frozen=True, slots=True)
class Unspooled:
    """What belongs on disk and is not there."""

    batches: tuple[Batch, ...] = ()
    draft: Draft | None = None

    def __bool__(self) -> bool:
        return bool(self.batches) or self.draft is not None

    def frames(self) -> Iterator[tuple[int, bytes]]:
        """Numbers and payloads in the order of the file."""
        for batch in self.batches:
            yield batch.number, batch.payload
        if self.draft is not None:
            yield self.draft.number, self.draft.payload


_Item = TypeVar("_Item")


class Waiting(Generic[_Item]):
    """Numbered batches of one journal that wait for their acknowledgement, in order."""

    def __init__(self, journal: str) -> None:
        self.journal = journal  # the name inside the batches
        self.sent_as = journal  # the name they are delivered under
        self.acknowledged = 0
        self._items: dict[int, _Item] = {}  # ascending
        self._last = 0

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[_Item]:
        return iter(self._items.values())

    def add(self, number: int, item: _Item) -> None:
        """A further batch; numbers grow."""
        assert number > self._last, "batches wait in the order of their numbers"
        self._items[number] = item
        self._last = number

    def oldest(self) -> _Item | None:
        """The first one that is not acknowledged."""
        return next(iter(self._items.values()), None)

    def after(self, number: int) -> tuple[int, _Item] | None:
        """The next one to send when all up to `number` have been."""
        if number >= self._last:
            return None
        following = self._items.get(number + 1)
        if following is not None:
            return number + 1, following
        return next(((one, item) for one, item in self._items.items() if one > number), None)

    def ack(self, number: int) -> list[_Item]:
        """All up to `number` are kept by the control plane; returns those that waited.

        A dead process may have delivered more than it left on disk, so that `number` may be beyond all of them.
        """
        self.acknowledged = max(self.acknowledged, number)
        done: list[_Item] = []
        while self._items:
            first = next(iter(self._items))
            if first > number:
                break
            done.append(self._items.pop(first))
        return done

    def resume_at(self, expected: int) -> list[_Item]:
        """The control plane named the number it expects; returns what is thereby acknowledged.

        If it wants what is no longer here (its store is older than its acknowledgements), what is left is delivered
        under another name. It is the same for whoever delivers this journal, so that nothing is counted twice.
        """
        first = next(iter(self._items), self._last + 1)
        if first <= expected <= self._last + 1:
            kept = self.ack(expected - 1)
            self.acknowledged = expected - 1
            return kept
        self.sent_as = f"{self.sent_as}.{expected}"
        return []


class Journal:
    """The batches of this process."""

    def __init__(self, name: str, encoder: Encoder, limits: Limits = LIMITS) -> None:
        self.waiting: Waiting[Batch] = Waiting(name)
        self._encoder = encoder
        self._limits = limits
        self._next = 1
        self._parts: list[bytes] = []  # of the open part
        self._open_records = 0
        self._open_bytes = 0
        self._sums: Sums = {}
        self._sightings: dict[tuple[str, str], RateLimitSighting] = {}
        self._failures = FailureNews()
        self._unknowns: dict[UnknownName, int] = {}
        self._sealed_records = 0
        self._sealed_bytes = 0
        self._revision = 0  # of the open part
        self._spooled = 0  # the last sealed batch on disk
        self._spooled_revision = 0
        self._on_disk_to = 0  # the largest number on disk, drafts included; 0: the disk holds nothing

    # --- taking in --------------------------------------------------------------------------------------------------

    @property
    def is_full(self) -> bool:
        """Whether further requests are folded."""
        return (
            self._sealed_records + self._open_records >= self._limits.records
            or self._sealed_bytes + self._open_bytes >= self._limits.payload_bytes
        )

    @property
    def is_held_back(self) -> bool:
        """Whether the open part gets no number, because too much waits already."""
        return self.is_full and len(self.waiting) > 0

    @property
    def has_open(self) -> bool:
        """Whether anything has no number yet."""
        return bool(self._parts or self._sums or self._sightings or self._failures or self._unknowns)

    @property
    def has_any(self) -> bool:
        """Whether anything is not acknowledged, numbered or not."""
        return bool(len(self.waiting)) or self.has_open

    def note(self, records: Sequence[Record], folded: Sequence[Record] = ()) -> None:
        """Requests have finished: some to tell one by one, if there is room, and some to fold anyway."""
        self._revision += 1
        if self.is_full:
            fold(self._sums, [*records, *folded], self._limits.sum_keys, by_second=False)
            return
        fold(self._sums, folded, self._limits.sum_keys, by_second=True)
        if not records:
            return
        part = self._encoder.records(records)
        self._parts.append(part)
        self._open_records += len(records)
        self._open_bytes += len(part)

    def sight(self, sighting: RateLimitSighting) -> None:
        """Rate-limit headers were seen; the newest of each key counts."""
        self._sightings[sighting.provider, sighting.key_label] = sighting

    def sight_failure(self, provider: str, reason: Reason, at_s: float, key_label: str = "", scope: str = "") -> bool:
        """An attempt failed at that Unix time. Returns whether the control plane should hear of it at once."""
        return self._failures.note(provider, reason, at_s, key_label, scope)

    def sight_unknown(self, name: UnknownName) -> None:
        """Somebody said a name that is not known. Beyond the limit further ones of a batch are not told of."""
        if name in self._unknowns or len(self._unknowns) < MAX_UNKNOWNS:
            self._unknowns[name] = self._unknowns.get(name, 0) + 1

    def seal(self, now_s: float, *, even_if_empty: bool = False) -> Batch | None:
        """Number what is open. None if there is nothing, or as long as too much waits already."""
        if not (self.has_open or even_if_empty) or self.is_held_back:
            return None
        batch = Batch(self._next, self._payload(), max(1, self._open_records), now_s)
        self.waiting.add(batch.number, batch)
        self._sealed_records += batch.weight
        self._sealed_bytes += len(batch.payload)
        self._next += 1
        self._parts, self._open_records, self._open_bytes = [], 0, 0
        self._sums, self._sightings = {}, {}
        self._failures.clear()
        self._unknowns = {}
        return batch

    def _payload(self) -> bytes:
        encoder = self._encoder
        parts = [encoder.head(self.waiting.journal, self._next), *self._parts]
        if self._sums:
            parts.append(encoder.sums(self._sums))
        if self._sightings:
            parts.append(encoder.sightings(self._sightings.values()))
        if self._failures:
            parts.append(encoder.failures(self._failures.all()))
        if self._unknowns:
            parts.append(encoder.unknowns(self._unknowns))
        return b"".join(parts)

    # --- what the control plane says --------------------------------------------------------------------------------

    def ack(self, number: int) -> None:
        """All batches up to `number` are kept by the control plane. A number that was never sealed is not believed."""
        if number < self._next:
            self._forget(self.waiting.ack(number))

    def resume_at(self, expected: int) -> None:
        """The control plane named the number that it expects next."""
        self._forget(self.waiting.resume_at(expected))

    def _forget(self, batches: Iterable[Batch]) -> None:
        for batch in batches:
            self._sealed_records -= batch.weight
            self._sealed_bytes -= len(batch.payload)

    # --- what belongs on disk ---------------------------------------------------------------------------------------

    def is_cut_off(self, now_s: float) -> bool:
        """Whether the control plane has been silent for so long that a successor may have to deliver what waits."""
        oldest = self.waiting.oldest()
        return oldest is not None and now_s - oldest.sealed_at_s > CUT_OFF_AFTER_S

    def unspooled(self) -> Unspooled:
        """What waits and is not on disk."""
        draft = None
        if self.is_held_back and self.has_open and self._revision != self._spooled_revision:
            draft = self._draft()
        return Unspooled(tuple(batch for batch in self.waiting if batch.number > self._spooled), draft)

    def everything(self) -> Unspooled:
        """All that would have to be on disk if it were empty."""
        return Unspooled(tuple(self.waiting), self._draft() if self.has_open else None)

    def _draft(self) -> Draft:
        return Draft(self._next, self._payload(), self._revision)

    def spooled(self, written: Unspooled) -> None:
        """Note that all of it is on disk now."""
        if written.batches:
            self._spooled = max(self._spooled, written.batches[-1].number)
        if written.draft is not None:
            self._spooled_revision = written.draft.revision
            self._on_disk_to = max(self._on_disk_to, written.draft.number)
        self._on_disk_to = max(self._on_disk_to, self._spooled if written.batches else 0)

    @property
    def is_spool_spent(self) -> bool:
        """Whether something is on disk and all of it is acknowledged."""
        return 0 < self._on_disk_to <= self.waiting.acknowledged

    def spool_emptied(self) -> None:
        """Nothing is on disk any more."""
        self._on_disk_to = 0
