"""Limits of clients: what counts against them, what does not, and what they are told."""

from __future__ import annotations

import pytest
from ccr_data.core.answers import refusal
from ccr_data.core.client_limits import ClientLimits, ClientRules
from ccr_data.core.errors import ClientLimited
from ccr_data.core.records import AttemptRecord, Endpoint, Outcome, Record, Tokens

NOW = 1000.0
MIDNIGHT = 20_779 * 86_400.0


def over(outcome: Outcome = Outcome.SERVED, status: int = 200, attempts: int = 1, tokens: int = 0) -> Record:
    """How a request ended."""
    record = Record("req", Endpoint.MESSAGES, 0.0, "laptop")
    record.status, record.outcome = status, outcome
    record.attempts = [AttemptRecord("p", "k", "s", "m", 0.0) for _ in range(attempts)]
    record.tokens = Tokens(input=tokens)
    return record


def granted(limits: ClientLimits, rules: ClientRules, now_s: float = NOW, ended: Record | None = None) -> int:
    """How many requests go through, one after the other, before one is refused; at most 50."""
    for count in range(50):
        try:
            part = limits.take("laptop", rules, 40, now_s, 0.0)
        except ClientLimited:
            return count
        part.over(ended or over(), now_s)
    return 50


def test_requests_count_for_a_minute() -> None:
    """In a sliding one."""
    limits, rules = ClientLimits(), ClientRules(requests=3)
    assert granted(limits, rules) == 3
    assert granted(limits, rules, NOW + 59) == 0
    assert granted(limits, rules, NOW + 61) == 3


@pytest.mark.parametrize(
    "ended", [over(Outcome.FAILED, 429, attempts=0), over(Outcome.CLIENT_LEFT, 0, attempts=0), over(Outcome.REFUSED)]
)
def test_what_went_nowhere_does_not_count(ended: Record) -> None:
    """A client is not punished for what it did not get."""
    limits, rules = ClientLimits(), ClientRules(requests=1, concurrency=1)
    assert granted(limits, rules, ended=ended) == 50


def test_what_was_not_served_took_no_tokens_but_was_a_request() -> None:
    """Else a failing provider would be asked without end."""
    limits, rules = ClientLimits(), ClientRules(requests=5, tokens=1000)
    assert granted(limits, rules, ended=over(Outcome.FAILED, 529, tokens=0)) == 5
    assert granted(ClientLimits(), rules, ended=over(tokens=900)) == 1


def test_a_change_of_the_limits_holds_for_what_was_used_before() -> None:
    """A snapshot is no fresh start."""
    limits = ClientLimits()
    assert granted(limits, ClientRules(requests=2)) == 2
    assert granted(limits, ClientRules(requests=5)) == 3
    assert granted(limits, ClientRules(requests=1)) == 0


def test_requests_at_a_time_end_in_any_order() -> None:
    """And each frees one place."""
    limits, rules = ClientLimits(), ClientRules(concurrency=2)
    first, second = (limits.take("laptop", rules, 40, NOW, 0.0) for _ in range(2))
    with pytest.raises(ClientLimited, match="2 requests open") as caught:
        limits.take("laptop", rules, 40, NOW, 0.0)
    assert (caught.value.retry_after_s, caught.value.should_retry) == (1, True)
    limits.take("other", rules, 40, NOW, 0.0)
    second.over(over(Outcome.BROKEN), NOW)
    limits.take("laptop", rules, 40, NOW, 0.0)
    first.over(over(Outcome.CLIENT_LEFT), NOW)
    limits.take("laptop", rules, 40, NOW, 0.0)


def test_a_spent_budget_is_refused_until_it_begins_anew() -> None:
    """The node knows the time by itself, also while it is cut off."""
    limits = ClientLimits()
    rules = ClientRules(spent_until_s=MIDNIGHT, spent_budget="5.00 USD a day")
    with pytest.raises(ClientLimited) as caught:
        limits.take("laptop", rules, 40, NOW, MIDNIGHT - 7.5)
    assert str(caught.value) == (
        "client laptop has spent its budget of 5.00 USD a day; it begins anew at 2026-11-22T00:00:00Z"
    )
    assert (caught.value.retry_after_s, caught.value.should_retry) == (8, False)
    head = refusal(caught.value, "req_1").partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert head[0] == b"HTTP/1.1 429 Too Many Requests"
    assert {b"retry-after: 8", b"x-should-retry: false", b"request-id: req_1"} <= set(head)
    limits.take("laptop", rules, 40, NOW, MIDNIGHT)
