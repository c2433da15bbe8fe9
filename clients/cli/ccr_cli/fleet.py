"""`ccr nodes …` and `ccr events`: the workers, and what happened besides requests."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
from typing import TYPE_CHECKING, Annotated

import typer

from ccr_cli import overview
from ccr_cli.options import Control, Json, StateDir
from ccr_cli.screen import print_json, print_line, print_table

if TYPE_CHECKING:
    from ccr_rpc.v1 import events_pb2

app = typer.Typer(no_args_is_help=True, help="Show the workers and have them replaced.")


@app.command("list")
def list_nodes(control: Control = None, state_dir: StateDir = None, as_json: Json = False) -> None:
    """List the workers, and what each of them serves.

    Example: `ccr nodes list --json`
    """
    from ccr_rpc.v1 import fleet_pb2

    from ccr_cli.control import opened
    from ccr_cli.reading import node_state

    with opened(control, state_dir) as plane:
        answer = plane.fleet.ListNodes(fleet_pb2.ListNodesRequest())
    nodes = [node_state(one) for one in answer.nodes]
    if as_json:
        print_json({"newest_version": answer.newest_version, "nodes": [dataclasses.asdict(one) for one in nodes]})
    else:
        rows = overview.node_rows(nodes, answer.newest_version)
        print_table("Workers", overview.NODE_COLUMNS, rows, overview.NODE_NUMBERS)


@app.command()
def drain(
    node: Annotated[str, typer.Argument(metavar="NODE", help="Name of a worker, as `ccr nodes list` shows it.")],
    control: Control = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Have a worker finish its requests and end; its supervisor starts another in its place.

    Example: `ccr nodes drain worker-0`
    """
    from ccr_rpc.v1 import fleet_pb2

    from ccr_cli.control import opened

    with opened(control, state_dir) as plane:
        plane.fleet.DrainNode(fleet_pb2.DrainNodeRequest(node_id=node))
    if as_json:
        print_json({"node_id": node, "told": True})
    else:
        print(f"{node}: told to finish and end (`ccr nodes list` shows the one that comes after it)")


def events(
    kind: Annotated[
        str, typer.Option("--kind", metavar="WORD", help="Only: audit, health, config, alert, node, drift.")
    ] = "",
    resource: Annotated[
        str,
        typer.Option("--resource", metavar="NAME", help="Only about this, such as providers/zai, or what is below it."),
    ] = "",
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="At most so many of the past.")] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what happens, until Ctrl-C.")] = False,
    count: Annotated[int, typer.Option("--count", metavar="N", min=0, help="With --follow: end after so many.")] = 0,
    control: Control = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Show what happened besides requests, newest first: changes with who made them, circuits, configurations, alerts.

    With --follow: oldest first, and with --json one JSON document a line.

    Examples: `ccr events --kind audit`, `ccr events --follow --resource providers/zai`
    """
    from ccr_client import every
    from ccr_rpc.v1 import events_pb2

    from ccr_cli.choosing import chosen
    from ccr_cli.control import opened
    from ccr_cli.plain import plain, words

    wanted = chosen(kind, words(events_pb2.EventKind.DESCRIPTOR), "--kind")
    request = events_pb2.ListEventsRequest(kind=wanted, resource=resource, page_size=min(limit, 1000))
    with contextlib.suppress(KeyboardInterrupt), opened(control, state_dir) as plane:
        past = list(itertools.islice(every(plane.events.ListEvents, request, lambda page: page.events), limit))
        if not follow:
            if as_json:
                print_json([plain(one) for one in past])
            else:
                print_table("Events", EVENT_COLUMNS, [event_row(one) for one in past])
            return
        newest = past[0].id if past else _newest(plane.events)
        watched = plane.events.WatchEvents(events_pb2.WatchEventsRequest(kind=wanted, after_id=newest))
        fresh = (answer.event for answer in watched if _is_about(answer.event, resource))
        every_one = itertools.chain(reversed(past), fresh)
        for one in itertools.islice(every_one, count) if count else every_one:
            print_line(json.dumps(plain(one), ensure_ascii=False) if as_json else "  ".join(event_row(one)))


def _newest(stub: object) -> int:
    """The id of the newest event of any kind: so none falls between the past and what is watched."""
    from ccr_rpc.v1 import events_pb2

    found = stub.ListEvents(events_pb2.ListEventsRequest(page_size=1)).events  # type: ignore[attr-defined]
    return found[0].id if found else 0


def _is_about(event: events_pb2.Event, resource: str) -> bool:
    return not resource or event.resource == resource or event.resource.startswith(f"{resource}/")


EVENT_COLUMNS = ("when", "kind", "what", "about", "who", "in words")


def event_row(one: events_pb2.Event) -> tuple[str, ...]:
    """An event for a table."""
    from ccr_cli.plain import enum_word, iso

    return (
        iso(one.at)[:19].replace("T", " "),
        enum_word(one, "kind"),
        one.action,
        one.resource or "-",
        one.actor or "-",
        one.message or _change(one) or "-",
    )


def _change(one: events_pb2.Event) -> str:
    """`{"weight": 1} → {"weight": 3}`."""
    if not (one.before_json or one.after_json):
        return ""
    return f"{one.before_json or '-'} → {one.after_json or '-'}"
