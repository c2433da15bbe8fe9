"""Connections to providers: pooled, kept alive, and parsing answers straight into their consumer.

An answer never passes through a task, a future or a stream reader: `data_received` hands each piece on in the same call. The pool
is last in, first out, so that idle connections age at its other end.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Protocol, cast

from ccr_data.core.addresses import is_public
from ccr_data.core.errors import UpstreamBroken
from ccr_data.core.framing import Body, body_of
from ccr_data.core.http1 import AnswerHead, ChunkWalker, LineMemory, parse_answer_head
from ccr_data.core.snapshot import Origin
from ccr_data.providers.adapter import UpstreamRequest
from ccr_data.shell.logs import Log

MAX_HEAD_BYTES = 256 << 10
MANY_CHUNKS = 1024  # in one read: they are walked one by one, and up to 32 reads come at a time
MAX_INTERIM_ANSWERS = 32  # 1xx before the answer itself
MAX_IDLE_S = 55.0  # many servers hang up at 60 s
MAX_ADDRESSES = 4  # of one name, that are tried one after another
JOINED_BELOW_BYTES = 64 << 10  # smaller requests leave as one piece


log = Log("upstream")

NO_BODY, LENGTH, CHUNKED, UNTIL_CLOSE, _ = Body  # as globals: faster than through the class


class Consumer(Protocol):
    """Who gets an answer. Every call may detach the connection."""

    def head_received(self, head: AnswerHead, body: Body) -> None:
        """The head is there."""
        ...

    def takes_whole(self, head: AnswerHead) -> bool:
        """Whether it takes an answer in one call that came in one read: `whole_received` then, and nothing else."""
        ...

    def whole_received(self, head: AnswerHead, body: bytes) -> None:
        """A whole answer. The connection is detached already."""
        ...

    def body_received(self, data: bytes, ranges: list[tuple[int, int]]) -> None:
        """A piece of the body as it came; its payload is at `ranges`."""
        ...

    def answer_ended(self) -> None:
        """The answer is complete. The connection is detached already."""
        ...

    def answer_broken(self, *, is_stale: bool) -> None:
        """The connection is gone before the end; `is_stale` if it was a kept-alive one that never said a word."""
        ...

    def flush(self) -> None:
        """Everything that one read brought has been handed over."""
        ...


class UpstreamConnection(asyncio.Protocol):
    """One connection, used for one request after another."""

    __slots__ = (
        "_body",
        "_buffer",
        "_interim_count",
        "_is_breathing",
        "_is_paused",
        "_left",
        "_method",
        "_pool",
        "_stays_open",
        "consumer",
        "idle_since_s",
        "origin",
        "transport",
        "use_count",
        "walker",
    )

    def __init__(self, pool: Pool, origin: Origin) -> None:
        self._pool = pool
        self.origin = origin
        self.transport: asyncio.Transport | None = None
        self.consumer: Consumer | None = None
        self.walker: ChunkWalker | None = None  # set while a chunked body passes
        self.use_count = 0
        self.idle_since_s = 0.0
        self._buffer = b""  # of an incomplete head
        self._body: Body | None = None  # None: the head is still to come
        self._interim_count = 0
        self._left = 0
        self._method = b""
        self._stays_open = False
        self._is_paused = False
        self._is_breathing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self.transport = cast(asyncio.Transport, transport)

    def send(self, consumer: Consumer, method: bytes, request: UpstreamRequest) -> None:
        """Send a request; its answer goes to `consumer`."""
        assert self.consumer is None
        assert self.transport is not None
        self.consumer = consumer
        self.use_count += 1
        self._method = method
        self._body = None
        self.walker = None
        if request.size < JOINED_BELOW_BYTES:
            self.transport.write(b"".join((request.head, *request.body)))
        else:
            self.transport.writelines((request.head, *request.body))

    def abandon(self) -> None:
        """Hang up at once; the consumer hears nothing more."""
        self.consumer = None
        if self.transport is not None:
            self.transport.abort()

    def pause(self) -> None:
        """Stop reading: the client is slower than the provider."""
        if self.transport is not None and not self._is_paused and not self.transport.is_closing():
            self._is_paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        if self.transport is not None and self._is_paused:
            self._is_paused = False
            if not self.transport.is_closing() and not self._is_breathing:
                self.transport.resume_reading()

    def _breathe(self) -> None:
        """Let everybody else have a turn before the next read: this one was much work, and many may be waiting in the kernel."""
        if self.transport is not None and not self._is_breathing and not self.transport.is_closing():
            self._is_breathing = True
            self.transport.pause_reading()
            asyncio.get_running_loop().call_soon(self._breathed)

    def _breathed(self) -> None:
        self._is_breathing = False
        if self.transport is not None and not self._is_paused and not self.transport.is_closing():
            self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        consumer = self.consumer
        if consumer is None:  # nobody asked: this is no answer of ours
            self.abandon()
            return
        try:
            if self._body is None:
                data = self._read_head(data, consumer)
            if data and self.consumer is not None:
                self._read_body(data, self.consumer)
        except UpstreamBroken:
            now, self.consumer = self.consumer, None
            self.abandon()
            if now is not None:
                now.answer_broken(is_stale=False)
        consumer.flush()

    def _read_head(self, data: bytes, consumer: Consumer) -> bytes:
        """Take the head from the front of the data; what follows it is returned."""
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        while self._body is None:
            end = data.find(b"\r\n\r\n")
            if end > MAX_HEAD_BYTES:
                raise UpstreamBroken("the answer's head is too long")
            if end < 0:
                if len(data) > MAX_HEAD_BYTES:
                    raise UpstreamBroken("the answer's head is too long")
                self._buffer = data
                return b""
            head = parse_answer_head(data[:end], self._pool.memory)
            data = data[end + 4 :]
            if head.status < 200:  # 100 Continue, 103 Early Hints
                self._interim_count += 1
                if head.status == 101 or self._interim_count > MAX_INTERIM_ANSWERS:  # nobody asked for another protocol
                    raise UpstreamBroken("the answer does not begin")
                continue
            self._interim_count = 0
            self._body = body = body_of(head, self._method)
            self._stays_open = head.is_keep_alive and body is not UNTIL_CLOSE
            if body is CHUNKED:
                self.walker = ChunkWalker()
            elif body is LENGTH:
                self._left = head.content_length or 0
                if self._left == len(data) and consumer.takes_whole(head):
                    self._let_go(has_rest=False)
                    consumer.whole_received(head, data)
                    return b""
            consumer.head_received(head, body)
            if body is NO_BODY and self.consumer is consumer:
                self._end(consumer, has_rest=bool(data))
                return b""
        return data

    def _read_body(self, data: bytes, consumer: Consumer) -> None:
        if self.walker is not None:
            walker = self.walker
            walker.feed(data)
            if len(walker.ranges) > MANY_CHUNKS:
                self._breathe()
            if not walker.is_done:
                consumer.body_received(data, walker.ranges)
                return
            rest = len(data) - walker.rest_at
            consumer.body_received(data[: walker.rest_at] if rest else data, walker.ranges)
            if self.consumer is not None:  # it may be another one by now (shell/rival.py)
                self._end(self.consumer, has_rest=rest > 0)
            return
        size = len(data)
        if self._body is LENGTH:
            rest = size - self._left
            if rest >= 0:
                size, self._left = self._left, 0
                consumer.body_received(data[:size] if rest else data, [(0, size)])
                if self.consumer is not None:
                    self._end(self.consumer, has_rest=rest > 0)
                return
            self._left -= size
        consumer.body_received(data, [(0, size)])

    def _end(self, consumer: Consumer, *, has_rest: bool) -> None:
        """The answer is complete."""
        self._let_go(has_rest=has_rest)
        consumer.answer_ended()

    def _let_go(self, *, has_rest: bool) -> None:
        """Keep the connection if both ends agree on where they are."""
        self.consumer = None
        transport = self.transport
        assert transport is not None
        if self._stays_open and not has_rest and not transport.is_closing() and transport.get_write_buffer_size() == 0:
            self.resume()
            self._pool.give_back(self)
        else:
            transport.abort()

    def eof_received(self) -> bool:
        """Called by the loop; the transport closes itself then."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        self._pool.forget(self)
        consumer, self.consumer = self.consumer, None
        if consumer is None:
            return
        if self._body is UNTIL_CLOSE and exc is None:
            consumer.answer_ended()
        else:
            consumer.answer_broken(is_stale=self._body is None and not self._buffer and self.use_count > 1)
        consumer.flush()


