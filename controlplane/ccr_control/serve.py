"""`ccr serve`: both planes on one machine under one supervisor.

Exit codes: 0 stopped in order; 2 wrong options; 69 a port, the state directory or a lock cannot be had;
78 the configuration is wrong; 128 + n ended at once by a second signal n.
"""

from __future__ import annotations

import gc

gc.disable()  # imports make a hundred thousand objects that stay: looking through them again and again takes a seventh of a start

import argparse
import asyncio
import contextlib
import json
import os
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version

from ccr_control.core.addresses import Address, parse_address
from ccr_control.core.banner import Started, banner
from ccr_control.core.errors import ConfigInvalid, SnapshotInvalid
from ccr_control.core.quantities import format_duration
from ccr_control.core.schema import Config
from ccr_control.core.supervision import EXIT_BAD_CONFIG, EXIT_CANNOT_LISTEN, EXIT_USAGE
from ccr_control.shell import instance, paths, source
from ccr_control.shell.children import Program
from ccr_control.shell.config_file import STARTED_WITH, ConfigFile, bound_by_supervisor
from ccr_control.shell.listening import listen, reachable_at, shown
from ccr_control.shell.log import Log, LogFormat, logging_to
from ccr_control.shell.probe import is_ready
from ccr_control.shell.supervisor import Programs, Supervisor, Worker

gc.freeze()
gc.enable()

log = Log("serve")

# Else glibc gives big request bodies back to the kernel and faults them in again, each time.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "33554432", "MALLOC_TRIM_THRESHOLD_": "134217728"}

_ASK_EVERY_S = 0.1


@dataclass(frozen=True, slots=True)
class Commands:
    """How the three programs are started. Tests put stand-ins here."""

    control: tuple[str, ...] = (sys.executable, "-P", "-m", "ccr_control.server")
    data: tuple[str, ...] = (sys.executable, "-P", "-m", "ccr_data.app")
    demo: tuple[str, ...] = (sys.executable, "-P", "-m", "ccr_demo")


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that a start has found out."""

    state: paths.StateDir
    source: source.Source
    config: Config
    relay: socket.socket
    workers: int
    log_format: LogFormat
    is_quiet: bool
    commands: Commands

    @property
    def url(self) -> str:
        """Base URL of the relay for clients on this machine."""
        return f"http://{shown(*reachable_at(self.relay))}"


def main(arguments: Sequence[str] | None = None, commands: Commands | None = None) -> int:
    """Run the relay until it is stopped. Returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        state = paths.state_dir(options.state_dir, os.environ)
        with instance.only_one(state) as patience_s, contextlib.ExitStack() as sockets:
            plan = _plan(options, state, patience_s, commands or Commands(), sockets)
            with logging_to(log_format=plan.log_format):
                return asyncio.run(_run(plan))
    except source.ContradictoryRequest as error:
        return _refused(str(error), EXIT_USAGE)
    except (ConfigInvalid, SnapshotInvalid) as error:
        return _refused(f"the configuration cannot be used:\n{error}", EXIT_BAD_CONFIG)
    except paths.CannotStart as error:
        return _refused(str(error), EXIT_CANNOT_LISTEN)
    except KeyboardInterrupt:  # before the supervisor listens to signals
        return 130


def _plan(
    options: argparse.Namespace,
    state: paths.StateDir,
    patience_s: float,
    commands: Commands,
    sockets: contextlib.ExitStack,
) -> Plan:
    """Find, check and bind everything before anything is started. The sockets close with `sockets`."""
    found = source.find(options.config, options.demo, options.listen, state, os.environ)
    if found.demo:
        sockets.enter_context(found.demo)
    config = ConfigFile(found.file, os.environ, time.time).revision.config
    server = config.server
    relay = sockets.enter_context(listen(server.listen.host, server.listen.port, patience_s=patience_s))
    instance.wait_until_free(state.path / "control.lock", patience_s)
    return Plan(
        state=state,
        source=found,
        config=config,
        relay=relay,
        workers=options.workers or server.workers,
        log_format=options.log_format or server.log_format,
        is_quiet=options.quiet,
        commands=commands,
    )


