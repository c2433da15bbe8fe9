"""What a batch says about the providers' health. Pure.

Failures come as news of their own, at the moment they happen; successes are read off the finished requests.
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
        Successes(part.provider, part.served, part.ended_at.seconds + 1.0)  # some time within that second
        for part in batch.sums
        if part.provider and part.served and part.ended_at.seconds
    ]
    answered = [
        Successes(record.attempts[-1].provider, 1, _seconds(record.started_at) + record.first_byte_us / 1e6)
        for record in batch.records
        if record.outcome == usage_pb2.OUTCOME_SERVED and _is_success(record)
    ]
    if not batch.failures:
        return [*folded, *answered]
    unordered = {one.provider for one in folded}
    times: dict[str, list[float]] = defaultdict(list)
    for success in sorted(answered, key=_time):
        times[success.provider].append(success.answered_s)
    failed = [_failures(one, times[one.provider], unordered) for one in batch.failures]
    timed: list[Evidence] = [*answered, *failed]
    return [*folded, *sorted(timed, key=_time)]


def _failures(news: usage_pb2.FailureSighting, answered_s: list[float], unordered: set[str]) -> Failures:
    began_s, ended_s = _seconds(news.first_at), _seconds(news.last_at)
    is_interrupted = bisect_left(answered_s, began_s) != bisect_right(answered_s, ended_s)
    count = max(1, news.count)
    in_a_row = 1 if is_interrupted or news.provider in unordered else count
    return Failures(news.provider, news.reason, count, began_s, ended_s, in_a_row)


def _is_success(record: usage_pb2.RequestRecord) -> bool:
    """A 4xx passed on to the client is served, too, but says nothing about the provider."""
    last = record.attempts[-1] if record.attempts else None
    return last is not None and not last.reason and 200 <= last.status < 400


def _time(evidence: Evidence) -> float:
    return evidence.ended_s if isinstance(evidence, Failures) else evidence.answered_s


def _seconds(at: Timestamp) -> float:
    return at.seconds + at.nanos / 1e9
