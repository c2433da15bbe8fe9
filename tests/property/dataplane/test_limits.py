"""The sliding window never lets more through than a minute may hold, and all that is held is given back."""

from __future__ import annotations

import math
from bisect import bisect_right

from ccr_data.core.amounts import Allowance
from ccr_data.core.budget import Budget, Lease, Reservation
from ccr_data.core.limit_headers import limits_told, rest_asked
from ccr_data.core.limits import Limits, model_class
from ccr_data.core.planner import NEW_LEASE_S, no_room, retry_after_s, told_for_pool
from ccr_data.core.records import Tokens
from hypothesis import given
from hypothesis import strategies as st
from support.routing import first_with_room

SCOPE = ("p", "a")
GAPS = st.lists(st.one_of(st.floats(0, 0.3), st.floats(0, 5), st.floats(0, 90)), min_size=1, max_size=120)


def most_in_a_minute(times: list[float], amounts: list[int]) -> int:
    """The exact counter: the most that any sixty seconds held."""
    return max(
        (sum(amounts[bisect_right(times, at - 60.0) : n + 1]) for n, at in enumerate(times)),
        default=0,
    )


@given(limit=st.integers(1, 30), gaps=GAPS, begin=st.floats(0, 1e6))
def test_no_sliding_minute_holds_more_requests_than_the_limit(limit: int, gaps: list[float], begin: float) -> None:
    """Wherever the minute begins, and although requests travel for up to half a second."""
    budget = Budget(SCOPE, "", Allowance(requests=limit))
    now, sent = begin, []
    for gap in gaps:
        now += gap
        part = budget.try_reserve(100, now)
        if part is not None:
            sent.append(now)
            part.settle(Tokens(input=1, output=1), now)
        else:
            assert sum(at > now - 61 for at in sent) >= limit, "there was room"
    assert most_in_a_minute(sent, [1] * len(sent)) <= limit
    early = [at + (0.49 if n % 2 else 0.0) for n, at in enumerate(sent)]
    assert most_in_a_minute(sorted(early), [1] * len(early)) <= limit


@given(
    gaps=GAPS,
    sizes=st.lists(st.integers(0, 4000), min_size=120, max_size=120),
    took=st.lists(st.floats(0, 30), min_size=120, max_size=120),
)
def test_tokens_stay_within_the_limit_if_estimates_are_not_too_low(
    gaps: list[float], sizes: list[int], took: list[float]
) -> None:
    """Requests settle late and out of order; input counts from its sending, output from its end."""
    limit = 3000
    budget = Budget(SCOPE, "", Allowance(input=limit))
    now = 0.0
    open_: list[tuple[float, Reservation]] = []
    sent: list[tuple[float, int]] = []
    for gap, size, wait in zip(gaps, sizes, took, strict=False):
        now += gap
        for at, part in sorted((one for one in open_ if one[0] <= now), key=lambda one: one[0]):
            part.settle(Tokens(input=part.input, output=5), at)  # exactly as estimated
        open_ = [one for one in open_ if one[0] > now]
        part_or_none = budget.try_reserve(size, now)
        if part_or_none is not None:
            sent.append((now, part_or_none.input))
            open_.append((now + wait, part_or_none))
    assert most_in_a_minute([at for at, _ in sent], [tokens for _, tokens in sent]) <= limit
    for at, part in open_:
        part.settle(Tokens(input=part.input, output=5), max(at, now))
    assert budget.used(now + 200) == Allowance(0, 0, 0, 0)


@given(
    ends=st.lists(st.tuples(st.sampled_from(["settle", "refund", "unsent"]), st.integers(0, 500)), max_size=40),
    step=st.floats(0, 4),
)
def test_everything_reserved_is_given_back(ends: list[tuple[str, int]], step: float) -> None:
    """However requests end: the count is exact, and after a minute nothing is left."""
    budget = Budget(SCOPE, "", Allowance(requests=1000, input=10**9, output=10**9))
    parts = [budget.try_reserve(400, n * step) for n in range(len(ends))]
    now = len(ends) * step
    requests = tokens = out = 0
    for n, (part, (end, amount)) in enumerate(zip(parts, ends, strict=True)):
        assert part is not None
        counts = int(now * 4) - int(n * step * 4) < 243
        if end == "settle":
            part.settle(Tokens(input=amount, cache_write_5m=1, cache_read=10**6, output=amount), now)
            out += amount
            tokens += (amount + 1) * counts
        else:
            part.refund(now, is_sent=end == "refund")
        requests += counts and end != "unsent"
    assert budget.used(now) == Allowance(requests, tokens, out, tokens + out)
    assert budget.used(now + 61) == Allowance(0, 0, 0, 0)


