"""How long a budget lasts at the rate of the last minutes."""

from __future__ import annotations

from ccr_control.core.forecast import LOOKS_BACK_S, Trends
from ccr_control.core.leases import Amounts, BudgetName, Leases, Use
from hypothesis import given
from hypothesis import strategies as st

NAME = BudgetName("anthropic", "org", "sonnet")
LIMITS = Amounts(requests=100, input_tokens=1000)


def test_it_is_not_in_sight_while_use_does_not_grow() -> None:
    trends = Trends()
    trends.note(NAME, Amounts(requests=50), 0.0)
    trends.note(NAME, Amounts(requests=50), 60.0)
    assert trends.exhausted_in_s(NAME, LIMITS, Amounts(requests=50), 60.0) is None
    assert trends.exhausted_in_s(NAME, LIMITS, Amounts(requests=40), 60.0) is None


def test_the_tightest_limit_counts() -> None:
    """Requests would last for 50 s more, tokens for 20 s."""
    trends = Trends()
    trends.note(NAME, Amounts(), 0.0)
    trends.note(NAME, Amounts(requests=50, input_tokens=500), 50.0)
    used = Amounts(requests=50, input_tokens=714)
    found = trends.exhausted_in_s(NAME, LIMITS, used, 50.0)
    assert found is not None
    assert round(found) == 20


def test_what_is_used_up_is_used_up_now() -> None:
    assert Trends().exhausted_in_s(NAME, LIMITS, Amounts(requests=100), 0.0) == 0.0


def test_what_has_no_limit_lasts() -> None:
    trends = Trends()
    trends.note(NAME, Amounts(), 0.0)
    assert trends.exhausted_in_s(NAME, Amounts(), Amounts(requests=10**9), 10.0) is None


@given(st.lists(st.tuples(st.integers(0, 100), st.floats(0, 300)), max_size=50))
def test_it_never_looks_further_back_than_it_says(steps: list[tuple[int, float]]) -> None:
    trends, now_s = Trends(), 0.0
    for used, passed_s in steps:
        now_s += passed_s
        trends.note(NAME, Amounts(requests=used), now_s)
        assert all(now_s - at_s <= LOOKS_BACK_S for at_s, _ in trends._seen[NAME])
        found = trends.exhausted_in_s(NAME, LIMITS, Amounts(requests=used), now_s)
        assert found is None or found >= 0


def test_all_nodes_together_have_a_budget() -> None:
    leases = Leases(-100.0, 1, 2)
    for node, used in (("a", 3), ("b", 4)):
        use = Use(LIMITS, Amounts(requests=50), Amounts(requests=used), used, 0)
        leases.reported(node, "1", {NAME: use}, 0.0)
    (held,) = leases.held(0.0)
    assert (held.name, held.limits, held.used.requests, held.leased.requests) == (NAME, LIMITS, 7, 100)
    assert (held.nodes, held.asked) == (2, 7)
