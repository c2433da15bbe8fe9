"""`ccr tail` and `ccr records`: what requests did, one by one."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from ccr_words.decisions import place

from ccr_cli.options import Control, Json, StateDir
from ccr_cli.overview import count_words, time_words
from ccr_cli.screen import print_json, print_line, print_table
from ccr_cli.words import moment_of, money_words, share_words

if TYPE_CHECKING:
    from ccr_rpc.v1 import records_pb2, usage_pb2

Client = Annotated[str, typer.Option("--client", metavar="NAME", help="Only of this client.")]
Session = Annotated[str, typer.Option("--session", metavar="ID", help="Only of this session.")]
Provider = Annotated[str, typer.Option("--provider", metavar="NAME", help="Only with an attempt at this provider.")]
Key = Annotated[str, typer.Option("--key", metavar="LABEL", help="Only with an attempt with this key.")]
Model = Annotated[str, typer.Option("--model", metavar="PATTERN", help="Only of models like this; * for any run.")]
RouteName = Annotated[str, typer.Option("--route", metavar="NAME", help="Only by this route.")]
How = Annotated[
    str, typer.Option("--outcome", metavar="WORD", help="Only with: served, failed, broken, client-left, refused.")
]
Status = Annotated[
    int, typer.Option("--status", metavar="N", min=0, help="Only with this HTTP status or a higher one.")
]
Failed = Annotated[bool, typer.Option("--failed-attempts", help="Only those of which an attempt failed.")]
Slow = Annotated[float, typer.Option("--slower", metavar="SECONDS", min=0, help="Only those that took so long.")]


def tail(
    client: Client = "",
    session: Session = "",
    provider: Provider = "",
    key: Key = "",
    model: Model = "",
    route: RouteName = "",
    outcome: How = "",
    status: Status = 0,
    failed_attempts: Failed = False,
    slower: Slow = 0.0,
    backlog: Annotated[int, typer.Option("--backlog", min=0, max=1000, help="So many of the newest first.")] = 10,
    count: Annotated[int, typer.Option("--count", metavar="N", min=0, help="End after so many. 0: never.")] = 0,
    control: Control = None,
    state_dir: StateDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document a line.")] = False,
) -> None:
    """Show requests as they end, until Ctrl-C. Without any text of theirs.

    Example: `ccr tail --provider anthropic --status 400`
    """
    from ccr_rpc.v1 import records_pb2

    from ccr_cli.control import opened
    from ccr_cli.plain import plain

    wanted = _filter(client, session, provider, key, model, route, outcome, status, failed_attempts, slower)
    request = records_pb2.TailRecordsRequest(filter=wanted, backlog=backlog)
    with contextlib.suppress(KeyboardInterrupt), opened(control, state_dir) as plane:
        shown = _shown(plane.records.TailRecords(request))
        for one in itertools.islice(shown, count) if count else shown:
            if isinstance(one, int):
                print_line(json.dumps({"skipped": one}) if as_json else f"({one} left out: this terminal is too slow)")
            else:
                print_line(json.dumps(plain(one), ensure_ascii=False) if as_json else line(one))


def records(
    client: Client = "",
    session: Session = "",
    provider: Provider = "",
    key: Key = "",
    model: Model = "",
    route: RouteName = "",
    outcome: How = "",
    status: Status = 0,
    failed_attempts: Failed = False,
    slower: Slow = 0.0,
    since: Annotated[str, typer.Option("--since", metavar="WHEN", help="15m, 24h, a day, or ISO 8601.")] = "",
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="At most so many.")] = 50,
    control: Control = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """List the newest requests, newest first. `ccr explain REQUEST-ID` tells more of one.

    Example: `ccr records --failed-attempts --since 1h`
    """
    from ccr_client import every
    from ccr_rpc.v1 import records_pb2

    from ccr_cli.control import opened
    from ccr_cli.plain import plain

    wanted = _filter(client, session, provider, key, model, route, outcome, status, failed_attempts, slower)
    request = records_pb2.ListRecordsRequest(filter=wanted, page_size=min(limit, 1000))
    if since:
        request.since.FromDatetime(moment_of(since, "--since", datetime.now(UTC)))
    with opened(control, state_dir) as plane:
        pages = every(plane.records.ListRecords, request, lambda page: page.records)
        found = list(itertools.islice(pages, limit))
    if as_json:
        print_json([plain(one) for one in found])
    else:
        print_table("Requests", RECORD_COLUMNS, [row(one) for one in found], RECORD_NUMBERS)


def _filter(
    client: str,
    session: str,
    provider: str,
    key: str,
    model: str,
    route: str,
    outcome: str,
    status: int,
    failed_attempts: bool,
    slower_s: float,
) -> records_pb2.RecordFilter:
    from ccr_rpc.v1 import records_pb2, usage_pb2

    from ccr_cli.choosing import chosen
    from ccr_cli.plain import words

    return records_pb2.RecordFilter(
        client=client,
        session=session,
        provider=provider,
        key_label=key,
        model=model,
        route=route,
        outcome=chosen(outcome, words(usage_pb2.Outcome.DESCRIPTOR), "--outcome"),
        min_status=status,
        with_failed_attempt=failed_attempts,
        min_total_us=round(slower_s * 1e6),
    )


def _shown(
    answers: Iterator[records_pb2.TailRecordsResponse],
) -> Iterator[records_pb2.StoredRecord | int]:
    """Records, and how many were left out before them."""
    for answer in answers:
        if answer.skipped:
            yield answer.skipped
        yield from answer.records


RECORD_COLUMNS = (
    "when",
    "status",
    "client",
    "model",
    "target",
    "first byte",
    "total",
    "tokens in/out",
    "cost",
    "request",
)
RECORD_NUMBERS = frozenset({1, 5, 6, 7, 8})


def row(one: records_pb2.StoredRecord) -> tuple[str, ...]:
    """A request for a table."""
    record = one.record
    return (
        record.started_at.ToDatetime().isoformat(sep=" ", timespec="seconds"),
        str(record.status or "-"),
        record.client or "-",
        record.model_asked or "-",
        target(record),
        time_words(record.first_byte_us / 1000),
        time_words(record.total_us / 1000),
        f"{count_words(all_input(record.tokens))} / {count_words(record.tokens.output)}",
        cost(one),
        record.request_id,
    )


def line(one: records_pb2.StoredRecord) -> str:
    """A request as a line of a log for people."""
    from ccr_rpc.v1 import usage_pb2

    from ccr_cli.plain import word

    record = one.record
    failed = [f"{place(each.provider, each.key_label)}: {each.reason}" for each in record.attempts if each.reason]
    outcome = word(usage_pb2.Outcome.DESCRIPTOR, record.outcome)
    said = [
        record.started_at.ToDatetime().isoformat(sep=" ", timespec="seconds")[11:],
        f"{record.status or '-':>3}",
        f"{outcome:<7}" if outcome != "served" else "       ",
        f"{record.model_asked or '-'} → {target(record)}",
        f"{time_words(record.first_byte_us / 1000)} / {time_words(record.total_us / 1000)}",
        tokens_words(record.tokens),
        cost(one),
        record.request_id,
        f"[{record.client}]" if record.client else "",
        f"({'; '.join(failed)})" if failed else "",
    ]
    return "  ".join(part for part in said if part)


def target(record: usage_pb2.RequestRecord) -> str:
    """Where it went last, and after how many others."""
    if not record.attempts:
        return "-"
    last = record.attempts[-1]
    more = f" +{len(record.attempts) - 1}" if len(record.attempts) > 1 else ""
    return f"{place(last.provider, last.key_label)}{more}"


def all_input(tokens: usage_pb2.TokenUsage) -> int:
    """Input of every kind."""
    return tokens.input + tokens.cache_read + tokens.cache_write_5m + tokens.cache_write_1h


def tokens_words(tokens: usage_pb2.TokenUsage) -> str:
    """`5.1k in (90 % cached), 811 out`."""
    whole = all_input(tokens)
    cached = f" ({share_words(tokens.cache_read, whole)} cached)" if tokens.cache_read else ""
    return f"{count_words(whole)} in{cached}, {count_words(tokens.output)} out"


def cost(one: records_pb2.StoredRecord) -> str:
    """What it cost; a dash if nobody knows."""
    return money_words(one.cost_usd * 1e6) if one.HasField("cost_usd") else "-"
