"""What a worker has used of its budgets, kept for the one that starts in its place: its minute is not over yet.

<state-dir>/nodes/<node-name>/budgets.json, written once a second while something is limited and used, when a lease comes, and by one
that is to end, for its successor (shell/succession.py). It need not survive the machine, only the process, so nothing waits for the
disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from time import monotonic, perf_counter, time

import msgspec

from ccr_data.core.amounts import WINDOW_S, Handed, Learned, Spent
from ccr_data.core.budget import SLOTS_PER_S
from ccr_data.core.client_limits import ClientLimits
from ccr_data.core.limits import Limits
from ccr_data.core.succession import aged, dated
from ccr_data.shell.logs import Log
from ccr_data.shell.node_dir import NodeDir
from ccr_data.shell.slices import in_slices

EVERY_S = 1.0

log = Log("budgets")


class Stamp(msgspec.Struct):
    """When a file was written."""

    at_s: float  # Unix time
    boot: str = ""  # which start of the machine `steady_s` counts from
    steady_s: float = 0.0  # of the clock that nobody sets


class _File(Stamp):
    spent: list[Spent] = msgspec.field(default_factory=list)  # of accounts
    clients: list[Spent] = msgspec.field(default_factory=list)
    learned: list[Learned] = msgspec.field(default_factory=list)  # of accounts' limits
    # Of a worker that had its successor: the same, and when it was used. Slots by their age.
    handed: list[Handed] = msgspec.field(default_factory=list)
    handed_clients: list[Handed] = msgspec.field(default_factory=list)


CONSEQUENCE = "a worker that starts anew may use more than is left of its minute"

_decode = msgspec.json.Decoder(_File).decode


class Clocks:
    """Ages of files, over restarts of processes and of the machine."""

    def __init__(
        self, unix_s: Callable[[], float] = time, steady_s: Callable[[], float] = monotonic, boot: str | None = None
    ) -> None:
        """`boot` names this start of the machine; None: as the kernel does, empty: nobody knows."""
        self._unix_s, self._steady_s = unix_s, steady_s
        self._boot = _boot() if boot is None else boot

    def stamp(self) -> Stamp:
        """Now."""
        return Stamp(self._unix_s(), self._boot, self._steady_s())

    def age_s(self, stamp: Stamp) -> float:
        """How long ago it was written; the wall clock is asked only if the machine was started anew since."""
        if stamp.boot and stamp.boot == self._boot:
            return max(0.0, self._steady_s() - stamp.steady_s)
        return max(0.0, self._unix_s() - stamp.at_s)


class KeptBudgets:
    """Reads at the start what the worker before used, and writes what this one does."""

    def __init__(
        self, directory: NodeDir, limits: Limits, clients: ClientLimits | None = None, clocks: Clocks | None = None
    ) -> None:
        self._path = directory.path / "budgets.json"
        self._limits = limits
        self._clients = clients if clients is not None else ClientLimits()
        self._clocks = clocks if clocks is not None else Clocks()
        self._written: tuple[list[Spent], list[Spent], list[Learned]] = ([], [], [])
        self._news = asyncio.Event()
        self._disk = asyncio.Lock()
        self._is_handed_over = False

    def load(self) -> None:
        """Take up what is there. A file that cannot be read counts as none."""
        try:
            file = _decode(self._path.read_bytes())
        except FileNotFoundError:
            return
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            reason = error.strerror or str(error) if isinstance(error, OSError) else "it is damaged"
            log.warning("budgets_ignored", path=str(self._path), reason=reason, consequence=CONSEQUENCE)
            return
        age_s, now_s = self._clocks.age_s(file), perf_counter()
        if age_s < WINDOW_S:
            then = int((now_s - age_s) * SLOTS_PER_S)
            self._limits.recall(file.spent, now_s, age_s, dated(file.handed, then), file.learned)
            self._clients.recall(file.clients, now_s, age_s, dated(file.handed_clients, then))

    def has_news(self) -> None:
        """A lease came: a successor must not begin without it."""
        self._news.set()

    async def run(self) -> None:
        """Write until cancelled, or until all is handed over."""
        is_broken = False
        while not self._is_handed_over:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(EVERY_S):
                    await self._news.wait()
            self._news.clear()
            try:
                await self.save()
            except OSError as error:
                if not is_broken:
                    self.say_not_kept(error)
                is_broken = True
            else:
                is_broken = False

    def say_not_kept(self, error: OSError) -> None:
        """In the log."""
        reason = error.strerror or str(error)
        log.warning("budgets_not_kept", path=str(self._path), reason=reason, consequence=CONSEQUENCE)

    async def save(self) -> None:
        """Write if something changed, beside the streams: there may be a thousand budgets, and a slow disk. Raises OSError."""
        async with self._disk:
            spent = await self._spent()
            if spent == self._written or self._is_handed_over:
                return
            stamp = self._clocks.stamp()
            await asyncio.to_thread(self._write, _File(stamp.at_s, stamp.boot, stamp.steady_s, *spent))
            self._written = spent

    async def hand_over(self, requests: int, waiting: int) -> Callable[[], None]:
        """Let another worker count from here: requests that may still come here, or wait for room, live by what is left by now.

        What the other one has to know is written by what this returns. That raises OSError.
        """
        async with self._disk:  # what is being written is older
            self._is_handed_over = True
        spent = await self._spent()
        stamp, now_s = self._clocks.stamp(), perf_counter()
        handed = await in_slices(self._limits.hand_over(requests, waiting, now_s))
        clients = await in_slices(self._clients.hand_over(requests, now_s))
        then = int(now_s * SLOTS_PER_S)
        file = _File(stamp.at_s, stamp.boot, stamp.steady_s, *spent, aged(handed, then), aged(clients, then))
        return lambda: self._write(file)

    async def _spent(self) -> tuple[list[Spent], list[Spent], list[Learned]]:
        spent = await in_slices(self._limits.each_spent(perf_counter))
        clients = await in_slices(self._clients.each_spent(perf_counter))
        return spent, clients, await in_slices(self._limits.each_learned(perf_counter))

    def _write(self, what: _File) -> None:
        write(self._path, msgspec.json.encode(what))


def write(path: Path, data: bytes) -> None:
    """Write a file so that nobody sees half of it. Raises OSError."""
    half = path.with_name(f".{path.name}.new")
    descriptor = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(data)
    half.replace(path)


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
