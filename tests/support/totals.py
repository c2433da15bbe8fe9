"""What the control plane has counted: from the store itself, and as `ccr status` shows it."""

from __future__ import annotations

import contextlib
import io
import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
from ccr_cli.failure import Failure
from ccr_cli.status import status as ask_status
from ccr_data.core.frames import MAGIC, frames_in
from ccr_rpc.v1 import ledger_pb2, ledger_pb2_grpc, usage_pb2
from typer import Exit

from support.load import INPUT_TOKENS, OUTPUT_TOKENS, Call
from support.serving import Relay, until


def counted(relay: Relay, column: str = "requests") -> int:
    """The sum of a column of the ledger; -1 if it cannot be read now."""
    try:
        with contextlib.closing(_database(relay)) as database:
            return int(database.execute(f"SELECT coalesce(sum({column}), 0) FROM ledger").fetchone()[0])
    except sqlite3.Error:
        return -1


def status(relay: Relay) -> dict[str, Any]:
    """What `ccr status --json` says, without a process for each time that it is asked."""
    exit_code, said = 0, io.StringIO()
    with contextlib.redirect_stdout(said):
        try:
            ask_status(state_dir=relay.state, as_json=True)
        except Exit as end:
            exit_code = end.exit_code
        except Failure as failure:
            exit_code = failure.exit_code
    return {"exit_code": exit_code, **json.loads(said.getvalue())}


def assert_totals_exact(relay: Relay, calls: Sequence[Call], within_s: float = 15.0) -> None:
    """Each of these requests is counted once, and nothing else is: in the store, with its tokens, and on the screen."""
    count = len(calls)
    until(lambda: counted(relay) >= count, f"{count} requests are counted; now {counted(relay)}", within_s)
    found = {column: counted(relay, column) for column in ("requests", "served", "input_tokens", "output_tokens")}
    tokens = {"input_tokens": count * INPUT_TOKENS, "output_tokens": count * OUTPUT_TOKENS}
    assert found == {"requests": count, "served": count, **tokens}
    until(lambda: status(relay)["exit_code"] == 0, "all is well", within_s)
    assert_breakdowns_add_up(relay, count, tokens)
    providers = status(relay)["providers"]
    assert sum(one["requests"] for one in providers) == count
    assert sum(one["output_tokens"] for one in providers) == tokens["output_tokens"]


BREAKDOWNS: tuple[tuple[ledger_pb2.Dimension.ValueType, ...], ...] = (
    (),
    (ledger_pb2.DIMENSION_PROVIDER, ledger_pb2.DIMENSION_KEY, ledger_pb2.DIMENSION_SCOPE),
    (ledger_pb2.DIMENSION_DAY, ledger_pb2.DIMENSION_MODEL, ledger_pb2.DIMENSION_CLIENT),
    (ledger_pb2.DIMENSION_SESSION, ledger_pb2.DIMENSION_AGENT, ledger_pb2.DIMENSION_REQUEST_CLASS),
    (ledger_pb2.DIMENSION_ENDPOINT, ledger_pb2.DIMENSION_HOUR),
)


def assert_breakdowns_add_up(relay: Relay, count: int, tokens: Mapping[str, int]) -> None:
    """Whatever the costs are broken down by, the lines add up to all requests, to the token and the millionth of a dollar."""
    costs = set()
    with grpc.insecure_channel((relay.state / "control.address").read_text().strip()) as channel:
        stub = ledger_pb2_grpc.UsageLedgerServiceStub(channel)
        for by in BREAKDOWNS:
            for limit in (0, 2):
                report = stub.GetCostReport(ledger_pb2.GetCostReportRequest(by=by, limit=limit))
                for sums in (report.total, _sum(report.lines)):
                    assert (sums.requests, sums.served) == (count, count)
                    assert (sums.tokens.input, sums.tokens.output) == (tokens["input_tokens"], tokens["output_tokens"])
                    costs.add((sums.cost_micro_usd, sums.saved_micro_usd, sums.unpriced_requests))
    assert len(costs) == 1, f"the same requests cost the same however they are broken down: {costs}"


def _sum(lines: Iterable[ledger_pb2.CostLine]) -> ledger_pb2.CostLine:
    total = ledger_pb2.CostLine()
    for line in lines:
        for name in ("requests", "served", "cost_micro_usd", "saved_micro_usd", "unpriced_requests"):
            setattr(total, name, getattr(total, name) + getattr(line, name))
        total.tokens.input += line.tokens.input
        total.tokens.output += line.tokens.output
    return total


def spool_files(relay: Relay) -> list[Path]:
    """Spools of all nodes."""
    return sorted((relay.state / "nodes").glob("*/spool/*.spool"))


def spooled(relay: Relay) -> int:
    """How many requests are on disk for a successor."""
    return _spooled(relay, {})


def safe(relay: Relay) -> int:
    """How many requests are counted, or on disk and will be: a batch may be both while its acknowledgement is away."""
    try:
        with contextlib.closing(_database(relay)) as database:
            database.execute("BEGIN")
            count = int(database.execute("SELECT coalesce(sum(requests), 0) FROM ledger").fetchone()[0])
            acknowledged = dict(database.execute("SELECT journal, acknowledged FROM journals"))
    except sqlite3.Error:
        return -1
    return count + _spooled(relay, acknowledged)


def _database(relay: Relay) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{relay.state}/control.db?mode=ro", uri=True, isolation_level=None)


def _spooled(relay: Relay, acknowledged: Mapping[str, int]) -> int:
    count = 0
    for path in spool_files(relay):
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                continue
            batches = {found.number: usage_pb2.UsageBatch.FromString(found.payload) for found in frames_in(file.read)}
            for number, batch in batches.items():
                if number > acknowledged.get(path.stem, 0):
                    count += len(batch.records) + sum(part.requests for part in batch.sums)
    return count
