"""What the benchmarks of screens share: a scene that moves as a busy relay's does, and a process that plays a part."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator, Sequence

from ccr_bench.processes import pin
from support.fake_admin import FakeAdmin
from support.scenes import record

RECORDS_PER_S = 1000


@contextlib.contextmanager
def player(arguments: Sequence[str], cpus: set[int] | None = None) -> Iterator[str]:
    """This Python with these arguments, on these processors, until the block ends. Yields the line by which it says that it is ready."""
    with subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, text=True) as process:
        try:
            pin([process.pid], cpus)
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.kill()


async def move(admin: FakeAdmin, every_s: float) -> None:
    """1,000 records a second over 100 providers, told every so many seconds, until cancelled; figures move along."""
    number, count = 0, int(RECORDS_PER_S * every_s)
    while True:
        admin.scene.records.extend(record(number + n, f"provider-{n % 100:03}") for n in range(count))
        number += count
        admin.scene.stats.total.requests = number
        for one in admin.scene.keys:
            one.requests += 1
        for one in admin.scene.stats.providers:
            one.figures.requests += count // 100
        admin.changed()
        await asyncio.sleep(every_s)
