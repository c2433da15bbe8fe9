"""The store: a thread that owns the database, so that a slow disk never blocks the event loop.

Jobs that arrive while a transaction runs share the next one. A database that cannot be written now (disk full) is
tried again every second, and what waits for it is not acknowledged meanwhile; one that cannot be used at all is moved
aside, because relaying matters more than statistics.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar, cast

from ccr_control.core.ledger import Counters
from ccr_control.core.remembered import Remembered
from ccr_control.core.report import Line, Question
from ccr_control.core.spending import Spent
from ccr_control.shell.log import Log
from ccr_control.store.change_tables import ChangeTables, Kept
from ccr_control.store.database import KEEP_LEDGER_S, Batch, Counted, Foreign, Verdict, is_hopeless, move_aside
from ccr_control.store.health_tables import HealthTables

RETRY_S = 1.0
MAX_WAITING = 256  # jobs; each watch or usage stream has at most one
MAX_GROUP = 64  # batches in one transaction

log = Log("store")
_T = TypeVar("_T")


class StoreUnavailable(Exception):
    """The database cannot be written now; the message says why."""


@dataclass(frozen=True, slots=True)
class Opened:
    """What a database holds when it is opened."""

    last_version: int
    totals: dict[str, Counters]
    remembered: Remembered
    spent: Spent = field(default_factory=dict)
    kept: Kept = field(default_factory=Kept)
    today: Counters = field(default_factory=Counters)  # what began on the day in which it was opened


class Tables(Protocol):
    """The part of `Database` that the store needs. Every method may raise sqlite3.Error."""

    @property
    def health(self) -> HealthTables: ...
    @property
    def changes(self) -> ChangeTables: ...

    def last_version(self) -> int: ...
    def keep_version(self, version: int) -> None: ...
    def totals(self) -> dict[str, Counters]: ...
    def today(self, now_s: float) -> Counters: ...
    def report(self, question: Question) -> list[Line]: ...
    def keep_ledger_for(self, seconds: float) -> None: ...
    def spent(self) -> Spent: ...
    def count(self, batches: Sequence[Batch], now_s: float) -> list[Verdict]: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class _Count:
    batch: Batch
    counted: Callable[[], None]
    done: Future[Verdict] = field(default_factory=Future)


@dataclass(frozen=True, slots=True)
class _KeepVersion:
    version: int
    done: Future[None] = field(default_factory=Future)


@dataclass(frozen=True, slots=True)
class _Ask:
    question: Callable[[Tables], object]
    done: Future[object] = field(default_factory=Future)


class _Stop:
    """The last job."""


_Job = _Count | _KeepVersion | _Ask | _Stop


class Store:
    """Counts batches, keeps versions and answers questions. All methods are for the event loop."""

    def __init__(
        self,
        path: Path,
        open_tables: Callable[[Path, float], Tables],
        now: Callable[[], float],
        on_open: Callable[[Opened], None],
    ) -> None:
        """`on_open` is called in the event loop whenever a database was opened, before anything is counted in it."""
        self._path, self._open_tables, self._now, self._on_open = path, open_tables, now, on_open
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()  # bounded by the slots
        self._slots = asyncio.Semaphore(MAX_WAITING)
        self._tables: Tables | None = None
        self._is_troubled = False  # said so already
        self.keep_ledger_s: Callable[[], float] = lambda: KEEP_LEDGER_S

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Own the thread. Entered when the first attempt to open the database is over."""
        self._loop = asyncio.get_running_loop()
        thread = threading.Thread(target=self._run, name="store", daemon=True)
        self._first: Future[None] = Future()
        thread.start()
        await asyncio.wrap_future(self._first)
        try:
            yield
        finally:
            self._jobs.put(_Stop())
            await asyncio.to_thread(thread.join, 5.0)  # a transaction takes milliseconds, a locked database 5 s

    async def count(self, batch: Batch, counted: Callable[[], None] = lambda: None) -> Verdict:
        """Count a batch and wait until it is kept, for as long as that takes (the caller's stream may be ended).

        `counted` is called in the event loop when the batch has been counted, also if the caller has gone meanwhile.
        """
        async with self._slots:
            job = _Count(batch, counted)
            self._jobs.put(job)
            return await asyncio.wrap_future(job.done)

    async def keep_version(self, version: int) -> None:
        """Remember a version. Raises StoreUnavailable."""
        async with self._slots:
            job = _KeepVersion(version)
            self._jobs.put(job)
            await asyncio.wrap_future(job.done)

    async def ask(self, question: Callable[[Tables], _T]) -> _T:
        """What `question` says of the database, which it may write to; it is called in the thread, and must be quick.

        Raises StoreUnavailable.
        """
        async with self._slots:
            job = _Ask(question)
            self._jobs.put(job)
            return cast("_T", await asyncio.wrap_future(job.done))

    # Everything below runs in the thread.

    def _run(self) -> None:
        waiting: list[_Count] = []
        self._try_open()
        self._first.set_result(None)
        while True:
            jobs = self._take(RETRY_S if waiting or self._tables is None else None)
            self._try_open()
            for job in jobs:
                match job:
                    case _KeepVersion():
                        self._answer(_keeping(job.version), job.done)
                    case _Ask():
                        self._answer(job.question, job.done)
                    case _Count():
                        waiting.append(job)
                    case _Stop():
                        if self._tables is not None:
                            self._tables.close()
                        return
            waiting = self._try_count([job for job in waiting if not job.done.cancelled()])

    def _take(self, timeout_s: float | None) -> list[_Job]:
        """All jobs there are, up to one group, as soon as there is one; none after the timeout."""
        jobs: list[_Job] = []
        with contextlib.suppress(queue.Empty):
            jobs.append(self._jobs.get(timeout=timeout_s))
            while len(jobs) < MAX_GROUP:
                jobs.append(self._jobs.get_nowait())
        return jobs

    def _try_open(self) -> None:
        """Open the database if it is not; one that can never be used is moved aside, once."""
        if self._tables is not None:
            return
        for is_last in (False, True):
            try:
                tables = self._open_tables(self._path, self._now())
                opened = _opened(tables, self._now())
            except (sqlite3.Error, Foreign) as error:
                if is_last or not is_hopeless(error) or not self._try_move_aside(error):
                    self._note_trouble(error)
                    return
            else:
                self._tables = tables
                self._loop.call_soon_threadsafe(self._on_open, opened)
                self._note_recovery()
                return

    def _try_move_aside(self, why: Exception) -> bool:
        try:
            aside = move_aside(self._path, self._now())
        except OSError as error:
            self._note_trouble(error)
            return False
        log.error("store_given_up", problem=str(why), moved_to=str(aside), effect="statistics begin anew")
        return True

    def _answer(self, question: Callable[[Tables], _T], done: Future[_T]) -> None:
        try:
            if self._tables is None:
                raise sqlite3.OperationalError("the database is not open")
            answer = question(self._tables)
        except sqlite3.Error as error:
            self._note_failure(error)
            _settle(done, StoreUnavailable(str(error)))
        else:
            _settle(done, answer)

    def _try_count(self, jobs: list[_Count]) -> list[_Count]:
        """Count a group of batches. Returns those that must be tried again: all of them or none."""
        if not jobs or self._tables is None:
            return jobs
        try:
            self._tables.keep_ledger_for(self.keep_ledger_s())
            verdicts = self._tables.count([job.batch for job in jobs], self._now())
        except sqlite3.Error as error:
            self._note_failure(error)
            return jobs
        self._note_recovery()
        for job, verdict in zip(jobs, verdicts, strict=True):
            if isinstance(verdict, Counted):
                self._loop.call_soon_threadsafe(job.counted)
            _settle(job.done, verdict)
        return []

    def _note_failure(self, error: sqlite3.Error) -> None:
        """A write failed: note it, and let go of a file that will never take one."""
        self._note_trouble(error)
        if self._tables is not None and is_hopeless(error):
            with contextlib.suppress(sqlite3.Error):
                self._tables.close()
            self._tables = None
            self._try_move_aside(error)

    def _note_trouble(self, error: Exception) -> None:
        if not self._is_troubled:
            self._is_troubled = True
            log.error("store_unavailable", problem=str(error), path=str(self._path), effect="usage waits at the nodes")

    def _note_recovery(self) -> None:
        if self._is_troubled:
            self._is_troubled = False
            log.info("store_available", path=str(self._path))


def _opened(tables: Tables, now_s: float) -> Opened:
    return Opened(
        tables.last_version(),
        tables.totals(),
        tables.health.remembered(),
        tables.spent(),
        tables.changes.kept(),
        tables.today(now_s),
    )


def _keeping(version: int) -> Callable[[Tables], None]:
    return lambda tables: tables.keep_version(version)


def _settle(done: Future[_T], result: _T | Exception) -> None:
    """Answer a job whose caller may have gone away at any moment."""
    with contextlib.suppress(Exception):  # InvalidStateError: cancelled in between
        if isinstance(result, Exception):
            done.set_exception(result)
        else:
            done.set_result(result)