async def _run(plan: Plan) -> int:
    """Supervise until the end, with the relay's address in the state directory while it is ready."""
    address_file = plan.state.path / "relay.address"

    async def announce() -> None:
        while not await is_ready(*reachable_at(plan.relay)):  # noqa: ASYNC110 - another process has no event to wait for
            await asyncio.sleep(_ASK_EVERY_S)  # the supervisor cancels this when it stops
        with contextlib.suppress(paths.CannotStart):  # a full disk is no reason to end; the command line can be told
            paths.write_private(address_file, plan.url + "\n")
        log.info("ready", url=plan.url, config=plan.source.shown, is_demo=plan.source.demo is not None)
        if not plan.is_quiet:
            with contextlib.suppress(OSError):  # nobody reads it
                print(f"\n{banner(_started(plan))}\n", file=sys.stderr, flush=True)

    supervisor = Supervisor(
        programs=programs(plan, os.environ),
        drain_timeout_s=plan.config.server.drain_timeout.total_seconds(),
        announce=announce,
        stop_listening=plan.relay.close,
    )
    try:
        return await supervisor.run()
    finally:
        address_file.unlink(missing_ok=True)
        log.info("stopped")


def programs(plan: Plan, env: Mapping[str, str]) -> Programs:
    """The command lines of everything there is to run."""
    quiet_env = {"GRPC_VERBOSITY": "NONE", **env}  # gRPC writes to stderr past any log format
    worker_env = {**ALLOCATOR, **quiet_env}
    shared = ("--state-dir", str(plan.state.path), "--log-format", plan.log_format)
    controlling = ("--config", str(plan.source.file), "--workers", str(plan.workers))
    control_env = {**quiet_env, STARTED_WITH: json.dumps(bound_by_supervisor(plan.config))}
    control = Program("ccr-control", (*plan.commands.control, *controlling, *shared), control_env)
    relay = plan.relay.fileno()
    serving = (
        *("--listen-fd", str(relay), "--control", plan.state.address),
        *("--drain-timeout", format_duration(plan.config.server.drain_timeout)),
    )
    names = [f"worker-{number}" for number in range(plan.workers)]
    workers = tuple(
        Worker(
            Program(name, (*plan.commands.data, *serving, *shared, "--node-name", name), worker_env, (relay,)),
            plan.state.path / "nodes" / name / "ready",
        )
        for name in names
    )
    demo = None
    if plan.source.demo:
        listening = plan.source.demo.fileno()
        demo = Program("demo", (*plan.commands.demo, "--quiet", "--listen-fd", str(listening)), quiet_env, (listening,))
    return Programs(control, workers, demo)


def _started(plan: Plan) -> Started:
    auth = plan.config.server.auth
    return Started(
        version=version("cc-relay"),
        url=plan.url,
        listens_on=shown(*plan.relay.getsockname()[:2]),
        config=plan.source.shown,
        providers=tuple(provider.name for provider in plan.config.providers),
        workers=plan.workers,
        needs_key=auth is not None and auth.mode == "keys",
        allows_subscription=auth is not None and auth.allow_subscription,
        demo_reason=plan.source.demo_reason,
    )


def _refused(message: str, exit_code: int) -> int:
    print(f"ccr serve: {message}", file=sys.stderr)
    return exit_code


def _address(text: str) -> Address:
    try:
        return parse_address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _workers(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 256:
        raise argparse.ArgumentTypeError("must be a number between 1 and 256")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ccr serve", description="Run both planes of the relay on this machine.")
    parser.add_argument("--config", metavar="FILE", help="configuration (else $CCR_CONFIG, ./ccr.yaml, the user's)")
    parser.add_argument(
        "--listen", metavar="ADDRESS", type=_address, help="host:port, for starts without a configuration"
    )
    parser.add_argument("--workers", metavar="N", type=_workers, help="ccr-data processes (else server.workers)")
    parser.add_argument("--demo", action="store_true", help="answer from a scripted provider, without any key")
    parser.add_argument("--state-dir", metavar="DIR", help="private directory (else $CCR_STATE_DIR, the user's)")
    parser.add_argument("--log-format", choices=("json", "text", "auto"), help="else server.log_format")
    parser.add_argument("--quiet", action="store_true", help="do not print how to use the relay")
    return parser


if __name__ == "__main__":
    sys.exit(main())
