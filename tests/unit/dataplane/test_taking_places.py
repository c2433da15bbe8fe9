"""Two workers of one name, one after the other: files and locks between them."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from time import perf_counter

import pytest
from ccr_data.core.amounts import Allowance
from ccr_data.core.client_limits import ClientLimits
from ccr_data.core.limits import Limits
from ccr_data.shell.kept_budgets import Clocks, KeptBudgets
from ccr_data.shell.node_dir import NodeDir
from ccr_data.shell.succession import SILENT_S, Succession

SCOPE, LIMIT = ("p", "s"), 10
NEVER = 60.0


class Worker:
    """One process, with so many connections."""

    def __init__(self, directory: NodeDir, name: str, patience_s: float = NEVER) -> None:
        self.ahead_s = 0.0  # of its clocks
        self.limits, clients = Limits(), ClientLimits()
        self.limits.configure({SCOPE: Allowance(requests=LIMIT)}, {}, 1)
        clocks = Clocks(lambda: 1e9 + self.ahead_s, lambda: 500.0 + self.ahead_s, "boot")
        self.kept = KeptBudgets(directory, self.limits, clients, clocks)
        self.place = Succession(directory, name, self.kept, self.limits, clients, clocks=clocks, patience_s=patience_s)
        self.connections = 2

    def serve(self, most: int) -> int:
        """How many of so many requests find room."""
        budget = self.limits.budget(SCOPE, "m")
        assert budget is not None
        return sum(budget.try_reserve(1, perf_counter()) is not None for _ in range(most))

    async def take(self) -> None:
        await self.place.take_place(asyncio.Event())

    def let_go(self) -> asyncio.Task[None]:
        return asyncio.create_task(self.place.hand_over(lambda: self.connections, lambda: 0))


@pytest.fixture
def directory(tmp_path: Path) -> NodeDir:
    found = NodeDir(tmp_path, "n")
    found.path.mkdir(parents=True)
    return found


async def ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_the_successor_begins_when_all_is_handed_over(directory: NodeDir) -> None:
    """Not before; and what was kept for nothing is its own in the end."""
    first, second = Worker(directory, "a"), Worker(directory, "b")
    await first.take()
    assert first.serve(3) == 3
    taking = asyncio.create_task(second.take())
    await asyncio.sleep(0)  # it looks, and has to wait
    assert not second.place.has_place
    finishing = first.let_go()
    await taking
    assert (first.place.has_place, second.place.has_place) == (False, True)
    assert first.serve(5) == 2, "one for each connection"
    assert second.serve(9) == 5
    first.connections = 0
    following = asyncio.create_task(second.place.run())
    await first.place.finish()
    await ended(finishing)
    await following
    assert second.serve(9) == 0, "all is used: nothing was kept for nothing"
    assert list(directory.path.glob("finishing-*")) == []


async def test_what_was_kept_for_nothing_comes_back(directory: NodeDir) -> None:
    first, second = Worker(directory, "a"), Worker(directory, "b")
    await first.take()
    first.serve(3)
    finishing = first.let_go()
    await second.take()
    assert second.serve(9) == 5
    first.connections = 0
    following = asyncio.create_task(second.place.run())
    await first.place.finish()
    await ended(finishing)
    await following
    assert second.serve(9) == 2


async def test_who_dies_while_it_finishes_may_have_used_what_it_kept(directory: NodeDir) -> None:
    first, second = Worker(directory, "a"), Worker(directory, "b")
    await first.take()
    first.serve(3)
    finishing = first.let_go()
    await second.take()
    await ended(finishing)
    assert second.serve(9) == 5
    second.ahead_s = SILENT_S
    await second.place.run()
    assert second.serve(9) == 0
    assert list(directory.path.glob("finishing-*")) == []


async def test_who_hangs_keeps_nobody_from_serving(directory: NodeDir) -> None:
    """What it had written down is known."""
    first, second = Worker(directory, "a"), Worker(directory, "b", patience_s=0.0)
    await first.take()
    first.serve(3)
    await first.kept.save()
    await second.take()
    assert second.place.has_place
    assert second.serve(9) == 7


async def test_who_served_beside_one_that_hung_hands_over_in_order(directory: NodeDir) -> None:
    """The lock is free when that one is gone: it is not the next one's before all is handed over."""
    first, second, third = Worker(directory, "a"), Worker(directory, "b", patience_s=0.0), Worker(directory, "c")
    await first.take()
    await second.take()
    serving = asyncio.create_task(second.place.run())
    going = first.let_go()
    await asyncio.wait_for(serving, 20)
    await ended(going)
    await first.place.finish()
    taking = asyncio.create_task(third.take())
    assert second.serve(4) == 4
    for _ in range(5):
        await asyncio.sleep(0)
    assert not taking.done()
    leaving = second.let_go()
    await asyncio.wait_for(taking, 20)
    assert third.serve(20) == LIMIT - 4 - second.connections
    await ended(leaving)


async def test_a_damaged_file_is_as_good_as_none(directory: NodeDir) -> None:
    (directory.path / "finishing-x.json").write_bytes(b'{"at_s":1,"budgets":[[')
    worker = Worker(directory, "a")
    await worker.take()
    assert worker.serve(20) == LIMIT
    assert list(directory.path.glob("finishing-*")) == []
