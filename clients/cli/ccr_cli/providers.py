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
def probe(provider: Name, control: Control = None, state_dir: StateDir = None, as_json: Json = False) -> None:
    """Ask a provider now whether it is alive; a half-open circuit closes if it is.

    Exit codes: 0 it is alive, 1 it is not, 2 there is no such provider.
    """
    from ccr_cli.control import dialled  # noqa: PLC0415 - gRPC takes 0.1 s to import
    from ccr_cli.reading import provider_health  # noqa: PLC0415

    with dialled(_door(control, state_dir)) as plane:
        found = provider_health(plane.probe(provider))
    _show(found, as_json)
    if not found.probe_is_alive:
        raise typer.Exit(EXIT_NOT_WELL)


@app.command()
def reset(provider: Name, control: Control = None, state_dir: StateDir = None, as_json: Json = False) -> None:
    """Close a provider's circuit and forget what led to its opening.

    Exit codes: 0 requests go there again, 2 there is no such provider.
    """
    from ccr_cli.control import dialled  # noqa: PLC0415 - gRPC takes 0.1 s to import
    from ccr_cli.reading import provider_health  # noqa: PLC0415

    with dialled(_door(control, state_dir)) as plane:
        _show(provider_health(plane.reset_circuit(provider)), as_json)


def _show(one: ProviderHealth, as_json: bool) -> None:
    if as_json:
        print_json(dataclasses.asdict(one))
    else:
        print(f"{one.provider}: circuit {overview.circuit_words(one)}, probe: {overview.probe_words(one)}")


def _door(control: str | None, state_dir: str | None) -> places.Door:
    return places.control_door(control, places.state_dir(state_dir, os.environ), os.environ)
