"""Events: changes, health, configuration, alerts.

Pure.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from ccr_rpc.v1 import events_pb2

from ccr_tui.core import figures, words
from ccr_tui.core.table import Cell, Column, Line, Listing, dim, plain
from ccr_tui.core.world import World

COLUMNS = (
    Column("at", 11, 0),
    Column("kind", 6, 0),
    Column("what", 18, 0, grows=1),
    Column("resource", 18, 1, grows=2),
    Column("who", 8, 2, grows=1),
    Column("in words", 24, 3, grows=6),
)
KINDS = (
    events_pb2.EVENT_KIND_UNSPECIFIED,
    events_pb2.EVENT_KIND_AUDIT,
    events_pb2.EVENT_KIND_HEALTH,
    events_pb2.EVENT_KIND_CONFIG,
    events_pb2.EVENT_KIND_ALERT,
    events_pb2.EVENT_KIND_NODE,
    events_pb2.EVENT_KIND_DRIFT,
)


def kind_name(kind: int) -> str:
    """The kind that is shown alone, in words."""
    return words.named(words.EVENT_KINDS, kind)[0] if kind else "all"


def shown(world: World, kind: int, match: str = "") -> list[events_pb2.Event]:
    """Events of a kind (0: any), newest first."""
    return [
        one
        for one in world.events
        if (not kind or one.kind == kind)
        and (not match or match in f"{one.action} {one.resource} {one.actor} {one.message}")
    ]


def listing(world: World, now_s: float, kind: int = 0, match: str = "") -> Listing:
    """The same as a table."""
    rows = shown(world, kind, match)
    return Listing(
        COLUMNS,
        [str(one.id) for one in rows],
        lambda row: _cells(rows[row], now_s),
        "no event fits" if kind or match else "nothing has happened yet",
    )


def _cells(one: events_pb2.Event, now_s: float) -> Sequence[Cell]:
    return (
        dim(words.clock(one.at, now_s)),
        words.named(words.EVENT_KINDS, one.kind),
        plain(one.action),
        plain(one.resource),
        dim(one.actor or figures.NOTHING),
        plain(one.message),
    )


def detail(one: events_pb2.Event, now_s: float) -> list[Line]:
    """Everything about an event: what was changed, before and after."""
    said: list[Line] = [
        (dim("what      "), (one.action, "strong"), plain(f"  {one.resource}")),
        (dim("when      "), plain(f"{words.clock(one.at, now_s)} UTC, {words.ago(one.at, now_s)} ago")),
        (dim("who       "), plain(one.actor or "nobody")),
        (dim("in words  "), plain(one.message or figures.NOTHING)),
    ]
    for title, text in (("Before", one.before_json), ("After", one.after_json)):
        if text:
            said += [(), ((title, "strong"),), *((plain(line),) for line in pretty(text))]
    return said


def pretty(text: str) -> list[str]:
    """JSON on several lines; as it is if it is none."""
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False).splitlines()
    except ValueError:
        return text.splitlines()
