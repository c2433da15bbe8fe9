"""ccr-control counts what clients spend with the batch that brought it, and tells every node at once who has spent a budget."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from pathlib import Path

import grpc.aio
from ccr_control.core.ledger import Tokens
from ccr_control.core.pricing import PRICES
from ccr_control.core.spending import bill
from ccr_rpc.v1 import snapshot_pb2
from support.control import Control, running_control
from support.fake_node import FakeNode, FakeReporter, batch, record

CONFIG = """\
version: 1
server:
  listen: 127.0.0.1:0
  auth:
    keys:
      - {name: laptop, key: key-of-the-laptop, budget: {day: 1 USD, month: 20 USD}}
      - {name: other, key: key-of-another}
control: {listen: "127.0.0.1:0"}
health: {probe: {idle_interval: "0"}}
providers:
  - {name: anthropic, type: anthropic, keys: [{label: team-a, key: sk-a}]}
"""
PRICE = PRICES["claude-sonnet-4-5"]


def rows(control: Control, sql: str) -> list[tuple[int, ...]]:
    with contextlib.closing(sqlite3.connect(control.state_dir / "control.db")) as database:
        return database.execute(sql).fetchall()


def spent(control: Control, client: str = "laptop") -> int:
    """Nano-USD in the store."""
    return int(rows(control, f"SELECT coalesce(sum(nano_usd), 0) FROM spent WHERE client = '{client}'")[0][0])


def priced(control: Control, client: str = "laptop") -> int:
    """Nano-USD that the ledger's own lines come to."""
    return 1000 * int(rows(control, f"SELECT sum(cost_micro_usd) FROM ledger WHERE client = '{client}'")[0][0])


def refused(snapshot: snapshot_pb2.Snapshot) -> dict[str, str]:
    """Who has spent which budget."""
    return {one.name: one.spent_budget for one in snapshot.auth.clients if one.HasField("spent_until")}


async def test_nodes_hear_of_a_spent_budget_with_the_batch_that_spent_it(tmp_path: Path) -> None:
    """And only of the one who spent it. A million output tokens cost 15 USD."""
    now = int(time.time())
    dear = record(started_at_s=now)
    dear.tokens.output = 60_000
    async with running_control(tmp_path, CONFIG) as control, control.channel() as channel:
        async with FakeNode(channel).watching() as node, FakeReporter(channel).reporting() as reporter:
            assert refused(await node.got()) == {}
            await reporter.report(batch(1, dear))
            await reporter.report(batch(1, dear))  # again: it counts once
            assert len(node.versions) == 1
            assert spent(control) == priced(control) < 10**9
            await reporter.report(batch(2, dear))
            snapshot = await node.got(refused)  # type: ignore[arg-type]  # any truth will do
        assert refused(snapshot) == {"laptop": "1.00 USD a day"}
        until = snapshot.auth.clients[0].spent_until.seconds
        assert until % 86_400 == 0
        assert now < until <= now + 86_400
        assert control.event("client_budget_spent")


async def test_kill_9_in_the_middle_of_batches_loses_and_doubles_no_cent(tmp_path: Path) -> None:
    """What is spent is what the ledger's tokens cost, and after the start the first snapshot says who is to wait."""
    now, size, last = int(time.time()), 30, 100
    async with running_control(tmp_path, CONFIG) as control:
        acknowledged = 0
        for kill_after in (5, 33, 60, None):
            async with control.channel() as channel, FakeReporter(channel).reporting() as reporter:
                for number in range(acknowledged + 1, last + 1):
                    await reporter.send(batch(number, *[record(started_at_s=now)] * size))
                with contextlib.suppress(grpc.aio.AioRpcError):
                    while acknowledged < last:
                        acknowledged = await reporter.acknowledged()
                        if kill_after is not None and acknowledged >= kill_after:
                            control.kill()
            if kill_after is not None:
                await control.start()
        each = 1000 * bill(Tokens(input=10, output=20, cache_read=300), PRICE).cost_micro_usd
        assert spent(control) == priced(control) == each * size * last
        assert spent(control, "other") == 0
        control.kill()
        async with control.channel() as channel:
            await control.start()
            async with FakeNode(channel).watching() as node:
                first = await node.got()
        assert refused(first) == {"laptop": "1.00 USD a day"}


async def test_a_budget_that_is_raised_lets_its_client_in_again(tmp_path: Path) -> None:
    """At once, with the snapshot that the change makes."""
    dear = record(started_at_s=int(time.time()))
    dear.tokens.output = 100_000
    async with running_control(tmp_path, CONFIG) as control, control.channel() as channel:
        async with FakeNode(channel).watching() as node:
            async with FakeReporter(channel).reporting() as reporter:
                await reporter.report(batch(1, dear))
            spending = await node.got(refused)  # type: ignore[arg-type]
            control.config_path.write_text(CONFIG.replace("day: 1 USD", "day: 2 USD"))
            raised = await node.got(lambda snapshot: snapshot.version > spending.version)
        assert refused(raised) == {}
        assert spent(control) == priced(control)


async def test_a_database_of_an_older_release_is_used_on(tmp_path: Path) -> None:
    """It lacks the table, and nothing else."""
    async with running_control(tmp_path, CONFIG) as control:
        async with control.channel() as channel, FakeReporter(channel).reporting() as reporter:
            await reporter.report(batch(1))
        await control.stop()
        with contextlib.closing(sqlite3.connect(control.state_dir / "control.db")) as database:
            database.execute("DROP TABLE spent")
            database.commit()
        await control.start()
        async with control.channel() as channel, FakeReporter(channel).reporting() as reporter:
            assert await reporter.report(batch(2)) == 2
        assert spent(control) > 0
        assert control.event("store_given_up") is None