@given(st.lists(st.floats(0, 100), max_size=60), st.integers(1, 5))
def test_room_is_there_when_it_was_said_to_be(gaps: list[float], limit: int) -> None:
    """A client that waits as long as it was told is served; one that comes a second earlier may not be."""
    budget, now = Budget(SCOPE, "", Allowance(requests=limit)), 0.0
    for gap in gaps:
        now += gap
        if budget.try_reserve(1, now) is None:
            wait_s = budget.room_in_s(1, now)
            assert 0 < wait_s <= 61
            now += wait_s
            assert budget.try_reserve(1, now) is not None


def test_a_request_larger_than_the_limit_goes_alone() -> None:
    """Rather than never: the estimate may be wrong, and the provider decides."""
    budget = Budget(SCOPE, "", Allowance(input=100))
    assert budget.try_reserve(1_000_000, 0.0) is not None
    assert budget.try_reserve(10, 0.0) is None


def test_what_the_provider_says_is_left_counts_if_it_is_less() -> None:
    """Others use the account, too. It refills evenly: one every second here."""
    budget = Budget(SCOPE, "", Allowance(requests=60))
    first = budget.try_reserve(1, 0.0)
    later = budget.try_reserve(1, 0.0)
    assert later is not None
    budget.told(Allowance(requests=60), Allowance(requests=2), first, 0.0)  # `later` may not be in it yet
    assert budget.try_reserve(1, 0.0) is not None
    assert budget.try_reserve(1, 0.0) is None
    assert budget.room_in_s(1, 0.0) == 1.0
    assert budget.try_reserve(1, 1.001) is not None
    assert budget.try_reserve(1, 1.002) is None


def test_where_only_the_provider_limits_its_bucket_rules() -> None:
    """A full bucket and what refills it meanwhile: more than the limit in the first minute, and never a 429 of ours too early."""
    budget = Budget(SCOPE, "")
    budget.told(Allowance(requests=60, input=1000), Allowance(requests=60, input=1000), None, 0.0)
    assert sum(budget.try_reserve(1, 0.0) is not None for _ in range(100)) == 60
    assert sum(budget.try_reserve(1, second / 2) is not None for second in range(1, 121)) == 60
    assert budget.levels(60.0)[0] == (60, 0, 60.0)
    assert budget.room_in_s(1, 60.0) == 1.0
    budget.told(
        Allowance(requests=60), None, None, 60.0
    )  # a limit without what is left of it: counted as a sliding minute
    assert budget.try_reserve(1, 61.0) is None


@given(st.integers(1, 8), st.integers(0, 200), st.integers(8, 200))
def test_nodes_that_share_an_account_share_what_is_left(nodes: int, left: int, limit: int) -> None:
    """All together they take no more than there is, before they hear anything newer."""
    left = min(left, limit)
    budgets = [Budget(SCOPE, "", shared_by=nodes) for _ in range(nodes)]
    taken = 0
    for budget in budgets:
        budget.told(Allowance(requests=limit), Allowance(requests=left), None, 0.0)
        while budget.try_reserve(1, 0.0) is not None:
            taken += 1
    assert taken <= left


def test_organisations_join_what_their_keys_used() -> None:
    """Two labels, one account: what both used counts against one limit."""
    limits = Limits()
    one, two = ("p", "k1"), ("p", "k2")
    limits.configure({one: Allowance(requests=4), two: Allowance(requests=4)}, {}, 1)
    part = first_with_room(limits, [(one, "m")], 100, 0.0)[1]
    assert first_with_room(limits, [(two, "m")], 100, 0.0)[1] is not None
    assert first_with_room(limits, [(two, "m")], 100, 0.0)[1] is not None
    limits.note_organisation(one, "org", 0.0)
    limits.note_organisation(two, "org", 0.0)
    assert part is not None
    part.settle(Tokens(input=7), 0.0)
    assert limits.budget(one, "m") is limits.budget(two, "m")
    assert first_with_room(limits, [(one, "m"), (two, "m")], 100, 0.0)[0] == 0
    assert first_with_room(limits, [(one, "m"), (two, "m")], 100, 0.0) == (-1, None)


def test_models_share_a_limit_by_family_and_generation() -> None:
    """As Anthropic counts; other providers limit the account."""
    assert {
        model_class(name) for name in ("claude-opus-4-6", "claude-opus-4-1-20250805", "anthropic.claude-opus-4-v1:0")
    } == {"opus-4"}
    assert model_class("claude-3-5-haiku-20241022") == "haiku-3"
    assert model_class("claude-fable-5-1[1m]") == "fable-5"
    assert model_class("glm-4.7") == model_class("kimi-k2") == ""


