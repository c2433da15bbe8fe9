"""What finished requests become in the ledger and in the statistics."""

from __future__ import annotations

from ccr_control.core.ledger import (
    MAX_COUNTER,
    Counters,
    Finished,
    FoldedSum,
    LedgerKey,
    Tokens,
    by_provider,
    fold,
)
from ccr_control.core.sightings import MAX_HEADERS, MAX_KEYS, Sighting, Sightings
from ccr_control.core.stats import MAX_PROVIDERS, Stats

HOUR = 490_000


def finished(**fields: object) -> Finished:
    given = {
        "started_at_s": HOUR * 3600,
        "provider": "anthropic",
        "key_label": "team-a",
        "model_used": "claude",
        "client": "laptop",
        "endpoint": "messages",
        "outcome": "served",
        **fields,
    }
    return Finished(**given)


def test_requests_are_summed_by_hour_and_by_what_they_used() -> None:
    sums = fold(
        [
            finished(tokens=Tokens(input=1, output=2), total_us=10),
            finished(tokens=Tokens(cache_read=5), total_us=20, outcome="broken"),
            finished(started_at_s=HOUR * 3600 + 3599),
            finished(started_at_s=HOUR * 3600 + 3600),
            finished(model_used="other-model"),
        ]
    )
    assert sums[LedgerKey(HOUR, "anthropic", "team-a", "claude", "laptop", "messages")] == Counters(
        requests=3, served=2, broken=1, input_tokens=1, output_tokens=2, cache_read_tokens=5, total_us=30
    )
    assert len(sums) == 3
    assert by_provider(sums)["anthropic"].requests == 5


def test_an_attempt_that_moved_on_counts_where_it_failed() -> None:
    sums = by_provider(fold([finished(left_behind=(("zai", "a", ""), ("zai", "b", ""), ("anthropic", "x", "")))]))
    assert (sums["zai"].requests, sums["zai"].failed_attempts) == (0, 2)
    assert (sums["anthropic"].requests, sums["anthropic"].failed_attempts) == (1, 1)


def test_sums_of_a_node_are_never_lost() -> None:
    """Under overload a node folds requests together."""
    key = LedgerKey(HOUR, "anthropic", "team-a", "claude", "laptop", "messages")
    folded = FoldedSum(key, Counters(requests=500, served=490, failed=10, output_tokens=9, total_us=70), 0)
    sums = fold([finished(outcome="failed", total_us=5)], [folded, folded])
    assert sums == {key: Counters(requests=1001, served=980, failed=21, output_tokens=18, total_us=145)}


def test_rates_count_what_a_node_folded_in_the_second_in_which_it_ended() -> None:
    """And percentiles do not: nothing is known of a single one of them. A spooled sum is no news either."""
    key = LedgerKey(HOUR, "anthropic", "team-a", "claude", "laptop", "messages")
    stats, told = Stats(), [finished(started_at_s=1000, total_us=1000)]
    parts = [FoldedSum(key, Counters(requests=59, total_us=59 * 9000), ended_at_s) for ended_at_s in (1000, 900, 0)]
    stats.count(told, fold(told, parts), 1000.5, parts)
    report = stats.report(1000.5)
    assert report.providers["anthropic"].requests_per_s == 1
    assert report.total.counters.requests == 1 + 3 * 59
    assert max(report.total.total_us) < 1100


def test_absurd_counters_are_kept_within_bounds() -> None:
    (counters,) = fold([finished(total_us=2**63 - 1, first_byte_us=-5)] * 3).values()
    assert (counters.requests, counters.total_us, counters.first_byte_us) == (3, MAX_COUNTER, 0)


def test_the_number_of_providers_in_the_statistics_is_bounded() -> None:
    stats = Stats()
    for i in range(MAX_PROVIDERS + 50):
        batch = [finished(provider=f"p{i}", started_at_s=1000)]
        stats.count(batch, fold(batch), 1000.0)
    report = stats.report(1000.0)
    assert len(report.providers) == MAX_PROVIDERS + 1
    assert report.providers["other"].counters.requests == 50
    assert report.total.counters.requests == MAX_PROVIDERS + 50


def test_only_the_newest_headers_of_a_key_are_kept() -> None:
    sightings = Sightings()
    sightings.note("zai", "a", Sighting(5, 200, {"retry-after": "5"}))
    sightings.note("zai", "a", Sighting(4, 200, {"retry-after": "4"}))
    assert sightings.newest("zai", "a") == Sighting(5, 200, {"retry-after": "5"})
    assert sightings.newest("zai", "b") is None


def test_headers_take_bounded_room() -> None:
    sightings = Sightings()
    for i in range(MAX_KEYS + 10):
        sightings.note("zai", str(i), Sighting(1, 200, {f"h{n}": "v" * 9999 for n in range(99)} if not i % 999 else {}))
    assert sightings.newest("zai", "0") is None
    kept = sightings.newest("zai", "999")
    assert kept is not None
    assert len(kept.headers) == MAX_HEADERS
    assert max(map(len, kept.headers.values())) == 256