class Pool:
    """Idle connections by origin, and the making of new ones."""

    def __init__(self) -> None:
        self.memory = LineMemory(of_request=False)
        self.clock_s = 0.0  # of the last sweep
        self._idle: dict[Origin, list[UpstreamConnection]] = {}
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._said: set[Origin] = set()  # of which names it was said that they resolve to private addresses
        self._connecting: set[asyncio.Task[None]] = set()

    @property
    def idle_count(self) -> int:
        """How many connections wait for work."""
        return sum(map(len, self._idle.values()))

    def take(self, origin: Origin) -> UpstreamConnection | None:
        """The connection that was used last, or None."""
        idle = self._idle.get(origin)
        while idle:
            connection = idle.pop()
            if connection.transport is not None and not connection.transport.is_closing():
                return connection
        return None

    def give_back(self, connection: UpstreamConnection) -> None:
        """The connection is free for another request."""
        connection.idle_since_s = self.clock_s
        idle = self._idle.get(connection.origin)
        if idle is None:
            self._idle[connection.origin] = [connection]
        else:
            idle.append(connection)

    def forget(self, connection: UpstreamConnection) -> None:
        """The connection is gone."""
        idle = self._idle.get(connection.origin)
        if idle and connection in idle:
            idle.remove(connection)

    def connect(
        self, origin: Origin, timeout_s: float, then: Callable[[UpstreamConnection | None], None]
    ) -> asyncio.Task[None]:
        """Make a connection in a task of its own; `then` gets it, or None if there is none within the time."""

        async def run() -> None:
            then(await self._try_connect(origin, timeout_s))

        task = asyncio.get_running_loop().create_task(run(), name=f"connect {origin.host}:{origin.port}")
        self._connecting.add(task)  # held here, and cancelled by close()
        task.add_done_callback(self._connecting.discard)
        return task

    async def _try_connect(self, origin: Origin, timeout_s: float) -> UpstreamConnection | None:
        loop = asyncio.get_running_loop()
        try:
            context = self._context(origin.ca_pem) if origin.scheme == "https" else None
            async with asyncio.timeout(timeout_s):
                if origin.is_public:
                    return await self._connect_publicly(origin, context)
                _, connection = await loop.create_connection(
                    lambda: UpstreamConnection(self, origin), origin.host, origin.port, ssl=context
                )
        except (OSError, TimeoutError, ssl.SSLError):
            return None
        return connection

    async def _connect_publicly(self, origin: Origin, context: ssl.SSLContext | None) -> UpstreamConnection | None:
        """Connect to one of the public addresses that the name has; the very ones that were looked at. Raises OSError."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(one[4][0]) for one in found))
        public = [address for address in addresses if is_public(address)]
        if len(public) < len(addresses) and origin not in self._said:
            self._said.add(origin)
            log.warning(
                "private_address_refused",
                host=origin.host,
                addresses=[address for address in addresses if address not in public],
                consequence="the provider is not reached there; if that is meant, set allow_private: true for it",
            )
        for address in public[:MAX_ADDRESSES]:
            try:
                _, connection = await loop.create_connection(
                    lambda: UpstreamConnection(self, origin),
                    address,
                    origin.port,
                    ssl=context,
                    server_hostname=origin.host if context is not None else None,
                )
            except OSError:  # of TLS, too
                continue
            return connection
        return None

    def _context(self, ca_pem: str) -> ssl.SSLContext:
        """One TLS context for each set of trusted certificates: making one takes 20 ms."""
        context = self._contexts.get(ca_pem)
        if context is None:
            context = ssl.create_default_context(cadata=ca_pem or None)
            context.set_alpn_protocols(["http/1.1"])
            self._contexts[ca_pem] = context
        return context

    def sweep(self, now_s: float) -> None:
        """Hang up what has been idle for too long. `now_s` is of time.perf_counter()."""
        for origin, idle in list(self._idle.items()):
            while idle and now_s - idle[0].idle_since_s > MAX_IDLE_S:
                idle.pop(0).abandon()
            if not idle:
                del self._idle[origin]

    def close(self) -> None:
        """Hang up everything that is idle, and stop connecting."""
        for task in tuple(self._connecting):
            task.cancel()
        for idle in tuple(self._idle.values()):
            for connection in tuple(idle):
                connection.abandon()
        self._idle.clear()