def test_a_429_says_how_long_to_rest() -> None:
    """A spent account for hours; a subscription until its reset; else as told; nothing said is no rest."""
    spent = (
        b'{"type":"error","error":{"type":"rate_limit_error","details":{"error_code":"enforced_spend_limit_reached"}}}'
    )
    assert rest_asked({}, spent, 0.0, 3600.0) == (3600.0, True)
    assert rest_asked({b"anthropic-ratelimit-unified-reset": b"1500", b"retry-after": b"9"}, b"", 1000.0, 1.0) == (
        500.0,
        True,
    )
    assert rest_asked({b"retry-after": b"9"}, b"{", 0.0, 1.0) == (9.0, False)
    headers = {
        b"anthropic-ratelimit-requests-remaining": b"0",
        b"anthropic-ratelimit-requests-reset": b"1970-01-01T00:00:40Z",
    }
    assert rest_asked(headers, b"", 30.0, 1.0) == (10.0, False)
    assert rest_asked({b"retry-after": b"soon"}, b"", 0.0, 1.0) is None


@given(
    st.dictionaries(
        st.sampled_from(
            [
                b"retry-after",
                b"anthropic-ratelimit-unified-reset",
                b"anthropic-ratelimit-tokens-reset",
                b"anthropic-ratelimit-tokens-remaining",
                b"anthropic-ratelimit-requests-limit",
            ]
        ),
        st.binary(max_size=12),
    ),
    st.binary(max_size=50),
)
def test_odd_headers_and_bodies_are_no_error(special: dict[bytes, bytes], body: bytes) -> None:
    """They come from upstreams."""
    rest = rest_asked(special, body, 0.0, 1.0)
    assert rest is None or 0 < rest.for_s <= 14 * 86_400
    limits_told(special)


@given(st.lists(st.tuples(st.integers(1, 20), st.integers(0, 20), st.floats(0, 200)), min_size=1, max_size=4))
def test_the_pools_answer_is_the_sum_and_the_earliest(pool: list[tuple[int, int, float]]) -> None:
    """Limits add up, remaining never exceeds them, and retry-after is the first room of all."""
    budgets = []
    for n, (limit, used, rest_s) in enumerate(pool):
        budget = Budget(("p", str(n)), "", Allowance(requests=limit))
        for _ in range(used):
            budget.try_reserve(1, 0.0)
        budget.rest(rest_s)
        budgets.append(budget)
    answer = no_room([*budgets, budgets[0]], 1, 1.0, 1000.0)
    lines = dict(line.split(b": ") for line in answer.lines.split(b"\r\n") if line)
    assert int(lines[b"anthropic-ratelimit-requests-limit"]) == sum(limit for limit, _, _ in pool)
    assert 0 <= int(lines[b"anthropic-ratelimit-requests-remaining"]) <= sum(limit for limit, _, _ in pool)
    wait_s = min(budget.room_in_s(1, 1.0) for budget in budgets)
    assert wait_s <= answer.retry_after_s < max(wait_s, 1) + 1
    assert (b"x-should-retry" in lines) == (answer.retry_after_s > 30)


def test_a_node_of_small_part_says_to_come_again_soon() -> None:
    """There is room in a minute of its own; but having asked, it gets a larger part before that."""
    budget = Budget(SCOPE, "", Allowance(requests=60), shared_by=4)
    for share, wait_s in ((2, NEW_LEASE_S), (15, 61)):
        budget.lease = Lease(SCOPE, "", Allowance(requests=share), share, Allowance(requests=60))
        budget.limit_again()
        while budget.try_reserve(1, 0.0) is not None:
            pass
        assert no_room([budget], 1, 0.0, 1000.0).retry_after_s == wait_s


@given(used=st.integers(5, 40), limit=st.integers(1, 40), at_s=st.floats(0, 59))
def test_a_larger_part_is_not_waited_for_where_it_would_not_help(used: int, limit: int, at_s: float) -> None:
    """A limit was lowered, or set anew while much was used: the node itself has used more than all of it."""
    budget = Budget(SCOPE, "", Allowance(requests=100))
    for n in range(used):
        part = budget.try_reserve(10, 100.0 + n)
        assert part is not None
        part.settle(Tokens(), 100.0 + n)
    budget.configured = Allowance(requests=limit)
    budget.lease = Lease(SCOPE, "", Allowance(min(4, limit - 1)), 1, Allowance(requests=limit))
    budget.limit_again()
    alone = Budget(SCOPE, "", Allowance(requests=limit))
    alone.count(budget.slots(100.0 + used), 100.0 + used)
    now_s = 100.0 + used + at_s
    told_s = retry_after_s([budget], 10, now_s)
    if budget.room_in_s(10, now_s) > NEW_LEASE_S:
        assert told_s == max(NEW_LEASE_S, math.ceil(alone.room_in_s(10, now_s)))


