"""ccr-data: one worker of the data plane. Proxies and streams; knows only what its snapshot says.

Exit codes: 0 after SIGTERM or SIGINT and an orderly drain; 1 if requests had to be cut off, or at once by a second signal;
2 for a wrong command line or a certificate that names no node; 69 if it cannot listen.
"""

from __future__ import annotations

import gc

gc.disable()  # imports make a hundred thousand objects that stay: looking through them again and again takes a seventh of a start

import argparse
import asyncio
import contextlib
import ctypes
import os
import re
import resource
import secrets
import signal
import socket
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import cast

from ccr_data import IS_COMPILED
from ccr_data.core.budget import Lease
from ccr_data.core.node import NodeIdentity, NodeStatus
from ccr_data.shell import shared_pins
from ccr_data.shell.asking import answering
from ccr_data.shell.control_link import ControlAddress, control_address
from ccr_data.shell.http_server import BACKLOG, Server
from ccr_data.shell.kept_budgets import KeptBudgets
from ccr_data.shell.logs import Log, LogOutput, logging_to
from ccr_data.shell.node_dir import NodeDir, make_private, remove_halves
from ccr_data.shell.node_tls import NodeTls, TlsUnusable
from ccr_data.shell.relay import Relay
from ccr_data.shell.report import Reporter
from ccr_data.shell.request_log import RequestLog
from ccr_data.shell.shared_pins import SharedPins
from ccr_data.shell.store import SnapshotStore
from ccr_data.shell.succession import Succession
from ccr_data.shell.watch import follow_snapshots

EXIT_USAGE = 2
EXIT_CANNOT_LISTEN = 69
RESERVED_DESCRIPTORS = 48  # for logs, the control plane, the disk, and a few more than that
FLUSH_TIMEOUT_S = 1.0
THREAD_TURN_S = 0.0001  # that requests wait while a thread works on a snapshot; Python has 5 ms
FIRST_SNAPSHOT_S = 5.0  # without one clients wait for this long at the door; only then they are turned away
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}

gc.freeze()
gc.enable()

log = Log("data")


def main() -> None:
    """Entry point of `ccr-data`."""
    options = _options(sys.argv[1:])
    try:
        machine = options.tls.machine() if options.tls else socket.gethostname()
    except TlsUnusable as error:
        print(f"ccr-data: --node-cert: {error}", file=sys.stderr)
        sys.exit(EXIT_USAGE)
    os.umask(0o077)  # whatever it writes is for this user alone
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold every credential
    keep_big_blocks()
    try:
        sock = _socket(options)
    except (OSError, ValueError) as error:
        print(f"ccr-data: cannot listen on {options.listen or options.listen_fd}: {error}", file=sys.stderr)
        sys.exit(EXIT_CANNOT_LISTEN)
    with logging_to(log_format=options.log_format) as output, asyncio.Runner(loop_factory=_loop_factory()) as runner:
        code = runner.run(run(options, machine, sock, output))
    sys.exit(code)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's, where there is one (not on Windows); the standard one does, too."""
    try:
        import uvloop  # noqa: PLC0415 (optional)
    except ImportError:
        return None
    return cast(Callable[[], asyncio.AbstractEventLoop], uvloop.new_event_loop)


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("ccr-data", description="One worker of cc-relay's data plane.")
    listening = parser.add_mutually_exclusive_group(required=True)
    listening.add_argument("--listen", metavar="HOST:PORT", help="where to listen")
    listening.add_argument("--listen-fd", type=int, metavar="N", help="an inherited listening socket")
    parser.add_argument("--state-dir", type=Path, required=True, help="shared with ccr-control on this machine")
    parser.add_argument("--node-name", default="worker-0", help="unique among the workers of this machine")
    parser.add_argument("--control", metavar="ADDRESS", help="unix:/path or host:port; default: as the state dir says")
    parser.add_argument(
        "--control-ca", type=Path, metavar="FILE", help="certificates that a --control elsewhere is trusted by"
    )
    parser.add_argument("--node-cert", type=Path, metavar="FILE", help="certificate that names this machine there")
    parser.add_argument("--node-key", type=Path, metavar="FILE", help="its key")
    parser.add_argument("--log-format", choices=["json", "text", "auto"], default="auto")
    parser.add_argument("--drain-timeout", type=_duration, default=30.0, metavar="30s", help="for requests at the end")
    parser.add_argument("--version", action="version", version=f"ccr-data {version('cc-relay')}")
    options = parser.parse_args(arguments)
    files = (options.control_ca, options.node_cert, options.node_key)
    if any(files) and not (all(files) and options.control and _is_port(options.control)):
        parser.error("--control-ca, --node-cert and --node-key belong together, with --control HOST:PORT")
    options.tls = NodeTls(*files) if all(files) else None
    return options


