"""What clients spend: priced as configured, by days and months of UTC, and when a budget begins anew."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from ccr_control.core.compile import compile_snapshot
from ccr_control.core.config import load
from ccr_control.core.ledger import MAX_COUNTER, Counters, LedgerKey, Sums, Tokens
from ccr_control.core.pricing import PRICES, Price
from ccr_control.core.quantities import format_usd, parse_usd
from ccr_control.core.spending import (
    DAY_S,
    MAX_COST,
    NANO,
    Bill,
    ClientBudget,
    PriceBook,
    Spending,
    bill,
    costs,
    month_of,
    usd,
)
from hypothesis import given
from hypothesis import strategies as st

CONFIG = """\
version: 1
providers:
  - name: anthropic
    type: anthropic
    keys: [{key: sk-a}]
    prices:
      long-house: {input: 2, output: 8, long_prompts: {above: 1000, factor: 3}}
      house: {input: 2, output: 8}
      "house-*": {input: 4, output: 16, cache_read: 0.4}
  - {name: regional, type: anthropic, keys: [{key: sk-r}], price_factor: 1.5}
  - {name: paid, type: anthropic, keys: [{key: sk-p}], price_factor: 0}
  - {name: local, type: ollama}
"""
TODAY = 20_778  # 21 November 2026
NOON = TODAY * DAY_S + DAY_S // 2


def book() -> PriceBook:
    config = load(CONFIG, file="ccr.yaml", fmt="yaml", env={}).config
    return PriceBook(compile_snapshot(config, version=1, created_at=datetime(2026, 11, 21, tzinfo=UTC)).providers)


def at(name: str, amount: int, model: str = "house", provider: str = "anthropic", day: int = TODAY) -> Sums:
    tokens = Tokens(input=amount)
    bill = book().bill(provider, "k", model, tokens)
    counters = Counters(1, input_tokens=amount, cost_micro_usd=bill.cost_micro_usd)
    counters.unpriced_requests = bill.unpriced_requests
    return {LedgerKey(day * 24 + 3, provider, "k", model, name, "messages"): counters}


@pytest.mark.parametrize(
    ("provider", "model", "usd_a_million"),
    [
        ("anthropic", "house", 2),  # a whole name before a pattern
        ("anthropic", "house-x", 4),
        ("anthropic", "claude-sonnet-4-5-20250929", 3),  # from the relay's table
        ("regional", "claude-sonnet-4-5", 4.5),
        ("paid", "whatever", 0),
        ("local", "qwen", 0),
        ("gone", "claude-sonnet-4-5", 3),  # usage of a provider that was configured a moment ago
        ("anthropic", "unheard-of", None),
    ],
)
def test_prices_are_the_providers_then_the_tables(provider: str, model: str, usd_a_million: float | None) -> None:
    """The same ones that cost-based routing goes by."""
    price = book().price(provider, model)
    assert (price.input if price is not None else None) == usd_a_million


def test_every_kind_of_token_has_its_price() -> None:
    """What is not said costs as input; a long cache write at least as much as a short one."""
    tokens = Tokens(input=10, output=20, cache_read=1000, cache_write_5m=40, cache_write_1h=50)
    assert bill(tokens, Price(3, 15, 0.3, 3.75, 6)).cost_micro_usd == 30 + 300 + 300 + 150 + 300
    assert bill(tokens, Price(1, 2)).cost_micro_usd == 10 + 40 + 1000 + 40 + 50
    assert bill(tokens, Price(1, 2, cache_write_5m=5)).cost_micro_usd == 10 + 40 + 1000 + 200 + 250


def test_what_caches_save_is_what_the_same_tokens_would_have_cost_as_input() -> None:
    """Writing a cache that nobody reads costs more than none: then it is below 0."""
    price = Price(3, 15, 0.3, 3.75, 6)
    assert bill(Tokens(cache_read=1000, output=10), price) == Bill(300 + 150, 2700)
    assert bill(Tokens(cache_write_5m=1000), price) == Bill(3750, -750)
    assert bill(Tokens(input=7, output=5), price).saved_micro_usd == 0


def test_a_long_prompt_has_its_own_price_all_of_it() -> None:
    """The prompt is all input, whether read from a cache or written to one; haiku 5.5 has two bands."""
    price = PRICES["claude-haiku-5-5"]
    assert bill(Tokens(input=100_000), price).cost_micro_usd == 10_000
    assert bill(Tokens(input=100_001), price).cost_micro_usd == round(100_001 * 0.5)
    assert bill(Tokens(cache_read=90_000, input=10_001, output=100), price).cost_micro_usd == round(4500 + 5000.5 + 250)
    assert price.times(2).for_prompt(100_001).output == 5
    own = book().bill("anthropic", "k", "long-house", Tokens(input=1001))
    assert own.cost_micro_usd == 1001 * 6, "three times as much, as its configuration says"
    assert book().bill("anthropic", "k", "long-house", Tokens(input=1000)).cost_micro_usd == 2000


def test_folded_requests_are_taken_to_be_of_their_mean_size() -> None:
    """A sum does not know its single prompts."""
    price = PRICES["claude-haiku-5-5"]
    assert bill(Tokens(input=200_000), price, requests=2).cost_micro_usd == 20_000
    assert bill(Tokens(input=200_002), price, requests=2).cost_micro_usd == 100_001


def test_a_clients_own_token_costs_nothing_and_no_tokens_need_no_price() -> None:
    """A subscription is paid for by the month; a request that failed used nothing."""
    assert book().bill("anthropic", "subscription", "claude-sonnet-4-5", Tokens(input=10)) == Bill()
    assert book().bill("anthropic", "k", "unheard-of", Tokens()) == Bill()
    assert book().bill("anthropic", "k", "unheard-of", Tokens(input=1), 3) == Bill(unpriced_requests=3)


def test_only_these_clients_and_what_has_a_price_count() -> None:
    """An unknown price is told of."""
    sums = at("laptop", 1000) | at("other", 1000) | at("laptop", 500, "unheard-of")
    assert costs(sums, frozenset({"laptop"})) == (
        {("laptop", TODAY): 2_000_000},
        {("anthropic", "unheard-of")},
    )


def test_a_broken_node_cannot_overflow_the_sums() -> None:
    """SQLite's numbers have 64 bits."""
    spent, _ = costs(at("laptop", MAX_COUNTER) | at("laptop", MAX_COUNTER, "house-x"), frozenset({"laptop"}))
    assert spent == {("laptop", TODAY): MAX_COST}


