"""The processes of a fleet: the control plane, two workers on one listening socket, what is between them, and the providers.

Whoever ends is started again, as a supervisor would; what they write is kept, one file for each start.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from ccr_control.shell import die_with_parent

from chaos import answers
from chaos.history import HARNESS, Arrival, Configuration, NodeLine, Record, Span, Sums
from chaos.links import Link
from chaos.load import Load
from chaos.plans import NODES, PROVIDERS, Topology
from chaos.providers import Provider

READY_WITHIN_S = 150.0
STALLED_S = 0.3
LIMITED = PROVIDERS[0]  # the provider that has one account with a limit
_SNAPSHOT_EVENTS = ("snapshot_loaded", "snapshot_served", "snapshot_rejected")
_COLUMNS = ("requests", "served", "input_tokens", "output_tokens")
_SUMS = f"SELECT {', '.join(f'coalesce(sum({name}), 0)' for name in _COLUMNS)} FROM ledger"  # noqa: S608 - names of ours


@dataclass
class Process:
    """One program, started again and again."""

    name: str
    command: list[str]
    listening: int = -1  # descriptor to hand down
    starts: int = 0  # of processes of this name
    number: int = 0  # of the start of the one that runs
    running: subprocess.Popen[bytes] | None = None
    before_start: Callable[[], None] | None = None  # done once, while it is dead
    log: Path = field(default_factory=Path)

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self.running is not None
        return self.running.pid


class Fleet:
    """Use as `async with Fleet(directory, topology) as fleet`: it is up and serves."""

    def __init__(self, directory: Path, topology: Topology) -> None:
        self.directory = directory
        self.topology = topology
        self.state = directory / "state"
        self.logs = directory / "logs"
        self.config_path = directory / "config" / "ccr.yaml"
        self.arrivals: list[Arrival] = []
        self.spans: list[Span] = []
        self.configurations: list[Configuration] = []
        self.providers = {name: Provider(name, self.arrivals) for name in PROVIDERS}
        self.links: dict[str, Link] = {}
        self.processes: dict[str, Process] = {}
        self.retiring: list[Process] = []
        self.rotation = dict.fromkeys(PROVIDERS, 0)
        self.rpm_limit, self.limited_label = 10, "small-0"
        self.marks = 0
        self.editing = asyncio.Lock()  # there is one file
        self.node_lines: list[NodeLine] = []
        self.records: list[Record] = []
        self.instance_of: dict[str, str] = {}
        self.leaks: list[str] = []
        self._read_up_to: dict[Path, int] = {}
        self._ready: set[Path] = set()  # logs of processes that have said that they are
        self._keepers: list[asyncio.Task[None]] = []
        self._sock = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.load = Load(self._sock.getsockname()[1])
        self._begun_unix_s = time.time() - time.monotonic()

    # --- up and down ------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Fleet:
        for path in (self.state, self.logs, self.config_path.parent):
            path.mkdir(parents=True, mode=0o700)
        for provider in self.providers.values():
            provider.listen()
        self.offer(self.new_configuration())
        self._define()
        for link in self.links.values():
            await link.open()
        try:
            for (
                process
            ) in self.processes.values():  # the control plane first: nodes wait for a while for the first snapshot only
                self.start(process)
                self._keepers.append(asyncio.create_task(self._keep(process), name=f"keeper of {process.name}"))
                if process.name == "control":
                    await until(
                        lambda: self.is_ready(self.processes["control"]), "the control plane is up", READY_WITHIN_S
                    )
            await until(lambda: all(map(self.is_ready, self.processes.values())), "the fleet is up", READY_WITHIN_S)
            self._keepers.append(asyncio.create_task(self._note_stalls(), name="stalls"))
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End everything."""
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        for process in (*self.processes.values(), *self.retiring):
            if process.running is not None:
                process.running.kill()
                process.running.wait()
        for link in self.links.values():
            await link.close()
        for provider in self.providers.values():
            await provider.close()
        self._sock.close()

    def _define(self) -> None:
        own = [sys.executable, "-P", "-m"]
        shared = ["--state-dir", str(self.state), "--log-format", "json"]
        control = [*own, "ccr_control.server", "--config", str(self.config_path), "--workers", str(len(NODES)), *shared]
        self.processes["control"] = Process("control", control)
        for node in NODES:
            path = self.directory / f"{node}.sock"
            self.links[node] = Link(path, self.state / "control.address")
            serving = ["--listen-fd", str(self._sock.fileno()), "--control", f"unix:{path}", "--drain-timeout", "15s"]
            command = [*own, "ccr_data.app", *serving, *shared, "--node-name", node]
            self.processes[node] = Process(node, command, self._sock.fileno())

    def start(self, process: Process) -> None:
        """Start it, with a log of its own."""
        own = self.processes[process.name]
        own.starts += 1
        process.number = own.starts
        process.log = self.logs / f"{process.name}.{process.number}.log"
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR", "PYTHONPATH") if name in os.environ}
        with process.log.open("wb") as log:
            process.running = subprocess.Popen(
                [sys.executable, "-I", "-S", die_with_parent.__file__, str(os.getpid()), *process.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**kept, "HOME": "/nonexistent", "GRPC_VERBOSITY": "NONE"},
                pass_fds=[process.listening] if process.listening >= 0 else [],
                start_new_session=True,
            )

    async def _keep(self, process: Process) -> None:
        """Start it again whenever it ends."""
        while True:
            await asyncio.sleep(0.02)
            if process.running is not None and process.running.poll() is not None:
                before, process.before_start = process.before_start, None
                if before is not None:
                    before()
                elif process.running.returncode > 0:
                    await asyncio.sleep(0.2)  # it does not like its configuration; that will change
                self.start(process)

    async def _note_stalls(self) -> None:
        """Note when the machine is so busy that clients and providers are late themselves."""
        while True:
            began_s = time.monotonic()
            await asyncio.sleep(0.05)
            if (now_s := time.monotonic()) > began_s + STALLED_S:
                self.spans.append(Span("stopped", HARNESS, began_s, now_s))

    def is_ready(self, process: Process) -> bool:
        """Whether the process that runs now has said that it is ready."""
        if process.running is None or process.running.poll() is not None:
            return False
        if process.log not in self._ready:
            event = b'"control_ready"' if process.name == "control" else b'"node_ready"'
            if event not in process.log.read_bytes():
                return False
            self._ready.add(process.log)
        return True

    # --- processes --------------------------------------------------------------------------------------------------

    def signal(self, name: str, number: signal.Signals) -> Process:
        """Send a signal to the process that runs now."""
        process = self.processes[name]
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)
        return process

    def kill(self, name: str, before_start: Callable[[], None] | None = None) -> None:
        """Kill it as it is; something may happen to its files while it is dead."""
        process = self.processes[name]
        assert process.running is not None
        if process.running.poll() is None:
            process.before_start = before_start
            now_s = time.monotonic()
            self.spans.append(Span("killed", f"{name} {process.number}", now_s, now_s))
            self.signal(name, signal.SIGKILL)

    async def replace(self, name: str) -> None:
        """Start a successor beside a worker, and let that one drain when it says that it is ready, as the supervisor does."""
        serving = self.processes[name]
        fresh = Process(name, serving.command, serving.listening)
        self.start(fresh)
        began_s = time.monotonic()
        running, ready = fresh.running, self.state / "nodes" / name / "ready"
        assert running is not None
        await until(
            lambda: running.poll() is not None or ready.read_text() == str(running.pid),
            f"a new {name} is ready",
            READY_WITHIN_S,
        )
        old = Process(name, serving.command, serving.listening, 0, serving.number, serving.running, None, serving.log)
        serving.running, serving.number, serving.log = running, fresh.number, fresh.log
        assert old.running is not None
        if old.running.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(old.pid, signal.SIGTERM)
        self.retiring.append(old)
        self.spans.append(Span("replaced", f"{name} {old.number}", began_s, time.monotonic()))

    def damage(self, name: str, number: int) -> None:
        """Spoil a file of a dead process."""
        if name == "control":
            found = [self.state / "control.db"]
        else:
            own = self.state / "nodes" / name
            found = [
                own / "snapshot.pb",
                own / "budgets.json",
                *own.glob("spool/*.spool"),
                *(self.state / "pins").glob("*"),
            ]
        found = [path for path in sorted(found) if path.is_file()]
        if not found:
            return
        path = found[number % len(found)]
        data = bytearray(path.read_bytes())
        match number // 16 % 4:
            case 0:
                data = data[: len(data) // 2]
            case 1:
                data = bytearray()
            case 2 if data:
                data[number % len(data)] ^= 0x40
            case _:
                data = bytearray(answers.event("x", number)) * 50
        path.write_bytes(data)
        now_s = time.monotonic()
        self.spans.append(Span("damaged", name, now_s, now_s, str(path.relative_to(self.state))))

    # --- configuration ----------------------------------------------------------------------------------------------

    def new_configuration(self, *, is_valid: bool = True) -> str:
        """The text of a configuration that differs from all before in everything that a provider can see."""
        self.marks += 1
        mark = f"g{self.marks}" if is_valid else f"bad{self.marks}"
        providers = [self._provider(name, mark) for name in PROVIDERS]
        targets = [[str(one["name"]), str(key["key"])] for one in providers for key in one["keys"]]  # type: ignore[attr-defined]
        limited = answers.secret(LIMITED, self.limited_label, self.rotation[LIMITED])
        self.configurations.append(Configuration(mark, is_valid, time.monotonic(), targets, self.rpm_limit, limited))
        routing: dict[str, object] = {
            "strategy": self.topology.strategy,
            "affinity": self.topology.affinity,
            "failover_timeout": "60s",
            "max_attempts": 10,
            "silence_bound": "700ms",
            "cooldown": "200ms",
        }
        if self.topology.queue:
            routing["queue"] = {"max_wait": "400ms"}
        config: dict[str, object] = {
            "version": 1,
            "server": {"workers": len(NODES), "auth": {"keys": [{"name": "tester", "key": answers.CLIENT_KEY}]}},
            "control": {"listen": "127.0.0.1:0", "web_listen": "127.0.0.1:0", "metrics_listen": "127.0.0.1:0"},
            "routing": routing,
            "providers": providers,
            "health": {
                "circuit": {"failures": self.topology.circuit_failures, "open_for": "300ms", "max_open_for": "1s"},
                "probe": {"interval": "200ms", "idle_interval": "0", "timeout": "1s"},
            },
        }
        if not is_valid:
            config["surprise"] = mark
        return json.dumps(config, indent=1)

    def _provider(self, name: str, mark: str) -> dict[str, object]:
        keys: list[dict[str, object]] = [{"label": "main", "key": answers.secret(name, "main", self.rotation[name])}]
        if name == LIMITED:
            limited = answers.secret(name, self.limited_label, self.rotation[name])
            keys.append({"label": self.limited_label, "key": limited, "rpm_limit": self.rpm_limit})
        return {
            "name": name,
            "type": "anthropic",
            "base_url": self.providers[name].url,
            "allow_private": True,
            "keys": keys,
            "headers": {"x-mark": mark},
            "model_mapping": {answers.MODEL: f"{name}-{mark}"},
            "timeouts": {"connect": "1s", "first_byte": "1500ms", "idle": "1500ms"},
        }

    def offer(self, text: str) -> None:
        """Write the configuration as an editor would that replaces the file."""
        beside = self.config_path.with_name("ccr.yaml.new")
        beside.write_text(text)
        beside.chmod(0o600)
        beside.replace(self.config_path)

    @property
    def newest_mark(self) -> str:
        """Of the newest valid configuration."""
        return next(one.mark for one in reversed(self.configurations) if one.is_valid)

    # --- what is found afterwards -----------------------------------------------------------------------------------

    def sums(self) -> Sums | None:
        """What the ledger says; None if it cannot be read now."""
        path = self.state / "control.db"
        try:
            with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=1.0)) as database:
                return Sums(*database.execute(_SUMS).fetchone())
        except sqlite3.Error:
            return None

    def spools(self) -> list[Path]:
        """Usage on disk that is not delivered."""
        return sorted((self.state / "nodes").glob("*/spool/*.spool"))

    def read_logs(self) -> None:
        """Take in what the processes have written since the last time."""
        for path in sorted(self.logs.glob("*.log")):
            with path.open("rb") as file:
                file.seek(self._read_up_to.get(path, 0))
                data = file.read()
            data = data[: data.rfind(b"\n") + 1]
            self._read_up_to[path] = self._read_up_to.get(path, 0) + len(data)
            self.leaks += canaries(data, path.name)
            if path.name.startswith("worker"):
                node, _, number = path.stem.rpartition(".")
                self._take_in(node, int(number), data)

    def _take_in(self, node: str, process: int, data: bytes) -> None:
        for line in data.splitlines():
            if b'"request_done"' in line:
                found = json.loads(line)
                request_id = found["request_id"]
                self.instance_of[request_id[:-8]] = f"{node} {process}"
                record = Record(request_id, node, process, found["snapshot_version"], found.get("passed_over", []))
                self.records.append(record)
            elif b'"snapshot_' in line:
                found = json.loads(line)
                if found["event"] in _SNAPSHOT_EVENTS:
                    at_s = datetime.fromisoformat(found["ts"]).timestamp() - self._begun_unix_s
                    self.node_lines.append(NodeLine(node, process, found["event"], found["version"], at_s))

    def keep(self, place: Path) -> None:
        """Copy logs and configuration to where somebody will look at them."""
        shutil.copytree(self.logs, place / "logs", dirs_exist_ok=True)
        shutil.copy(self.config_path, place)


def canaries(data: bytes, where: str) -> list[str]:
    """The canaries in what was found somewhere. Credentials may be in snapshots, also while they are being written."""
    words = [*answers.TEXTS, answers.CLIENT_KEY.encode()]
    if not Path(where).name.lstrip(".").startswith("snapshot.pb"):
        words.append(answers.SECRET)
    return [f"{word.decode()} in {where}" for word in words if word in data]


async def until(condition: Callable[[], object], what: str, within_s: float = 30.0) -> None:
    """Wait until something holds. Raises TimeoutError naming it if it does not in time."""
    ends_s = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > ends_s:
            raise TimeoutError(f"not within {within_s:.0f} s: {what}")
        await asyncio.sleep(0.01)
