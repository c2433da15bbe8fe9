"""StatsService: rates, latencies and tokens, once or again and again."""

# ruff: noqa: ARG002, N802 - names and arguments of handlers are the contract's

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
from ccr_rpc.v1 import stats_pb2, stats_pb2_grpc

from ccr_control.core.stats import Stats
from ccr_control.services.wire import stats_message

MIN_INTERVAL_S = 0.1
MAX_INTERVAL_S = 3600.0
DEFAULT_INTERVAL_S = 1.0


class StatsServicer(stats_pb2_grpc.StatsServiceServicer):
    """Shows statistics."""

    def __init__(self, stats: Stats, now: Callable[[], float]) -> None:
        self._stats, self._now = stats, now

    async def GetStats(
        self, request: stats_pb2.GetStatsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> stats_pb2.GetStatsResponse:
        """Statistics as of now."""
        return stats_pb2.GetStatsResponse(stats=self._message())

    async def WatchStats(  # type: ignore[override]  # it writes
        self, request: stats_pb2.WatchStatsRequest, context: grpc.aio.ServicerContext[Any, Any]
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
            await context.write(stats_pb2.WatchStatsResponse(stats=self._message()))
            await asyncio.sleep(interval_s)

    def _message(self) -> stats_pb2.Stats:
        at_s = self._now()
        return stats_message(self._stats.report(at_s), at_s)
