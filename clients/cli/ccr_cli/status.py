"""`ccr status`: one look at the whole relay."""

from __future__ import annotations

import dataclasses
import os
import sys
import time

import typer

from ccr_cli import overview, places
from ccr_cli.failure import EXIT_NOT_WELL, Failure
from ccr_cli.options import Control, Json, StateDir, Url
from ccr_cli.overview import Overview
from ccr_cli.places import Door
from ccr_cli.screen import print_json, print_table

_CATCH_UP_S = 1.0  # a change reaches every node in a fraction of this


def status(control: Control = None, state_dir: StateDir = None, url: Url = None, as_json: Json = False) -> None:
    """Show the control plane, its configuration, the workers and the providers.

    Exit codes: 0 all is well, 1 something is not (a refused configuration, a worker that lags or rejects, an open circuit),
    3 no control plane answers.

    Example: `ccr status --json`
    """
    state = places.state_dir(state_dir, os.environ)
    relay = places.relay_url(url, state, os.environ)
    try:
        now = _settled(places.control_door(control, state, os.environ), relay)
    except Failure as failure:
        raise _with_relay(failure, relay, as_json) from failure
    wrong = overview.problems(now)
    if as_json:
        print_json({"healthy": not wrong, "problems": wrong, **dataclasses.asdict(now)})
    else:
        _print(now, wrong)
    if wrong:
        raise typer.Exit(EXIT_NOT_WELL)


def _with_relay(failure: Failure, relay: str | None, as_json: bool) -> Failure:
    """The failure, with a word about the relay, which goes on serving while the control plane is away."""
    from ccr_cli.relay import is_healthy

    still = f"; the relay at {relay} still answers" if relay and is_healthy(relay) else ""
    if as_json:
        print_json({"healthy": False, "problems": [f"{failure}{still}"]})
    return Failure(f"{failure}{still}", failure.exit_code)


def _settled(door: Door, relay: str | None) -> Overview:
    """How it is; nodes that are just taking up a new snapshot are given a second."""
    until_s = time.monotonic() + _CATCH_UP_S
    while True:
        now = _look(door, relay)
        if time.monotonic() > until_s or not any(overview.is_behind(node, now.newest_version) for node in now.nodes):
            return now
        time.sleep(0.05)


def _look(door: Door, relay: str | None) -> Overview:
    from ccr_rpc.v1 import config_pb2, fleet_pb2, providers_pb2, stats_pb2

    from ccr_cli.control import dialled
    from ccr_cli.reading import config_state, node_state, provider_health, provider_state
    from ccr_cli.relay import is_healthy

    with dialled(door) as control:
        config = control.config.GetConfig(config_pb2.GetConfigRequest())
        nodes = control.fleet.ListNodes(fleet_pb2.ListNodesRequest())
        stats = control.stats.GetStats(stats_pb2.GetStatsRequest()).stats
        health = control.providers.ListProviders(providers_pb2.ListProvidersRequest()).providers
    return Overview(
        control=door.target,
        relay=relay,
        relay_answers=is_healthy(relay) if relay else None,
        newest_version=nodes.newest_version,
        window_s=stats.window.ToTimedelta().total_seconds(),
        config=config_state(config),
        nodes=tuple(map(node_state, nodes.nodes)),
        providers=tuple(map(provider_state, stats.providers)),
        health=tuple(map(provider_health, health)),
    )


def _print(now: Overview, wrong: list[str]) -> None:
    for label, words in overview.facts(now):
        print(f"{label:<15}{words}")
    print()
    print_table(
        "Workers", overview.NODE_COLUMNS, overview.node_rows(now.nodes, now.newest_version), overview.NODE_NUMBERS
    )
    if rows := overview.provider_rows(now):
        print()
        title = f"Providers (rates and latencies of the last {now.window_s:.0f} s)"
        print_table(title, overview.PROVIDER_COLUMNS, rows, overview.PROVIDER_NUMBERS)
    sys.stdout.flush()
    for problem in wrong:
        print(f"problem: {problem}", file=sys.stderr)
