"""`ccr cost`, `ccr budgets` and `ccr prices`: what was used and what it cost, from the ledger."""

from __future__ import annotations

import csv
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from ccr_cli.failure import EXIT_USAGE, Failure
from ccr_cli.options import Control, Json, StateDir
from ccr_cli.overview import count_words
from ccr_cli.records import all_input
from ccr_cli.screen import print_json, print_table
from ccr_cli.words import moment_of, money_words, share_words

if TYPE_CHECKING:
    from ccr_rpc.v1 import ledger_pb2

MAX_DIMENSIONS = 3


def cost(
    by: Annotated[
        str,
        typer.Option(
            "--by",
            metavar="WORDS",
            help="Break down by up to 3 of: client, provider, scope, key, model, session, agent, request-class, "
            "endpoint, hour, day. Empty: the total alone.",
        ),
    ] = "provider,model",
    since: Annotated[
        str, typer.Option("--since", metavar="WHEN", help="From this hour on: 24h, 7d, a day, or ISO 8601.")
    ] = "24h",
    until: Annotated[str, typer.Option("--until", metavar="WHEN", help="Up to this hour; absent: now.")] = "",
    where: Annotated[
        list[str] | None, typer.Option("--where", metavar="WORD=VALUE", help="Only with this value; may be repeated.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="So many lines; the rest is one.")] = 100,
    control: Control = None,
    state_dir: StateDir = None,
    as_json: Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV for spreadsheets; costs in USD.")] = False,
) -> None:
    """Report tokens and costs of a span of time. The lines add up to the total, to the token and the cent.

    Examples: `ccr cost --by client,model --since 7d`, `ccr cost --by day --since 2026-11-01 --csv`
    """
    from ccr_rpc.v1 import ledger_pb2

    from ccr_cli.choosing import chosen
    from ccr_cli.control import opened
    from ccr_cli.plain import plain, words

    if as_json and as_csv:
        raise Failure("--json or --csv, not both", EXIT_USAGE)
    dimensions = words(ledger_pb2.Dimension.DESCRIPTOR)
    named = [one.strip() for one in by.split(",") if one.strip()]
    if len(named) > MAX_DIMENSIONS:
        raise Failure(f"--by {by}: at most {MAX_DIMENSIONS}", EXIT_USAGE)
    now = datetime.now(UTC)
    request = ledger_pb2.GetCostReportRequest(by=[chosen(one, dimensions, "--by") for one in named], limit=limit)
    request.since.FromDatetime(moment_of(since, "--since", now))
    if until:
        request.until.FromDatetime(moment_of(until, "--until", now))
    for text in where or ():
        name, found, value = text.partition("=")
        if not found:
            raise Failure(f"--where {text}: must be WORD=VALUE, for example client=laptop", EXIT_USAGE)
        request.where.add(dimension=chosen(name, dimensions, "--where"), value=value)
    with opened(control, state_dir) as plane:
        report = plane.ledger.GetCostReport(request)
    if as_json:
        print_json(plain(report))
    elif as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow((*named, *CSV_COLUMNS))
        writer.writerows((*one.values, *csv_row(one)) for one in report.lines)
    else:
        labels = named or [""]
        rows = [(*(value or "-" for value in one.values), *cost_row(one)) for one in report.lines if named]
        rows.append(("total", *("" for _ in labels[1:]), *cost_row(report.total)))
        columns = (*labels, *COST_COLUMNS)
        numbers = frozenset(range(len(labels), len(columns)))
        print_table(f"Since {_hour(request.since.ToDatetime())}", columns, rows, numbers)
        if report.total.unpriced_requests:
            print(
                f"{report.total.unpriced_requests} requests went to models without a price and count as $0: "
                "`ccr prices` lists the known ones, `pricing:` in the configuration adds more",
                file=sys.stderr,
            )


def budgets(control: Control = None, state_dir: StateDir = None, as_json: Json = False) -> None:
    """List what clients with a budget may spend and have spent.

    Example: `ccr budgets --json`
    """
    from ccr_rpc.v1 import ledger_pb2

    from ccr_cli.control import opened
    from ccr_cli.plain import iso, plain

    with opened(control, state_dir) as plane:
        found = plane.ledger.ListClientBudgets(ledger_pb2.ListClientBudgetsRequest()).budgets
    if as_json:
        print_json([plain(one) for one in found])
        return
    rows = [
        (
            one.client,
            one.period,
            money_words(one.limit_micro_usd),
            money_words(one.spent_micro_usd),
            share_words(one.spent_micro_usd, one.limit_micro_usd),
            iso(one.ends_at),
        )
        for one in found
    ]
    print_table(
        "Budgets of clients", ("client", "period", "limit", "spent", "used", "ends"), rows, frozenset({2, 3, 4})
    )


def prices(
    model: Annotated[str, typer.Option("--model", metavar="TEXT", help="Only patterns that hold this text.")] = "",
    control: Control = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """List the prices that costs are worked out by, in USD per million tokens, and where they come from.

    Example: `ccr prices --model sonnet`
    """
    from ccr_rpc.v1 import ledger_pb2

    from ccr_cli.control import opened
    from ccr_cli.plain import plain

    with opened(control, state_dir) as plane:
        everything = plane.ledger.ListPrices(ledger_pb2.ListPricesRequest()).prices
    found = [one for one in everything if model.lower() in one.pattern.lower()]
    if as_json:
        print_json([plain(one) for one in found])
        return
    rows = [
        (
            one.provider or "any",
            one.pattern,
            f"above {count_words(one.above_prompt_tokens)}" if one.above_prompt_tokens else "any",
            *(
                f"{amount:g}"
                for amount in (one.input, one.output, one.cache_read, one.cache_write_5m, one.cache_write_1h)
            ),
            one.as_of or "configuration",
            one.source,
        )
        for one in found
    ]
    print_table("Prices (USD per million tokens)", PRICE_COLUMNS, rows, frozenset(range(3, 8)))


COST_COLUMNS = ("requests", "failed", "input", "cached", "output", "cost", "saved")
PRICE_COLUMNS = (
    *("provider", "model", "prompt", "input", "output"),
    *("cache read", "write 5m", "write 1h", "as of", "source"),
)
CSV_COLUMNS = (
    *("requests", "served", "failed", "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_5m_tokens"),
    *("cache_write_1h_tokens", "thinking_tokens", "cost_usd", "saved_usd", "unpriced_requests"),
)


def cost_row(one: ledger_pb2.CostLine) -> tuple[str, ...]:
    """A line's figures for people."""
    whole = all_input(one.tokens)
    return (
        str(one.requests),
        str(one.failed),
        count_words(whole),
        share_words(one.tokens.cache_read, whole),
        count_words(one.tokens.output),
        money_words(one.cost_micro_usd),
        money_words(one.saved_micro_usd),
    )


def csv_row(one: ledger_pb2.CostLine) -> tuple[int | str, ...]:
    """A line's figures for programs; money to the millionth."""
    tokens = one.tokens
    return (
        *(one.requests, one.served, one.failed, tokens.input, tokens.output, tokens.cache_read, tokens.cache_write_5m),
        *(tokens.cache_write_1h, tokens.thinking),
        *(f"{one.cost_micro_usd / 1e6:.6f}", f"{one.saved_micro_usd / 1e6:.6f}", one.unpriced_requests),
    )


def _hour(at: datetime) -> str:
    return f"{at.replace(minute=0, second=0, microsecond=0).isoformat(sep=' ', timespec='minutes')} UTC"