def _is_port(target: str) -> bool:
    return not target.startswith("unix:") and target.rpartition(":")[2].isdigit()


def _duration(text: str) -> float:
    match = _DURATION.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration such as 500ms, 30s or 5m")
    return float(match[1]) * _UNIT_S[match[2]]


def _socket(options: argparse.Namespace) -> socket.socket:
    """The listening socket. Raises OSError or ValueError."""
    if options.listen_fd is not None:
        sock = socket.socket(fileno=options.listen_fd)
    else:
        host, _, port = options.listen.rpartition(":")
        if not port.isdigit():
            raise ValueError("it is not HOST:PORT")
        family, kind, protocol, _, address = socket.getaddrinfo(
            host.strip("[]") or None, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, protocol)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
    sock.setblocking(False)
    return sock


def keep_big_blocks() -> None:
    """Tell glibc to keep freed memory: it would give every request body back to the kernel and fault it in again.

    Measured: a 200 KB request costs a third less CPU (docs/performance.md). Other C libraries have no such setting.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 32 << 20)
        libc.mallopt(_M_TRIM_THRESHOLD, 128 << 20)


def max_connections() -> int:
    """How many clients this process may serve at a time; each may need a second descriptor, to its provider.

    Takes all the descriptors that the process may have: the usual soft limit is for programs that use select().
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return max(1, (soft - RESERVED_DESCRIPTORS) // 2) if soft != resource.RLIM_INFINITY else sys.maxsize


async def run(options: argparse.Namespace, machine: str, sock: socket.socket, output: LogOutput) -> int:
    """Serve until a signal ends it, as a node of a machine; returns the exit code."""
    directory = NodeDir(options.state_dir, options.node_name)
    _make_state_dir(directory)
    node = NodeIdentity(f"{machine}/{options.node_name}", secrets.token_hex(8), version("cc-relay"), os.getpid())
    stop = _stop_on_signals()
    store = SnapshotStore(directory)
    await store.load()

    def find_control() -> ControlAddress | None:
        if options.control:
            return ControlAddress(options.control, tls=options.tls)
        return control_address(options.state_dir)

    def now_open() -> tuple[tuple[str, int], ...]:
        return relay.node.load.by_provider()

    def status() -> NodeStatus:
        return NodeStatus(
            len(relay.exchanges),
            len(server.connections),
            relay.unauthorized_total,
            open_by_provider=now_open(),
        )

    def take_lease(lease: Lease) -> None:
        relay.budgeting.limits.take_lease(lease)
        budgets.has_news()
        relay.waiting.wake()

    reporter = Reporter(
        node,
        directory,
        find_control,
        journal=node.instance_id,
        log_requests=RequestLog(output, node.node_id).note,
        status=status,
        now_open=now_open,
        take_lease=take_lease,
        budgets=lambda: relay.budgeting.limits.each_use(perf_counter),
        has_place=lambda: succession.has_place,
    )
    salt = shared_pins.salt(options.state_dir)
    relay = Relay(store, reporter, salt)
    shared = SharedPins(options.state_dir, options.node_name, relay.pins, relay.handovers)
    await shared.load()
    limits, clients = relay.budgeting.limits, relay.clients
    budgets = KeptBudgets(directory, limits, clients)
    succession = Succession(directory, node.instance_id, budgets, limits, clients, room_came=relay.waiting.wake)
    server = Server(relay, max_connections())
    ready = directory.path / "ready"
    async with asyncio.TaskGroup() as tasks:
        following = [
            tasks.create_task(
                follow_snapshots(find_control, node, store, answer=answering(relay, salt), drain=stop.set),
                name="snapshots",
            ),
            tasks.create_task(reporter.run(), name="usage"),
            tasks.create_task(relay.drift.run(reporter.note_unknown), name="drift"),
            tasks.create_task(server.sweep_forever(), name="sweep"),
            tasks.create_task(shared.run(), name="pins"),
        ]
        await _snapshot_or_stop(store, stop)
        gc.collect()
        gc.freeze()  # what exists now stays: the collector need not look at it again
        gc.set_threshold(50_000, 20, 50)
        sys.setswitchinterval(THREAD_TURN_S)
        _say_ready(ready)
        if store.current is not None:
            relay.budgeting.follow(store.current)  # what the worker before has used counts where something is limited
        await succession.take_place(stop)
        reporter.tell_status()
        following += [
            tasks.create_task(budgets.run(), name="budgets"),
            tasks.create_task(succession.run(), name="budgets of the worker before"),
        ]
        await server.listen(sock)
        log.info(
            "node_ready",
            node=node.node_id,
            pid=node.pid,
            listen=_shown(sock),
            has_snapshot=store.current is not None,
            is_compiled=IS_COMPILED,
        )
        await stop.wait()
        log.info("node_draining", node=node.node_id, open_requests=len(relay.exchanges))
        following.append(tasks.create_task(_hand_over(succession, server), name="budgets handed over"))
        is_drained = await server.drain(options.drain_timeout)
        await succession.finish()
        await reporter.flush(FLUSH_TIMEOUT_S)
        for task in following:
            task.cancel()
    _say_gone(ready)
    log.info("node_stopped", node=node.node_id, is_drained=is_drained)
    return 0 if is_drained else 1


def _make_state_dir(directory: NodeDir) -> None:
    """Make the place for what outlives this process; without it serving goes on."""
    remove_halves(directory)
    try:
        make_private(directory.path, directory.state_dir)
    except OSError as error:
        log.warning(
            "state_dir_unusable",
            path=str(directory.path),
            reason=error.strerror or str(error),
            consequence="nothing is kept for a start without the control plane",
        )


def _say_ready(ready: Path) -> None:
    """Tell the supervisor that this process serves."""
    try:
        ready.write_text(str(os.getpid()))
    except OSError as error:
        log.warning(
            "ready_not_noted",
            path=str(ready),
            reason=error.strerror or str(error),
            consequence="the supervisor takes this worker for one that does not serve yet",
        )


def _say_gone(ready: Path) -> None:
    """Take that back, unless a successor has said it."""
    with contextlib.suppress(OSError):
        if ready.read_text() == str(os.getpid()):
            ready.unlink()


async def _hand_over(succession: Succession, server: Server) -> None:
    """While the server drains: let a successor count, but for what the connections that are left may need."""
    for _ in range(2):  # who has just been accepted is among the connections then
        await asyncio.sleep(0)
    relay = server.relay
    await succession.hand_over(lambda: len(server.connections) + len(relay.exchanges), lambda: relay.waiting.count)


async def _snapshot_or_stop(store: SnapshotStore, stop: asyncio.Event) -> None:
    """Return when there is a snapshot, or it is time to serve or to stop without one."""
    async with asyncio.TaskGroup() as tasks:
        waiting: list[asyncio.Task[object]] = [
            tasks.create_task(store.wait_ready(), name="first snapshot"),
            tasks.create_task(stop.wait(), name="stop before the first snapshot"),
        ]
        await asyncio.wait(waiting, timeout=FIRST_SNAPSHOT_S, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()


def _stop_on_signals() -> asyncio.Event:
    """Set by the first SIGTERM or SIGINT; a second one ends the process at once."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def asked() -> None:
        if stop.is_set():
            os._exit(1)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked)
    return stop


def _shown(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


if __name__ == "__main__":
    main()
