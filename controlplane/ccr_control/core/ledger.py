"""The ledger: what was used and what it cost, by hour, and which batches are already in it.

Pure. Finished requests are folded into sums twice: a detail with session, agent and request class, which is kept for a day, and the
ledger without them, which stays small and is kept for long. Both come from the same requests, so that they add up to the same.
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
"""Stands for names beyond what is kept apart within an hour; as a session, also for what a node folded without its session."""

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
    left_behind: tuple[
        tuple[str, str, str], ...
    ] = ()  # (provider, key label, scope) of each attempt that moved on elsewhere
    scope: str = ""
    session: str = ""
    agent: str = ""
    model_asked: str = ""
    tried: tuple[tuple[str, str, str], ...] = ()  # (provider, key label, reason) of each attempt; no reason: the answer
    request_class: str = ""
    cost_micro_usd: int = 0
    saved_micro_usd: int = 0  # by prompt caches; less than 0: writing them cost more than reading them saved
    unpriced: int = 0  # 1: it used tokens of which nobody knows the price


class LedgerKey(NamedTuple):
    """What the ledger keeps apart. `hour` is hours since 1970, UTC."""

    hour: int
    provider: str
    key_label: str
    model_used: str
    client: str
    endpoint: str
    scope: str = ""


class DetailKey(NamedTuple):
    """What the detail of the last day keeps apart."""

    line: LedgerKey
    session: str
    agent: str
    request_class: str


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
    cost_micro_usd: int = 0
    saved_micro_usd: int = 0  # may be below 0
    unpriced_requests: int = 0  # that used tokens of which nobody knows the price

    def add(self, other: Counters) -> None:
        """Add each counter of `other`."""
        self.requests += other.requests
        self.served += other.served
        self.failed += other.failed
        self.broken += other.broken
        self.client_left += other.client_left
        self.refused += other.refused
        self.failed_attempts += other.failed_attempts
        self.input_tokens += other.input_tokens
        self.output_tokens += other.output_tokens
        self.cache_read_tokens += other.cache_read_tokens
        self.cache_write_5m_tokens += other.cache_write_5m_tokens
        self.cache_write_1h_tokens += other.cache_write_1h_tokens
        self.thinking_tokens += other.thinking_tokens
        self.first_byte_us += other.first_byte_us
        self.total_us += other.total_us
        self.cost_micro_usd += other.cost_micro_usd
        self.saved_micro_usd += other.saved_micro_usd
        self.unpriced_requests += other.unpriced_requests

    def add_request(self, request: Finished) -> None:
        """Count one request."""
        self.add_outcome(request.outcome)
        self.add_tokens(request.tokens)
        self.first_byte_us += request.first_byte_us
        self.total_us += request.total_us
        self.cost_micro_usd += request.cost_micro_usd
        self.saved_micro_usd += request.saved_micro_usd
        self.unpriced_requests += request.unpriced

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
        """The same with every counter in [0, MAX_COUNTER]: a broken node must not overflow the ledger.

        What was saved may be below 0.
        """
        bounded = Counters(*(min(max(getattr(self, name), 0), MAX_COUNTER) for name in COUNTERS))
        bounded.saved_micro_usd = min(max(self.saved_micro_usd, -MAX_COUNTER), MAX_COUNTER)
        return bounded


@dataclass(frozen=True, slots=True)
class FoldedSum:
    """Requests that a node folded together by itself because there were too many."""

    key: LedgerKey
    counters: Counters  # each in [0, MAX_COUNTER]
    ended_at_s: int  # the second in which they ended, in seconds since 1970; 0: they took longer to gather
    overhead_us: int = 0


COUNTERS = tuple(field.name for field in fields(Counters))
"""Names of the counters, in the order of the constructor and of the table's columns."""

Sums = dict[LedgerKey, Counters]
Detail = dict[DetailKey, Counters]

_K = TypeVar("_K")


def counters_of(sums: dict[_K, Counters], key: _K) -> Counters:
    """The counters under `key`, new if there were none."""
    found = sums.get(key)
    if found is None:
        found = sums[key] = Counters()
    return found


def fold(finished: Iterable[Finished], folded: Iterable[FoldedSum] = ()) -> Sums:
    """Sums of requests by ledger key, each counter in bounds."""
    return without_detail(fold_detail(finished, folded))


def fold_detail(finished: Iterable[Finished], folded: Iterable[FoldedSum] = ()) -> Detail:
    """Sums of requests with session, agent and request class, each counter in bounds.

    An attempt that moved on counts under its own provider and key, with no model: what it was asked for there is not
    in the record. What a node folded has lost its session: it is "other".
    """
    detail: Detail = {}
    for request in finished:
        hour, client, endpoint = request.started_at_s // 3600, request.client, request.endpoint
        about = (request.session, request.agent, request.request_class)
        line = LedgerKey(hour, request.provider, request.key_label, request.model_used, client, endpoint, request.scope)
        counters_of(detail, DetailKey(line, *about)).add_request(request)
        for provider, key_label, scope in request.left_behind:
            attempt = LedgerKey(hour, provider, key_label, "", client, endpoint, scope)
            counters_of(detail, DetailKey(attempt, *about)).failed_attempts += 1
    for part in folded:
        counters_of(detail, DetailKey(part.key, OTHER, "", OTHER)).add(part.counters)
    return {key: counters.within_bounds() for key, counters in detail.items()}


def without_detail(detail: Detail) -> Sums:
    """The same sums without session, agent and request class."""
    sums: Sums = {}
    for key, counters in detail.items():
        counters_of(sums, key.line).add(counters)
    return sums


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


def bounded_detail(key: DetailKey, known: set[DetailKey], limit: int) -> DetailKey:
    """The same for the detail: with no room left a new key gives up its session first, then, far beyond, its model name."""
    if key in known or len(known) < limit:
        return key
    short = DetailKey(key.line, OTHER, "", OTHER)
    if short in known or len(known) < 2 * limit:
        return short
    return short._replace(line=key.line._replace(model_used=OTHER))


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
