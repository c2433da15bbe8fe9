"""Events: changes, health, configuration, alerts.

Pure.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

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
MAX_ID = 2**63 - 1
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


@dataclass(frozen=True, slots=True)
class Older:
    """Events that were asked for, page by page, below those that the stream has told."""

    events: tuple[events_pb2.Event, ...] = ()  # newest first
    token: str = ""  # what the next page is asked for with
    is_all: bool = False  # there are none below these

    @property
    def is_begun(self) -> bool:
        """Whether a page was asked for."""
        return bool(self.token or self.is_all)


NONE_OLDER = Older()


def with_page(older: Older, page: events_pb2.ListEventsResponse, told: Sequence[events_pb2.Event]) -> Older:
    """With another page, as far as the stream has not told it."""
    below = older.events[-1].id if older.events else told[-1].id if told else MAX_ID
    fresh = tuple(one for one in page.events if one.id < below)
    return Older((*older.events, *fresh), page.next_page_token, not page.next_page_token)


def carried(older: Older, before: Sequence[events_pb2.Event], now: Sequence[events_pb2.Event], kind: int) -> Older:
    """What is older when the stream has told more: what fell out at its end comes on top.

    Where nothing is left of what was told before (a store was lost, or too much has happened meanwhile), nobody knows what lies
    between, and older ones are to be asked for again.
    """
    if not older.is_begun or not before or not now or before[-1].id == now[-1].id:
        return older
    if not now[-1].id <= before[0].id <= now[0].id:
        return NONE_OLDER
    fallen = [one for one in before if one.id < now[-1].id and (not kind or one.kind == kind)]
    return replace(older, events=(*fallen, *older.events))


def shown(
    events: Sequence[events_pb2.Event], kind: int, match: str = "", older: Older = NONE_OLDER
) -> list[events_pb2.Event]:
    """Events of a kind (0: any), newest first."""
    return [
        one
        for one in (*events, *older.events)
        if (not kind or one.kind == kind)
        and (not match or match in f"{one.action} {one.resource} {one.actor} {one.message}")
    ]


def head(rows: Sequence[str], kind: int, match: str, older: Older) -> Line:
    """What is shown, above the table."""
    only = " ".join([kind_name(kind)] * bool(kind) + [f'"{match}"'] * bool(match))
    said: Line = (dim("only "), (only, "info")) if only else (dim("all events"),)
    if older.is_all:
        return (*said, dim(f"; {len(rows):,}: all that are kept"))
    return (*said, dim(f"; the newest {len(rows):,}; m, or going on at the end, brings older ones"))


def listing(world: World, now_s: float, kind: int = 0, match: str = "", older: Older = NONE_OLDER) -> Listing:
    """The same as a table."""
    rows = shown(world.events, kind, match, older)
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
