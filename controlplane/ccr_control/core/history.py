"""What happened lately, by everything that figures are asked for by: the last minute, 15 minutes, hour and day.

Pure and bounded. Each window is a row of buckets; a bucket keeps requests apart by what they have in common (`Kind`, or their session),
up to a limit, beyond which the rest is counted together as "other". Nothing is kept of a single request, and counting one costs the
same however many there were. Times are seconds since 1970, given by the caller; a request belongs to the second in which it ended.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from ccr_control.core.ledger import OTHER, Counters, Finished, FoldedSum
from ccr_control.core.report import Dimension, shown
from ccr_control.core.sketch import Sketch


@dataclass(frozen=True, slots=True)
class Span:
    """A window: so many buckets of so many seconds."""

    bucket_s: int
    buckets: int
    kinds: int  # kept apart in a bucket
    sessions: int

    @property
    def seconds(self) -> int:
        """How far it reaches back."""
        return self.bucket_s * self.buckets


MINUTE = Span(1, 60, kinds=50, sessions=100)
QUARTER = Span(10, 90, kinds=50, sessions=200)
HOUR = Span(30, 120, kinds=50, sessions=300)
DAY = Span(900, 96, kinds=100, sessions=400)
SPANS = (MINUTE, QUARTER, HOUR, DAY)


class Kind(NamedTuple):
    """What requests have in common."""

    provider: str  # of the last attempt; empty: the relay answered by itself
    key_label: str
    scope: str
    model_used: str
    client: str
    endpoint: str
    request_class: str


class InSession(NamedTuple):
    """Whose requests they are."""

    session: str
    agent: str


@dataclass(slots=True)
class Slice:
    """Requests that ended within some time. Mutable: it is an accumulator."""

    counters: Counters = field(default_factory=Counters)  # those that a node folded included; they are in no sketch
    first_byte: Sketch = field(default_factory=Sketch)
    total: Sketch = field(default_factory=Sketch)
    overhead: Sketch = field(default_factory=Sketch)

    def add(self, request: Finished) -> None:
        """Count one request. A time of 0 means that there was none, except for the relay's own share."""
        self.counters.add_request(request)
        if request.first_byte_us > 0:
            self.first_byte.add(request.first_byte_us)
        if request.total_us > 0:
            self.total.add(request.total_us)
        if request.provider:
            self.overhead.add(request.overhead_us)

    def merge(self, other: Slice) -> None:
        """Count everything in `other`, too."""
        self.counters.add(other.counters)
        self.first_byte.merge(other.first_byte)
        self.total.merge(other.total)
        self.overhead.merge(other.overhead)


_K = TypeVar("_K")
_V = TypeVar("_V", Slice, Counters)


class Buckets(Generic[_K, _V]):
    """One window of one kind of key."""

    def __init__(
        self,
        span: Span,
        limit: int,
        empty: Callable[[], _V],
        add: Callable[[_V, _V], None],
        shorter: Callable[[_K], list[_K]],
    ) -> None:
        """`shorter` gives the keys to count under where there is no room for a new one, the most exact first."""
        self.span = span
        self._limit, self._shorter = limit, shorter
        self._empty: Callable[[], _V] = empty
        self._add: Callable[[_V, _V], None] = add
        self._buckets: dict[int, dict[_K, _V]] = {}  # by number, which is the time divided by the span's

    def __len__(self) -> int:
        """How many sums it holds."""
        return sum(map(len, self._buckets.values()))

    def count(self, key: _K, ended_s: int, part: _V, now_s: int) -> None:
        """Count what ended at a time, if that lies within the window."""
        number, newest = ended_s // self.span.bucket_s, now_s // self.span.bucket_s
        if not newest - self.span.buckets < number <= newest:
            return
        bucket = self._buckets.get(number)
        if bucket is None:
            self._expire(newest)
            bucket = self._buckets[number] = {}
        if key not in bucket and len(bucket) >= self._limit:
            keys = self._shorter(key)
            key = next((one for one in keys if one in bucket), keys[-1 if len(bucket) >= 2 * self._limit else 0])
        found = bucket.get(key)
        if found is None:
            found = bucket[key] = self._empty()
        self._add(found, part)

    def at(self, now_s: float) -> Iterator[tuple[int, dict[_K, _V]]]:
        """The buckets of the window with anything in them, oldest first: when each began, and its sums."""
        newest = int(now_s) // self.span.bucket_s
        for number in sorted(one for one in self._buckets if newest - self.span.buckets < one <= newest):
            yield number * self.span.bucket_s, self._buckets.get(number, {})

    def _expire(self, newest: int) -> None:
        for number in [one for one in self._buckets if one <= newest - self.span.buckets]:
            del self._buckets[number]


