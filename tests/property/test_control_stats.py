"""The sliding window agrees with a list of requests that is counted anew each time."""

from __future__ import annotations

from ccr_control.core.ledger import Finished, fold
from ccr_control.core.sketch import Sketch
from ccr_control.core.stats import SHARES, WINDOW_S, Stats
from hypothesis import given
from hypothesis import strategies as st

START = 1_780_000_000

requests = st.builds(
    Finished,
    started_at_s=st.integers(START - 100, START + 200),
    provider=st.sampled_from(["", "anthropic", "zai"]),
    key_label=st.just("k"),
    model_used=st.just("m"),
    client=st.just("c"),
    endpoint=st.just("messages"),
    outcome=st.sampled_from(["served", "failed", "broken", "client_left"]),
    first_byte_us=st.integers(0, 5_000_000),
    total_us=st.integers(0, 90_000_000),
    overhead_us=st.integers(0, 1000),
)
batches = st.lists(st.tuples(st.integers(0, 40), st.lists(requests, max_size=8)), max_size=8)


@given(batches, st.integers(0, 90))
def test_the_window_agrees_with_counting_everything_anew(
    batches: list[tuple[int, list[Finished]]], idle_s: int
) -> None:
    stats, now = Stats(), START
    ended: list[tuple[int, Finished]] = []
    for pause_s, batch in batches:
        now += pause_s
        stats.count(batch, fold(batch), now + 0.5)
        ended += [(min(now, one.started_at_s + one.total_us // 1_000_000), one) for one in batch]
    now += idle_s
    report = stats.report(now + 0.5)
    for name in ("anthropic", "zai"):
        everything = [one for _, one in ended if one.provider == name]
        recent = [one for at, one in ended if one.provider == name and at > now - WINDOW_S]
        figures = report.providers.get(name)
        if figures is None:
            assert not everything
            continue
        assert figures.counters.requests == len(everything)
        assert figures.requests_per_s == len(recent) / WINDOW_S
        first_bytes = Sketch(one.first_byte_us for one in recent if one.first_byte_us)
        assert list(figures.first_byte_us) == first_bytes.quantiles(SHARES)
        assert list(figures.overhead_us) == Sketch(one.overhead_us for one in recent).quantiles(SHARES)
    assert report.total.counters.requests == len(ended)
    assert report.total.requests_per_s == len([at for at, _ in ended if at > now - WINDOW_S]) / WINDOW_S
