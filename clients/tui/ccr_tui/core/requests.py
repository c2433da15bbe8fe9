"""Live requests: one row for each finished request, and why it went where it went.

Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from ccr_rpc.v1 import records_pb2, usage_pb2
from ccr_words.decisions import place
from ccr_words.explaining import lines as explained

from ccr_tui.core import figures, words
from ccr_tui.core.table import Cell, Column, Line, Listing, dim, plain
from ccr_tui.core.world import World

COLUMNS = (
    Column("at", 8, 0),
    Column("model", 17, 1, grows=2),
    Column("status", 6, 0, is_number=True),
    Column("to", 16, 0, grows=2),
    Column("1st byte", 8, 1, is_number=True),
    Column("total", 8, 1, is_number=True),
    Column("tokens", 7, 3, is_number=True),
    Column("tries", 5, 2, is_number=True),
    Column("cached", 6, 4, is_number=True),
    Column("cost", 8, 4, is_number=True),
    Column("ended", 11, 5),
    Column("client", 10, 5, grows=1),
    Column("route", 10, 6, grows=1),
    Column("session", 9, 7, grows=1),
    Column("agent", 8, 8, grows=1),
    Column("relay", 7, 8, is_number=True),
    Column("request", 12, 9, grows=1),
)


def listing(
    records: Sequence[records_pb2.StoredRecord], now_s: float, *, when_empty: str = "no request yet"
) -> Listing:
    """Requests, newest first."""
    return Listing(
        COLUMNS, [one.record.request_id for one in records], lambda row: _cells(records[row], now_s), when_empty
    )


def shown(world: World, frozen: Sequence[records_pb2.StoredRecord] | None) -> Sequence[records_pb2.StoredRecord]:
    """What is in the list: what was there when it was frozen, or the newest."""
    return frozen if frozen is not None else world.records or ()


def _cells(stored: records_pb2.StoredRecord, now_s: float) -> Sequence[Cell]:
    one = stored.record
    last = one.attempts[-1] if one.attempts else None
    used = one.model_used or one.model_asked or figures.NOTHING
    return (
        dim(words.clock(one.started_at, now_s)),
        plain(one.model_asked or used),
        words.status(one.status),
        plain(place(last.provider, last.key_label)) if last else dim("the relay itself"),
        plain(figures.micros(one.first_byte_us)),
        plain(figures.micros(one.total_us)),
        plain(figures.count(words.tokens(one.tokens))),
        (str(len(one.attempts)), "warn" if len(one.attempts) > 1 else "dim"),
        plain(words.cache_share(one.tokens)),
        _cost(stored),
        words.named(words.OUTCOMES, one.outcome),
        plain(one.client or figures.NOTHING),
        dim(one.route or figures.NOTHING),
        dim(one.session or figures.NOTHING),
        dim(one.agent or "main"),
        dim(figures.micros(one.overhead_us)),
        dim(one.request_id),
    )


def _cost(stored: records_pb2.StoredRecord) -> Cell:
    return plain(figures.money(stored.cost_usd * 1e6)) if stored.HasField("cost_usd") else dim("unknown")


def detail(stored: records_pb2.StoredRecord, now_s: float) -> list[Line]:
    """Everything about a request: the decision trace as `ccr explain` has it, then its figures."""
    one = stored.record
    used = one.tokens
    said: list[Line] = [_traced(line) for line in explained(one, stored.node_id)]
    said += [
        (),
        (
            dim("ended     "),
            words.named(words.OUTCOMES, one.outcome),
            plain(f"  {words.clock(one.started_at, now_s)} UTC"),
        ),
        (
            dim("who       "),
            plain(
                f"client {one.client or figures.NOTHING}, session {one.session or figures.NOTHING}"
                f", agent {one.agent or 'main'}"
            ),
        ),
        (
            dim("times     "),
            plain(
                f"first byte {figures.micros(one.first_byte_us)}, total {figures.micros(one.total_us)}"
                f", the relay's share {figures.micros(one.overhead_us)}"
            ),
        ),
        (dim("tokens    "), plain(_tokens(used))),
        (dim("cost      "), _cost(stored)),
        (
            dim("bytes     "),
            plain(f"{figures.size(one.request_bytes)} asked, {figures.size(one.answer_bytes)} answered"),
        ),
        (dim("model     "), plain(f"{one.model_asked or figures.NOTHING}, there {one.model_used or figures.NOTHING}")),
    ]
    if one.upstream_request_id:
        said.append((dim("upstream  "), plain(one.upstream_request_id)))
    return said


def _tokens(used: usage_pb2.TokenUsage) -> str:
    written = used.cache_write_5m + used.cache_write_1h
    text = f"{figures.count(used.input)} in, {figures.count(used.cache_read)} from caches, {figures.count(written)} to caches"
    thinking = f" ({figures.count(used.thinking)} thinking)" if used.thinking else ""
    return f"{text}, {figures.count(used.output)} out{thinking}"


def _traced(line: str) -> Line:
    if line.startswith("passed over"):
        return ((line, "warn"),)
    if line.startswith("attempt "):
        return ((line, "good" if ": served" in line else "bad"),)
    return (plain(line),)
