"""A connection to a cloud, as an exchange sees it: what comes through it is Anthropic's, whatever the cloud said.

Stands between an UpstreamConnection and its consumer, for one request. Event streams are turned into server-sent events while they
pass; errors and counts are kept until they are whole (they are small) and then told in Anthropic's shape, status included, so that
everything behind it judges them as it judges Anthropic's. All other answers pass as they come.
"""

from __future__ import annotations

import asyncio

from ccr_data.core.eventstream import EventStream
from ccr_data.core.framing import Body
from ccr_data.core.http1 import AnswerHead, ChunkWalker
from ccr_data.core.snapshot import Target
from ccr_data.providers import clouds
from ccr_data.providers.adapter import ClientRequest, UpstreamRequest
from ccr_data.providers.clouds import Form
from ccr_data.shell.upstream import Consumer, UpstreamConnection

WHOLE_LIMIT_S = 2.0  # for the rest of an error: its status says most of it


class CloudConnection:
    """A connection during one request. Has what an exchange uses of an UpstreamConnection."""

    __slots__ = (
        "_events",
        "_form",
        "_head",
        "_hearer",
        "_kept",
        "_kept_bytes",
        "_raw",
        "_request",
        "_target",
        "_timer",
        "consumer",
    )

    def __init__(self, raw: UpstreamConnection, request: ClientRequest, target: Target) -> None:
        self._raw: UpstreamConnection | None = raw  # until the answer has ended
        self._request: ClientRequest | None = request  # until the head is there
        self._target = target
        self.consumer: Consumer | None = None
        self._hearer: Consumer | None = None  # who heard the last piece, and is to flush
        self._form = Form.ANTHROPICS
        self._events: EventStream | None = None
        self._head: AnswerHead | None = None  # of an answer that is kept until it is whole
        self._kept: list[bytes] = []
        self._kept_bytes = 0
        self._timer: asyncio.TimerHandle | None = None

    # --- what an exchange uses --------------------------------------------------------------------------------------

    @property
    def walker(self) -> ChunkWalker | None:
        """Over the answer's chunks, where they reach the consumer."""
        return self._raw.walker if self._raw is not None and self._form is Form.ANTHROPICS else None

    def send(self, consumer: Consumer, method: bytes, request: UpstreamRequest) -> None:
        """Send a request; its answer goes to `consumer`."""
        assert self._raw is not None
        self.consumer = self._hearer = consumer
        self._raw.send(self, method, request)

    def abandon(self) -> None:
        """Hang up at once; the consumer hears nothing more."""
        self.consumer = None
        self._stop_timer()
        raw, self._raw = self._raw, None
        if raw is not None:
            raw.abandon()

    def pause(self) -> None:
        """Stop reading: the client is slower than the provider."""
        if self._raw is not None:
            self._raw.pause()

    def resume(self) -> None:
        """Read again."""
        if self._raw is not None:
            self._raw.resume()

    # --- what the cloud says ----------------------------------------------------------------------------------------

    def head_received(self, head: AnswerHead, body: Body) -> None:
        """The answer begins: what is it?"""
        consumer, request = self.consumer, self._request
        if consumer is None or request is None:
            return
        self._request = None
        self._hearer = consumer
        head = clouds.named(head)
        self._form = form = clouds.form_of(head, request, self._target)
        if form is Form.ANTHROPICS:
            consumer.head_received(head, body)
        elif form is Form.EVENTS:
            self._events = EventStream()
            consumer.head_received(clouds.stream_head(head), Body.CONVERTED)
        else:
            self._head = head
            self._timer = asyncio.get_running_loop().call_later(WHOLE_LIMIT_S, self._tell_unfinished)

    def takes_whole(self, head: AnswerHead) -> bool:  # noqa: ARG002
        """What it is has to be found out first."""
        return False

    def whole_received(self, head: AnswerHead, body: bytes) -> None:
        """Not called."""
        raise NotImplementedError

    def body_received(self, data: bytes, ranges: list[tuple[int, int]]) -> None:
        """A piece of the answer."""
        self._hearer = consumer = self.consumer
        if consumer is None:
            return
        if self._form is Form.ANTHROPICS:
            consumer.body_received(data, ranges)
        elif self._events is not None:
            for start, end in ranges:
                self._convert(self._events, data[start:end])
        else:
            for start, end in ranges:
                self._kept.append(data[start:end])
                self._kept_bytes += end - start
            if self._kept_bytes > clouds.MAX_WHOLE_BYTES:
                self._tell_unfinished()

    def _convert(self, events: EventStream, payload: bytes) -> None:
        text = events.feed(payload)
        if text and self.consumer is not None:
            self.consumer.body_received(text, [(0, len(text))])
        if events.damage:
            self._break()

    def answer_ended(self) -> None:
        """The answer is complete; the raw connection is free for others."""
        self._raw = None
        if self._head is not None:
            self._tell(self._head)
        elif self._events is not None and not self._events.is_whole:
            self._break()
        else:
            self._ended()

    def answer_broken(self, *, is_stale: bool) -> None:
        """The cloud hung up."""
        self._raw = None
        if self._head is not None:
            self._tell(self._head)
        elif self._events is not None and self._events.is_whole:
            self._ended()
        else:
            self._break(is_stale=is_stale)

    def flush(self) -> None:
        """Everything that one read brought has been handed over."""
        if self._hearer is not None:
            self._hearer.flush()

    # --- the end ----------------------------------------------------------------------------------------------------

    def _tell_unfinished(self) -> None:
        """An error that does not end: what came of it has to do."""
        raw, self._raw = self._raw, None
        if raw is not None:
            raw.abandon()
        if self._head is not None:
            self._tell(self._head)
        self.flush()

    def _tell(self, head: AnswerHead) -> None:
        """An answer that was kept, in Anthropic's shape."""
        self._stop_timer()
        self._head = None
        read = clouds.counted if self._form is Form.COUNT else clouds.told
        head, body = read(head, b"".join(self._kept)[: clouds.MAX_WHOLE_BYTES])
        self._kept.clear()
        if self.consumer is not None:
            self.consumer.head_received(head, Body.LENGTH)
        if self.consumer is not None:
            self.consumer.body_received(body, [(0, len(body))])
        self._ended()

    def _ended(self) -> None:
        consumer, self.consumer = self.consumer, None
        if consumer is not None:
            consumer.answer_ended()

    def _break(self, *, is_stale: bool = False) -> None:
        raw, self._raw = self._raw, None
        if raw is not None:
            raw.abandon()
        consumer, self.consumer = self.consumer, None
        if consumer is not None:
            consumer.answer_broken(is_stale=is_stale)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


Upstream = UpstreamConnection | CloudConnection  # what an exchange hears an answer from
