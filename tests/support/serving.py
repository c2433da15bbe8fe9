"""`ccr serve` as a process, over its real programs or over stand-ins; whatever it starts is gone at the end.

with served(tmp_path, config) as relay:
    relay.wait_ready()
    assert relay.get("/pid")
"""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit

from support.logged import LoggedEvents

STAND_IN_SERVE = (sys.executable, str(Path(__file__).parents[1] / "stand_ins" / "serve.py"))
REAL_SERVE = (sys.executable, "-P", "-m", "ccr_control.serve")
SECRET = "sk-ant-api03-this-must-never-be-shown"
RELAY_KEY = "relay-key-this-must-never-be-shown-either"

CONFIG = """\
version: 1
server: {listen: "127.0.0.1:0", drain_timeout: 20s, auth: {mode: none}}
control: {listen: "127.0.0.1:0"}
providers:
  - {name: anthropic, type: anthropic, keys: [{label: a, key: "${TEST_SECRET}"}]}
"""


def until(condition: Callable[[], object], what: str, within_s: float = 20.0) -> None:
    """Wait until a condition that needs polling holds. Raises AssertionError naming it if it does not in time."""
    deadline_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline_s, f"not within {within_s} s: {what}"
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def environment(**more: str) -> dict[str, str]:
    """An environment without the developer's own keys and settings."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    return {**kept, "HOME": "/nonexistent", "TEST_SECRET": SECRET, **more}


@dataclass
class Relay:
    """A running `ccr serve`."""

    process: subprocess.Popen[bytes]
    state: Path
    log: Path
    since_byte: int = 0  # of the log: what came before belongs to another test
    since_version: int = 0  # of the snapshot: likewise

    def __post_init__(self) -> None:
        self._logged = LoggedEvents(self.log, self.since_byte)

    @property
    def output(self) -> str:
        """Everything it and its programs have printed."""
        return self.log.read_text(encoding="utf-8")

    def events(self, name: str) -> list[dict[str, object]]:
        """The log lines of one event, so far."""
        return self._logged.named(name)

    def pids(self, child: str) -> list[int]:
        """Process ids that a program had, in order."""
        return [int(str(event["pid"])) for event in self.events("child_started") if event["child"] == child]

    def every_pid(self) -> list[int]:
        """Process ids of everything it started."""
        return [int(str(event["pid"])) for event in self.events("child_started")]

    def wait_ready(self) -> None:
        """Wait for the `ready` line. Fails with all output if it ends instead."""

        def is_ready() -> bool:
            assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.output}"
            return bool(self.events("ready"))

        until(is_ready, f"ready; so far:\n{self.output}", within_s=30.0)

    @cached_property
    def url(self) -> str:
        """Its base URL, once it is ready."""
        return str(LoggedEvents(self.log).named("ready")[0]["url"])

    def connect(self, within_s: float = 20.0) -> socket.socket:
        """A connection to the relay."""
        parts = urlsplit(self.url)
        assert parts.hostname
        assert parts.port
        return socket.create_connection((parts.hostname, parts.port), timeout=within_s)

    def get(self, path: str, within_s: float = 20.0) -> str:
        """The body of an answer. Raises OSError or HTTPException if there is none."""
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=within_s)
        try:
            connection.request("GET", path)
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    def signal(self, number: signal.Signals) -> None:
        """Signal the supervisor itself."""
        self.process.send_signal(number)

    def wait_end(self, within_s: float = 30.0) -> int:
        """Its exit code, once it has ended."""
        return self.process.wait(within_s)


@contextlib.contextmanager
def served(
    directory: Path,
    config: str | None = CONFIG,
    *arguments: str,
    env: Mapping[str, str] | None = None,
    command: tuple[str, ...] = STAND_IN_SERVE,
) -> Iterator[Relay]:
    """Start `ccr serve` in `directory`; end it, and whatever it left behind, at the end of the block."""
    if config is not None:
        (directory / "ccr.yaml").write_text(config)
    state, log = directory / "state", directory / "serve.log"
    named = ("--state-dir", str(state), "--log-format", "json")
    with log.open("ab") as stderr:
        process = subprocess.Popen(
            [*command, *named, *arguments],
            cwd=directory,
            env=dict(env if env is not None else environment()),
            stdin=subprocess.DEVNULL,
            stdout=stderr,
            stderr=stderr,
            start_new_session=True,
        )
    relay = Relay(process, state, log)
    try:
        yield relay
    finally:
        for pid in [process.pid] if process.poll() is None else []:
            os.kill(pid, signal.SIGKILL)
        process.wait()
        for pid in relay.every_pid():
            with contextlib.suppress(ProcessLookupError):
                if is_alive(pid):
                    os.kill(pid, signal.SIGKILL)
