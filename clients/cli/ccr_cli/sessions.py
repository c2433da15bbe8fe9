"""`ccr sessions`, `ccr stats` and `ccr unknowns`: figures of conversations, of windows, and what is new to this version."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Annotated

import typer
from ccr_words.decisions import place

from ccr_cli.choosing import chosen
from ccr_cli.options import Control, Json, StateDir
from ccr_cli.overview import count_words, time_words
from ccr_cli.records import all_input
from ccr_cli.screen import print_json, print_table
from ccr_cli.words import money_words, share_words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ccr_rpc.v1 import stats_pb2


def sessions(
    client: Annotated[str, typer.Option("--client", metavar="NAME", help="Only of this client.")] = "",
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="At most so many.")] = 50,
    control: Control = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """List the conversations of the last 24 hours with their agents, newest first.

    Example: `ccr sessions --client laptop`
    """
    from ccr_client import every
    from ccr_rpc.v1 import stats_pb2

    from ccr_cli.control import opened
    from ccr_cli.plain import plain

    request = stats_pb2.ListSessionsRequest(client=client, page_size=min(limit, 1000))
    with opened(control, state_dir) as plane:
        pages = every(plane.stats.ListSessions, request, lambda page: page.sessions)
        found = list(itertools.islice(pages, limit))
    if as_json:
        print_json([plain(one) for one in found])
    else:
        rows = [each for one in found for each in session_rows(one)]
        print_table("Sessions of the last 24 hours", SESSION_COLUMNS, rows, SESSION_NUMBERS)


def stats(
    by: Annotated[
        str,
        typer.Option(
            "--by", metavar="WORD", help="client, provider, scope, key, model, session, agent, request-class."
        ),
    ] = "provider",
    window: Annotated[str, typer.Option("--window", metavar="SPAN", help="1m, 15m, 1h or 24h.")] = "1h",
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="So many lines; the rest is one.")] = 50,
    control: Control = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Show rates, latencies, tokens and costs of the last minutes or hours, broken down by one thing.

    Example: `ccr stats --by model --window 15m`
    """
    from ccr_rpc.v1 import ledger_pb2, stats_pb2

    from ccr_cli.control import opened
    from ccr_cli.plain import plain, words

    request = stats_pb2.GetBreakdownRequest(
        by=chosen(by, words(ledger_pb2.Dimension.DESCRIPTOR), "--by"),
        window=chosen(window, words(stats_pb2.Window.DESCRIPTOR), "--window"),
        limit=limit,
    )
    with opened(control, state_dir) as plane:
        found = plane.stats.GetBreakdown(request)
    if as_json:
        print_json(plain(found))
        return
    rows = [(one.name or "-", *figure_row(one.figures)) for one in found.lines]
    rows.append(("total", *figure_row(found.total)))
    print_table(f"The last {window}", (by, *FIGURE_COLUMNS), rows, frozenset(range(1, len(FIGURE_COLUMNS) + 1)))


def unknowns(control: Control = None, state_dir: StateDir = None, as_json: Json = False) -> None:
    """List what clients and providers say that this version does not know: names only, never values.

    Example: `ccr unknowns`
    """
    from ccr_rpc.v1 import stats_pb2

    from ccr_cli.control import opened
    from ccr_cli.plain import iso, plain

    with opened(control, state_dir) as plane:
        found = plane.stats.ListUnknowns(stats_pb2.ListUnknownsRequest()).unknowns
    if as_json:
        print_json([plain(one) for one in found])
        return
    rows = [
        (one.kind.replace("_", " "), one.name, one.said_by, count_words(one.count), iso(one.first_at)) for one in found
    ]
    print_table("Not known to this version", ("kind", "name", "said by", "times", "first"), rows, frozenset({3}))


SESSION_COLUMNS = ("session", "client", "newest", "target", "model", "requests", "input", "cached", "output", "cost")
SESSION_NUMBERS = frozenset(range(5, 10))
FIGURE_COLUMNS = (
    *(
        "requests",
        "failed",
        "req/s",
        "first byte p50/p99",
        "total p50/p99",
        "overhead p50",
        "input",
        "cached",
        "output",
    ),
    *("cost", "saved"),
)


def session_rows(one: stats_pb2.Session) -> Iterator[tuple[str, ...]]:
    """A conversation, and below it its subagents if there are any."""
    main = next((agent for agent in one.agents if not agent.agent), None)
    whole = all_input(one.tokens)
    figures = (
        str(one.requests),
        count_words(whole),
        share_words(one.tokens.cache_read, whole),
        count_words(one.tokens.output),
        money_words(one.cost_micro_usd),
    )
    where = (place(main.provider, main.key_label) or "-", main.model or "-") if main else ("-", "-")
    yield (one.session or "-", one.client or "-", _second(one.last_at), *where, *figures)
    for agent in one.agents:
        if agent is main:
            continue
        whole = all_input(agent.tokens)
        yield (
            f"  └ {agent.agent}",
            "",
            _second(agent.last_at),
            place(agent.provider, agent.key_label) or "-",
            agent.model or "-",
            str(agent.requests),
            count_words(whole),
            share_words(agent.tokens.cache_read, whole),
            count_words(agent.tokens.output),
            money_words(agent.cost_micro_usd),
        )


def figure_row(one: stats_pb2.Figures) -> tuple[str, ...]:
    """Figures for a table."""
    whole = all_input(one.tokens)
    return (
        str(one.requests),
        str(one.failed),
        f"{one.requests_per_s:.2f}",
        f"{time_words(one.first_byte.p50_us / 1000)} / {time_words(one.first_byte.p99_us / 1000)}",
        f"{time_words(one.total.p50_us / 1000)} / {time_words(one.total.p99_us / 1000)}",
        time_words(one.overhead.p50_us / 1000),
        count_words(whole),
        share_words(one.tokens.cache_read, whole),
        count_words(one.tokens.output),
        money_words(one.cost_micro_usd),
        money_words(one.saved_micro_usd),
    )


def _second(at: object) -> str:
    from ccr_cli.plain import iso

    return f"{iso(at)[:19]}Z".replace("T", " ")
