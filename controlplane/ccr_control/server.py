"""ccr-control: owns configuration, versions and statistics; hands snapshots to nodes and counts what they did.

Exit codes: 0 after SIGTERM or SIGINT, 69 if the surroundings do not allow a start (port taken, no permission, another
control plane on the state directory), 78 if the configuration is bad (sysexits.h: EX_UNAVAILABLE, EX_CONFIG).
"""

from __future__ import annotations

import gc

gc.disable()  # imports make a hundred thousand objects that stay: looking through them again and again takes a seventh of a start

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from ccr_rpc.v1 import (
    access_pb2_grpc,
    config_pb2_grpc,
    events_pb2_grpc,
    fleet_pb2_grpc,
    keys_pb2_grpc,
    providers_pb2_grpc,
    routes_pb2_grpc,
    snapshot_pb2,
    snapshot_pb2_grpc,
    usage_pb2_grpc,
)

from ccr_control.core.builtin import FILE_NAME
from ccr_control.core.errors import ConfigInvalid, SnapshotInvalid
from ccr_control.core.fleet import Fleet
from ccr_control.core.health import Event as CircuitEvent
from ccr_control.core.health import Evidence
from ccr_control.core.leases import Leases
from ccr_control.core.overlay import key_resource
from ccr_control.core.sightings import Sightings
from ccr_control.core.stats import Stats
from ccr_control.core.supervision import STARTED_AGAIN
from ccr_control.services.access import AccessServicer
from ccr_control.services.config import ConfigServicer
from ccr_control.services.events import EventServicer
from ccr_control.services.figures import Figures
from ccr_control.services.fleet import FleetServicer
from ccr_control.services.keys import KeyServicer
from ccr_control.services.leasing import Leasing
from ccr_control.services.providers import ProviderServicer
from ccr_control.services.questions import Questions
from ccr_control.services.routes import RouteServicer
from ccr_control.services.snapshot import SnapshotServicer
from ccr_control.services.usage import Heard, UsageServicer
from ccr_control.shell.access import Doorman
from ccr_control.shell.alerts import AlertKeeper, budget_shares, limit_shares
from ccr_control.shell.certificates import server_credentials
from ccr_control.shell.changes import Changes
from ccr_control.shell.config_file import ConfigFile
from ccr_control.shell.credentials import CredentialKeeper
from ccr_control.shell.events import EventLog
from ccr_control.shell.health import HealthKeeper
from ccr_control.shell.listeners import Services, listening
from ccr_control.shell.log import Log, logging_to
from ccr_control.shell.metrics import serving_metrics
from ccr_control.shell.paths import (
    CannotStart,
    NoConfig,
    StateDir,
    config_file,
    locked,
    state_dir,
    token,
    write_private,
)
from ccr_control.shell.prober import Prober
from ccr_control.shell.publisher import Publisher
from ccr_control.shell.resuming import resumed
from ccr_control.shell.revisions import Revisions
from ccr_control.shell.sealing import lazily
from ccr_control.shell.spending import SpendingKeeper
from ccr_control.shell.watcher import watch
from ccr_control.shell.web import serving_web
from ccr_control.shell.web_tls import web_tls
from ccr_control.store.actor import Opened, Store
from ccr_control.store.database import Database

EXIT_UNAVAILABLE = 69
EXIT_CONFIG = 78

FIRST_CREDENTIALS_WITHIN_S = 1.0
"""How long the first snapshot waits for clouds' credentials, so that the first request finds them."""

gc.freeze()
gc.enable()

log = Log("server")


class _Stopped(Exception):
    """A signal asked for the end."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ccr-control until a signal ends it. Returns the exit code."""
    options = _parser().parse_args(arguments)
    env = dict(os.environ)
    try:
        path = config_file(options.config, env)
        found = None if STARTED_AGAIN in env else ConfigFile(path, env, time.time)
        state = state_dir(options.state_dir, env)
        with locked(state):
            file = found or resumed(path, state, env)
            with logging_to(log_format=options.log_format or file.revision.config.server.log_format):
                _runner(serve(file, state, env, options.workers))
    except (ConfigInvalid, SnapshotInvalid, NoConfig) as error:
        print(error, file=sys.stderr)
        return EXIT_CONFIG
    except CannotStart as error:
        print(f"ccr-control: {error}", file=sys.stderr)
        return EXIT_UNAVAILABLE
    return 0


