"""What figures cost the control plane: a thousand records a second told one by one, with nobody and with two hundred screens watching.

Printed with `-s`; docs/performance.md has them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from ccr_rpc.v1 import dashboard_pb2, dashboard_pb2_grpc, ledger_pb2, stats_pb2, stats_pb2_grpc, usage_pb2
from support.control import Control, running_control, until
from support.fake_node import FakeReporter, batch, record

SECONDS = 4.0
A_SECOND = 1000
BATCHES_A_SECOND = 20
SCREENS = 200
TICKS = os.sysconf("SC_CLK_TCK")

pytestmark = [pytest.mark.timeout(180), pytest.mark.long]


def cpu_s(control: Control) -> float:
    assert control.process is not None
    fields = Path(f"/proc/{control.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident_mb(control: Control) -> float:
    assert control.process is not None
    pages = int(Path(f"/proc/{control.process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def some(number: int, count: int) -> usage_pb2.UsageBatch:
    """Requests of fifty sessions with three agents each, of five clients and models, through four keys."""
    now = int(time.time()) - 2
    made = []
    for n in range(number * count, (number + 1) * count):
        one = record(
            started_at_s=now,
            request_id=f"req_ccr_0123456789{n:08x}",
            session=f"6d1ff4ae-9f4e-4c62-9f0a-{n % 50:012d}",
            agent=("", "explore", "review")[n % 3],
            client=f"client-{n % 5}",
            model_asked=f"claude-sonnet-4-{n % 5}",
            model_used=f"claude-sonnet-4-{n % 5}",
            first_byte_us=300_000 + n % 977 * 1000,
            total_us=1_000_000 + n % 9973 * 400,
        )
        one.attempts[0].key_label = f"key-{n % 4}"
        one.attempts[0].scope = f"org-{n % 2}"
        made.append(one)
    return batch(number + 1, *made)


async def report_for(reporter: FakeReporter, seconds: float, first: int) -> int:
    """Report at an even rate; returns the number of the next batch."""
    began_s, number = time.monotonic(), first
    while (due_s := began_s + (number - first) / BATCHES_A_SECOND) < began_s + seconds:
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))  # the rate is what is measured at
        await reporter.report(some(number, A_SECOND // BATCHES_A_SECOND))
        number += 1
    return number


@contextlib.asynccontextmanager
async def watched(control: Control, screens: int) -> AsyncIterator[list[int]]:
    """So many screens that show everything; yields how many messages each got."""
    got = [0] * screens
    request = dashboard_pb2.WatchRequest(
        stats=True, providers=True, keys=True, nodes=True, config=True, events=True, sessions=True, series=True
    )
    request.records.min_status = 0

    async def watch(channel: grpc.aio.Channel, n: int) -> None:
        call: Any = dashboard_pb2_grpc.DashboardServiceStub(channel).Watch(request)
        read = channel.unary_stream("/ccr.rpc.v1.DashboardService/Watch", request_serializer=lambda one: one)
        del call
        async for _ in read(request.SerializeToString()):  # as bytes: what reading costs is the screens' business
            got[n] += 1

    async with contextlib.AsyncExitStack() as stack:
        channels = [await stack.enter_async_context(control.channel()) for _ in range(8)]
        tasks = [asyncio.create_task(watch(channels[n % 8], n)) for n in range(screens)]
        try:
            yield got
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_thousand_records_a_second_take_a_quarter_of_a_core_at_most(tmp_path: Path) -> None:
    """Measured; what is asserted leaves room for a busy machine."""
    async with running_control(tmp_path) as control, control.channel() as channel:
        async with FakeReporter(channel).reporting() as reporter:
            number = await report_for(reporter, 1.5, 0)
            shares, memory = {}, [resident_mb(control)]
            for screens in (0, 1, SCREENS):
                async with watched(control, screens) as got:
                    before_s, began_s = cpu_s(control), time.monotonic()
                    number = await report_for(reporter, SECONDS, number)
                    shares[screens] = (cpu_s(control) - before_s) / (time.monotonic() - began_s)
                    await until(lambda: all(got), "every screen is told", within_s=60.0)
                memory.append(resident_mb(control))
        stub = stats_pb2_grpc.StatsServiceStub(channel)
        request = stats_pb2.GetBreakdownRequest(window=stats_pb2.WINDOW_24H, by=ledger_pb2.DIMENSION_MODEL)
        began_s = time.monotonic()
        shown = await stub.GetBreakdown(request)
        breakdown_ms = (time.monotonic() - began_s) * 1000
        assert shown.total.requests == number * A_SECOND // BATCHES_A_SECOND
    print(
        f"\n{A_SECOND} records/s: {shares[0]:.0%} of a core; with one screen {shares[1]:.0%}; with {SCREENS} {shares[SCREENS]:.0%}; "
        f"resident {', '.join(f'{one:.0f}' for one in memory)} MB; breakdown of a day {breakdown_ms:.1f} ms"
    )
    assert shares[0] < 0.5
    assert memory[-1] - memory[0] < 160
