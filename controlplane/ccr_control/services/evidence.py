"""What a batch says about the providers' health. Pure.

Failures come as news of their own, at the moment they happen; successes are read off the finished requests. A 4xx that
was passed on to the client is neither, also in sums.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict

from ccr_rpc.v1 import usage_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from ccr_control.core.circuits import Failures, Successes
from ccr_control.core.health import Evidence


def evidence_of(batch: usage_pb2.UsageBatch) -> list[Evidence]:
    """Failures and successes in the order of time.

    Where it is not known whether failures came in a row, only one of them is said to.
    """
    folded = [
        Successes(part.provider, good, part.ended_at.seconds + 1.0, key_label=part.key_label)  # within that second
        for part in batch.sums
        if part.provider and part.ended_at.seconds and (good := part.served - part.served_4xx) > 0
    ]
    answered = [
        Successes(
            record.attempts[-1].provider,
            1,
            _seconds(record.started_at) + record.first_byte_us / 1e6,
            _seconds(record.started_at),
            record.attempts[-1].key_label,
        )
        for record in batch.records
        if record.outcome == usage_pb2.OUTCOME_SERVED and _is_success(record)
    ]
    if not batch.failures:
        return [*folded, *answered]
    interruptions = _Interruptions(folded, answered, batch)
    timed: list[Evidence] = [*answered, *(_failures(one, interruptions) for one in batch.failures)]
    return [*folded, *sorted(timed, key=_time)]


class _Interruptions:
    """When something was served in between failures."""

    def __init__(self, folded: list[Successes], answered: list[Successes], batch: usage_pb2.UsageBatch) -> None:
        scopes = {(one.provider, one.key_label): one.scope for one in batch.sums}
        scopes |= {(one.provider, one.key_label): one.scope for record in batch.records for one in record.attempts}
        self._unordered = {one.provider for one in folded}
        self._unordered_scopes = {(one.provider, scopes[one.provider, one.key_label]) for one in folded}
        self._of_provider: dict[str, list[float]] = defaultdict(list)
        self._of_scope: dict[tuple[str, str], list[float]] = defaultdict(list)
        for one in sorted(answered, key=_time):
            self._of_provider[one.provider].append(one.answered_s)
            self._of_scope[one.provider, scopes[one.provider, one.key_label]].append(one.answered_s)

    def of_provider(self, provider: str, began_s: float, ended_s: float) -> bool:
        """Whether the provider served something in between, as far as is known."""
        return provider in self._unordered or _is_within(self._of_provider[provider], began_s, ended_s)

    def of_scope(self, provider: str, scope: str, began_s: float, ended_s: float) -> bool:
        """Whether the scope did."""
        place = (provider, scope)
        return place in self._unordered_scopes or _is_within(self._of_scope[place], began_s, ended_s)


def _is_within(times: list[float], began_s: float, ended_s: float) -> bool:
    return bisect_left(times, began_s) != bisect_right(times, ended_s)


def _failures(news: usage_pb2.FailureSighting, interruptions: _Interruptions) -> Failures:
    began_s, ended_s = _seconds(news.first_at), _seconds(news.last_at)
    count = max(1, news.count)
    return Failures(
        news.provider,
        news.reason,
        count,
        began_s,
        ended_s,
        in_a_row=1 if interruptions.of_provider(news.provider, began_s, ended_s) else count,
        in_scope_row=1 if interruptions.of_scope(news.provider, news.scope, began_s, ended_s) else count,
        key_label=news.key_label,
    )


def _is_success(record: usage_pb2.RequestRecord) -> bool:
    """A 4xx passed on to the client is served, too, but says nothing about the provider."""
    last = record.attempts[-1] if record.attempts else None
    return last is not None and not last.reason and 200 <= last.status < 400


def _time(evidence: Evidence) -> float:
    return evidence.ended_s if isinstance(evidence, Failures) else evidence.answered_s


def _seconds(at: Timestamp) -> float:
    return at.seconds + at.nanos / 1e9
