"""What a worker has used of its budgets, kept for the one that starts in its place: its minute is not over yet.

<state-dir>/nodes/<node-name>/budgets.json, written once a second while something is limited and used, and when a
lease comes. It need not survive the machine, only the process, so nothing waits for the disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from time import monotonic, perf_counter, time

import msgspec

from ccr_data.core.amounts import Spent
from ccr_data.core.budget import WINDOW_S
from ccr_data.core.limits import Limits
from ccr_data.shell.logs import Log
from ccr_data.shell.node_dir import NodeDir

EVERY_S = 1.0

log = Log("budgets")


class _File(msgspec.Struct):
    at_s: float  # Unix time
    spent: list[Spent]
    boot: str = ""  # which start of the machine `steady_s` counts from
    steady_s: float = 0.0  # of the clock that nobody sets


_CONSEQUENCE = "a worker that starts anew may use more than is left of its minute"

_decode = msgspec.json.Decoder(_File).decode


class KeptBudgets:
    """Reads at the start what the worker before used, and writes what this one does."""

    def __init__(
        self,
        directory: NodeDir,
        limits: Limits,
        unix_s: Callable[[], float] = time,
        steady_s: Callable[[], float] = monotonic,
        boot: str | None = None,
    ) -> None:
        """`boot` names this start of the machine; None: as the kernel does, empty: nobody knows."""
        self._path = directory.path / "budgets.json"
        self._limits = limits
        self._unix_s, self._steady_s = unix_s, steady_s
        self._boot = _boot() if boot is None else boot
        self._written: list[Spent] = []
        self._news = asyncio.Event()

    def load(self) -> None:
        """Take up what is there. A file that cannot be read counts as none."""
        try:
            file = _decode(self._path.read_bytes())
        except FileNotFoundError:
            return
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            reason = error.strerror or str(error) if isinstance(error, OSError) else "it is damaged"
            log.warning("budgets_ignored", path=str(self._path), reason=reason, consequence=_CONSEQUENCE)
            return
        age_s = self._age_s(file)
        if age_s < WINDOW_S:
            self._limits.recall(file.spent, perf_counter(), age_s)

    def _age_s(self, file: _File) -> float:
        """How long ago it was written; the wall clock is asked only if the machine was started anew since."""
        if file.boot and file.boot == self._boot:
            return max(0.0, self._steady_s() - file.steady_s)
        return max(0.0, self._unix_s() - file.at_s)

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
                await self.save()
            except OSError as error:
                if not is_broken:
                    reason = error.strerror or str(error)
                    log.warning("budgets_not_kept", path=str(self._path), reason=reason, consequence=_CONSEQUENCE)
                is_broken = True
            else:
                is_broken = False

    async def save(self) -> None:
        """Write if something changed, beside the streams: there may be a thousand budgets, and a slow disk. Raises OSError."""
        spent = self._limits.spent(perf_counter())
        if spent == self._written:
            return
        await asyncio.to_thread(self._write, _File(self._unix_s(), spent, self._boot, self._steady_s()))
        self._written = spent

    def _write(self, what: _File) -> None:
        data = msgspec.json.encode(what)
        half = self._path.with_name(".budgets.json.new")
        descriptor = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(data)
        half.replace(self._path)


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
