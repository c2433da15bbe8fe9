"""A busy node counts every request, tells of a sample, and never holds up its streams to do so."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

from ccr_data.core.batches import LIMITS
from ccr_data.shell.control_link import ControlAddress
from ccr_data.shell.logs import logging_to
from ccr_data.shell.node_dir import NodeDir
from ccr_data.shell.report import Reporter
from ccr_data.shell.request_log import RequestLog
from support.control import until
from support.fake_control import controlling
from support.node_values import NODE, record


@contextlib.asynccontextmanager
async def reporting(state: Path, socket: Path) -> AsyncIterator[Reporter]:
    """A reporter with a request log, while the block runs."""
    with logging_to(lambda _: None, "json", is_terminal=False) as output:
        reporter = Reporter(
            NODE,
            NodeDir(state, "worker-0"),
            lambda: ControlAddress(f"unix:{socket}"),
            journal="j1",
            log_requests=RequestLog(output, NODE.node_id).note,
        )
        running = asyncio.create_task(reporter.run())
        try:
            yield reporter
        finally:
            running.cancel()
            await asyncio.wait([running])


async def test_under_load_a_sample_is_told_and_every_request_is_counted(tmp_path: Path) -> None:
    socket = tmp_path / "control.sock"
    async with controlling(socket) as control, reporting(tmp_path / "state", socket) as reporter:
        for index in range(3000):
            reporter.note(record(f"r{index}", failed=index % 100 == 0))
        await until(lambda: control.batches.request_count >= 3000, "3000 counted requests")

        assert control.batches.request_count == 3000
        told = control.batches.request_ids
        assert {f"r{index}" for index in range(0, 3000, 100)} <= set(told)
        assert LIMITS.told_a_period <= len(told) < 1000


async def test_a_crowd_of_requests_does_not_hold_up_the_loop(tmp_path: Path) -> None:
    """Streams wait while records are written: a few milliseconds would be seen, also on a slow machine."""
    socket = tmp_path / "control.sock"
    async with controlling(socket) as control, reporting(tmp_path / "state", socket) as reporter:
        await until(lambda: control.usage_hellos, "a stream")
        for index in range(5000):
            reporter.note(record(f"r{index}"))
        turns_s = [time.thread_time()]
        while reporter._noted or not turns_s[1:]:
            await asyncio.sleep(0)
            turns_s.append(time.thread_time())
        steps_s = sorted(after - before for before, after in pairwise(turns_s))

        assert steps_s[-3] < 0.005  # nearly all; one may be another task's
