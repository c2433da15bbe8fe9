"""The programs of releases before, beside the present ones: in one state directory, on one listening socket.

Code = the directory with an unpacked release, or None for what is in the checkout. All of it runs on the packages of this environment.
"""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ccr_cli
import ccr_client
import ccr_control
import ccr_data
import ccr_rpc
import ccr_words
import grpc
from ccr_rpc.v1 import fleet_pb2, fleet_pb2_grpc

from support.serving import Relay, environment, until

RELEASES = Path(__file__).parents[1] / "upgrade" / "releases"
VERSIONS = sorted(path.name.removesuffix(".tar.xz") for path in RELEASES.glob("*.tar.xz"))
PRESENT = [
    Path(str(module.__file__)).parent for module in (ccr_cli, ccr_client, ccr_control, ccr_data, ccr_rpc, ccr_words)
]
Code = Path | None

# One process for many commands of one version: prints {command line: [exit code, stdout, stderr]}.
_COMMANDS = """
import contextlib, io, json, sys
from ccr_cli.main import main
said = {}
for line in json.load(sys.stdin):
    out, err, sys.argv = io.StringIO(), io.StringIO(), ["ccr", *line.split()]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main()
        except SystemExit as end:
            code = end.code
    said[line] = [code or 0, out.getvalue(), err.getvalue()]
json.dump(said, sys.__stdout__)
"""


def unpack(version: str, directory: Path) -> Path:
    """A release's code, unpacked below `directory`."""
    code = directory / version
    with tarfile.open(RELEASES / f"{version}.tar.xz") as files:
        files.extractall(code, filter="data")
    return code


def environment_of(code: Code) -> dict[str, str]:
    """The environment that a program of this version runs in."""
    path = {} if code is None else {"PYTHONPATH": str(code)}
    return environment(GRPC_VERBOSITY="NONE", **path)


def eventually(condition: Callable[[], object], what: str) -> None:
    """Wait for what several programs have to start for."""
    until(condition, what, within_s=60.0)


@dataclass(frozen=True)
class Said:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed, as JSON."""
        return json.loads(self.out)


def commands(code: Code, state: Path, *lines: str) -> dict[str, Said]:
    """Run commands of `ccr` of a version, one after another."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", _COMMANDS],
        env={**environment_of(code), "CCR_STATE_DIR": str(state), "LC_ALL": "C.UTF-8"},
        input=json.dumps(lines),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {line: Said(*said) for line, said in json.loads(done.stdout).items()}


def nodes_of(state: Path) -> dict[str, fleet_pb2.Node]:
    """The nodes that are connected, by the last part of their names; empty while there is no control plane."""
    with grpc.insecure_channel((state / "control.address").read_text().strip()) as channel:
        try:
            answer = fleet_pb2_grpc.FleetServiceStub(channel).ListNodes(fleet_pb2.ListNodesRequest(), timeout=10.0)
        except grpc.RpcError:
            return {}
    return {one.node_id.rpartition("/")[2]: one for one in answer.nodes if one.connected}


@dataclass
class Mixed:
    """A control plane and nodes, each of the version that it is started with."""

    directory: Path
    config: str
    workers: int
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.state, self.log, self.file = (self.directory / one for one in ("state", "all.log", "ccr.yaml"))
        self.log.touch()
        self.file.write_text(self.config)
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._listening.set_inheritable(True)

    @property
    def url(self) -> str:
        """Where all nodes serve."""
        return f"http://127.0.0.1:{self._listening.getsockname()[1]}"

    @property
    def relay(self) -> Relay:
        """What the helpers for `ccr serve` need to look at it."""
        return Relay(next(iter(self.processes.values()), None), self.state, self.log)  # type: ignore[arg-type]

    def events(self, name: str) -> list[dict[str, object]]:
        """The log lines of one event, of all processes so far."""
        return self.relay.events(name)

    @property
    def snapshot_version(self) -> int:
        """The newest version that any node served."""
        return max(int(str(one["version"])) for one in self.events("snapshot_served"))

    def start(self, name: str, code: Code) -> None:
        """Start "control", or the node of this name, and wait until it is ready."""
        event = "control_ready" if name == "control" else "node_ready"
        shared = ("--state-dir", str(self.state), "--log-format", "json")
        if name == "control":
            program = ("ccr_control.server", "--config", str(self.file), "--workers", str(self.workers))
        else:
            program = ("ccr_data.app", "--listen-fd", str(self._listening.fileno()), "--node-name", name)
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", *program, *shared],
                env=environment_of(code),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(self._listening.fileno(),),
            )
        self.processes[name] = process

        def is_ready() -> bool:
            assert process.poll() is None, f"{name} ended with {process.returncode}:\n{self.log.read_text()[-4000:]}"
            return any(one.get("pid") == process.pid for one in self.events(event))

        eventually(is_ready, f"{name} is ready")

    def end(self, name: str, number: signal.Signals = signal.SIGTERM) -> int:
        """Signal one, and wait for its end. Returns its exit code."""
        process = self.processes.pop(name)
        process.send_signal(number)
        return process.wait(60.0)

    def end_all(self) -> None:
        """Kill whatever runs; the socket stays."""
        for name in [*self.processes]:
            if self.processes[name].poll() is None:
                self.end(name, signal.SIGKILL)

    def nodes(self) -> dict[str, fleet_pb2.Node]:
        """What the control plane knows of the nodes."""
        return nodes_of(self.state)

    def close(self) -> None:
        """End everything."""
        self.end_all()
        self._listening.close()


@contextlib.contextmanager
def mixed(directory: Path, config: str, workers: int = 1) -> Iterator[Mixed]:
    """Nothing runs at first; nothing runs any more at the end. `workers`: how many nodes share what there is."""
    fleet = Mixed(directory, config, workers)
    try:
        yield fleet
    except BaseException as error:
        error.add_note(fleet.log.read_text()[-6000:])
        raise
    finally:
        fleet.close()


@dataclass
class Installation:
    """One place that Python finds the software in, as after `pip install`: it can be upgraded under what runs."""

    place: Path
    code: Code

    def __post_init__(self) -> None:
        self._present = self.place.with_name("present")
        self._present.mkdir()
        for package in PRESENT:
            (self._present / package.name).symlink_to(package)
        self.use(self.code)

    def use(self, code: Code) -> None:
        """Install a version; it counts for what is started, or imported, from now on."""
        new = self.place.with_name(f"{self.place.name}.new")
        new.symlink_to(code or self._present)
        new.replace(self.place)
