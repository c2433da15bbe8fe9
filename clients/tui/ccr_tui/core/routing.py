"""Routing: the strategies and routes in force, and where a request would go.

Pure. Routes are read from the effective configuration: the contract has no other list of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ccr_rpc.v1 import config_pb2, routes_pb2, snapshot_pb2
from ccr_words.explaining import decision_lines, summary

from ccr_tui.core import words
from ccr_tui.core.table import Cell, Column, Line, Listing, dim, plain

COLUMNS = (
    Column("route", 14, 0, grows=1),
    Column("strategy", 20, 0),
    Column("what fits", 24, 1, grows=3),
    Column("goes to", 20, 0, grows=3),
)
_OF_ALL = "routing"
ALL = ""  # the name of what holds for every route that does not say it itself


@dataclass(frozen=True, slots=True)
class RouteRow:
    """A route in words. `strategy` empty: that of all."""

    name: str
    strategy: str
    fits: str
    to: str


@dataclass(frozen=True, slots=True)
class Routing:
    """The part of the configuration that decides."""

    strategy: str
    facts: str
    routes: tuple[RouteRow, ...]


def read(document: Any) -> Routing:
    """From the effective configuration, a decoded YAML document. What is not as expected is left out."""
    part = document.get("routing") if isinstance(document, dict) else None
    part = part if isinstance(part, dict) else {}
    routes = [one for one in part.get("routes") or () if isinstance(one, dict)]
    named = ("affinity", "failover_timeout", "max_attempts")
    return Routing(
        strategy=str(part.get("strategy") or "-"),
        facts=", ".join(f"{name.replace('_', ' ')} {part[name]}" for name in named if part.get(name) is not None),
        routes=tuple(_route(one, number) for number, one in enumerate(routes, 1)),
    )


def with_overlay(routing: Routing, entries: Sequence[config_pb2.OverlayEntry]) -> Routing:
    """With the strategies that were set at run time: the configuration does not have them."""
    changed = {one.resource: one.value for one in entries if one.field == "strategy"}
    of_all = changed.get(_OF_ALL, routing.strategy)
    routes = tuple(replace(row, strategy=changed.get(f"routes/{row.name}", row.strategy)) for row in routing.routes)
    return replace(routing, strategy=of_all, routes=routes)


def _route(one: dict[str, Any], number: int) -> RouteRow:
    match = one.get("match")
    said = (
        {name: value for name, value in match.items() if value not in (None, [], {}, "")}
        if isinstance(match, dict)
        else {}
    )
    return RouteRow(
        name=str(one.get("name") or f"route-{number}"),
        strategy=str(one.get("strategy") or ""),
        fits=", ".join(f"{name}: {_short(value)}" for name, value in said.items()) or "everything",
        to=", ".join(_candidate(to) for to in one.get("to") or () if isinstance(to, dict)),
    )


def _candidate(to: dict[str, Any]) -> str:
    model = f" as {to['model']}" if to.get("model") else ""
    return f"{to.get('provider', '?')}{model}"


def _short(value: object) -> str:
    return " or ".join(map(str, value)) if isinstance(value, list) else str(value)


def listing(routing: Routing) -> Listing:
    """First what holds for all, then each route."""
    rows = (RouteRow(ALL, routing.strategy, "whatever no route says itself", "every provider"), *routing.routes)
    return Listing(COLUMNS, [row.name for row in rows], lambda number: _cells(rows[number], routing.strategy))


def _cells(row: RouteRow, of_all: str) -> Sequence[Cell]:
    strategy: Cell = plain(row.strategy) if row.strategy else dim(f"{of_all} (of all)")
    return ((row.name or "(all)", "strong"), strategy, plain(row.fits), plain(row.to))


def question(text: str) -> routes_pb2.ExplainRouteRequest:
    """A hypothetical request from words: a model, then any of the flags. Raises BadQuestion."""
    given = text.split()
    if not given:
        raise BadQuestion(f"name a model, as in: claude-sonnet-4-5 {HELP}")
    asked = snapshot_pb2.HypotheticalRequest(model=given[0])
    for word in given[1:]:
        name, is_set, value = word.partition("=")
        if word in _FLAGS:
            setattr(asked, _FLAGS[word], True)
        elif name in ("client", "session") and value:
            setattr(asked, name, value)
        elif name == "tokens" and value.isascii() and value.isdigit() and len(value) < 16:
            asked.input_tokens = int(value)
        elif name.startswith("header:") and is_set and len(name) > 7:
            asked.headers.append(snapshot_pb2.Header(name=name[7:].lower(), value=value))
        else:
            raise BadQuestion(f"{word}: after the model come any of {HELP}")
    return routes_pb2.ExplainRouteRequest(request=asked)


class BadQuestion(Exception):
    """The words are no request; says which is wrong."""


HELP = "thinking images documents tools stream subagent count-tokens tokens=N client=NAME session=ID header:NAME=VALUE"
_FLAGS = {
    "thinking": "thinking",
    "images": "images",
    "documents": "documents",
    "tools": "tools",
    "stream": "streams",
    "subagent": "subagent",
    "count-tokens": "count_tokens",
}


def answer_lines(asked: routes_pb2.ExplainRouteRequest, found: routes_pb2.ExplainRouteResponse) -> list[Line]:
    """Where it would go, in the words of `ccr route`."""
    first, *more = summary(asked.request.model, found, "")
    said: list[Line] = [((first, "bad" if found.answer.status else "good"),)]
    said += [(plain(line),) for line in more]
    choices = decision_lines(found.answer.decision)[1:] if found.answer.decision.strategy else []
    return said + [((line, "warn" if line.startswith("passed over") else "plain"),) for line in choices]


def strategies() -> list[str]:
    """The names to choose from."""
    return list(words.STRATEGIES.values())