@given(parts=st.lists(st.integers(0, 10**6), min_size=1, max_size=20))
def test_it_does_not_matter_how_usage_came_in_batches(parts: list[int]) -> None:
    """To half a millionth of a dollar for each request."""
    price = Price(0.0375, 0.006)
    split = sum(bill(Tokens(input=one), price).cost_micro_usd for one in parts)
    assert abs(split - bill(Tokens(input=sum(parts)), price).cost_micro_usd) <= len(parts) / 2 + 1


def test_a_day_is_spent_until_midnight_and_a_month_until_it_ends() -> None:
    """Of two the one that begins anew later is told."""
    spending, budget = Spending(), ClientBudget(Decimal(5), Decimal(100))
    spending.begin({("laptop", TODAY): 5 * NANO - 1, ("laptop", TODAY - 1): 90 * NANO})
    assert spending.exhausted("laptop", budget, NOON) is None
    spending.add({("laptop", TODAY): 1})
    found = spending.exhausted("laptop", budget, NOON)
    assert found is not None
    assert (found.until_s, found.words) == ((TODAY + 1) * DAY_S, "5.00 USD a day")
    spending.add({("laptop", TODAY): 5 * NANO})
    found = spending.exhausted("laptop", budget, NOON)
    assert found is not None
    assert datetime.fromtimestamp(found.until_s, UTC) == datetime(2026, 12, 1, tzinfo=UTC)
    assert found.words == "100.00 USD a month"
    assert spending.exhausted("laptop", budget, found.until_s) is None, "it begins anew"
    assert spending.exhausted("other", budget, NOON) is None
    assert spending.exhausted("laptop", ClientBudget(), NOON) is None


def test_usage_that_comes_late_counts_in_its_own_day() -> None:
    """A spool from yesterday does not spend today's budget, but this month's."""
    spending = Spending()
    spending.add({("laptop", TODAY - 1): 50 * NANO, ("laptop", TODAY - 40): 1000 * NANO})
    assert spending.exhausted("laptop", ClientBudget(day_usd=Decimal(5)), NOON) is None
    assert spending.exhausted("laptop", ClientBudget(month_usd=Decimal(50)), NOON) is not None
    assert spending.exhausted("laptop", ClientBudget(month_usd=Decimal(51)), NOON) is None


@given(day=st.integers(0, 60_000))
def test_months_are_the_calendars(day: int) -> None:
    """Against Python's own calendar."""
    first, after = month_of(day)
    date = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=day)).date()
    begin, end = ((datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=one)).date() for one in (first, after))
    assert begin == date.replace(day=1)
    assert (end.day, (end - timedelta(days=1)).month) == (1, date.month)
    assert first <= day < after


@pytest.mark.parametrize(
    ("text", "amount", "shown"),
    [("5 USD", "5", "5 USD"), ("0.50USD", "0.5", "0.5 USD"), ("$20", "20", "20 USD"), ("100.0 USD", "100", "100 USD")],
)
def test_amounts_are_written_with_their_currency(text: str, amount: str, shown: str) -> None:
    """As durations are with their unit."""
    assert parse_usd(text) == Decimal(amount)
    assert format_usd(parse_usd(text)) == shown
    assert parse_usd(shown) == Decimal(amount)


@pytest.mark.parametrize("text", [5, "5", 0.5, "5 EUR", "-5 USD", "0 USD", "five", None, True])
def test_what_is_no_amount_says_how_to_write_one(text: object) -> None:
    """A number alone could be anything."""
    with pytest.raises(ValueError, match=r"such as 5 USD or 0\.50 USD"):
        parse_usd(text)


def test_people_read_cents_where_that_is_exact() -> None:
    """Clients see it in an error."""
    assert [usd(Decimal(one)) for one in ("5", "0.5", "0.005", "100")] == [
        "5.00 USD",
        "0.50 USD",
        "0.005 USD",
        "100.00 USD",
    ]
