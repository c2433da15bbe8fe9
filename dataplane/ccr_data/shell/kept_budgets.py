"""What a worker has used of its budgets, kept for the one that starts in its place: its minute is not over yet.

<state-dir>/nodes/<node-name>/budgets.json, written once a second while something is limited and used, and when a
lease comes. It need not survive the machine, only the process, so nothing waits for the disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from time import perf_counter, time

import msgspec

from ccr_data.core.budget import WINDOW_S
from ccr_data.core.limits import Limits, Spent
from ccr_data.shell.logs import Log
from ccr_data.shell.node_dir import NodeDir

EVERY_S = 1.0

log = Log("budgets")


class _File(msgspec.Struct):
    at_s: float  # Unix time
    spent: list[Spent]


_decode = msgspec.json.Decoder(_File).decode


class KeptBudgets:
    """Reads at the start what the worker before used, and writes what this one does."""

    def __init__(self, directory: NodeDir, limits: Limits, unix_s: Callable[[], float] = time) -> None:
        self._path = directory.path / "budgets.json"
        self._limits = limits
        self._unix_s = unix_s
        self._written: list[Spent] = []
        self._news = asyncio.Event()

    def load(self) -> None:
        """Take up what is there. A file that cannot be read counts as none."""
        with contextlib.suppress(OSError, msgspec.DecodeError, UnicodeDecodeError):
            file = _decode(self._path.read_bytes())
            age_s = max(0.0, self._unix_s() - file.at_s)
            if age_s < WINDOW_S:
                self._limits.recall(file.spent, perf_counter(), age_s)

    def has_news(self) -> None:
        """A lease came: a successor must not begin without it."""
        self._news.set()

    async def run(self) -> None:
        """Write until cancelled."""
        is_broken = False
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(EVERY_S):
                    await self._news.wait()
            self._news.clear()
            try:
                self.save()
            except OSError as error:
                if not is_broken:
                    reason = error.strerror or str(error)
                    consequence = "a worker that starts anew may use more than is left of its minute"
                    log.warning("budgets_not_kept", path=str(self._path), reason=reason, consequence=consequence)
                is_broken = True
            else:
                is_broken = False

    def save(self) -> None:
        """Write if something changed. Raises OSError."""
        spent = self._limits.spent(perf_counter())
        if spent == self._written:
            return
        data = msgspec.json.encode(_File(self._unix_s(), spent))
        half = self._path.with_name(".budgets.json.new")
        descriptor = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(data)
        half.replace(self._path)
        self._written = spent
