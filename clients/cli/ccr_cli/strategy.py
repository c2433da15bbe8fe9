"""`ccr strategy`: how candidates are ordered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ccr_cli.choosing import chosen
from ccr_cli.options import Control, Json, StateDir
from ccr_cli.screen import print_json, print_table

if TYPE_CHECKING:
    from ccr_rpc.v1 import config_pb2

ALL_ROUTES = "routing"  # the overlay's name of what all routes share


def strategy(
    name: Annotated[
        str,
        typer.Argument(
            metavar="[STRATEGY]",
            help="simple-shuffle, round-robin, weighted-round-robin, failover, least-loaded, cost-based, latency-based "
            "or model-based; absent: show what is in force.",
        ),
    ] = "",
    route: Annotated[
        str,
        typer.Option("--route", metavar="NAME", help="Of this route; absent: of all that do not say it themselves."),
    ] = "",
    control: Control = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Show or change how candidates are ordered. A change is kept over restarts; `ccr config overlay` takes it back.

    Examples: `ccr strategy`, `ccr strategy least-loaded --route haiku`
    """
    from ccr_rpc.v1 import config_pb2, providers_pb2, snapshot_pb2

    from ccr_cli.control import opened
    from ccr_cli.plain import plain, words

    if name:
        value = chosen(name, words(snapshot_pb2.Strategy.DESCRIPTOR), "STRATEGY")
        with opened(control, state_dir) as plane:
            answer = plane.providers.SetStrategy(providers_pb2.SetStrategyRequest(route=route, strategy=value))
        if as_json:
            print_json({"route": route, "strategy": name, **plain(answer)})
        else:
            print(f"{route or 'routes without one of their own'}: {name}; snapshot {answer.snapshot_version}")
        return
    with opened(control, state_dir) as plane:
        config = plane.config.GetConfig(config_pb2.GetConfigRequest())
        overlay = plane.config.GetOverlay(config_pb2.GetOverlayRequest())
    found = in_force(config.redacted_yaml, list(overlay.entries))
    if as_json:
        print_json([{"route": one, "strategy": how, "from": origin} for one, how, origin in found])
    else:
        print_table(
            "Strategies", ("route", "strategy", "from"), [(one or "(all others)", *rest) for one, *rest in found]
        )


def in_force(config: str, overlay: list[config_pb2.OverlayEntry]) -> list[tuple[str, str, str]]:
    """Route (empty: all others), strategy, and who says so."""
    import yaml

    routing: dict[str, Any] = yaml.safe_load(config).get("routing") or {}
    changed = {one.resource: one for one in overlay if one.field == "strategy"}

    def said(resource: str, configured: str) -> tuple[str, str]:
        one = changed.get(resource)
        return (one.value, f"run time, by {one.changed_by}") if one else (configured, "configuration")

    common = said(ALL_ROUTES, str(routing.get("strategy", "")))
    rows = [("", *common)]
    for route in routing.get("routes") or ():
        name, own = str(route.get("name", "")), route.get("strategy")
        resource = f"routes/{name}"
        rows.append((name, *(said(resource, str(own)) if own or resource in changed else common)))
    return rows
