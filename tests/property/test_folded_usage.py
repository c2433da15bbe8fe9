"""Ledger and rates are the same whether a node tells of its requests one by one or folded."""

from __future__ import annotations

from dataclasses import replace

from ccr_control.core.ledger import Sums, by_provider
from ccr_control.core.ledger import fold as ledger_of
from ccr_control.core.stats import Report, Stats
from ccr_control.services.wire import finished, folded
from ccr_data.core.batches import Journal, Limits
from ccr_data.core.records import AttemptRecord, Endpoint, Outcome, Reason, Record, Tokens
from ccr_data.shell.usage_wire import UsageEncoder
from ccr_rpc.v1 import usage_pb2
from hypothesis import given
from hypothesis import strategies as st
from support.node_values import with_fields

NOW_S = 1_790_000_000.0  # 40 s before a new hour
few = st.sampled_from
counts = few([0, 0, 1, 811, 51_234])
seconds = few([0.0, 0.0001, 0.412, 0.999999, 9.31, 75.5])
attempts = st.builds(
    AttemptRecord,
    provider=few(["anthropic", "zai"]),
    key_label=few(["", "team-a"]),
    scope=few(["", "org-a"]),
    model=few(["claude-test", "größe"]),
    began_s=st.just(1.0),
    status=few([0, 200, 529]),
    reason=few([None, Reason.OVERLOADED]),
)
rest = st.fixed_dictionaries(
    {
        "client": few(["", "laptop"]),
        "model_asked": st.just("claude"),
        "outcome": few(Outcome),
        "attempts": st.lists(attempts, max_size=3),
        "first_byte_s": seconds,
        "total_s": seconds,
        "overhead_s": seconds,
        "tokens": st.builds(Tokens, counts, counts, counts, counts, counts, counts),
    }
)


records = st.builds(with_fields, st.builds(Record, st.just("r"), few(Endpoint), st.floats(NOW_S - 90, NOW_S)), rest)


def reported(told: list[Record], summed: list[Record], limits: Limits) -> tuple[Sums, Report]:
    """What the control plane makes of it."""
    journal = Journal("j", UsageEncoder(), limits)
    journal.note(told, summed)
    sealed = journal.seal(1.0, even_if_empty=True)
    assert sealed is not None
    batch = usage_pb2.UsageBatch.FromString(sealed.payload)
    requests, parts = [finished(one) for one in batch.records], [folded(part) for part in batch.sums]
    sums, stats = ledger_of(requests, parts), Stats()
    stats.count(requests, sums, NOW_S, parts)
    return sums, stats.report(NOW_S)


def assert_same_ledger(one: Sums, other: Sums, requests: int) -> None:
    """A time that is told is cut to a microsecond; that of a sum is rounded once."""
    assert one.keys() == other.keys()
    for key, counters in one.items():
        assert replace(counters, first_byte_us=0, total_us=0) == replace(other[key], first_byte_us=0, total_us=0)
        assert abs(counters.first_byte_us - other[key].first_byte_us) <= requests
        assert abs(counters.total_us - other[key].total_us) <= requests


@given(st.lists(records, max_size=12), st.integers(0, 12))
def test_folding_changes_neither_ledger_nor_rates(finished_records: list[Record], told: int) -> None:
    everything, report = reported(finished_records, [], Limits())
    sums, folded_report = reported(finished_records[:told], finished_records[told:], Limits())

    assert_same_ledger(sums, everything, len(finished_records))
    assert folded_report.total.requests_per_s == report.total.requests_per_s
    for name, figures in report.providers.items():
        assert folded_report.providers[name].requests_per_s == figures.requests_per_s


@given(st.lists(records, max_size=12))
def test_folding_while_too_much_waits_changes_nothing_in_the_ledger(finished_records: list[Record]) -> None:
    everything, _ = reported(finished_records, [], Limits())
    sums, report = reported(finished_records, [], Limits(records=0))

    assert_same_ledger(sums, everything, len(finished_records))
    assert report.total.requests_per_s == 0
    assert sum(part.requests for part in by_provider(sums).values()) == len(finished_records)
