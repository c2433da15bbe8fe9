"""Requests that are counted but not told one by one: which ones, and how they are added up.

Pure. The sums hold all that the control plane's ledger and rates are made of, so that both are the same whether
requests were told or folded; what is lost is detail about a single request. Times are seconds of the caller's
monotonic clock, except those in records.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ccr_data.core.records import MAX_COUNT, Endpoint, Outcome, Record, Tokens, sound_text, within

PERIOD_S = 0.25
OTHER_MODEL = "other"  # stands for names beyond Limits.sum_keys: clients may ask for any


class Detail:
    """Which requests are told one by one: whatever went wrong, and of the others so many in a period, on average."""

    def __init__(self, told_a_period: int) -> None:
        self._limit = told_a_period
        self._left = float(told_a_period)
        self._as_of_s: float | None = None

    def split(self, records: Sequence[Record], now_s: float) -> tuple[list[Record], list[Record]]:
        """Those to tell and those to fold, of requests that have finished by now."""
        if self._as_of_s is not None:
            self._left = min(self._limit, self._left + (now_s - self._as_of_s) * self._limit / PERIOD_S)
        self._as_of_s = now_s
        told: list[Record] = []
        folded: list[Record] = []
        for record in records:
            if record.outcome is not Outcome.SERVED or record.has_failed_attempt:
                told.append(record)
            elif self._left >= 1:
                self._left -= 1
                told.append(record)
            else:
                folded.append(record)
        return told, folded


class SumKey(NamedTuple):
    """What sums keep apart: all that the ledger does."""

    hour: int  # in which they began, in hours since 1970, UTC
    ended_s: int  # the second in which they ended, in Unix time; 0: the sum grows for longer than that
    provider: str  # of the last attempt; empty: none
    key_label: str
    scope: str
    model_used: str
    client: str
    endpoint: Endpoint


@dataclass(slots=True)
class UsageSum:
    """Requests of one kind folded together."""

    outcomes: dict[Outcome, int] = field(default_factory=dict)  # how many ended so
    failed_attempts: int = 0  # that moved on elsewhere
    served_4xx: int = 0  # of those served
    first_byte_s: float = 0.0
    total_s: float = 0.0
    overhead_s: float = 0.0
    tokens: Tokens = field(default_factory=Tokens)

    @property
    def requests(self) -> int:
        """How many requests."""
        return sum(self.outcomes.values())


Sums = dict[SumKey, UsageSum]


def fold(sums: Sums, records: Sequence[Record], max_keys: int, *, by_second: bool) -> None:
    """Add requests to the sums they belong to; names beyond `max_keys` sums share one.

    `by_second` is for sums that are handed over soon. Without it there are few, however long they are kept.
    Requests of one kind come in crowds: they are added up column by column, in half the time that one by one takes.
    """
    kinds: dict[tuple[int, int, str, str, str, str, str, Endpoint, Outcome], list[Record]] = {}
    for record in records:
        started_s = int(record.started_at_s)
        hour, ended_s = started_s // 3600, started_s + int(record.total_s) if by_second else 0
        client, endpoint, outcome, attempts = record.client, record.endpoint, record.outcome, record.attempts
        if attempts:
            last = attempts[-1]
            kind = (hour, ended_s, last.provider, last.key_label, last.scope, last.model, client, endpoint, outcome)
            if len(attempts) > 1:
                _fold_failed(sums, record, max_keys, hour, ended_s)
        else:
            kind = (hour, ended_s, "", "", "", "", client, endpoint, outcome)
        same = kinds.get(kind)
        if same is None:
            kinds[kind] = [record]
        else:
            same.append(record)
    for kind, same in kinds.items():
        _add(_sum_of(sums, SumKey(*kind[:-1]), max_keys), same, kind[-1])


def _add(total: UsageSum, records: list[Record], outcome: Outcome) -> None:
    total.outcomes[outcome] = total.outcomes.get(outcome, 0) + len(records)
    if outcome is Outcome.SERVED:
        total.served_4xx += sum([400 <= one.status < 500 for one in records])
    total.first_byte_s += sum([one.first_byte_s for one in records])
    total.total_s += sum([one.total_s for one in records])
    total.overhead_s += sum([one.overhead_s for one in records])
    tokens, added = total.tokens, [one.tokens for one in records]
    tokens.input += _sum([one.input for one in added])
    tokens.output += _sum([one.output for one in added])
    tokens.cache_read += _sum([one.cache_read for one in added])
    tokens.cache_write_5m += _sum([one.cache_write_5m for one in added])
    tokens.cache_write_1h += _sum([one.cache_write_1h for one in added])
    tokens.thinking += _sum([one.thinking for one in added])


def _sum(counts: list[int]) -> int:
    if not any(counts):
        return 0
    if min(counts) < 0 or max(counts) > MAX_COUNT:
        counts = [within(count) for count in counts]
    return sum(counts)


def _fold_failed(sums: Sums, record: Record, max_keys: int, hour: int, ended_s: int) -> None:
    """An attempt that moved on counts where it failed, as it does in the ledger."""
    for one in record.attempts[:-1]:
        key = SumKey(hour, ended_s, one.provider, one.key_label, one.scope, "", record.client, record.endpoint)
        _sum_of(sums, key, max_keys).failed_attempts += 1


def _sum_of(sums: Sums, key: SumKey, max_keys: int) -> UsageSum:
    """The sum of a key, new if there was none."""
    found = sums.get(key)
    if found is not None:
        return found
    key = key._replace(model_used=sound_text(key.model_used))  # those that are there are sound
    if key not in sums and len(sums) >= max_keys:
        key = key._replace(model_used=OTHER_MODEL)
    found = sums.get(key)
    if found is None:
        found = sums[key] = UsageSum()
    return found
