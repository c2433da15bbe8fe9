"""The clients' side: one protocol object for each connection, reading requests and handing them to the relay.

HTTP/1.1 with keep-alive and pipelining (one request at a time is served; what comes early waits, bounded). Heads and bodies are bounded
in size and time. Source of the limits: docs/adr/0003-own-http.md.
"""

from __future__ import annotations

import asyncio
import enum
import re
import select
import socket
from time import perf_counter
from typing import cast

from ccr_data.core import answers
from ccr_data.core.admit import Admitted
from ccr_data.core.errors import (
    BadRequest,
    BodyTooLarge,
    HeadTooLarge,
    RequestError,
    TooSlow,
    Unauthorized,
    UpstreamBroken,
)
from ccr_data.core.http1 import ChunkWalker, LineMemory, RequestHead, RequestHeads, expects_continue
from ccr_data.core.snapshot import Snapshot
from ccr_data.shell.exchange import Exchange
from ccr_data.shell.logs import Log
from ccr_data.shell.relay import Relay
from ccr_data.shell.upstream import MANY_CHUNKS

MAX_HEAD_BYTES = 128 << 10
MAX_WAITING_BYTES = 64 << 10  # of requests that came before their turn
KEEP_ALIVE_S = 300.0
DEFAULT_READ_TIMEOUT_S = 60.0
SWEEP_INTERVAL_S = 0.25
WRITE_HIGH_WATER_BYTES = 256 << 10
BACKLOG = 4096
FULL_IDLE_S = 1.0  # with too many clients, who asked nothing for so long makes room
FULL_SAID_EVERY_S = 10.0
DRAIN_IDLE_S = 1.0  # a client may be sending right now on a connection that was in use a moment ago
DRAIN_EMPTY_LOOKS = 3
DRAINED_BODY_BYTES = 4 << 20  # of a refused request; a client that is still sending would not read the answer
JOINED_PART_BYTES = 16 << 10
LEAST_BYTES_PER_S = 500  # of a body, once it has had its first time to arrive in
LEAST_PATIENCE_S = 20.0
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_EMPTY_LINES = re.compile(rb"(?:\r\n)+")

log = Log("http")


class Reading(enum.Enum):
    """What a connection is doing with what comes in."""

    HEAD = 0
    BODY = 1
    CHUNKS = 2
    NOTHING = 3  # a request is being served
    REFUSED = 4  # answered already: the rest is thrown away, then the connection ends


HEAD, BODY, CHUNKS, NOTHING, REFUSED = Reading  # as globals: faster than through the class


