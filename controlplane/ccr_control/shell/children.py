"""Programs that the supervisor keeps running."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ccr_control.core.supervision import STARTED_AGAIN, Ended, GiveUp, Restart, RestartPolicy, after_end, words_for
from ccr_control.shell.log import Log

_SHIM = Path(__file__).with_name("die_with_parent.py")
KILL_AFTER_S = 1.0  # from a second signal to SIGKILL

log = Log("serve")


@dataclass(frozen=True, slots=True)
class Program:
    """What to run."""

    name: str  # in the log: "ccr-control", "worker-0", "demo"
    command: tuple[str, ...]  # the first one is an absolute path
    env: Mapping[str, str]
    inherits: tuple[int, ...] = ()  # descriptors that keep their numbers


class Keeper:
    """Keeps one program running until it is told to stop.

    Every start is a process group and session of its own: a Ctrl-C at the terminal reaches the supervisor alone,
    which then stops its programs in order.
    """

    def __init__(self, program: Program, policy: RestartPolicy, give_up: Callable[[str, int], None] | None) -> None:
        """`give_up(name, exit_code)` is called if the first start is hopeless; None: there is no such start."""
        self.name = program.name
        self._program = program
        self._policy = policy
        self._give_up = give_up
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()
        self._ended = asyncio.Event()

    @property
    def pid(self) -> int | None:
        """Process id, while it runs."""
        return self._process.pid if self._process else None

    async def run(self) -> None:
        """Start the program, and again whenever it ends, until `stop`."""
        crashes, is_first = 0, self._give_up is not None
        try:
            while not self._stopping.is_set():
                began_s = time.monotonic()
                exit_code = await self._run_once(is_first)
                if self._stopping.is_set():
                    return
                lived_s = time.monotonic() - began_s
                match after_end(Ended(exit_code, lived_s, crashes, is_first), self._policy):
                    case GiveUp(code):
                        assert self._give_up is not None
                        self._give_up(self.name, code)
                        return
                    case Restart(wait_s, crashes):
                        log.error(
                            "child_ended",
                            child=self.name,
                            how=words_for(exit_code),
                            lived_s=round(lived_s, 1),
                            restart_in_s=wait_s,
                        )
                        with contextlib.suppress(TimeoutError):
                            await asyncio.wait_for(self._stopping.wait(), wait_s)
                is_first = False
        finally:
            self._ended.set()

    async def _run_once(self, is_first: bool) -> int:
        """Start the program and wait for its end. Returns its exit code, EX_OSERR if it could not be started."""
        try:
            process = await self._start(is_first)
        except OSError as error:  # too many processes, no memory, or an upgrade has just removed the interpreter
            log.error("child_not_started", child=self.name, problem=error.strerror or str(error))  # noqa: TRY400
            return os.EX_OSERR
        self._process = process
        log.info("child_started", child=self.name, pid=process.pid)
        if self._stopping.is_set():  # told to stop while it was being started
            self.send(signal.SIGTERM)
        try:
            return await process.wait()
        finally:
            self._process = None

    async def _start(self, is_first: bool) -> asyncio.subprocess.Process:
        shim = (sys.executable, "-I", "-S", str(_SHIM), str(os.getpid()))
        return await asyncio.create_subprocess_exec(
            *shim,
            *self._program.command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=2,  # what they print is log; our own stdout stays clean
            env=self._program.env if is_first else {**self._program.env, STARTED_AGAIN: "1"},
            pass_fds=self._program.inherits,
            start_new_session=True,
        )

    def send(self, signal_number: signal.Signals) -> None:
        """Send a signal to the program, if it runs."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal_number)

    async def stop(self, grace_s: float) -> None:
        """Ask the program to end, and kill it if it has not within `grace_s`. Returns when it is gone."""
        self._stopping.set()
        self.send(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._ended.wait(), grace_s)
        except TimeoutError:
            log.warning("child_killed", child=self.name, after_s=grace_s)
            self.send(signal.SIGKILL)
            await self._ended.wait()  # the kernel sees to it

    async def end_now(self) -> None:
        """The program has been asked to end, or is now; within a second it is gone."""
        self._stopping.set()
        self.send(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._ended.wait(), KILL_AFTER_S)
        except TimeoutError:
            self.send(signal.SIGKILL)
