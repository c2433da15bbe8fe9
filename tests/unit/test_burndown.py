"""How budgets were used over the last hour: kept without bounds being broken, and told to screens whole and then bit by bit."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any, cast

from ccr_control.core.burndown import MAX_BUDGETS, MOST, POINTS, BurnDown
from ccr_control.core.leases import Amounts, BudgetName, Held, Leases
from ccr_control.core.recent import Recent
from ccr_control.core.stats import Stats
from ccr_control.services.dashboard import BUDGETS_AT_ONCE, DashboardServicer
from ccr_control.services.keys import KeyServicer
from ccr_control.services.leasing import Leasing, history_message
from ccr_rpc.v1 import dashboard_pb2, keys_pb2, usage_pb2
from hypothesis import given
from hypothesis import strategies as st

NAME = BudgetName("anthropic", "org", "sonnet")
BEGAN_S = 1_780_000_000.0
GRPC_LIMIT = 4 << 20
WITHIN_S = 20.0


def held(name: BudgetName = NAME, used: int = 0, limit: int = 100, leased: int = 0) -> Held:
    return Held(name, Amounts(requests=limit), Amounts(requests=used), Amounts(requests=leased), 1, 0)


def filled(budgets: int, points: int, limits: Amounts) -> BurnDown:
    """The history of so many busy accounts."""
    burndown = BurnDown()
    names = [BudgetName("anthropic", f"org-{number:04}", "") for number in range(budgets)]
    for point in range(points):
        used = Amounts(*(limit * (point % 100) // 100 for limit in limits))
        burndown.note([Held(name, limits, used, limits, 1, 0) for name in names], BEGAN_S + 10 * point)
    return burndown


def test_a_point_is_a_part_of_the_limit_of_its_time() -> None:
    """A limit that is raised later does not rewrite what was."""
    burndown = BurnDown()
    burndown.note([held(used=50, limit=100, leased=80)], BEGAN_S)
    burndown.note([held(used=50, limit=200, leased=200)], BEGAN_S + 10)
    (line,) = burndown.lines([NAME], 0, 2)
    assert (list(line.used), list(line.leased)) == ([500, 250], [800, 1000])
    assert line.name.kind == "requests"
    assert burndown.times(0, 2) == [BEGAN_S, BEGAN_S + 10]


def test_only_limits_have_a_line_and_only_while_there_is_a_budget() -> None:
    burndown = BurnDown()
    burndown.note([held(limit=0, used=7)], BEGAN_S)
    assert list(burndown.lines([NAME], 0, 1)) == []
    burndown.note([held(used=7)], BEGAN_S)
    burndown.note([], BEGAN_S)
    assert burndown.budgets() == []
    burndown.note([held(used=9)], BEGAN_S)
    (line,) = burndown.lines([NAME], 0, burndown.number)
    assert list(line.used) == [90], "it begins anew"


def test_what_is_far_beyond_the_limit_is_as_much_as_can_be_told() -> None:
    burndown = BurnDown()
    burndown.note([held(used=10**12)], BEGAN_S)
    (line,) = burndown.lines([NAME], 0, 1)
    assert list(line.used) == [MOST]


def test_a_new_budget_takes_nobody_s_place() -> None:
    """Who holds the most accounts still has the curves of those that he looked at before."""
    burndown = BurnDown()
    many = [held(BudgetName("zai", f"{number:04}", "")) for number in range(MAX_BUDGETS)]
    burndown.note(many, BEGAN_S)
    burndown.note([held(BudgetName("a", "new", "")), *many], BEGAN_S)
    assert len(burndown.budgets()) == MAX_BUDGETS
    assert burndown.budgets("a") == []
    assert burndown.budgets("zai", "0007") == [BudgetName("zai", "0007", "")]


NAMES = st.sampled_from([BudgetName("a", str(number), "") for number in range(4)])
NOTES = st.lists(st.dictionaries(NAMES, st.integers(0, 100)), max_size=30)


@given(notes=NOTES, cuts=st.lists(st.integers(0, 30)))
def test_points_told_bit_by_bit_are_those_told_at_once(notes: list[dict[BudgetName, int]], cuts: list[int]) -> None:
    """However seldom a screen asks: it appends what comes, drops lines that are not there any more, and has the same."""
    burndown, shown, told = BurnDown(), dict[BudgetName, list[int]](), 0
    for number, used in enumerate(notes, start=1):
        burndown.note([held(name, count) for name, count in used.items()], BEGAN_S + number)
        if number in cuts or number == len(notes):
            came = {
                line.name.budget: list(line.used) for line in burndown.lines(burndown.budgets(), told, burndown.number)
            }
            # a line with fewer points than times began anew meanwhile
            fresh = {name for name, points in came.items() if len(points) < burndown.number - told}
            shown = {name: [] if name in fresh else shown.get(name, []) for name in came}
            for name, points in came.items():
                shown[name] += points
            told = burndown.number
    whole = {line.name.budget: list(line.used) for line in burndown.lines(burndown.budgets(), 0, burndown.number)}
    assert shown == whole


def test_an_hour_is_kept_and_no_more() -> None:
    burndown = filled(2, POINTS + 40, Amounts(requests=100))
    lines = list(burndown.lines(burndown.budgets(), 0, burndown.number))
    assert [len(line.used) for line in lines] == [POINTS, POINTS]
    assert burndown.times(0, burndown.number) == [BEGAN_S + 10 * point for point in range(40, POINTS + 40)]
    assert len(burndown.times(burndown.number - 3, burndown.number)) == 3
    (last,) = burndown.lines(burndown.budgets()[:1], burndown.number - 3, burndown.number - 1)
    assert list(last.used) == list(lines[0].used[-3:-1])


def test_a_thousand_accounts_take_few_megabytes_and_fit_into_messages() -> None:
    """A client takes 4 MB at a time."""
    burndown = filled(BUDGETS_AT_ONCE, POINTS, Amounts(50, 40_000, 8_000))
    lines = [line for kinds in burndown._lines.values() for line in kinds.values()]
    bytes_each = sum(sys.getsizeof(row) for line in lines for row in (line.used, line.leased)) / BUDGETS_AT_ONCE
    assert bytes_each * MAX_BUDGETS < 8_000_000
    names = burndown.budgets()
    assert history_message(burndown, names, 0, burndown.number).ByteSize() < GRPC_LIMIT // 2


class FakeContext:
    """Takes what a stream writes."""

    def __init__(self) -> None:
        self.came: asyncio.Queue[dashboard_pb2.WatchResponse] = asyncio.Queue()

    async def write(self, encoded: bytes) -> None:
        self.came.put_nowait(dashboard_pb2.WatchResponse.FromString(encoded))

    async def next_history(self, condition: Callable[[keys_pb2.BudgetHistory], bool] = bool) -> keys_pb2.BudgetHistory:
        async with asyncio.timeout(WITHIN_S):
            while True:
                message = await self.came.get()
                if message.HasField("budgets") and condition(message.budgets):
                    return message.budgets


class _Nothing:
    last_number = 0


async def test_a_screen_gets_everything_in_pieces_and_then_what_is_new() -> None:
    """All pieces are of the same points, so that they can be laid upon each other."""
    burndown = filled(250, 30, Amounts(requests=100, tokens=1000))
    servicer = DashboardServicer(
        Stats(), Recent(), cast(Any, _Nothing()), {}, cast(Any, None), lambda: BEGAN_S, burndown
    )
    request = dashboard_pb2.WatchRequest(budgets=True)
    request.interval.FromMilliseconds(100)
    contexts = [FakeContext(), FakeContext()]
    async with asyncio.TaskGroup() as tasks:
        watching = [tasks.create_task(servicer.Watch(request, cast(Any, context))) for context in contexts]
        for context in contexts:
            pieces = [await context.next_history() for _ in range(3)]
            assert [len(piece.lines) for piece in pieces] == [200, 200, 100]
            assert [len(piece.at) for piece in pieces] == [30, 30, 30]
            assert {len(line.used_permille) for piece in pieces for line in piece.lines} == {30}
            kinds = {line.kind for piece in pieces for line in piece.lines}
            assert kinds == {keys_pb2.BUDGET_KIND_REQUESTS, keys_pb2.BUDGET_KIND_TOKENS}
        burndown.note([held(used=42)], BEGAN_S + 1000)
        burndown.note([held(used=43)], BEGAN_S + 1010)
        for context in contexts:
            news = await context.next_history()
            assert [one.seconds for one in news.at] == [BEGAN_S + 1000, BEGAN_S + 1010]
            assert [(line.scope, list(line.used_permille)) for line in news.lines] == [("org", [420, 430])]
        for task in watching:
            task.cancel()


async def test_it_is_answered_page_by_page() -> None:
    burndown = filled(5, 3, Amounts(requests=100))
    servicer = KeyServicer(cast(Any, None), cast(Any, None), cast(Any, None), cast(Any, None), burndown=burndown)

    async def asked(**fields: Any) -> keys_pb2.GetBudgetHistoryResponse:
        return await servicer.GetBudgetHistory(keys_pb2.GetBudgetHistoryRequest(**fields), cast(Any, None))

    found, token = [], ""
    for _ in range(3):
        page = await asked(page_size=2, page_token=token)
        assert len(page.history.at) == 3
        found += [line.scope for line in page.history.lines]
        token = page.next_page_token
    assert (found, token) == ([f"org-{number:04}" for number in range(5)], "")
    (one,) = (await asked(provider="anthropic", scope="org-0003")).history.lines
    assert (one.scope, list(one.used_permille)) == ("org-0003", [0, 10, 20])


async def test_it_follows_what_nodes_say() -> None:
    """From a node's report to a point on the curve."""
    leasing = Leasing(Leases(0.0), lambda: 100.0, lambda: BEGAN_S)
    batch = usage_pb2.UsageBatch(status=usage_pb2.NodeStatus())
    batch.budgets.add(
        provider=NAME.provider,
        scope=NAME.scope,
        model_class=NAME.model_class,
        limits=usage_pb2.BudgetAmounts(requests=60),
        share=usage_pb2.BudgetAmounts(requests=60),
        used=usage_pb2.BudgetAmounts(requests=15),
    )
    leasing.answer("node", "instance", batch)
    leasing.note_trends()
    (line,) = history_message(leasing.burndown, [NAME], 0, 1).lines
    assert (list(line.used_permille), list(line.leased_permille)) == ([250], [1000])
    assert leasing.budgets()[0].used.requests == 15