class ClientConnection(asyncio.Protocol):
    """One client connection."""

    __slots__ = (
        "_body_began_s",
        "_buffer",
        "_checked",
        "_deadline_s",
        "_exchange",
        "_head",
        "_heads",
        "_is_last",
        "_is_reading_paused",
        "_known",
        "_left",
        "_parts",
        "_reading",
        "_server",
        "_size",
        "_transport",
        "_waiting",
        "_walker",
        "is_write_paused",
    )

    def __init__(self, server: Server) -> None:
        self._server = server
        self._transport: asyncio.Transport | None = None
        self._reading: Reading = HEAD
        self._buffer = b""  # of an incomplete head
        self._head: RequestHead | None = None
        self._known: tuple[Snapshot, Admitted] | None = None
        self._heads = RequestHeads(server.memory)
        self._checked: tuple[Snapshot, Admitted] | None = None  # of the last head
        self._parts: list[bytes] = []  # of the body
        self._body_began_s = 0.0
        self._size = 0
        self._left = 0
        self._walker: ChunkWalker | None = None
        self._exchange: Exchange | None = None
        self._waiting = b""  # came while a request was being served
        self._is_reading_paused = False
        self._is_last = False  # the answer to this request says that no other may follow
        self.is_write_paused = False
        self._deadline_s = self._server.relay.clock_s + KEEP_ALIVE_S

    # --- called by the loop -----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=WRITE_HIGH_WATER_BYTES)
        self._server.came(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (the loop's interface)
        """Called by the loop: the client is gone, and so is what it asked for."""
        self._server.connections.discard(self)
        self._transport = None
        exchange, self._exchange = self._exchange, None
        self._reading = REFUSED
        self._parts = []
        self._buffer = self._waiting = b""
        if exchange is not None:
            exchange.client_left()

    def eof_received(self) -> bool:
        """Called by the loop. A client that closes its sending half has left: nobody can tell it from one that has gone."""
        return False

    def pause_writing(self) -> None:
        """Called by the loop: the client reads too slowly."""
        self.is_write_paused = True
        if self._exchange is not None:
            self._exchange.pause()

    def resume_writing(self) -> None:
        """Called by the loop."""
        self.is_write_paused = False
        if self._exchange is not None:
            self._exchange.resume()

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        reading = self._reading
        if reading is NOTHING:
            self._waiting += data
            if len(self._waiting) > MAX_WAITING_BYTES and not self._is_reading_paused and self._transport is not None:
                self._is_reading_paused = True
                self._transport.pause_reading()
            return
        try:
            if reading is HEAD:
                self._read_head(data)
            elif reading is BODY:
                self._read_body(data)
            elif reading is CHUNKS:
                self._read_chunks(data)
            else:
                self._throw_away(len(data))
        except RequestError as error:
            self._refuse(error)

    # --- reading ------------------------------------------------------------------------------------------------------

    def _read_head(self, data: bytes) -> None:  # noqa: PLR0912 (every branch is on the hot path)
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        if data.startswith(b"\r\n"):  # RFC 9112, section 2.2
            data = _EMPTY_LINES.sub(b"", data, 1)
        end = data.find(b"\r\n\r\n")
        if end < 0 or end > MAX_HEAD_BYTES:
            if len(data) > MAX_HEAD_BYTES:
                raise HeadTooLarge(f"the head of the request exceeds {MAX_HEAD_BYTES} bytes")
            if data and not self._buffer:
                self._deadline_s = min(self._deadline_s, self._server.relay.clock_s + self._server.read_timeout_s())
            self._buffer = data
            return
        self._head = head = self._heads.read(data[:end])
        rest = data[end + 4 :]
        self._left = head.content_length
        self._known = self._check(head)
        if not head.is_chunked and not head.content_length:
            self._reading = NOTHING
            self._waiting = rest
            self._serve(b"")
            return
        if self._known is None:
            raise BadRequest("this endpoint takes no body")
        if head.content_length == len(rest) and not head.is_chunked:
            self._reading = NOTHING
            self._serve(rest)
            return
        self._deadline_s = self._server.relay.clock_s + self._server.read_timeout_s()
        if b"expect" in head.special and not rest and expects_continue(head):
            self.write(CONTINUE)
        self._parts = []
        self._size = 0
        self._body_began_s = self._server.relay.clock_s
        if head.is_chunked:
            self._walker = ChunkWalker()
            self._reading = CHUNKS
            if rest:
                self._read_chunks(rest)
        else:
            self._reading = BODY
            if rest:
                self._read_body(rest)

    def _check(self, head: RequestHead) -> tuple[Snapshot, Admitted] | None:
        """Who asks, and by which snapshot. What was found for the same head, credential and all, holds while the snapshot does."""
        relay, checked = self._server.relay, self._checked
        if (
            self._heads.is_repeated
            and checked is not None
            and checked[0] is relay.store.current
            and head.content_length <= checked[0].relay.max_body_bytes
        ):
            return checked
        self._checked = None
        self._checked = checked = relay.check_head(head)
        return checked

    def _read_body(self, data: bytes) -> None:
        left = self._left - len(data)
        if left > 0:
            self._left = left
            self._take(data)
            self._size += len(data)
            self._wait_for_more()
            return
        self._left = 0
        if left:
            self._waiting = data[left:]
            data = data[:left]
        parts, self._parts = self._parts, []
        self._reading = NOTHING
        if parts:
            parts.append(data)
            data = b"".join(parts)
        self._serve(data)

    def _read_chunks(self, data: bytes) -> None:
        walker, known = self._walker, self._known
        assert walker is not None
        assert known is not None
        limit = known[0].relay.max_body_bytes
        try:
            walker.feed(data)
        except UpstreamBroken as error:
            raise BadRequest(str(error)) from None
        ranges = walker.ranges
        payload = b"".join([data[start:end] for start, end in ranges])
        self._size += len(payload)
        if len(ranges) > MANY_CHUNKS and self._transport is not None:  # others have a turn first (shell/upstream.py)
            self._transport.pause_reading()
            asyncio.get_running_loop().call_soon(self._breathed)
        if self._size > limit:
            raise BodyTooLarge(limit)
        self._take(payload)
        self._wait_for_more()
        if walker.is_done:
            self._waiting = data[walker.rest_at :]
            self._walker = None
            body = b"".join(self._parts)
            self._parts = []
            self._reading = NOTHING
            self._serve(body)

    def _take(self, data: bytes) -> None:
        """Keep a piece of the body. Small ones are joined: as objects of their own they would take many times their size."""
        parts = self._parts
        if parts and len(parts[-1]) + len(data) <= JOINED_PART_BYTES:
            parts[-1] += data
        else:
            parts.append(data)

    def _breathed(self) -> None:
        if self._transport is not None and not self._is_reading_paused and not self._transport.is_closing():
            self._transport.resume_reading()

    def _wait_for_more(self) -> None:
        """The next piece must come in time, and all of them at more than a trickle."""
        relay, patience_s = self._server.relay, self._server.read_timeout_s()
        least_s = max(patience_s, LEAST_PATIENCE_S) + self._size / LEAST_BYTES_PER_S
        self._deadline_s = min(relay.clock_s + patience_s, self._body_began_s + least_s)

    def _serve(self, body: bytes) -> None:
        head, known = self._head, self._known
        assert head is not None
        self._is_last = self._server.is_draining or not head.is_keep_alive
        try:
            self._exchange = self._server.relay.handle(self, head, body, known)
        except RequestError as error:
            self.write(self._refusal(error, closes=self.is_closing_after))
            self.exchange_ended(closes=False, aborts=False)
            return
        if self._exchange is None:
            self.exchange_ended(closes=False, aborts=False)
        elif self._reading is not NOTHING:  # it ended before handle() returned
            self._exchange = None

    def _refusal(self, error: RequestError, *, closes: bool) -> bytes:
        self._server.relay.note_refusal(error)
        is_head = self._head is not None and self._head.method == b"HEAD"
        return answers.refusal(error, self._server.relay.new_request_id(), is_head=is_head, closes=closes)

    def _refuse(self, error: RequestError) -> None:
        """Answer a request that has not come in whole, throw the rest away, and hang up."""
        if isinstance(error, Unauthorized) and self._transport is not None:
            peer = self._transport.get_extra_info("peername")
            error = self._server.relay.stranger(error, str(peer[0]) if peer else "")
        self.write(self._refusal(error, closes=True))
        self._parts = []
        self._buffer = self._waiting = b""
        is_broken = isinstance(error, BadRequest) and (self._head is None or self._reading is HEAD)
        if self._transport is None or is_broken or isinstance(error, TooSlow):
            self._close()
            return
        self._reading = REFUSED
        self._left = DRAINED_BODY_BYTES
        self._deadline_s = self._server.relay.clock_s + 2.0

    def _throw_away(self, size: int) -> None:
        self._left -= size
        if self._left <= 0:
            self._close()

    # --- answering ----------------------------------------------------------------------------------------------------

    @property
    def is_draining(self) -> bool:
        """Whether the node is about to stop."""
        return self._server.is_draining

    @property
    def is_closing_after(self) -> bool:
        """Whether the connection ends with the answer being sent."""
        return self._is_last or self._head is None

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way on it."""
        return self._reading is HEAD and not self._buffer

    def write(self, data: bytes) -> None:
        """Send bytes of an answer. Nothing happens if the client has gone."""
        transport = self._transport
        if transport is not None and not transport.is_closing():
            transport.write(data)

    def exchange_ended(self, *, closes: bool, aborts: bool) -> None:
        """The answer is complete, or with `aborts` never will be: the next request may come."""
        self._exchange = None
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if aborts:
            transport.abort()
            return
        if closes or self.is_closing_after:
            self._close()
            return
        self._reading = HEAD
        self._head = None
        self._known = None
        self._deadline_s = self._server.relay.clock_s + KEEP_ALIVE_S
        if self._is_reading_paused:
            self._is_reading_paused = False
            transport.resume_reading()
        waiting, self._waiting = self._waiting, b""
        if waiting:
            # Not in this call: a client that sends many requests at once must not nest them.
            self._reading = NOTHING
            asyncio.get_running_loop().call_soon(self._take_up, waiting)

    def _take_up(self, waiting: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        waiting, self._waiting = waiting + self._waiting, b""
        self._reading = HEAD
        self.data_received(waiting)

    def _close(self) -> None:
        self._reading = REFUSED
        if self._transport is not None:
            self._transport.close()

    def close_if_idle(self, since_s: float) -> None:
        """Hang up if nothing is under way, and nothing was since then; not while there is something to be read."""
        if self.is_idle and self._deadline_s - KEEP_ALIVE_S <= since_s and not self._has_unread():
            self._close()

    def _has_unread(self) -> bool:
        sock = self._transport.get_extra_info("socket") if self._transport is not None else None
        if sock is None or sock.fileno() < 0:
            return False
        poll = select.poll()
        poll.register(sock.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def abort(self) -> None:
        """Hang up at once, whatever is under way."""
        if self._transport is not None:
            self._transport.abort()

    def sweep(self, now_s: float) -> None:
        """Called a few times a second: hang up on who is idle for too long or sends too slowly."""
        if now_s <= self._deadline_s or self._reading is NOTHING:
            return
        if self._reading is REFUSED or self.is_idle:
            self.abort()
        else:
            self._refuse(TooSlow("the request did not arrive in time"))


class Server:
    """The listening side of a node."""

    def __init__(self, relay: Relay, max_connections: int) -> None:
        self.relay = relay
        self.max_connections = max_connections
        self.memory = LineMemory(of_request=True)
        self.connections: set[ClientConnection] = set()
        self.is_draining = False
        self._sock: socket.socket | None = None
        self._door: asyncio.Server | None = None  # None: closed, new clients wait in the kernel's queue
        self._full_said_s = float("-inf")

    def read_timeout_s(self) -> float:
        """How long a client may take for each part of its request."""
        snapshot = self.relay.store.current
        return snapshot.relay.read_timeout_s if snapshot is not None else DEFAULT_READ_TIMEOUT_S

    async def listen(self, sock: socket.socket) -> None:
        """Accept connections from a bound socket, up to `max_connections` at a time. Raises OSError."""
        self._sock = sock
        await self._open_door(sock)

    async def _open_door(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        self._door = await loop.create_server(lambda: ClientConnection(self), sock=sock.dup(), backlog=BACKLOG)

    def came(self, connection: ClientConnection) -> None:
        """A client has connected. When there are too many, the next ones wait, or another worker takes them.

        Without that the event loop would accept and drop them as soon as descriptors run out.
        """
        self.connections.add(connection)
        if len(self.connections) < self.max_connections or self._door is None:
            return
        self._door.close()
        self._door = None
        now_s = perf_counter()
        if now_s - self._full_said_s > FULL_SAID_EVERY_S:
            self._full_said_s = now_s
            log.warning(
                "connections_full",
                connections=len(self.connections),
                consequence="further clients wait until others leave; allow more open files, or more workers",
            )

    async def _make_room(self, sock: socket.socket, now_s: float) -> None:
        """While full: hang up on who is idle, and let others in as soon as there is room."""
        for connection in tuple(self.connections):
            connection.close_if_idle(now_s - FULL_IDLE_S)
        if len(self.connections) <= self.max_connections * 0.9:
            await self._open_door(sock)

    async def sweep_forever(self) -> None:
        """Look after deadlines until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_INTERVAL_S)
            now_s = perf_counter()
            self.relay.sweep(now_s)
            for connection in tuple(self.connections):
                connection.sweep(now_s)
            if self._door is None and self._sock is not None and not self.is_draining:
                await self._make_room(self._sock, now_s)

    async def drain(self, timeout_s: float) -> bool:
        """Stop accepting, let requests finish, then hang up. Whether all of them finished in time.

        A connection that is hung up on while its client sends a request loses it. So who is busy learns from the next
        answer that it is the last, and only who has been idle for a while is hung up on.
        """
        self.is_draining = True
        self.relay.waiting.end_by(perf_counter() + timeout_s / 2)  # the rest of the time is for those that got room
        if self._door is not None:
            self._door.close()
        if self._sock is not None:
            self._sock.close()
        try:
            async with asyncio.timeout(timeout_s):
                empty, looked_s, patient_until_s = 0, self.relay.clock_s, 0.0
                while empty < DRAIN_EMPTY_LOOKS:  # what was accepted a moment ago is not among the connections yet
                    now_s = perf_counter()
                    # If the process stood still, it cannot tell since when a client is idle.
                    if now_s - looked_s > DRAIN_IDLE_S / 2:
                        patient_until_s = now_s + DRAIN_IDLE_S
                    looked_s = now_s
                    for connection in tuple(self.connections) if now_s >= patient_until_s else ():
                        connection.close_if_idle(now_s - DRAIN_IDLE_S)
                    empty = 0 if self.relay.exchanges or self.connections else empty + 1
                    await asyncio.sleep(0.02)
        except TimeoutError:
            for exchange in tuple(self.relay.exchanges):
                exchange.stop()
            return False
        finally:
            for connection in tuple(self.connections):
                connection.abort()
            self.relay.pool.close()
        return True