async def serve(  # noqa: PLR0915 - it only wires
    file: ConfigFile, state: StateDir, env: Mapping[str, str], workers: int = 0
) -> None:
    """Own the state directory, serve at both doors, follow the configuration file. Ends with SIGTERM or SIGINT.

    Raises CannotStart.
    """
    started_s = time.monotonic()
    signals = _Signals()
    stats, fleet, sightings = Stats(), Fleet(), Sightings()

    def take_up(opened: Opened) -> None:
        events.begin(opened.kept.last_event)
        changes.take_up(opened.kept)
        revisions.take_up(opened.kept)
        stats.begin(opened.totals, opened.today, time.time())
        keeper.restore(opened.remembered)
        spending.begin(opened.spent)
        alerts.begin(opened.kept.alerted, time.time())
        publisher.note_used(opened.last_version)

    store = Store(state.database, Database.open, time.time, take_up)

    def keep_ledger_s() -> float:
        return file.in_force.config.ledger.keep.total_seconds()

    store.keep_ledger_s = keep_ledger_s

    def renew() -> None:
        publisher.renew()

    events = EventLog(store, time.time)
    keeper = HealthKeeper(lambda: file.in_force.config, renew, time.time, _telling_of_circuits(events))
    credentials = CredentialKeeper(lambda: file.in_force.config, renew, time.time, tell=_telling_of_credentials(events))
    prober = Prober(keeper, time.time)
    spending = SpendingKeeper(lambda: file.in_force, renew, time.time)

    def overlay(snapshot: snapshot_pb2.Snapshot) -> None:
        credentials.overlay(snapshot)
        keeper.overlay(snapshot)
        spending.overlay(snapshot)
        snapshot.relay.sharing_nodes = workers or snapshot.relay.sharing_nodes

    def heard(journal: str, number: int, evidence: list[Evidence]) -> None:
        keeper.heard(journal, number, evidence)
        credentials.heard(evidence)

    publisher = Publisher(store.keep_version, overlay=overlay)
    doorman = Doorman(token(state), time.time, _telling_of_guesses(events))
    sealer = lazily(state.sealing_key)
    changes = Changes(file, publisher, store, events, sealer, doorman, time.time)
    is_builtin = file.path == state.path / FILE_NAME
    revisions = Revisions(file, publisher, changes, events, sealer, env, time.time, is_builtin=is_builtin)
    file.applied, file.refused = revisions.note, revisions.refused
    leasing = Leasing(
        Leases(time.monotonic(), int(time.time() * 1000), workers or file.revision.config.server.workers),
        time.monotonic,
        time.time,
    )
    alerts = AlertKeeper(
        lambda: file.in_force.config.alerts,
        events,
        [lambda: budget_shares(spending), lambda: limit_shares(leasing.budgets())],
    )
    figures = Figures(stats, fleet, spending, leasing.burndown, store, events, time.time)
    services = _services(
        file,
        store,
        publisher,
        figures=figures,
        stats=stats,
        fleet=fleet,
        sightings=sightings,
        keeper=keeper,
        heard=heard,
        spending=spending,
        leasing=leasing,
        changes=changes,
        revisions=revisions,
        events=events,
        env=env,
    )
    providers = ProviderServicer(keeper, prober, publisher, store, file, changes, events, credentials.of)
    services.add("ccr.rpc.v1.ProviderService", providers_pb2_grpc.add_ProviderServiceServicer_to_server, providers)
    keys = KeyServicer(
        keeper, file, changes, events, credentials.of, sightings.newest, leasing.budgets, store, leasing.burndown
    )
    services.add("ccr.rpc.v1.KeyService", keys_pb2_grpc.add_KeyServiceServicer_to_server, keys)
    access = AccessServicer(doorman, changes, events, time.time)
    services.add("ccr.rpc.v1.AccessService", access_pb2_grpc.add_AccessServiceServicer_to_server, access)
    figures.offer(services)
    async with store.running():
        await credentials.first_chance(FIRST_CREDENTIALS_WITHIN_S)
        publisher.offer(file.in_force.snapshot)
        await publisher.publish()
        control = file.revision.config.control
        tls = server_credentials(control.tls, file.path)
        async with (
            listening(state.socket, control.listen, doorman, services, tls) as listen,
            serving_web(control.web_listen, doorman, services, web_tls(control.tls, file.path)) as web_url,
            serving_metrics(control.metrics_listen, figures.metrics) as metrics_listen,
        ):
            write_private(state.path / "control.address", state.address)
            _tell_web_address(state.path / "web.address", web_url or "")
            log.info(
                "control_ready",
                software_version=version("cc-relay"),
                pid=os.getpid(),
                address=state.address,
                listen=str(listen),
                web=web_url,
                metrics=None if metrics_listen is None else str(metrics_listen),
                config=str(file.path),
                state_dir=str(state.path),
                snapshot_version=publisher.version,
                startup_ms=round((time.monotonic() - started_s) * 1000),
            )
            file.log_warnings()
            keeping = {
                "circuits": keeper.keep_saved(store),
                "credentials": credentials.run(),
                "changes": changes.run(),
                "revisions": revisions.run(),
                "events": events.run(),
                "alerts": alerts.run(),
                "tokens": doorman.keep_used(store),
                "trends": leasing.keep_trends(),
            }
            await _until_stopped(file, publisher, prober, keeping, signals)
        log.info("control_stopped")


