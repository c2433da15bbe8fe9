"""The publisher never gives a version twice and never goes back, whatever nodes, edits and the store do."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import pairwise

from ccr_control.shell.publisher import MAX_VERSION, Publisher
from ccr_control.store.actor import StoreUnavailable
from ccr_rpc.v1 import snapshot_pb2
from hypothesis import given
from hypothesis import strategies as st

steps = st.lists(
    st.one_of(
        st.tuples(st.just("offer"), st.integers(0, 99)),
        st.tuples(st.just("used"), st.integers(0, 40)),
        st.tuples(st.just("used"), st.integers(MAX_VERSION + 1, 2**63 - 1)),
        st.tuples(st.just("turn"), st.integers(0, 3)),
        st.tuples(st.just("settle"), st.just(0)),
    ),
    max_size=30,
)


def snapshot(content: int) -> snapshot_pb2.Snapshot:
    return snapshot_pb2.Snapshot(version=1, config_hash=str(content))


async def history(steps: Sequence[tuple[str, int]], stored: int, is_store_away: bool) -> None:
    kept: list[int] = []
    seen: list[snapshot_pb2.Snapshot] = []

    async def keep(version: int) -> None:
        await asyncio.sleep(0)  # other things happen meanwhile
        if is_store_away:
            raise StoreUnavailable("disk full")
        kept.append(version)

    async def watch() -> None:
        while True:
            seen.append(await publisher.newer_than(seen[-1].version if seen else 0))
            assert is_store_away or seen[-1].version in kept, "kept before anybody sees it"

    publisher = Publisher(keep, coalesce_s=0)
    publisher.note_used(stored)
    publisher.offer(snapshot(0))
    await publisher.publish()
    tasks = [asyncio.create_task(publisher.run()), asyncio.create_task(watch())]
    offered, used = 0, stored
    for step, argument in steps:
        match step:
            case "offer":
                offered = argument
                publisher.offer(snapshot(argument))
            case "used":
                used = max(used, argument) if argument <= MAX_VERSION else used
                publisher.note_used(argument)
            case "turn":
                for _ in range(argument):
                    await asyncio.sleep(0)
            case "settle":
                async with asyncio.timeout(5):
                    assert await publisher.settled() == publisher.version
                assert (await publisher.newer_than(0)).config_hash == str(offered)
    async with asyncio.timeout(5):
        await publisher.settled()
        last = await publisher.newer_than(used)
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results), results
    assert last.config_hash == str(offered), "the newest content, above every version that was used before"
    versions = [one.version for one in seen]
    assert versions[0] > stored
    assert all(later > earlier for earlier, later in pairwise(versions))
    assert len({one.version for one in seen}) == len({(one.version, one.config_hash) for one in seen})


@given(steps, st.integers(0, 30), st.booleans())
def test_versions_only_grow_and_the_newest_content_wins(
    steps: list[tuple[str, int]], stored: int, is_store_away: bool
) -> None:
    asyncio.run(history(steps, stored, is_store_away))
