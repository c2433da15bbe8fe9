"""Which of two workers of one name counts its budgets, at a rolling restart (core/succession.py, docs/adr/0018).

<state-dir>/nodes/<node-name>/budgets.lock             locked by the worker that has the place, until it hands over or dies
<state-dir>/nodes/<node-name>/budgets.json             what it handed over (shell/kept_budgets.py)
<state-dir>/nodes/<node-name>/finishing-<worker>.json  what one that finishes has used since, and what it keeps for its connections

The successor says that it is ready, waits for the lock, and only then takes connections, which wait in the socket's queue meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import msgspec

from ccr_data.core.amounts import NO_LIMITS, WINDOW_S, Handed
from ccr_data.core.budget import SLOTS_PER_S
from ccr_data.core.client_limits import ClientLimits
from ccr_data.core.limits import Limits
from ccr_data.core.succession import aged, dated
from ccr_data.shell.kept_budgets import CONSEQUENCE, Clocks, KeptBudgets, Stamp, write
from ccr_data.shell.logs import Log
from ccr_data.shell.node_dir import NodeDir, matching
from ccr_data.shell.slices import in_slices

HANDED_OVER_WITHIN_S = 5.0  # a worker that hangs does not keep its successor from serving
LOOK_EVERY_S = 0.005
TELL_EVERY_S = 0.1
TOLD_ANYWAY_S = 1.0  # well below TOLD_WITHIN_SLOTS (core/budget.py)
SILENT_S = 5.0  # who finishes and says nothing for so long has died

log = Log("budgets")


class _Finishing(Stamp):
    budgets: list[Handed] = msgspec.field(default_factory=list)  # slots by their age
    clients: list[Handed] = msgspec.field(default_factory=list)
    requests: int = 0  # that may still come
    is_over: bool = False


_decode = msgspec.json.Decoder(_Finishing).decode


class Succession:
    """When it is for this process to count its node's budgets."""

    def __init__(
        self,
        directory: NodeDir,
        worker: str,
        kept: KeptBudgets,
        limits: Limits,
        clients: ClientLimits,
        *,
        room_came: Callable[[], None] = lambda: None,
        clocks: Clocks | None = None,
        patience_s: float = HANDED_OVER_WITHIN_S,
    ) -> None:
        """`worker` names this process, fit for a file name. `room_came` is called when one that finishes let go of something."""
        self._patience_s = patience_s
        self.has_place = False
        self._is_late = False  # it serves, and the worker before it still has the lock
        self._directory, self._kept, self._limits, self._clients = directory.path, kept, limits, clients
        self._own = directory.path / f"finishing-{worker}.json"
        self._room_came, self._clocks = room_came, clocks if clocks is not None else Clocks()
        self._lock: int | None = None
        self._telling = asyncio.Lock()
        self._hands_over = False
        self._followed: dict[Path, tuple[int, int]] = {}  # workers that finish, and when their file was last written
        self._told: tuple[list[Handed], list[Handed]] = ([], [])
        self._told_s = 0.0

    # --- the successor ------------------------------------------------------------------------------------------------

    async def take_place(self, stop: asyncio.Event) -> None:
        """Begin with what the worker before has used, once it has handed over; not longer than `stop`."""
        waits_until_s = perf_counter() + self._patience_s
        while not (is_free := self._is_free()) and not stop.is_set():
            if perf_counter() >= waits_until_s:
                log.warning(
                    "budgets_not_handed_over",
                    path=str(self._directory),
                    waited_s=self._patience_s,
                    consequence="the worker before goes on; both together may use more than the budgets of their minute",
                )
                break
            await asyncio.sleep(LOOK_EVERY_S)
        if stop.is_set():
            return
        self._kept.load()
        for path in matching(self._directory, "finishing-*.json"):
            self._followed[path] = (0, 0)
        self._look()
        self.has_place, self._is_late = True, not is_free

    def _is_free(self) -> bool:
        """Whether nobody has the place, or this process has. True also where nothing can be locked."""
        if self._lock is None:
            try:
                self._lock = os.open(self._directory / "budgets.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError:  # `state_dir_unusable` has been said
                return True
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    async def run(self) -> None:
        """Follow those that finish, until they have, and lock what a worker that hung has let go of. Ends by itself."""
        while self._followed or self._is_late:
            await asyncio.sleep(TELL_EVERY_S)
            if self._hands_over:
                return
            self._is_late = self._is_late and not self._is_free()
            if self._look():
                self._room_came()

    def _look(self) -> bool:
        """Read what is new; whether there was anything."""
        is_news = False
        for path, seen in tuple(self._followed.items()):
            told, written = None, (0, 0)
            try:
                stat = path.stat()
                told, written = _decode(path.read_bytes()), (stat.st_mtime_ns, stat.st_ino)
            except FileNotFoundError:
                pass
            except (OSError, msgspec.DecodeError, UnicodeDecodeError):
                log.warning("budgets_ignored", path=str(path), reason="it is damaged", consequence=CONSEQUENCE)
            age_s = self._clocks.age_s(told) if told is not None else SILENT_S
            if told is not None and written != seen and age_s < WINDOW_S + SILENT_S:
                self._note(path.name, told, age_s)
                self._followed[path] = written
                is_news = True
            if told is None or told.is_over or age_s >= SILENT_S:
                self._forget(path, is_told=told is not None and (told.is_over or age_s >= WINDOW_S))
                is_news = True
        return is_news

    def _note(self, worker: str, told: _Finishing, age_s: float) -> None:
        now_s = perf_counter()
        then = int((now_s - age_s) * SLOTS_PER_S)
        requests = max(0, told.requests)
        self._limits.finishing.note(worker, dated(told.budgets, then), now_s, requests)
        self._clients.note_finishing(worker, dated(told.clients, then), now_s, requests)

    def _forget(self, path: Path, *, is_told: bool) -> None:
        now_s = perf_counter()
        self._limits.finishing.ended(path.name, now_s, is_told=is_told)
        self._clients.finished(path.name, now_s, is_told=is_told)
        del self._followed[path]
        with contextlib.suppress(OSError):
            path.unlink()

    # --- the one that finishes ----------------------------------------------------------------------------------------

    async def hand_over(self, requests: Callable[[], int], waiting: Callable[[], int]) -> None:
        """Let the successor count, and go on telling until cancelled. So many requests may still come here, or wait for room."""
        if not self.has_place:
            return
        self.has_place, self._hands_over = False, True
        async with self._telling:
            try:
                write_kept = await self._kept.hand_over(requests(), waiting())
                await self._tell(requests())
                await asyncio.to_thread(write_kept)
            except OSError as error:
                self._kept.say_not_kept(error)
            finally:
                if self._lock is not None:
                    os.close(self._lock)
                    self._lock = None
        while True:
            await asyncio.sleep(TELL_EVERY_S)
            async with self._telling:
                with contextlib.suppress(OSError):
                    await self._tell(requests())

    async def finish(self) -> None:
        """It is over: what was kept and not used is the successor's."""
        if self._hands_over:
            async with self._telling:
                with contextlib.suppress(OSError):
                    await self._tell(0, is_over=True)

    async def _tell(self, requests: int, *, is_over: bool = False) -> None:
        now_s = perf_counter()
        budgets = await in_slices(self._limits.keep(requests, now_s))
        clients = await in_slices(self._clients.keep(requests, now_s))
        if is_over:
            budgets, clients = (
                [one._replace(kept=NO_LIMITS, open_count=0) for one in told] for told in (budgets, clients)
            )
        if (budgets, clients) == self._told and now_s - self._told_s < TOLD_ANYWAY_S and not is_over:
            return
        self._told, self._told_s = (budgets, clients), now_s
        stamp, then = self._clocks.stamp(), int(now_s * SLOTS_PER_S)
        file = _Finishing(
            stamp.at_s, stamp.boot, stamp.steady_s, aged(budgets, then), aged(clients, then), requests, is_over
        )
        await asyncio.to_thread(write, self._own, msgspec.json.encode(file))
