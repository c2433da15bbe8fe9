"""The ledger: what was used, by hour, and which batches are already in it.

Pure. Finished requests are folded into sums; a sum has no session and no request id, so that the ledger stays small.
A batch is counted exactly once because its number is judged and its sums are added in one transaction (`store/`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Literal, NamedTuple, TypeVar

import msgspec

MAX_LABEL_CHARS = 200
"""Longer names (a client may ask for any model) are cut."""

MAX_COUNTER = 1 << 44
"""In one batch, under one key. It is 200 days in microseconds; sums of half a million of these fit into 64 bits."""

OTHER = "other"
"""Stands for model names beyond what the ledger keeps apart within an hour."""

Outcome = Literal["served", "failed", "broken", "client_left", "refused", "unknown"]
"""How a request ended; the words are those of the contract's `Outcome`."""


class Tokens(msgspec.Struct, frozen=True, gc=False):
    """Tokens by kind, as the provider reported them."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    thinking: int = 0  # a part of `output`


class Finished(msgspec.Struct, frozen=True, gc=False):
    """What ledger and statistics need of one finished request. Durations are microseconds, 0 if there was none."""

    started_at_s: int  # seconds since 1970
    provider: str  # of the last attempt; empty: the relay answered by itself
    key_label: str
    model_used: str
    client: str
    endpoint: str
    outcome: Outcome
    first_byte_us: int = 0
    total_us: int = 0
    overhead_us: int = 0
    tokens: Tokens = Tokens()
    left_behind: tuple[tuple[str, str], ...] = ()  # (provider, key label) of each attempt that moved on elsewhere


class LedgerKey(NamedTuple):
    """What the ledger keeps apart. `hour` is hours since 1970, UTC."""

    hour: int
    provider: str
    key_label: str
    model_used: str
    client: str
    endpoint: str


@dataclass(slots=True)
class Counters:
    """What the ledger counts under one key. Mutable: it is an accumulator."""

    requests: int = 0
    served: int = 0
    failed: int = 0
    broken: int = 0
    client_left: int = 0
    refused: int = 0
    failed_attempts: int = 0  # that moved on elsewhere
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_5m_tokens: int = 0
    cache_write_1h_tokens: int = 0
    thinking_tokens: int = 0
    first_byte_us: int = 0
    total_us: int = 0

    def add(self, other: Counters) -> None:
        """Add each counter of `other`."""
        for name in COUNTERS:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def add_tokens(self, tokens: Tokens) -> None:
        """Add tokens by kind."""
        self.input_tokens += tokens.input
        self.output_tokens += tokens.output
        self.cache_read_tokens += tokens.cache_read
        self.cache_write_5m_tokens += tokens.cache_write_5m
        self.cache_write_1h_tokens += tokens.cache_write_1h
        self.thinking_tokens += tokens.thinking

    def add_outcome(self, outcome: Outcome) -> None:
        """Count one request that ended so."""
        self.requests += 1
        match outcome:
            case "served":
                self.served += 1
            case "failed":
                self.failed += 1
            case "broken":
                self.broken += 1
            case "client_left":
                self.client_left += 1
            case "refused":
                self.refused += 1
            case "unknown":  # of a newer node; it counts as a request and as nothing else
                pass

    def within_bounds(self) -> Counters:
        """The same with every counter in [0, MAX_COUNTER]: a broken node must not overflow the ledger."""
        return Counters(*(min(max(getattr(self, name), 0), MAX_COUNTER) for name in COUNTERS))


@dataclass(frozen=True, slots=True)
class FoldedSum:
    """Requests that a node folded together by itself because there were too many."""

    key: LedgerKey
    counters: Counters  # each in [0, MAX_COUNTER]
    ended_at_s: int  # the second in which they ended, in seconds since 1970; 0: they took longer to gather


COUNTERS = tuple(field.name for field in fields(Counters))
"""Names of the counters, in the order of the constructor and of the table's columns."""

Sums = dict[LedgerKey, Counters]

_K = TypeVar("_K")


def counters_of(sums: dict[_K, Counters], key: _K) -> Counters:
    """The counters under `key`, new if there were none."""
    found = sums.get(key)
    if found is None:
        found = sums[key] = Counters()
    return found


def fold(finished: Iterable[Finished], folded: Iterable[FoldedSum] = ()) -> Sums:
    """Sums of requests by ledger key, each counter in [0, MAX_COUNTER].

    An attempt that moved on counts under its own provider and key, with no model: what it was asked for there is not
    in the record.
    """
    sums: Sums = {}
    for request in finished:
        hour = request.started_at_s // 3600
        key = LedgerKey(hour, request.provider, request.key_label, request.model_used, request.client, request.endpoint)
        counters = counters_of(sums, key)
        counters.add_outcome(request.outcome)
        counters.add_tokens(request.tokens)
        counters.first_byte_us += request.first_byte_us
        counters.total_us += request.total_us
        for provider, key_label in request.left_behind:
            attempt = LedgerKey(hour, provider, key_label, "", request.client, request.endpoint)
            counters_of(sums, attempt).failed_attempts += 1
    for part in folded:
        counters_of(sums, part.key).add(part.counters)
    return {key: counters.within_bounds() for key, counters in sums.items()}


def by_provider(sums: Sums) -> dict[str, Counters]:
    """The same sums, kept apart by provider only. The empty name stands for what the relay answered by itself."""
    totals: dict[str, Counters] = {}
    for key, counters in sums.items():
        counters_of(totals, key.provider).add(counters)
    return totals


def bounded(key: LedgerKey, known: set[LedgerKey], limit: int) -> LedgerKey:
    """The key to count under when an hour keeps at most about `limit` keys apart.

    Known keys stay; with no room left a new one gives up its model name, which is the only part clients can choose.
    """
    if key in known or len(known) < limit:
        return key
    return key._replace(model_used=OTHER)


@dataclass(frozen=True, slots=True)
class Next:
    """The batch is the next one: count it."""


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The batch was counted before: acknowledge it again."""

    acknowledged: int


@dataclass(frozen=True, slots=True)
class Gap:
    """A batch before this one is missing: the node has to go back to it."""

    expected: int


def judge(acknowledged: int | None, number: int) -> Next | Duplicate | Gap:
    """What to do with batch `number` of a journal of which everything up to `acknowledged` is counted.

    None: the journal is unknown, either new or counted in a ledger that was lost. It then begins with the first number
    heard, as its node sends in order and does not keep what was acknowledged.
    """
    if acknowledged is None or number == acknowledged + 1:
        return Next()
    if number <= acknowledged:
        return Duplicate(acknowledged)
    return Gap(expected=acknowledged + 1)
