"""Real ccr-control processes for tests: started on a state directory of their own, awaited until ready, ended by pid.

Use: `async with running_control(tmp_path) as control, control.channel() as channel: …Stub(channel)…`
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from support.logged import LoggedEvents

READY_WITHIN_S = 30.0

CHANNEL_OPTIONS = [
    ("grpc.use_local_subchannel_pool", 1),  # or a new channel inherits the back-off of one to a server that died
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 2_000),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.max_send_message_length", 64 << 20),
]

CONFIG = """\
version: 1
control: {listen: "127.0.0.1:0"}
providers:
  - name: anthropic
    type: anthropic
    keys: [{label: team-a, key: sk-ant-api03-not-a-real-key}]
"""


async def until(condition: Callable[[], Awaitable[object] | object], what: str, within_s: float = 30.0) -> None:
    """Wait until a condition that needs polling holds. Raises AssertionError naming it if it does not in time."""
    deadline = time.monotonic() + within_s
    while True:
        result = condition()
        if await result if inspect.isawaitable(result) else result:
            return
        assert time.monotonic() < deadline, f"not within {within_s} s: {what}"
        await asyncio.sleep(0.01)


@dataclass
class Control:
    """One ccr-control, perhaps started several times."""

    directory: Path
    config_text: str = CONFIG
    env: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.config_path = self.directory / "config" / "ccr.yaml"
        self.state_dir = self.directory / "state"
        self.log_path = self.directory / "control.log"
        self.config_path.parent.mkdir(parents=True, exist_ok=True)
        if not self.config_path.exists():
            self.config_path.write_text(self.config_text)

    # processes

    def launch(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start the process and do not wait. Its stderr is added to `log_path`."""
        command = [sys.executable, "-m", "ccr_control.server", "--config", str(self.config_path)]
        command += ["--state-dir", str(self.state_dir), "--log-format", "json", *arguments]
        with self.log_path.open("ab") as log:
            self._log_begins = log.tell()
            self._logged = LoggedEvents(self.log_path, log.tell())
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **self.env}
            )
        return self.process

    async def start(self, *arguments: str) -> None:
        """Start the process and wait until it serves. Raises AssertionError, with its log, if it does not."""
        process = self.launch(*arguments)
        try:
            await until(lambda: process.poll() is not None or self.event("control_ready"), "ready", READY_WITHIN_S)
            assert process.poll() is None, f"ccr-control ended with {process.returncode}"
            async with self.channel() as channel:
                stub = health_pb2_grpc.HealthStub(channel)
                answer = await stub.Check(health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=READY_WITHIN_S)
                assert answer.status == health_pb2.HealthCheckResponse.SERVING
        except BaseException as error:
            self.kill()
            error.add_note(self.log_text())
            raise

    async def exited(self, within_s: float = 30.0) -> int:
        """Wait for the end of the process. Returns its exit code."""
        process = self._running()
        await until(lambda: process.poll() is not None, "ccr-control ends", within_s)
        assert process.returncode is not None
        return process.returncode

    async def stop(self, within_s: float = 30.0) -> int:
        """End the process with SIGTERM. Returns its exit code."""
        self._running().send_signal(signal.SIGTERM)
        return await self.exited(within_s)

    def kill(self) -> None:
        """End the process with SIGKILL, if it runs."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def _running(self) -> subprocess.Popen[bytes]:
        assert self.process is not None, "it was never started"
        return self.process

    # what it tells

    @property
    def address(self) -> str:
        """What a node dials."""
        return (self.state_dir / "control.address").read_text().strip()

    @property
    def token(self) -> str:
        """The token for the TCP port."""
        return (self.state_dir / "control.token").read_text().strip()

    @property
    def tcp_address(self) -> str:
        """The TCP address of the running process."""
        ready = self.event("control_ready")
        assert ready is not None
        return str(ready["listen"])

    def channel(self, address: str | None = None) -> grpc.aio.Channel:
        """A channel to the socket, or to another address. Use it as `async with`."""
        return grpc.aio.insecure_channel(address or self.address, options=CHANNEL_OPTIONS)

    def log_text(self) -> str:
        """What the process that was started last has written."""
        return self.log_path.read_bytes()[self._log_begins :].decode(errors="replace")

    def events(self, name: str) -> list[dict[str, Any]]:
        """The log lines of that event, of the process that was started last."""
        return self._logged.named(name)

    def event(self, name: str) -> dict[str, Any] | None:
        """The last log line of that event."""
        return next(reversed(self.events(name)), None)


@contextlib.contextmanager
def shared_control(directory: Path, config_text: str = CONFIG) -> Iterator[Control]:
    """The same for a fixture of a whole module, whose tests each have an event loop of their own."""
    control = Control(directory, config_text)
    asyncio.run(control.start())
    try:
        yield control
    finally:
        control.kill()


@contextlib.asynccontextmanager
async def running_control(
    directory: Path, config_text: str = CONFIG, env: Mapping[str, str] | None = None
) -> AsyncIterator[Control]:
    """A ccr-control that is ready, killed at the end if the test has not ended it."""
    control = Control(directory, config_text, env or {})
    await control.start()
    try:
        yield control
    except BaseException as error:
        error.add_note(control.log_text()[-4000:])
        raise
    finally:
        control.kill()