def _services(
    file: ConfigFile,
    store: Store,
    publisher: Publisher,
    *,
    figures: Figures,
    stats: Stats,
    fleet: Fleet,
    sightings: Sightings,
    keeper: HealthKeeper,
    heard: Heard,
    spending: SpendingKeeper,
    leasing: Leasing,
    changes: Changes,
    revisions: Revisions,
    events: EventLog,
    env: Mapping[str, str],
) -> Services:
    """Every servicer, wired."""
    services, now, recent = Services(), time.time, figures.recent
    questions = Questions(fleet, now)
    services.add(
        "ccr.rpc.v1.SnapshotService",
        snapshot_pb2_grpc.add_SnapshotServiceServicer_to_server,
        SnapshotServicer(publisher, fleet, questions, now, tell=_telling_of_nodes(events)),
    )
    services.add(
        "ccr.rpc.v1.UsageService",
        usage_pb2_grpc.add_UsageServiceServicer_to_server,
        UsageServicer(
            store,
            stats,
            fleet,
            sightings,
            now,
            heard,
            recent,
            leasing.answer,
            keeper.sighted,
            spending.costs,
            spending.note,
            spending.bill,
            figures.arrivals.tell,
            figures.note_unknown,
        ),
    )
    services.add(
        "ccr.rpc.v1.RouteService",
        routes_pb2_grpc.add_RouteServiceServicer_to_server,
        RouteServicer(recent, questions, (keeper.overlay, spending.overlay_unpublished), env, now, file.path.parent),
    )
    services.add(
        "ccr.rpc.v1.ConfigService",
        config_pb2_grpc.add_ConfigServiceServicer_to_server,
        ConfigServicer(file, publisher, changes, revisions, events, env, now),
    )
    services.add(
        "ccr.rpc.v1.EventService", events_pb2_grpc.add_EventServiceServicer_to_server, EventServicer(events, store)
    )
    services.add(
        "ccr.rpc.v1.FleetService",
        fleet_pb2_grpc.add_FleetServiceServicer_to_server,
        FleetServicer(fleet, publisher, questions, events, now),
    )
    return services


def _telling_of_guesses(events: EventLog) -> Callable[[str, str], None]:
    def tell(host: str, message: str) -> None:
        events.note("alert", "access.guessed", f"peers/{host}", message=message)

    return tell


