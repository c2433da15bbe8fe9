"""Brings numbered batches to the control plane: one usage stream, any number of journals, each in its order.

A lane is a journal on its way: that of this process, and those of dead ones. A new stream begins in every lane with
what is not acknowledged; batches that the control plane has already counted are its to recognise.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NoReturn

import grpc
import grpc.aio
from ccr_rpc.v1 import usage_pb2
from google.protobuf.message import DecodeError

from ccr_data.core.budget import Lease
from ccr_data.core.node import NodeIdentity
from ccr_data.shell.control_link import Link, LinkLost, LinkPolicy, Stream, read, write
from ccr_data.shell.lanes import Lane
from ccr_data.shell.logs import Log
from ccr_data.shell.usage_wire import hello_request, lease_of

REPORT_METHOD = "/ccr.rpc.v1.UsageService/ReportUsage"
_GAP = re.compile(r"journal (\S+): expected number (\d{1,18})\b")

log = Log("usage")


@dataclass(slots=True)
class _Talk:
    """One stream."""

    call: Stream
    silence: asyncio.Timeout  # ends it if an acknowledgement is overdue
    sent: dict[Lane, int] = field(default_factory=dict)

    @property
    def is_waiting(self) -> bool:
        """Whether anything was sent that is not acknowledged."""
        return any(sent > lane.acknowledged for lane, sent in self.sent.items())


class Delivery:
    """Sends what the lanes hold, whenever there is a control plane."""

    def __init__(
        self,
        node: NodeIdentity,
        lanes: list[Lane],
        policy: LinkPolicy,
        take_lease: Callable[[Lease], None] = lambda _: None,
        begins: Callable[[], None] = lambda: None,
    ) -> None:
        """`begins` is called with each new stream."""
        self._begins = begins
        self._node = node
        self._take_lease = take_lease
        self._lanes = lanes
        self._policy = policy
        self._news = asyncio.Event()
        self.is_talking = False  # a control plane seems to be there
        self.acked = asyncio.Event()  # set at each acknowledgement

    def has_news(self) -> None:
        """A lane may have something to send."""
        self._news.set()

    def add(self, lane: Lane) -> None:
        """One more journal to deliver."""
        self._lanes.append(lane)
        self.has_news()

    async def talk(self, link: Link) -> None:
        """Send and take acknowledgements on one connection. Raises what ended it."""
        try:
            async with link.stream(REPORT_METHOD) as call, asyncio.timeout(None) as silence:
                await write(call, hello_request(self._node), self._policy.acknowledge_s)
                self.is_talking = True
                self._begins()
                talk = _Talk(call, silence)
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._send(talk), name="usage batches")
                    await self._take_acks(talk, link)
        except* grpc.aio.AioRpcError as group:
            self._heed_gap(group)
            raise
        finally:
            self.is_talking = False

    async def _send(self, talk: _Talk) -> NoReturn:
        while True:
            self._news.clear()
            if not await self._send_next(talk):
                await self._news.wait()  # ended with the stream

    async def _send_next(self, talk: _Talk) -> bool:
        """Send one batch; whether there was one. This process's own come first: they are news."""
        for lane in tuple(self._lanes):
            try:
                found = await lane.next_request(talk.sent.get(lane, lane.acknowledged))
            except OSError as error:
                log.warning("usage_spool_unreadable", journal=lane.sent_as, reason=error.strerror or str(error))
                self._lanes.remove(lane)
                continue
            if found is not None:
                await self._send_one(talk, lane, *found)
                return True
        return False

    async def _send_one(self, talk: _Talk, lane: Lane, number: int, request: bytes) -> None:
        if not talk.is_waiting:
            talk.silence.reschedule(asyncio.get_running_loop().time() + self._policy.acknowledge_s)
        talk.sent[lane] = number
        await write(talk.call, request, self._policy.acknowledge_s)

    async def _take_acks(self, talk: _Talk, link: Link) -> NoReturn:
        while True:
            message = await read(talk.call)  # bounded by `silence` while something is on the way
            try:
                response = usage_pb2.ReportUsageResponse.FromString(message)
            except DecodeError:
                raise LinkLost("the control plane sent something that is not in the contract") from None
            link.say_alive()
            for lease in response.leases:
                self._take_lease(lease_of(lease))
            await self._ack(response.journal, response.acknowledged)
            overdue_s = asyncio.get_running_loop().time() + self._policy.acknowledge_s
            talk.silence.reschedule(overdue_s if talk.is_waiting else None)

    async def _ack(self, journal: str, number: int) -> None:
        lane = self._lane(journal)
        if lane is not None and await lane.ack(number):
            self._lanes.remove(lane)
        self.acked.set()
        self.has_news()

    def _lane(self, journal: str) -> Lane | None:
        return next((lane for lane in self._lanes if lane.sent_as == journal), None)

    def _heed_gap(self, group: BaseExceptionGroup[grpc.aio.AioRpcError]) -> None:
        """Begin the next stream where the control plane wants it to begin, if that is what ended this one."""
        for error in _leaves(group):
            found = _GAP.search(error.details() or "") if error.code() is grpc.StatusCode.FAILED_PRECONDITION else None
            lane = self._lane(found[1]) if found else None
            if found is None or lane is None:
                continue
            before = lane.sent_as
            lane.resume_at(int(found[2]))
            if lane.sent_as != before:
                log.error("usage_journal_renamed", journal=before, sent_as=lane.sent_as, expected_number=int(found[2]))
            return


def _leaves(group: BaseExceptionGroup[grpc.aio.AioRpcError]) -> list[grpc.aio.AioRpcError]:
    found: list[grpc.aio.AioRpcError] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found
