"""ccr-control counts every batch exactly once, whatever happens to the stream, to it or to its database."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from pathlib import Path

import grpc.aio
import pytest
from ccr_rpc.v1 import fleet_pb2, fleet_pb2_grpc, stats_pb2, stats_pb2_grpc, usage_pb2
from support.control import Control, running_control
from support.fake_node import FakeNode, FakeReporter, batch, record


async def stats(channel: grpc.aio.Channel) -> stats_pb2.Stats:
    return (await stats_pb2_grpc.StatsServiceStub(channel).GetStats(stats_pb2.GetStatsRequest())).stats


def ledger(control: Control, column: str = "requests") -> int:
    with contextlib.closing(sqlite3.connect(control.state_dir / "control.db")) as database:
        return int(database.execute(f"SELECT coalesce(sum({column}), 0) FROM ledger").fetchone()[0])


async def test_a_batch_is_acknowledged_kept_and_shown(tmp_path: Path) -> None:
    now = int(time.time())
    moved_on = [
        usage_pb2.Attempt(provider="zai", key_label="zai", status=529, reason="overloaded"),
        usage_pb2.Attempt(provider="anthropic", key_label="team-a", status=200),
    ]
    records = [record(started_at_s=now), record(started_at_s=now, attempts=moved_on)]
    records.append(record(started_at_s=now, attempts=[], outcome=usage_pb2.OUTCOME_REFUSED))
    async with running_control(tmp_path) as control, control.channel() as channel:
        async with FakeReporter(channel).reporting() as reporter:
            assert await reporter.report(batch(1, *records)) == 1
        shown = await stats(channel)
        assert (shown.total.requests, shown.total.served) == (3, 2)
        assert shown.total.requests_per_s == pytest.approx(3 / 60)
        by_name = {figures.provider: figures for figures in shown.providers}
        assert by_name.keys() == {"anthropic", "zai"}
        assert by_name["anthropic"].figures.tokens.cache_read == 600
        assert by_name["anthropic"].figures.first_byte.p50_us == pytest.approx(400_000, rel=0.02)
        assert by_name["zai"].failed_attempts == 1
        assert by_name["zai"].figures.requests == 0
    assert ledger(control) == 3


async def test_a_batch_that_is_sent_again_is_acknowledged_and_not_counted(tmp_path: Path) -> None:
    async with running_control(tmp_path) as control, control.channel() as channel:
        async with FakeReporter(channel).reporting() as reporter:
            assert [await reporter.report(batch(n)) for n in (1, 2, 3)] == [1, 2, 3]
            assert [await reporter.report(batch(n)) for n in (1, 3, 2)] == [3, 3, 3]
            assert await reporter.report(batch(4)) == 4
        assert (await stats(channel)).total.requests == 4
    assert ledger(control) == 4


async def test_a_missing_batch_ends_the_stream_and_names_the_number_expected(control: Control) -> None:
    """The node goes back to it; counting on would lose it."""
    async with control.channel() as channel:
        async with FakeReporter(channel).reporting() as reporter:
            await reporter.report(batch(1, journal="gap"))
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await reporter.report(batch(3, journal="gap"))
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "expected number 2" in (caught.value.details() or "")
        async with FakeReporter(channel).reporting() as reporter:
            assert [await reporter.report(batch(n, journal="gap")) for n in (2, 3)] == [2, 3]


async def test_kill_9_in_the_middle_of_batches_counts_each_once(tmp_path: Path) -> None:
    """Whatever was not acknowledged is sent again; the totals are exact."""
    size, last = 50, 120
    async with running_control(tmp_path) as control:
        acknowledged = 0
        for kill_after in (7, 31, 64, None):
            async with control.channel() as channel, FakeReporter(channel).reporting() as reporter:
                for number in range(acknowledged + 1, last + 1):
                    await reporter.send(batch(number, *[record()] * size))
                with contextlib.suppress(grpc.aio.AioRpcError):
                    while acknowledged < last:
                        acknowledged = await reporter.acknowledged()
                        if kill_after is not None and acknowledged >= kill_after:
                            control.kill()
            if kill_after is not None:
                await control.start()
        assert acknowledged == last
        async with control.channel() as channel:
            assert (await stats(channel)).total.requests == size * last
        await control.stop()
        assert ledger(control) == size * last
        assert ledger(control, "cache_read_tokens") == size * last * 300


async def test_totals_survive_a_restart_and_rates_do_not(tmp_path: Path) -> None:
    async with running_control(tmp_path) as control:
        async with control.channel() as channel, FakeReporter(channel).reporting() as reporter:
            await reporter.report(batch(1, *[record(started_at_s=int(time.time()))] * 10))
        await control.stop()
        await control.start()
        async with control.channel() as channel:
            shown = await stats(channel)
            assert (shown.total.requests, shown.total.requests_per_s) == (10, 0)
            assert [figures.provider for figures in shown.providers] == ["anthropic"]


async def test_two_journals_do_not_disturb_each_other(control: Control) -> None:
    """A successor delivers the spool of a dead worker on its own stream."""
    async with control.channel() as channel:
        before = (await stats(channel)).total.requests
        async with FakeReporter(channel).reporting() as one, FakeReporter(channel, "test/worker-1").reporting() as two:
            assert await one.report(batch(1, journal="a")) == 1
            assert await two.report(batch(1, journal="b")) == 1
            assert await two.report(batch(2, journal="a")) == 2
            assert await one.report(batch(2, journal="a")) == 2
        assert (await stats(channel)).total.requests == before + 3


async def test_a_corrupt_database_is_moved_aside_and_the_nodes_go_on(tmp_path: Path) -> None:
    """Relaying matters more than statistics. A node in the middle of its journal must not be stuck."""
    async with running_control(tmp_path) as control:
        async with control.channel() as channel, FakeReporter(channel).reporting() as reporter:
            await reporter.report(batch(1))
        await control.stop()
        (control.state_dir / "control.db").write_bytes(b"SQLite format 3\0" + os.urandom(5000))
        await control.start()
        async with control.channel() as channel:
            async with FakeReporter(channel).reporting() as reporter:
                assert await reporter.report(batch(2)) == 2
            async with FakeNode(channel, served_version=1).watching() as node:
                assert (await node.got()).version > 1
        assert control.event("store_given_up")
        assert len(list(control.state_dir.glob("control.db.corrupt-*"))) == 1
        assert ledger(control) == 1


async def test_a_database_that_cannot_be_opened_is_moved_aside(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    (tmp_path / "state" / "control.db").mkdir()
    async with running_control(tmp_path) as control, control.channel() as channel:
        async with FakeReporter(channel).reporting() as reporter:
            assert await reporter.report(batch(1)) == 1
        assert control.event("store_given_up")


async def test_the_fleet_shows_how_nodes_are(control: Control) -> None:
    async with control.channel() as channel:
        async with FakeReporter(channel, "test/busy").reporting() as reporter:
            reported = batch(1, journal="busy")
            reported.status.CopyFrom(usage_pb2.NodeStatus(open_requests=3, spooled_bytes=5))
            await reporter.report(reported)
        answer = await fleet_pb2_grpc.FleetServiceStub(channel).ListNodes(fleet_pb2.ListNodesRequest())
        assert [node.status.open_requests for node in answer.nodes if node.node_id == "test/busy"] == [3]


async def test_statistics_can_be_watched(tmp_path: Path) -> None:
    async with running_control(tmp_path) as control, control.channel() as channel:
        request = stats_pb2.WatchStatsRequest()
        request.interval.FromMilliseconds(100)
        call = stats_pb2_grpc.StatsServiceStub(channel).WatchStats(request)
        assert (await call.read()).stats.total.requests == 0
        async with FakeReporter(channel).reporting() as reporter:
            await reporter.report(batch(1))
        answers = [await call.read() for _ in range(3)]
        assert answers[-1].stats.total.requests == 1
        call.cancel()


async def test_too_short_an_interval_is_refused(control: Control) -> None:
    async with control.channel() as channel:
        request = stats_pb2.WatchStatsRequest()
        request.interval.FromMilliseconds(10)
        call = stats_pb2_grpc.StatsServiceStub(channel).WatchStats(request)
        assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("odd", [2**63 - 1, -(2**63)])
async def test_absurd_figures_of_a_broken_node_break_nothing(tmp_path: Path, odd: int) -> None:
    async with running_control(tmp_path) as control, control.channel() as channel:
        async with FakeReporter(channel).reporting() as reporter:
            absurd = record()
            absurd.first_byte_us = absurd.total_us = absurd.overhead_us = absurd.tokens.output = odd
            absurd.started_at.seconds = 253402300799
            assert await reporter.report(batch(1, *[absurd] * 10)) == 1
            assert await reporter.report(batch(2)) == 2
        assert (await stats(channel)).total.requests == 11
        assert not control.event("handler_failed")
