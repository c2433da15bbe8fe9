"""What a worker keeps of its budgets, beside the streams."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

from ccr_data.core.amounts import Allowance
from ccr_data.core.budget import Lease
from ccr_data.core.limits import Limits
from ccr_data.shell.kept_budgets import KeptBudgets
from ccr_data.shell.node_dir import NodeDir

STUCK_S = 10.0


async def test_a_disk_that_hangs_holds_up_no_stream(tmp_path: Path) -> None:
    """It is written every second while limits are used: here to a pipe that nobody reads yet."""
    directory, limits = NodeDir(tmp_path, "n"), Limits()
    directory.path.mkdir(parents=True)
    pipe = directory.path / ".budgets.json.new"
    os.mkfifo(pipe)
    limits.take_lease(Lease(("p", "s"), "", Allowance(requests=5), 7, Allowance(requests=5)))
    readers: list[int] = []

    def read() -> None:
        readers.append(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK))

    stuck = threading.Timer(STUCK_S, read)
    stuck.start()
    try:
        saving = asyncio.create_task(KeptBudgets(directory, limits).save())
        await asyncio.sleep(0)
        assert not readers, "the loop was held up"
        assert not saving.done()
        stuck.cancel()
        read()
        await saving
        assert b'[["p","s"],"",[0,0,0,0],[5,0,0,0],7]' in os.read(readers[0], 4096)
    finally:
        stuck.cancel()
        for reader in readers:
            os.close(reader)
