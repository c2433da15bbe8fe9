"""StatsService: rates, latencies, tokens and costs, in total and by everything there is, once or again and again."""

# ruff: noqa: ARG002, N802 - names and arguments of handlers are the contract's

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, TypeAlias

import grpc
import grpc.aio
from ccr_rpc.v1 import stats_pb2, stats_pb2_grpc

from ccr_control.core.errors import Malformed
from ccr_control.core.fleet import Open
from ccr_control.core.history import Slice, Span
from ccr_control.core.ledger import OTHER
from ccr_control.core.report import Dimension
from ccr_control.core.stats import Stats
from ccr_control.core.unknowns import Unknowns
from ccr_control.services.events import page_begin, page_size
from ccr_control.services.figures_wire import (
    DIMENSIONS,
    WINDOWS,
    point_message,
    session_message,
    slice_figures,
    stats_message,
)
from ccr_control.services.wire import timestamp

MIN_INTERVAL_S = 0.1
MAX_INTERVAL_S = 3600.0
DEFAULT_INTERVAL_S = 1.0
MAX_LINES = 1000
LINES_UNLESS_SAID = 50
MAX_PAGE = 1000
PAGE_UNLESS_SAID = 100
TURN_S = 0.005  # then others have theirs

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"  # generic for type checkers only


class StatsServicer(stats_pb2_grpc.StatsServiceServicer):
    """Shows statistics."""

    def __init__(
        self,
        stats: Stats,
        now: Callable[[], float],
        open_requests: Callable[[], Open] = Open,
        unknowns: Unknowns | None = None,
    ) -> None:
        """`open_requests` says what the nodes are serving."""
        self._stats, self._now, self._open_requests = stats, now, open_requests
        self._unknowns = unknowns if unknowns is not None else Unknowns()

    async def GetStats(self, request: stats_pb2.GetStatsRequest, context: Context) -> stats_pb2.GetStatsResponse:
        """Statistics as of now."""
        return stats_pb2.GetStatsResponse(stats=self.message())

    async def WatchStats(  # type: ignore[override]  # it writes
        self, request: stats_pb2.WatchStatsRequest, context: Context
    ) -> None:
        """Statistics at once and then at every interval, until the caller hangs up."""
        interval_s = request.interval.ToTimedelta().total_seconds() if request.HasField("interval") else None
        interval_s = DEFAULT_INTERVAL_S if interval_s is None else interval_s
        if not MIN_INTERVAL_S <= interval_s <= MAX_INTERVAL_S:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"interval must be {MIN_INTERVAL_S} s to {MAX_INTERVAL_S:.0f} s, not {interval_s} s",
            )
        while True:
            await context.write(stats_pb2.WatchStatsResponse(stats=self.message()))
            await asyncio.sleep(interval_s)

    async def GetBreakdown(
        self, request: stats_pb2.GetBreakdownRequest, context: Context
    ) -> stats_pb2.GetBreakdownResponse:
        """Figures of a window by one dimension: the most requests first, beyond the limit one line "other"."""
        span, by = _span(request.window), DIMENSIONS.get(request.by)
        if by is None:
            raise Malformed("BAD_DIMENSION", "by: a dimension is needed, such as DIMENSION_PROVIDER")
        if not 0 <= request.limit <= MAX_LINES:
            raise Malformed("OUT_OF_RANGE", f"limit: must be 0 to {MAX_LINES}, not {request.limit}")
        sums = await self._sums(span, by)
        lines, total = ranked(sums, request.limit or LINES_UNLESS_SAID)
        return stats_pb2.GetBreakdownResponse(
            lines=[
                stats_pb2.NamedFigures(name=name, figures=slice_figures(part, span.seconds)) for name, part in lines
            ],
            total=slice_figures(total, span.seconds),
        )

    async def GetSeries(self, request: stats_pb2.GetSeriesRequest, context: Context) -> stats_pb2.GetSeriesResponse:
        """The buckets of a window, oldest first, the empty ones included."""
        span = _span(request.window)
        return stats_pb2.GetSeriesResponse(points=self.series(span, request.provider))

    async def ListSessions(
        self, request: stats_pb2.ListSessionsRequest, context: Context
    ) -> stats_pb2.ListSessionsResponse:
        """Sessions of the last day, the one with the newest request first."""
        size = page_size(request.page_size, PAGE_UNLESS_SAID, MAX_PAGE)
        begin = page_begin(request.page_token)
        newest = self._stats.sessions.newest(self._now(), client=request.client)
        found = list(islice(newest, begin, begin + size + 1))
        return stats_pb2.ListSessionsResponse(
            sessions=map(session_message, found[:size]),
            next_page_token=str(begin + size) if len(found) > size else "",
        )

    async def ListUnknowns(
        self, request: stats_pb2.ListUnknownsRequest, context: Context
    ) -> stats_pb2.ListUnknownsResponse:
        """What is not known, the most frequent first."""
        return stats_pb2.ListUnknownsResponse(
            unknowns=[
                stats_pb2.Unknown(
                    kind=name.kind,
                    name=name.name,
                    said_by=name.said_by,
                    count=seen.count,
                    first_at=timestamp(seen.first_s),
                )
                for name, seen in self._unknowns.all()
            ]
        )

    def message(self) -> stats_pb2.Stats:
        """Statistics as of now."""
        at_s = self._now()
        return stats_message(self._stats.report(at_s), at_s, self._open_requests())

    def series(self, span: Span, provider: str = "", since_s: float = 0.0) -> list[stats_pb2.SeriesPoint]:
        """The buckets of a window that begin at a time or later."""
        found = self._stats.history.series(span, self._now(), provider, since_s)
        return [point_message(began_s, span, part) for began_s, part in found]

    async def _sums(self, span: Span, by: Dimension) -> dict[str, Slice]:
        """Sums of a window, letting others have their turn in between."""
        sums: dict[str, Slice] = {}
        began_s = time.monotonic()
        for found in self._stats.history.breakdown(span, by, self._now()):
            sums = found
            if time.monotonic() - began_s > TURN_S:
                await asyncio.sleep(0)
                began_s = time.monotonic()
        return sums


def ranked(sums: dict[str, Slice], limit: int) -> tuple[list[tuple[str, Slice]], Slice]:
    """Lines, the most requests first, beyond the limit one called "other"; and their sum.

    What was counted as "other" already is in the same line.
    """
    total = Slice()
    for part in sums.values():
        total.merge(part)
    with_requests = [(name, part) for name, part in sums.items() if part.counters.requests and name != OTHER]
    lines = sorted(with_requests, key=lambda line: (-line[1].counters.requests, line[0]))
    left_out = [sums[OTHER]] if OTHER in sums and sums[OTHER].counters.requests else []
    if len(lines) + len(left_out) > limit:
        left_out += [part for _, part in lines[limit - 1 :]]
        lines = lines[: limit - 1]
    if left_out:
        lines.append((OTHER, merged(left_out)))
    return lines, total


def merged(parts: Iterable[Slice]) -> Slice:
    """The sum of them."""
    total = Slice()
    for part in parts:
        total.merge(part)
    return total


def _span(window: int) -> Span:
    span = WINDOWS.get(window)
    if span is None:
        raise Malformed(
            "BAD_WINDOW", f"window: must be one of WINDOW_1M, WINDOW_15M, WINDOW_1H, WINDOW_24H, not {window}"
        )
    return span
