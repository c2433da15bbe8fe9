"""The programs of one machine: starts them, keeps them running, replaces workers, ends them in order.

Signals: SIGTERM and SIGINT end everything, workers first and drained; a second one ends at once. SIGHUP makes
ccr-control read its configuration again. SIGUSR2 replaces the workers one by one without dropping a request.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ccr_control.core.supervision import RestartPolicy
from ccr_control.shell.children import Keeper, Program
from ccr_control.shell.log import Log

log = Log("serve")

_LOOK_EVERY_S = 0.05
_MENTION_EVERY_S = 10.0
REPLACED_WITHIN_S = 30.0  # a replacement that does not serve by then is given up
DRAIN_MARGIN_S = 5.0  # beyond the workers' own drain timeout, for their last usage report
CONTROL_GRACE_S = 10.0
DEMO_GRACE_S = 2.0


@dataclass(frozen=True, slots=True)
class Worker:
    """A ccr-data to run."""

    program: Program
    ready_file: Path  # it keeps its process id there while it serves


@dataclass(frozen=True, slots=True)
class Programs:
    """All there is to run. Everything starts at once; workers end first, then control, then the demo."""

    control: Program
    workers: tuple[Worker, ...]
    demo: Program | None = None


@dataclass(frozen=True, slots=True)
class Hopeless:
    """A program cannot start here; it has said why."""

    name: str
    exit_code: int


@dataclass(slots=True)
class Supervisor:
    """Runs the programs until it is told to stop."""

    programs: Programs
    drain_timeout_s: float
    announce: Callable[[], Awaitable[None]]  # awaited once, when every worker serves
    stop_listening: Callable[[], None]  # else clients would still connect to a relay that nobody answers for
    policy: RestartPolicy = field(default_factory=RestartPolicy)
    _orders: asyncio.Queue[signal.Signals | Hopeless] = field(init=False)
    _serving: dict[str, Keeper] = field(init=False)  # by the name of the worker
    _passing: list[Keeper] = field(default_factory=list)  # workers that do not serve yet, or no more
    _exit_code: int = 0

    async def run(self) -> int:
        """Run until the end. Returns the exit code: 0 after an orderly stop."""
        self._orders = asyncio.Queue(64)
        demo = [self._keeper(self.programs.demo)] if self.programs.demo else []
        control = self._keeper(self.programs.control)
        self._serving = {worker.program.name: self._keeper(worker.program) for worker in self.programs.workers}
        with _signals_to(self._take):
            async with asyncio.TaskGroup() as tasks:
                for keeper in (*demo, control, *self._serving.values()):
                    tasks.create_task(keeper.run(), name=keeper.name)
                announcing = tasks.create_task(self._announce_when_ready(), name="announcement")
                await self._obey(control, tasks)
                announcing.cancel()
                hurrying = tasks.create_task(self._hurry((*demo, control)), name="second signal")
                await self._stop_in_order(control, demo)
                hurrying.cancel()
        return self._exit_code

    def _keeper(self, program: Program) -> Keeper:
        return Keeper(program, self.policy, lambda name, exit_code: self._take(Hopeless(name, exit_code)))

    def _take(self, order: signal.Signals | Hopeless) -> None:
        with contextlib.suppress(asyncio.QueueFull):  # someone sends signals faster than they can be obeyed
            self._orders.put_nowait(order)

    async def _obey(self, control: Keeper, tasks: asyncio.TaskGroup) -> None:
        """Follow orders until one says to stop."""
        rolling: asyncio.Task[None] | None = None
        while True:
            match await self._orders.get():
                case signal.SIGHUP:
                    log.info("reload_asked")
                    control.send(signal.SIGHUP)
                case signal.SIGUSR2 if rolling is None or rolling.done():
                    rolling = tasks.create_task(self._replace_workers(tasks), name="rolling restart")
                case signal.SIGUSR2:
                    log.warning("workers_already_being_replaced")
                case Hopeless(name, exit_code):
                    log.error("cannot_start", child=name, exit_code=exit_code)
                    self._exit_code = exit_code
                    break
                case _:
                    break
        if rolling:
            rolling.cancel()

    def _workers(self) -> list[Keeper]:
        return [*self._passing, *self._serving.values()]

    async def _stop_in_order(self, control: Keeper, demo: Sequence[Keeper]) -> None:
        """Workers drain first, so that ccr-control takes their last usage and the demo still answers them."""
        log.info("stopping", drain_timeout_s=self.drain_timeout_s)
        self.stop_listening()
        async with asyncio.TaskGroup() as tasks:
            for worker in self._workers():
                tasks.create_task(worker.stop(self.drain_timeout_s + DRAIN_MARGIN_S), name=f"stop {worker.name}")
        await control.stop(CONTROL_GRACE_S)
        for keeper in demo:
            await keeper.stop(DEMO_GRACE_S)

    async def _hurry(self, others: Sequence[Keeper]) -> None:
        """On a further signal to stop, end everything within a second."""
        while (order := await self._orders.get()) not in (signal.SIGTERM, signal.SIGINT):
            pass
        assert isinstance(order, signal.Signals)
        log.warning("stopping_at_once")
        self._exit_code = 128 + order  # as a shell reports a program that a signal ended
        async with asyncio.TaskGroup() as tasks:
            for keeper in (*self._workers(), *others):
                tasks.create_task(keeper.end_now(), name=f"end {keeper.name}")

    async def _announce_when_ready(self) -> None:
        mention_s = time.monotonic() + _MENTION_EVERY_S
        waiting = self.programs.workers
        while waiting := tuple(one for one in waiting if not _serves(self._serving[one.program.name], one)):
            await asyncio.sleep(_LOOK_EVERY_S)
            if time.monotonic() >= mention_s:
                log.warning("not_ready_yet", workers=", ".join(one.program.name for one in waiting))
                mention_s += _MENTION_EVERY_S
        await self.announce()

    async def _replace_workers(self, tasks: asyncio.TaskGroup) -> None:
        """For each worker: start another one, wait until it serves, then let the old one drain."""
        for worker in self.programs.workers:
            fresh = Keeper(worker.program, self.policy, give_up=None)
            self._passing.append(fresh)
            tasks.create_task(fresh.run(), name=fresh.name)
            if not await _serves_within(fresh, worker, REPLACED_WITHIN_S):
                log.error("replacement_not_ready", child=fresh.name, waited_s=REPLACED_WITHIN_S)
                await self._retire(fresh)
                return
            old, self._serving[fresh.name] = self._serving[fresh.name], fresh
            self._passing.remove(fresh)
            self._passing.append(old)
            tasks.create_task(self._retire(old), name=f"retire {old.name}")
        log.info("workers_replaced", workers=len(self.programs.workers))

    async def _retire(self, worker: Keeper) -> None:
        await worker.stop(self.drain_timeout_s + DRAIN_MARGIN_S)
        self._passing.remove(worker)


def _serves(keeper: Keeper, worker: Worker) -> bool:
    """Whether the process that runs now says that it serves; an earlier one may have left its file behind."""
    try:
        return keeper.pid is not None and worker.ready_file.read_text().strip() == str(keeper.pid)
    except (OSError, UnicodeDecodeError):
        return False


async def _serves_within(keeper: Keeper, worker: Worker, limit_s: float) -> bool:
    try:
        async with asyncio.timeout(limit_s):
            while not _serves(keeper, worker):  # noqa: ASYNC110 - a file has no event to wait for
                await asyncio.sleep(_LOOK_EVERY_S)
    except TimeoutError:
        return False
    return True


@contextlib.contextmanager
def _signals_to(take: Callable[[signal.Signals], None]) -> Iterator[None]:
    """Hand signals to `take` while the block runs."""
    loop = asyncio.get_running_loop()
    reload_or_stop = _hangup_reader()
    handlers: dict[signal.Signals, Callable[[], None]] = {
        signal.SIGHUP: lambda: take(reload_or_stop()),
        **{number: _taking(take, number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)},
    }
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    try:
        yield
    finally:
        for number in handlers:
            loop.remove_signal_handler(number)


def _taking(take: Callable[[signal.Signals], None], number: signal.Signals) -> Callable[[], None]:
    return lambda: take(number)


def _hangup_reader() -> Callable[[], signal.Signals]:
    """What a SIGHUP means: reload, or stop if it comes because our terminal was closed.

    Without a terminal, or under nohup, it always means reload.
    """
    may_mean_stop = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN and _has_terminal()
    return lambda: signal.SIGTERM if may_mean_stop and not _has_terminal() else signal.SIGHUP


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
