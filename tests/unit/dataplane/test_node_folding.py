"""Which requests are told one by one, and how the others are added up."""

from __future__ import annotations

import pytest
from ccr_data.core.batches import LIMITS, Journal, Limits
from ccr_data.core.folding import OTHER_MODEL, PERIOD_S, Detail, SumKey, Sums, fold
from ccr_data.core.records import MAX_COUNT, Endpoint, Outcome, Record, Tokens
from ccr_data.shell.usage_wire import UsageEncoder
from ccr_rpc.v1 import usage_pb2
from support.node_values import STARTED_AT_S, record


def crowd(count: int) -> list[Record]:
    return [record(str(index)) for index in range(count)]


def ended(outcome: Outcome) -> Record:
    one = record("odd")
    one.outcome = outcome
    return one


def batch(told: list[Record], folded: list[Record]) -> usage_pb2.UsageBatch:
    journal = Journal("j", UsageEncoder())
    journal.note(told, folded)
    sealed = journal.seal(1.0)
    assert sealed is not None
    return usage_pb2.UsageBatch.FromString(sealed.payload)


# which ones


def test_up_to_400_a_second_every_request_is_told() -> None:
    """However often they are collected, and although a timer may fire a little early."""
    detail, now_s = Detail(LIMITS.told_a_period), 1.0
    for period_s in (PERIOD_S, PERIOD_S * 0.99, PERIOD_S / 12, PERIOD_S * 30):
        for _ in range(20):
            now_s += period_s
            count = int(min(period_s, PERIOD_S) * 396)
            assert len(detail.split(crowd(count), now_s)[0]) == count


def test_beyond_that_the_rest_is_folded() -> None:
    """Long idleness earns no more than a full period's detail."""
    detail = Detail(10)

    told = [len(detail.split(crowd(25), now_s)[0]) for now_s in (0.0, 0.0, PERIOD_S / 2, 100.0, 100.0)]

    assert told == [10, 0, 5, 10, 0]


@pytest.mark.parametrize("odd", [*map(ended, set(Outcome) - {Outcome.SERVED}), record("moved on", failed=True)])
def test_what_went_wrong_is_always_told(odd: Record) -> None:
    """People look for it, and the control plane judges a provider's health by it."""
    told, folded = Detail(0).split([*crowd(2), odd, *crowd(2)], 1.0)

    assert told == [odd]
    assert len(folded) == 4


# how they are added up


def test_a_sum_says_of_its_requests_what_the_ledger_keeps() -> None:
    one = record("a")
    one.tokens = Tokens(1, 2, 3, 4, 5, 6)

    [part] = batch([], [one] * 3).sums

    assert part.hour.seconds == STARTED_AT_S // 3600 * 3600
    assert part.ended_at.seconds == int(STARTED_AT_S) + 9
    told = (part.provider, part.key_label, part.scope, part.model_used, part.client, part.endpoint)
    assert told == ("anthropic", "team-a", "org-a", "claude-test", "laptop", usage_pb2.ENDPOINT_MESSAGES)
    assert (part.requests, part.served, part.failed_attempts) == (3, 3, 0)
    assert (part.first_byte_us, part.total_us, part.overhead_us) == (3 * 412_000, 3 * 9_310_000, 3 * 300)
    tokens = part.tokens
    assert (tokens.input, tokens.output, tokens.cache_read) == (3, 6, 9)
    assert (tokens.cache_write_5m, tokens.cache_write_1h, tokens.thinking) == (12, 15, 18)


def test_while_too_much_waits_sums_do_not_grow_in_number_with_time() -> None:
    """The control plane may be away for days."""
    sums: Sums = {}
    for second in range(1000):
        fold(sums, [record("a", started_at_s=1_790_000_000 + second)], 1000, by_second=False)

    assert {key.ended_s for key in sums} == {0}
    assert len(sums) <= 2


def test_sums_of_models_that_clients_invent_are_bounded() -> None:
    """A client may ask for any model name; memory must not grow with them."""
    sums: Sums = {}
    for index in range(50):
        one = record(str(index))
        one.attempts[-1].model = f"invented-{index}"
        fold(sums, [one], max_keys=10, by_second=True)

    assert len(sums) == 11
    assert sum(part.requests for part in sums.values()) == 50
    assert sum(part.requests for key, part in sums.items() if key.model_used == OTHER_MODEL) == 40


def test_requests_without_an_attempt_are_folded_under_no_provider() -> None:
    one = record("a")
    one.attempts = []
    sums: Sums = {}

    fold(sums, [one], max_keys=10, by_second=False)

    hour = int(STARTED_AT_S) // 3600
    assert list(sums) == [SumKey(hour, 0, "", "", "", "", "laptop", Endpoint.MESSAGES)]


def test_what_others_made_up_does_not_end_the_reports() -> None:
    """A provider's token counts and a client's text are theirs; half a surrogate pair is no UTF-8."""
    odd = record("odd")
    odd.tokens = Tokens(input=1 << 70, output=-5)
    odd.session = "\ud800"
    odd.attempts[-1].model = "\udfff"

    sent = batch([odd], [odd, record("a")])

    assert sent.records[0].session == "?"
    folded = next(part for part in sent.sums if part.model_used == "?")
    for tokens in (sent.records[0].tokens, folded.tokens):
        assert (tokens.input, tokens.output) == (MAX_COUNT, 0)


def test_what_waits_too_long_is_folded_whatever_happened_to_it() -> None:
    """An attempt that moved on counts where it failed."""
    journal = Journal("j", UsageEncoder(), Limits(records=1))
    journal.note([record("a")])
    journal.note([record("b", failed=True), ended(Outcome.BROKEN)], [record("c")])
    sums = {key.provider: part for key, part in journal._sums.items()}

    assert sums["anthropic"].outcomes == {Outcome.SERVED: 2, Outcome.BROKEN: 1}
    assert (sums["zai"].requests, sums["zai"].failed_attempts) == (0, 1)
