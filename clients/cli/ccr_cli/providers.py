"""`ccr providers …`: circuits and probes of the configured providers."""

from __future__ import annotations

import dataclasses
import os
from typing import Annotated

import typer

from ccr_cli import overview, places
from ccr_cli.failure import EXIT_NOT_WELL
from ccr_cli.options import Control, Json, StateDir
from ccr_cli.overview import ProviderHealth
from ccr_cli.screen import print_json, print_table

app = typer.Typer(no_args_is_help=True, help="Show the providers' health, probe them and reset their circuits.")

Scope = Annotated[str, typer.Option("--scope", metavar="SCOPE", help="Only this scope (account) of the provider.")]
Name = Annotated[str, typer.Argument(metavar="PROVIDER", help="Name of a provider.")]


@app.command("list")
def list_providers(control: Control = None, state_dir: StateDir = None, as_json: Json = False) -> None:
    """List the providers with their circuits, and what the last probe of each found."""
    from ccr_cli.control import dialled  # noqa: PLC0415 - gRPC takes 0.1 s to import
    from ccr_cli.reading import provider_health  # noqa: PLC0415

    with dialled(_door(control, state_dir)) as plane:
        health = [provider_health(one) for one in plane.providers()]
    if as_json:
        print_json([dataclasses.asdict(one) for one in health])
    else:
        print_table("Providers", overview.HEALTH_COLUMNS, overview.health_rows(health))


@app.command()
def probe(
    provider: Name, scope: Scope = "", control: Control = None, state_dir: StateDir = None, as_json: Json = False
) -> None:
    """Ask a provider now whether it is alive; a half-open circuit closes if it is.

    Exit codes: 0 it is alive, 1 it is not, 2 there is no such provider.
    """
    from ccr_cli.control import dialled  # noqa: PLC0415 - gRPC takes 0.1 s to import
    from ccr_cli.reading import provider_health  # noqa: PLC0415

    with dialled(_door(control, state_dir)) as plane:
        found = provider_health(plane.probe(provider, scope))
    _show(found, scope, as_json)
    probed = next((one for one in found.scopes if one.scope == scope), found)
    if not probed.probe_is_alive:
        raise typer.Exit(EXIT_NOT_WELL)


@app.command()
def reset(
    provider: Name, scope: Scope = "", control: Control = None, state_dir: StateDir = None, as_json: Json = False
) -> None:
    """Close the circuits of a provider and its scopes, or that of one, and forget what led to their opening.

    Exit codes: 0 requests go there again, 2 there is no such provider.
    """
    from ccr_cli.control import dialled  # noqa: PLC0415 - gRPC takes 0.1 s to import
    from ccr_cli.reading import provider_health  # noqa: PLC0415

    with dialled(_door(control, state_dir)) as plane:
        _show(provider_health(plane.reset_circuit(provider, scope)), scope, as_json)


@app.command()
def events(
    provider: Annotated[str, typer.Argument(metavar="[PROVIDER]", help="Name of a provider; absent: all.")] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, max=5000, help="At most so many.")] = 50,
    control: Control = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Show what happened to circuits, newest first. Kept for 30 days, at most 500 of each provider."""
    from ccr_cli.control import dialled  # noqa: PLC0415 - gRPC takes 0.1 s to import
    from ccr_cli.reading import health_event  # noqa: PLC0415

    with dialled(_door(control, state_dir)) as plane:
        found = [health_event(one) for one in plane.health_events(provider, limit)]
    if as_json:
        print_json([dataclasses.asdict(one) for one in found])
    else:
        print_table("Circuits", overview.EVENT_COLUMNS, overview.event_rows(found))


def _show(one: ProviderHealth, scope: str, as_json: bool) -> None:
    if as_json:
        print_json(dataclasses.asdict(one))
        return
    for each in one.scopes:
        if scope == each.scope:
            alive = {True: "alive", False: "not alive", None: "-"}[each.probe_is_alive]
            print(f"{one.provider}/{scope}: circuit {each.circuit}, probe: {each.probe_problem or alive}")
            return
    print(f"{one.provider}: circuit {overview.circuit_words(one)}, probe: {overview.probe_words(one)}")


def _door(control: str | None, state_dir: str | None) -> places.Door:
    return places.control_door(control, places.state_dir(state_dir, os.environ), os.environ)
