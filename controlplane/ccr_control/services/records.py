"""RecordService: what requests did, one by one: the newest, and those to come."""

# ruff: noqa: ARG002, N802 - names and arguments of handlers are the contract's

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import islice
from typing import Any, TypeAlias, cast

import grpc
import grpc.aio
from ccr_rpc.v1 import records_pb2, records_pb2_grpc

from ccr_control.core.errors import Malformed
from ccr_control.core.recent import Filter, Noted, Recent
from ccr_control.services.events import page_begin, page_size
from ccr_control.services.record_wire import as_it_is, filter_of, tail_bytes
from ccr_control.shell.news import News

MAX_PAGE = 1000
PAGE_UNLESS_SAID = 100
MAX_BACKLOG = 1000
MAX_AT_ONCE = 1000
"""Of the newest records, whether they fit or not. A caller that is further behind loses the older ones."""
GATHER_S = 0.1
"""Records that come in this time go in one message."""

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"  # generic for type checkers only


class RecordServicer(records_pb2_grpc.RecordServiceServicer):
    """Shows records."""

    def __init__(self, recent: Recent, news: News) -> None:
        self._recent, self._news = recent, news

    async def ListRecords(
        self, request: records_pb2.ListRecordsRequest, context: Context
    ) -> records_pb2.ListRecordsResponse:
        """The newest records, newest first."""
        size = page_size(request.page_size, PAGE_UNLESS_SAID, MAX_PAGE)
        before = page_begin(request.page_token) or self._recent.last + 1
        which = filter_of(request.filter, _seconds(request))
        found = list(islice(self._recent.before(before, which), size + 1))
        answer = records_pb2.ListRecordsResponse(
            records=[records_pb2.StoredRecord.FromString(one.stored) for one in found[:size]]
        )
        if len(found) > size:
            answer.next_page_token = str(found[size - 1].number)
        return answer

    async def TailRecords(  # type: ignore[override]  # it writes
        self, request: records_pb2.TailRecordsRequest, context: Context
    ) -> None:
        """Records as they arrive, until the caller hangs up."""
        if not 0 <= request.backlog <= MAX_BACKLOG:
            raise Malformed("BAD_BACKLOG", f"backlog: 0 to {MAX_BACKLOG}, not {request.backlog}")
        write = cast("Callable[[bytes], Any]", context.write)  # its serializer takes what is encoded already
        tail = Tail(self._recent, filter_of(request.filter), request.backlog)
        first = tail.backlog()
        await write(tail_bytes(first, 0))  # also if there is none: the caller knows that it is heard
        while True:
            records, skipped = tail.new()
            if records or skipped:
                await write(tail_bytes(records, skipped))  # waits for a caller that does not read
                await asyncio.sleep(GATHER_S)
            elif tail.is_behind:
                continue
            else:
                await self._news.wait()


class Tail:
    """How far somebody has followed the records."""

    def __init__(self, recent: Recent, which: Filter, backlog: int) -> None:
        self._recent, self._which, self._backlog = recent, which, backlog
        self._seen = recent.last

    def backlog(self) -> list[Noted]:
        """The newest that fit, oldest first, of those that are not new."""
        return list(islice(self._recent.before(self._seen + 1, self._which), self._backlog))[::-1]

    @property
    def is_behind(self) -> bool:
        """Whether there are new ones, whether they fit or not."""
        return self._recent.last > self._seen

    def new(self, most: int = MAX_AT_ONCE) -> tuple[list[Noted], int]:
        """Those that came since and fit, oldest first; and how many (whether they would fit or not) were left out."""
        if not self.is_behind:
            return [], 0
        found, skipped = self._recent.after(self._seen, most)
        self._seen = self._recent.last
        return [one for one in found if self._which.fits(one.about)], skipped


def _seconds(request: records_pb2.ListRecordsRequest) -> float:
    return request.since.seconds + request.since.nanos / 1e9 if request.HasField("since") else 0.0


def add_record_servicer(servicer: RecordServicer, server: grpc.aio.Server) -> None:
    """Add it to a server; what it tails is encoded already."""
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "ListRecords": grpc.unary_unary_rpc_method_handler(
            servicer.ListRecords,
            request_deserializer=records_pb2.ListRecordsRequest.FromString,
            response_serializer=records_pb2.ListRecordsResponse.SerializeToString,
        ),
        "TailRecords": grpc.unary_stream_rpc_method_handler(
            servicer.TailRecords,
            request_deserializer=records_pb2.TailRecordsRequest.FromString,
            response_serializer=as_it_is,
        ),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("ccr.rpc.v1.RecordService", handlers),))
