"""Every handler is wrapped: callers never see an exception's text, and long calls end with the server."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from ccr_control.core.addresses import Address
from ccr_control.shell.access import Doorman
from ccr_control.shell.listeners import Services, listening
from ccr_rpc.v1 import stats_pb2, stats_pb2_grpc
from support.control import CHANNEL_OPTIONS

SECRET = "the password is 12345"


class Failing(stats_pb2_grpc.StatsServiceServicer):
    """Fails, or waits for ever; one handler yields, which gRPC allows, too."""

    async def GetStats(self, request: Any, context: Any) -> stats_pb2.GetStatsResponse:
        raise RuntimeError(SECRET)

    async def WatchStats(self, request: Any, context: Any) -> AsyncIterator[stats_pb2.WatchStatsResponse]:
        yield stats_pb2.WatchStatsResponse()
        if request.HasField("interval"):
            raise RuntimeError(SECRET)
        await asyncio.Event().wait()


def failing() -> Services:
    services = Services()
    services.add("ccr.rpc.v1.StatsService", stats_pb2_grpc.add_StatsServiceServicer_to_server, Failing())
    return services


async def test_callers_see_that_it_failed_and_the_log_says_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "s.sock"
    async with (
        listening(path, Address("127.0.0.1", 0), Doorman("token", time.time), failing()),
        grpc.aio.insecure_channel(f"unix:{path}", options=CHANNEL_OPTIONS) as channel,
    ):
        stub = stats_pb2_grpc.StatsServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as unary:
            await stub.GetStats(stats_pb2.GetStatsRequest())
        request = stats_pb2.WatchStatsRequest()
        request.interval.FromSeconds(1)
        with pytest.raises(grpc.aio.AioRpcError) as stream:
            async for _ in stub.WatchStats(request):
                pass
    for caught in (unary.value, stream.value):
        assert (caught.code(), caught.details()) == (grpc.StatusCode.INTERNAL, "internal error")
    failed = [record for record in caplog.records if record.message == "handler_failed"]
    assert [record.levelno for record in failed] == [logging.ERROR] * 2
    assert all(record.exc_info is not None and SECRET in str(record.exc_info[1]) for record in failed)


async def test_a_call_that_waits_for_ever_ends_in_order_when_the_server_stops(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    async with grpc.aio.insecure_channel(f"unix:{path}", options=CHANNEL_OPTIONS) as channel:
        async with listening(path, Address("127.0.0.1", 0), Doorman("token", time.time), failing()):
            call = stats_pb2_grpc.StatsServiceStub(channel).WatchStats(stats_pb2.WatchStatsRequest())
            await call.read()
            began = time.monotonic()
        assert time.monotonic() - began < 0.5
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK
