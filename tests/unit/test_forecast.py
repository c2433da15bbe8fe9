"""How long a budget lasts at the rate of the last minutes."""

from __future__ import annotations

from ccr_control.core.forecast import LOOKS_BACK_S, WINDOW_S, Trends
from ccr_control.core.leases import Amounts, BudgetName, Leases, Use
from hypothesis import given
from hypothesis import strategies as st

NAME = BudgetName("anthropic", "org", "sonnet")
LIMITS = Amounts(requests=100, input_tokens=1000)


def seen(times: list[float], until_s: float) -> Trends:
    """What a look every ten seconds sees of requests at these times."""
    trends = Trends()
    for now_s in range(0, int(until_s) + 1, 10):
        trends.note(NAME, used(times, now_s), now_s)
    return trends


def used(times: list[float], now_s: float) -> Amounts:
    return Amounts(requests=sum(now_s - 60 < at <= now_s for at in times))


def evenly(a_minute: float, from_s: float, to_s: float) -> list[float]:
    """Requests at an even rate."""
    return [from_s + (n + 0.5) * 60 / a_minute for n in range(int((to_s - from_s) * a_minute / 60))]


def test_a_busy_minute_that_stays_below_the_limit_is_no_alarm() -> None:
    """It grows for a minute, and then no more: at ten seconds a sum that grew on would be at its limit in 50."""
    times = evenly(90, 100, 400)
    for now_s in range(100, 400, 7):
        assert seen(times, now_s).exhausted_in_s(NAME, LIMITS, used(times, now_s), now_s) is None


def test_a_rate_beyond_the_limit_is_told_with_its_time() -> None:
    """150 a minute from the 100th second on: 100 are used after 40 s."""
    times = evenly(150, 100, 400)
    told = {
        now_s: seen(times, now_s).exhausted_in_s(NAME, LIMITS, used(times, now_s), now_s) for now_s in range(100, 140)
    }
    assert not any(told[now_s] for now_s in range(100, 120)), "a burst as yet"
    for now_s in range(130, 140):
        found = told[now_s]
        assert found is not None
        assert abs(found - (140 - now_s)) < 2


def test_what_leaves_the_minute_makes_room() -> None:
    """60 came half a minute ago and leave soon; 110 a minute come since. In the end that is too much, but later than a sum says."""
    times = evenly(120, 70, 100) + evenly(110, 120, 400)
    found = seen(times, 150).exhausted_in_s(NAME, Amounts(requests=110), used(times, 150), 150)
    assert found is not None
    assert 15 < found <= 30


def test_the_tightest_limit_counts() -> None:
    """Both are on their way to be passed, tokens sooner."""
    trends = Trends()
    for now_s in range(0, 40, 10):
        trends.note(NAME, Amounts(requests=2 * now_s, input_tokens=25 * now_s), now_s)
    found = trends.exhausted_in_s(NAME, LIMITS, Amounts(requests=60, input_tokens=750), 30.0)
    assert found is not None
    assert round(found) == 10


def test_what_is_used_up_is_used_up_now() -> None:
    assert Trends().exhausted_in_s(NAME, LIMITS, Amounts(requests=100), 0.0) == 0.0


def test_what_has_no_limit_lasts() -> None:
    trends = Trends()
    trends.note(NAME, Amounts(), 0.0)
    assert trends.exhausted_in_s(NAME, Amounts(), Amounts(requests=10**9), 10.0) is None


@given(st.lists(st.tuples(st.integers(0, 100), st.floats(0, 300)), max_size=30))
def test_it_never_looks_further_than_its_minute(steps: list[tuple[int, float]]) -> None:
    """Whatever nodes say, also if less is used than could be: no alarm before half of it is used."""
    trends, now_s = Trends(), 0.0
    for count, passed_s in steps:
        now_s += passed_s
        trends.note(NAME, Amounts(requests=count), now_s)
        steps_kept = trends._seen[NAME].steps
        assert all(steps_kept[-1].to_s - one.to_s < LOOKS_BACK_S for one in steps_kept)
        found = trends.exhausted_in_s(NAME, LIMITS, Amounts(requests=count), now_s)
        assert found is None or 0 <= found <= WINDOW_S
        assert found is None or count >= 49


@given(st.integers(10, 300), st.integers(10, 300), st.integers(60, 180))
def test_what_will_be_used_up_is_told_and_nothing_else(rate: int, limit: int, began_s: int) -> None:
    """At an even rate: soon after half a minute it is known whether, and about when."""
    times = evenly(rate, began_s, began_s + 200)
    limits = Amounts(requests=limit)
    if rate <= limit * 0.9:
        for now_s in range(began_s, began_s + 180, 7):
            assert seen(times, now_s).exhausted_in_s(NAME, limits, used(times, now_s), now_s) is None
    elif rate >= limit * 1.1:
        full_s = began_s + limit * 60 / rate
        now_s = began_s + 31
        found = seen(times, now_s).exhausted_in_s(NAME, limits, used(times, now_s), now_s)
        assert found is not None
        assert abs(found - max(0.0, full_s - now_s)) < 8


def test_all_nodes_together_have_a_budget() -> None:
    leases = Leases(-100.0, 1, 2)
    for node, used in (("a", 3), ("b", 4)):
        use = Use(LIMITS, Amounts(requests=50), Amounts(requests=used), used, 0)
        leases.reported(node, "1", {NAME: use}, 0.0)
    (held,) = leases.held(0.0)
    assert (held.name, held.limits, held.used.requests, held.leased.requests) == (NAME, LIMITS, 7, 100)
    assert (held.nodes, held.asked) == (2, 7)