class History:
    """The four windows, by kind and by session."""

    def __init__(self, spans: Iterable[Span] = SPANS) -> None:
        spans = tuple(spans)
        self._kinds = [Buckets(span, span.kinds, Slice, Slice.merge, _fewer_kinds) for span in spans]
        self._sessions = [Buckets(span, span.sessions, Counters, Counters.add, _fewer_sessions) for span in spans]

    def __len__(self) -> int:
        """How many sums it holds; they are all its memory."""
        return sum(map(len, self._kinds)) + sum(map(len, self._sessions))

    def count(self, finished: Iterable[Finished], folded: Iterable[FoldedSum], now_s: float) -> None:
        """Count a batch: the requests told one by one, and those that a node folded."""
        now = int(now_s)
        kinds: dict[tuple[Kind, int], Slice] = defaultdict(Slice)
        sessions: dict[tuple[InSession, int], Counters] = defaultdict(Counters)
        for request in finished:
            ended = min(now, request.started_at_s + request.total_us // 1_000_000)  # a node's clock may be ahead
            client, endpoint, request_class = request.client, request.endpoint, request.request_class
            kind = Kind(
                request.provider,
                request.key_label,
                request.scope,
                request.model_used,
                client,
                endpoint,
                request_class,
            )
            kinds[kind, ended].add(request)
            sessions[InSession(request.session, request.agent), ended].add_request(request)
            for provider, key_label, scope in request.left_behind:
                attempt = Kind(provider, key_label, scope, "", client, endpoint, request_class)
                kinds[attempt, ended].counters.failed_attempts += 1
        for together in folded:
            key = together.key
            kind = Kind(key.provider, key.key_label, key.scope, key.model_used, key.client, key.endpoint, OTHER)
            ended = min(now, together.ended_at_s)
            kinds[kind, ended].counters.add(together.counters)
            sessions[InSession(OTHER, ""), ended].add(together.counters)
        for (kind, ended), part in kinds.items():
            for window in self._kinds:
                window.count(kind, ended, part, now)
        for (whose, ended), counters in sessions.items():
            for each in self._sessions:
                each.count(whose, ended, counters, now)

    def breakdown(self, span: Span, by: Dimension, now_s: float) -> Iterator[dict[str, Slice]]:
        """Sums by one dimension, again after each bucket: the last is the answer. Whoever asks may let others work in between."""
        sums: dict[str, Slice] = {}
        place = SPANS.index(span)
        if by in ("session", "agent"):
            for _, bucket in self._sessions[place].at(now_s):
                for whose, counters in bucket.items():
                    name = whose.session if by == "session" else whose.agent
                    sums.setdefault(name, Slice()).counters.add(counters)
                yield sums
            return
        for began_s, parts in self._kinds[place].at(now_s):
            for kind, part in parts.items():
                sums.setdefault(_value(kind, by, began_s), Slice()).merge(part)
            yield sums

    def series(self, span: Span, now_s: float, provider: str = "", since_s: float = 0.0) -> list[tuple[int, Slice]]:
        """Sums of each bucket that begins at or after a time, oldest first, of one provider or of all; the last is still growing."""
        found: dict[int, Slice] = {}
        for began_s, parts in self._kinds[SPANS.index(span)].at(now_s):
            if began_s < since_s:
                continue
            point = found[began_s] = Slice()
            for kind, part in parts.items():
                if not provider or kind.provider == provider:
                    point.merge(part)
        newest = int(now_s) // span.bucket_s
        starts = (number * span.bucket_s for number in range(newest - span.buckets + 1, newest + 1))
        return [(start, found.get(start, Slice())) for start in starts if start >= since_s]


def _value(kind: Kind, by: Dimension, began_s: int) -> str:
    match by:
        case "provider":
            return kind.provider
        case "key":
            return kind.key_label
        case "scope":
            return kind.scope
        case "model":
            return kind.model_used
        case "client":
            return kind.client
        case "endpoint":
            return kind.endpoint
        case "request_class":
            return kind.request_class
        case "hour":
            return shown("hour", began_s // 3600)
        case "day":
            return shown("day", began_s // 86_400)
        case _:
            raise AssertionError(f"{by} is not kept by kind")


def _fewer_kinds(kind: Kind) -> list[Kind]:
    """Clients may ask for any model; the rest comes from configurations, and there is less of it."""
    return [
        kind._replace(model_used=OTHER),
        Kind(kind.provider, OTHER, OTHER, OTHER, OTHER, kind.endpoint, OTHER),
        Kind(OTHER, OTHER, OTHER, OTHER, OTHER, OTHER, OTHER),
    ]


def _fewer_sessions(whose: InSession) -> list[InSession]:
    return [whose._replace(agent=OTHER), InSession(OTHER, "")]
