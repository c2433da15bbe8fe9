"""A second attempt beside a slow first one: the first of the two to begin with content is the answer.

A rival belongs to an exchange (shell/exchange.py) and consumes its own connection until it is decided. If it wins, or if the first
attempt fails, the exchange takes it over as it is: connection, head, and what it holds back. If it loses, nobody notices.
"""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import TYPE_CHECKING

from ccr_data.core import answers
from ccr_data.core.budget import Reservation
from ccr_data.core.framing import Body, gathered
from ccr_data.core.http1 import AnswerHead
from ccr_data.core.records import AttemptRecord, Reason
from ccr_data.core.snapshot import Target
from ccr_data.core.sse import Beginning
from ccr_data.shell.mending import Pieces

MAX_HELD_BYTES = 256 << 10

if TYPE_CHECKING:
    from ccr_data.shell.cloud_connection import Upstream
    from ccr_data.shell.exchange import Exchange
    from ccr_data.shell.upstream import Pool, UpstreamConnection


class Rival:
    """The second attempt, until it has won, lost or been taken over."""

    __slots__ = (
        "_exchange",
        "_is_fresh",
        "_pool",
        "attempt",
        "beginning",
        "body",
        "connecting",
        "connection",
        "head",
        "held",
        "held_size",
        "is_over",
        "part",
        "target",
    )

    def __init__(self, exchange: Exchange, target: Target, attempt: AttemptRecord, part: Reservation | None) -> None:
        self._exchange = exchange
        self._pool: Pool | None = None
        self._is_fresh = False
        self.target = target
        self.attempt = attempt
        self.part = part
        self.connecting: asyncio.Task[None] | None = None
        self.connection: Upstream | None = None
        self.head: AnswerHead | None = None
        self.body = Body.NONE
        self.held: Pieces = []
        self.held_size = 0
        self.beginning = Beginning()
        self.is_over = False  # decided; if its exchange took it over, what it hears is the exchange's

    def start(self, pool: Pool) -> None:
        """Get a connection and send the request."""
        self._pool = pool
        connection = None if self._is_fresh else pool.take(self.target.provider.origin)
        if connection is None:
            self._is_fresh = True
            provider = self.target.provider
            self.connecting = pool.connect(provider.origin, provider.timeouts.connect_s, self._connected)
        else:
            self._send(connection)

    def _connected(self, connection: UpstreamConnection | None) -> None:
        self.connecting = None
        if self.is_over:
            self._exchange.connected(self, connection)
        elif connection is None:
            self._lose(Reason.CONNECT)
        else:
            self._send(connection)

    def _send(self, connection: UpstreamConnection) -> None:
        self.connection = connection
        if self.part is not None:
            self.part.sent(perf_counter())
        if not self._exchange.send_for(self, connection):
            self._lose(Reason.HEDGED)

    # --- what the upstream says -----------------------------------------------------------------------------------

    def head_received(self, head: AnswerHead, body: Body) -> None:
        """The rival's answer begins. Only a stream can win."""
        self.head, self.body = head, body
        self.attempt.status = head.status
        self.attempt.first_byte_s = perf_counter() - self.attempt.began_s
        if head.status != 200 or not head.is_event_stream:
            self._lose(answers.judge(head.status, is_own_key=self.target.key is not None) or Reason.HEDGED)

    def takes_whole(self, head: AnswerHead) -> bool:  # noqa: ARG002
        """Only a stream can win."""
        return False

    def whole_received(self, head: AnswerHead, body: bytes) -> None:
        """Not called."""
        raise NotImplementedError

    def body_received(self, data: bytes, ranges: list[tuple[int, int]]) -> None:
        """A piece of its stream."""
        self.held.append((data, ranges))
        self.held_size += len(data)
        data, ranges = gathered(data, ranges)
        for start, end in ranges:
            self.beginning.feed(data[start:end])
        if self.beginning.verdict == "error":
            self._lose(Reason.STREAM_ERROR)
        elif self.beginning.verdict is not None:
            self._exchange.overtaken(self)
        elif self.held_size > MAX_HELD_BYTES:  # pings without end
            self._lose(Reason.HEDGED)

    def answer_ended(self) -> None:
        """It ended without any content."""
        self.connection = None
        self._lose(Reason.BROKEN)

    def answer_broken(self, *, is_stale: bool) -> None:
        """The upstream hung up."""
        self.connection = None
        if is_stale and not self._is_fresh and self._pool is not None:
            self._is_fresh = True
            self.start(self._pool)
        else:
            self._lose(Reason.BROKEN)

    def flush(self) -> None:
        """The connection has handed over all of a read; what of it was the winner's goes out."""
        if self.is_over:
            self._exchange.flush()

    # --- the end --------------------------------------------------------------------------------------------------

    def hang_up(self) -> None:
        """Stop, wherever it is."""
        self.is_over = True
        if self.connecting is not None:
            self.connecting.cancel()
            self.connecting = None
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.abandon()

    def _lose(self, reason: Reason) -> None:
        self.hang_up()
        self._exchange.rival_lost(self, reason)
