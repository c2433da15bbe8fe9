"""`ccr providers …`: how the configured providers are, and whether requests go there."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer

from ccr_cli import overview
from ccr_cli.failure import EXIT_NOT_WELL
from ccr_cli.options import Control, Json, StateDir
from ccr_cli.overview import ProviderHealth
from ccr_cli.screen import print_json, print_table

if TYPE_CHECKING:
    from ccr_rpc.v1 import providers_pb2

app = typer.Typer(no_args_is_help=True, help="Show the providers' health, and say whether requests go there.")

Scope = Annotated[str, typer.Option("--scope", metavar="SCOPE", help="Only this scope (account) of the provider.")]
Name = Annotated[str, typer.Argument(metavar="PROVIDER", help="Name of a provider.")]


@app.command("list")
def list_providers(control: Control = None, state_dir: StateDir = None, as_json: Json = False) -> None:
    """List the providers with their circuits, requests in flight, and what the last probe of each found.

    Example: `ccr providers list --json`
    """
    from ccr_rpc.v1 import providers_pb2, stats_pb2

    from ccr_cli.control import opened
    from ccr_cli.reading import provider_health

    with opened(control, state_dir) as plane:
        found = plane.providers.ListProviders(providers_pb2.ListProvidersRequest()).providers
        stats = plane.stats.GetStats(stats_pb2.GetStatsRequest()).stats
    health = [provider_health(one) for one in found]
    now_open = {one.provider: one.figures.open_requests for one in stats.providers}
    if as_json:
        print_json(
            [dataclasses.asdict(one) | {"open_requests": now_open.get(one.provider, 0)} for one in health],
        )
    else:
        print_table(
            "Providers", overview.HEALTH_COLUMNS, overview.health_rows(health, now_open), overview.HEALTH_NUMBERS
        )


@app.command()
def enable(provider: Name, control: Control = None, state_dir: StateDir = None, as_json: Json = False) -> None:
    """Let requests go to a provider again, on every worker. Kept over restarts.

    Example: `ccr providers enable zai`
    """
    _set_state(provider, "ENABLED", control, state_dir, as_json)


@app.command()
def disable(provider: Name, control: Control = None, state_dir: StateDir = None, as_json: Json = False) -> None:
    """Send a provider nothing new; what is open there is finished. Kept over restarts.

    Example: `ccr providers disable zai`
    """
    _set_state(provider, "DISABLED", control, state_dir, as_json)


@app.command()
def drain(provider: Name, control: Control = None, state_dir: StateDir = None, as_json: Json = False) -> None:
    """Send a provider only the sessions that live there already. Kept over restarts.

    Example: `ccr providers drain zai`
    """
    _set_state(provider, "DRAINING", control, state_dir, as_json)


@app.command()
def weight(
    provider: Name,
    number: Annotated[int, typer.Argument(metavar="N", min=1, max=1_000_000, help="Its share among providers.")],
    control: Control = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Change a provider's share among providers. Kept over restarts.

    Example: `ccr providers weight zai 3`
    """
    from ccr_rpc.v1 import providers_pb2

    _update(providers_pb2.UpdateProviderRequest(provider=provider, weight=number), control, state_dir, as_json)


@app.command()
def priority(
    provider: Name,
    number: Annotated[int, typer.Argument(metavar="N", min=0, max=1_000_000, help="Lower is tried first.")],
    control: Control = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Change where a provider comes with the strategy failover: lower is tried first. Kept over restarts.

    Example: `ccr providers priority zai 1`
    """
    from ccr_rpc.v1 import providers_pb2

    _update(providers_pb2.UpdateProviderRequest(provider=provider, priority=number), control, state_dir, as_json)


@app.command()
def probe(
    provider: Name, scope: Scope = "", control: Control = None, state_dir: StateDir = None, as_json: Json = False
) -> None:
    """Ask a provider now whether it is alive; a half-open circuit closes if it is.

    Exit codes: 0 it is alive, 1 it is not, 2 there is no such provider.

    Example: `ccr providers probe anthropic`
    """
    from ccr_rpc.v1 import providers_pb2

    from ccr_cli.control import PROBED_WITHIN_S, opened
    from ccr_cli.reading import provider_health

    request = providers_pb2.ProbeProviderRequest(provider=provider, scope=scope)
    with opened(control, state_dir) as plane:
        found = provider_health(plane.providers.ProbeProvider(request, timeout=PROBED_WITHIN_S).provider)
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

    Example: `ccr providers reset anthropic --scope org-a`
    """
    from ccr_rpc.v1 import providers_pb2

    from ccr_cli.control import opened
    from ccr_cli.reading import provider_health

    request = providers_pb2.ResetCircuitRequest(provider=provider, scope=scope)
    with opened(control, state_dir) as plane:
        _show(provider_health(plane.providers.ResetCircuit(request).provider), scope, as_json)


@app.command()
def events(
    provider: Annotated[str, typer.Argument(metavar="[PROVIDER]", help="Name of a provider; absent: all.")] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, max=5000, help="At most so many.")] = 50,
    control: Control = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Show what happened to circuits, newest first. Kept for 30 days, at most 500 of each provider.

    Example: `ccr providers events zai --limit 10`
    """
    from ccr_rpc.v1 import providers_pb2

    from ccr_cli.control import opened
    from ccr_cli.reading import health_event

    request = providers_pb2.ListHealthEventsRequest(provider=provider, limit=limit)
    with opened(control, state_dir) as plane:
        found = [health_event(one) for one in plane.providers.ListHealthEvents(request).events]
    if as_json:
        print_json([dataclasses.asdict(one) for one in found])
    else:
        print_table("Circuits", overview.EVENT_COLUMNS, overview.event_rows(found))


def _set_state(provider: str, state: str, control: str | None, state_dir: str | None, as_json: bool) -> None:
    from ccr_rpc.v1 import providers_pb2

    from ccr_cli.control import opened

    request = providers_pb2.SetProviderStateRequest(
        provider=provider, state=providers_pb2.ProviderState.Value(f"PROVIDER_STATE_{state}")
    )
    with opened(control, state_dir) as plane:
        _changed(plane.providers.SetProviderState(request), as_json)


def _update(
    request: providers_pb2.UpdateProviderRequest, control: str | None, state_dir: str | None, as_json: bool
) -> None:
    from ccr_cli.control import opened

    with opened(control, state_dir) as plane:
        _changed(plane.providers.UpdateProvider(request), as_json)


def _changed(answer: providers_pb2.ProviderResponse, as_json: bool) -> None:
    from ccr_cli.plain import enum_word, plain

    if as_json:
        print_json(plain(answer))
        return
    one = answer.provider
    state = enum_word(one, "state")
    print(f"{one.name}: {state}, weight {one.weight}, priority {one.priority}; snapshot {answer.snapshot_version}")
    if one.changed:
        print(f"changed at run time: {', '.join(one.changed)} (`ccr config overlay` shows it, and takes it back)")


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