def _telling_of_credentials(events: EventLog) -> Callable[[str, str, str, str], None]:
    def tell(action: str, provider: str, key_label: str, message: str) -> None:
        events.note("health", action, key_resource(provider, key_label), message=message)

    return tell


def _telling_of_nodes(events: EventLog) -> Callable[[str, str, str], None]:
    def tell(action: str, node_id: str, message: str) -> None:
        events.note("node", action, f"nodes/{node_id}", message=message)

    return tell


def _telling_of_circuits(events: EventLog) -> Callable[[CircuitEvent], None]:
    def tell(one: CircuitEvent) -> None:
        resource = f"scopes/{one.provider}/{one.scope}" if one.scope else f"providers/{one.provider}"
        events.note("health", f"circuit.{one.state}", resource, message=one.reason)

    return tell


class _Signals:
    """The signals of the process, caught from here on."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopped_by: asyncio.Future[str] = self._loop.create_future()
        self.hang_up = asyncio.Event()
        self._loop.add_signal_handler(signal.SIGHUP, self.hang_up.set)
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._stop, number.name)

    async def raise_at_stop(self) -> None:
        """Raises _Stopped at the first SIGTERM or SIGINT, also an earlier one."""
        log.info("control_stopping", signal=await self._stopped_by)
        raise _Stopped

    def _stop(self, name: str) -> None:
        """A second signal ends the process at once."""
        if not self._stopped_by.done():  # two signals may be delivered at a time
            self._stopped_by.set_result(name)
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)


def _tell_web_address(path: Path, url: str) -> None:
    """Where the page is (empty: nobody is to send a token anywhere). Not being able to say so, as on a full disk, ends nothing."""
    try:
        write_private(path, f"{url}\n")
    except CannotStart as error:
        path.unlink(missing_ok=True)  # a page that was there before is no longer ours
        log.warning("web_address_not_kept", problem=str(error), consequence="`ccr web` does not find the page")


async def _until_stopped(
    file: ConfigFile,
    publisher: Publisher,
    prober: Prober,
    keeping: Mapping[str, Coroutine[None, None, None]],
    signals: _Signals,
) -> None:
    """Publish and follow the file until a signal ends it; SIGHUP means "look again"."""
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(publisher.run(), name="publisher")
            tasks.create_task(prober.run(), name="prober")
            for name, keeper in keeping.items():
                tasks.create_task(keeper, name=name)
            tasks.create_task(watch(file.path, lambda: file.reload(publisher)), name="watcher")
            tasks.create_task(_reload_at(signals.hang_up, file, publisher), name="hang-up")
            tasks.create_task(signals.raise_at_stop(), name="signals")
    except* _Stopped:
        pass


async def _reload_at(hang_up: asyncio.Event, file: ConfigFile, publisher: Publisher) -> None:
    while True:
        await hang_up.wait()
        hang_up.clear()
        await file.reload(publisher, is_forced=True)


def _runner(main_coroutine: Coroutine[None, None, None]) -> None:
    """Run on uvloop where there is one (it saves a sixth of the CPU time), else on asyncio's own loop."""
    try:
        import uvloop  # noqa: PLC0415 - optional
    except ImportError:
        factory = None
    else:
        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main_coroutine)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ccr-control", description="The control plane of cc-relay.")
    parser.add_argument("--config", metavar="FILE", help="configuration (else $CCR_CONFIG, ./ccr.yaml, the user's)")
    parser.add_argument("--state-dir", metavar="DIR", help="private directory (else $CCR_STATE_DIR, the user's)")
    parser.add_argument(
        "--workers", type=int, default=0, metavar="N", help="nodes that there are (else `server.workers`)"
    )
    parser.add_argument("--log-format", choices=("json", "text", "auto"), help="else the configuration's")
    parser.add_argument("--version", action="version", version=f"cc-relay {version('cc-relay')}")
    return parser


if __name__ == "__main__":
    sys.exit(main())