def test_a_providers_429_is_changed_only_where_the_pool_knows_better() -> None:
    """Everything else of it stays as it came."""
    lines = [b"Retry-After: 9", b"x-a: b"]
    assert told_for_pool(lines, {b"retry-after": b"9"}, 9) == lines
    assert told_for_pool(lines, {b"retry-after": b"9"}, 4) == [b"x-a: b", b"retry-after: 4"]
    assert told_for_pool(lines, {b"retry-after": b"9"}, 40)[-1] == b"x-should-retry: false"


def test_a_lease_says_nothing_of_what_its_giver_knew_no_limit_of() -> None:
    """The node learns of it from an answer: an even part is its until the next lease."""
    limits = Limits()
    limits.configure({SCOPE: Allowance(requests=50)}, {}, 2)
    limits.take_lease(Lease(SCOPE, "opus-4", Allowance(requests=40), 7, Allowance(requests=50)))
    told, left = Allowance(50, 10_000, 4000), Allowance(49, 9_900, 3_900)
    budget = limits.budget(SCOPE, "claude-opus-4-1")
    assert budget is not None
    limits.note_told(SCOPE, "claude-opus-4-1", told, left, None, 100.0)
    assert budget.own_limits == Allowance(40, 5000, 2000)
    assert budget.try_reserve(100, 100.0) is not None
    limits.take_lease(Lease(SCOPE, "opus-4", Allowance(50, 0, 4000), 8, told))
    assert budget.own_limits == Allowance(50, 0, 4000), "none of it, this time"
    assert budget.try_reserve(100, 100.1) is None


@given(
    told_left=st.integers(0, 60),
    parts=st.lists(st.integers(1, 60), min_size=1, max_size=5),
    takes=st.lists(st.integers(0, 60), min_size=5, max_size=5),
)
def test_a_bucket_follows_the_lease(told_left: int, parts: list[int], takes: list[int]) -> None:
    """Whatever parts of it a node had meanwhile: of what is told to be left it has its part, less what it took."""
    limits, budget_of = Limits(), (SCOPE, "claude-opus-4-1")
    limits.note_told(*budget_of, Allowance(requests=60), Allowance(requests=told_left), None, 0.0)
    budget = limits.budget(*budget_of)
    assert budget is not None
    taken = 0
    for serial, (part, take) in enumerate(zip(parts, takes, strict=False), 1):
        limits.take_lease(Lease(SCOPE, "opus-4", Allowance(requests=part), serial, Allowance(requests=60)))
        served = sum(budget.try_reserve(0, 0.0) is not None for _ in range(take))
        room = told_left * part / 60 - taken
        assert served == min(take, max(0, int(room + 1e-6)))
        taken += served


@given(used=st.integers(0, 60), left=st.integers(0, 60), part=st.integers(1, 60), passed_s=st.floats(0, 59))
def test_what_was_told_goes_on_in_the_next_worker(used: int, left: int, part: int, passed_s: float) -> None:
    """It has as much room as the one before would have."""
    before, after = Limits(), Limits()
    lease = Lease(SCOPE, "opus-4", Allowance(requests=part), 3, Allowance(requests=60))
    for limits in (before, after):
        limits.configure({}, {}, 1)
    before.take_lease(lease)
    before.note_told(SCOPE, "claude-opus-4-1", Allowance(requests=60), Allowance(requests=left), None, 0.0)
    one = before.budget(SCOPE, "claude-opus-4-1")
    assert one is not None
    for _ in range(used):
        one.try_reserve(0, 0.0)
    after.recall(before.spent(0.0), passed_s, passed_s, (), before.each_learned(lambda: 0.0))
    other = after.budget(SCOPE, "claude-opus-4-1")
    assert other is not None
    assert other.limits == one.limits
    assert abs(other.levels(passed_s)[0][1] - one.levels(passed_s)[0][1]) <= 1


def test_an_account_that_is_configured_no_more_is_not_told_of() -> None:
    """Its limits were only told. What was used of it counts again should it come back."""
    limits, organisation = Limits(), ("p", "organisation o")
    limits.configure({}, {SCOPE: frozenset("k"), ("p", "b"): frozenset("l")}, 1)
    limits.note_organisation(("p", "b"), "o", 0.0)
    for scope in (SCOPE, ("p", "b")):
        limits.note_told(scope, "m", Allowance(60), Allowance(59), None, 0.0)
    assert [use.scope for use in limits.uses(1.0)] == [SCOPE, organisation]
    limits.configure({}, {("p", "c"): frozenset("k")}, 1)
    assert limits.uses(1.0) == []
    assert not list(limits.each_learned(lambda: 1.0))
    limits.configure({}, {SCOPE: frozenset("k"), organisation: frozenset("l")}, 1)
    assert [use.scope for use in limits.uses(1.0)] == [SCOPE, organisation]
