"""Providers that can be made unwell, and remember what came to them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from dataclasses import dataclass

from chaos import answers
from chaos.history import ANSWERED, Arrival

_STATUS = {
    "429": (b"429 Too Many Requests", "rate_limit_error", b"retry-after: 1\r\n"),
    "500": (b"500 Internal Server Error", "api_error", b""),
    "529": (b"529 Overloaded", "overloaded_error", b""),
    "401": (b"401 Unauthorized", "authentication_error", b""),
}
_WHOLE_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n%bcontent-length: %d\r\n\r\n"
_STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n%btransfer-encoding: chunked\r\n\r\n"
_LAST_CHUNK = b"0\r\n\r\n"
SILENT_FOR_S = 8.0  # longer than the relay waits
TELLING = (
    "ada",
    "bea",
)  # providers whose answers tell limits, which no load comes near: nobody may be refused for them
ROOM = 1_000_000


@dataclass(frozen=True, slots=True)
class Illness:
    """How a provider is unwell."""

    kind: str
    number: int  # which byte


class Provider:
    """One provider on loopback. `illness` is how it answers from now on."""

    def __init__(self, name: str, arrivals: list[Arrival]) -> None:
        self.name = name
        self.arrivals = arrivals
        self.illness: Illness | None = None
        self.revoked: set[str] = set()
        self._sock = _bound()
        self._accepting: asyncio.Task[None] | None = None
        self._serving: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"http://127.0.0.1:{self._sock.getsockname()[1]}"

    def listen(self) -> None:
        """Accept connections from now on."""
        self._sock.listen(256)
        self._accepting = asyncio.get_running_loop().create_task(self._accept(), name=f"provider {self.name}")

    async def refuse(self) -> None:
        """Refuse connections, and break those that there are. The port stays its own."""
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.gather(self._accepting, return_exceptions=True)
            self._accepting = None
            self._sock.shutdown(socket.SHUT_RDWR)  # bound, it stops listening
        for task in tuple(self._serving):
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def close(self) -> None:
        """Hang up and be gone."""
        await self.refuse()
        self._sock.close()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            connection, _ = await loop.sock_accept(self._sock)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            task = loop.create_task(self._serve(connection), name=f"connection to {self.name}")
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)

    async def _serve(self, connection: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=connection)
        try:
            while await self._answer(reader, writer):
                pass
            _reset(writer)
        except (OSError, EOFError, ValueError):
            pass
        except asyncio.CancelledError:
            _reset(writer)
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer a request. Returns whether another one may come; else the connection is to be broken."""
        line, headers = _parsed(await reader.readuntil(b"\r\n\r\n"))
        if not line.startswith("POST "):  # a probe
            illness = self.illness
            if illness is not None and illness.kind in _STATUS:
                writer.write(b"HTTP/1.1 503 Not Now\r\ncontent-length: 2\r\n\r\n{}")
            else:
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
            return illness is None or illness.kind in _STATUS
        body = await reader.readexactly(int(headers["content-length"]))
        number, events, gap_ms = answers.asked(body)
        arrival = self._note(number, headers, body)
        illness = self.illness
        if arrival.key in self.revoked:
            illness = Illness("401", 0)
        try:
            return await self._say(reader, writer, arrival, illness, events, gap_ms)
        finally:
            arrival.ended_s = time.monotonic()

    def _note(self, number: int, headers: dict[str, str], body: bytes) -> Arrival:
        key = headers.get("x-api-key", "")
        strange = [f"{name} holds a client's key" for name, value in headers.items() if answers.CLIENT_KEY in value]
        strange += ["authorization"] if "authorization" in headers else []
        strange += [] if answers.PROMPT in body else ["the prompt was changed"]
        model = body.partition(b'"model":"')[2].partition(b'"')[0].decode()
        arrival = Arrival(
            number, self.name, time.monotonic(), headers.get("x-mark", ""), model, key, strange=", ".join(strange)
        )
        arrival.input_tokens, arrival.output_tokens = answers.usage(number)
        self.arrivals.append(arrival)
        return arrival

    async def _say(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        arrival: Arrival,
        illness: Illness | None,
        events: int,
        gap_ms: int,
    ) -> bool:
        kind, number = (illness.kind, illness.number) if illness is not None else ("", 0)
        if kind in _STATUS or (kind == "early error" and not events):
            words, name, lines = _STATUS.get(kind, _STATUS["529"])
            body = answers.error_body(name)
            arrival.outcome = kind
            writer.write(
                b"HTTP/1.1 %b\r\ncontent-type: application/json\r\n%bcontent-length: %d\r\n\r\n%b"
                % (words, lines, len(body), body)
            )
            await writer.drain()
            return True
        pieces = self._pieces(arrival, kind, events)
        if kind in ("silent", "stalls", "reset in head", "reset in body"):
            arrival.outcome = kind
            await self._fail(reader, writer, arrival, pieces, kind, number)
            return False
        for left, piece in zip(reversed(range(len(pieces))), pieces, strict=True):
            if reader.at_eof() or writer.is_closing():
                return False
            writer.write(piece)
            arrival.has_told_input = True
            if left <= bool(events):  # of a stream only the framing's end is missing
                arrival.outcome = kind if kind and events else ANSWERED
            if gap_ms and left:
                await writer.drain()
                await asyncio.sleep(gap_ms / 1000)
        await writer.drain()
        return True

    def _pieces(self, arrival: Arrival, kind: str, events: int) -> list[bytes]:
        """The answer as it goes over the wire, the head first."""
        told = _limits_told(arrival.number) if self.name in TELLING else b""
        if not events:
            body = answers.whole_answer(arrival.number, self.name, arrival.mark)
            return [_WHOLE_HEAD % (told, len(body)) + body]
        said = answers.stream_events(arrival.number, events, self.name, arrival.mark)
        if kind == "early error":
            said = [said[0], answers.error_event("overloaded_error")]
        elif kind == "late error":
            said = [*said[: 2 + events // 2], answers.error_event("overloaded_error")]
        return [_STREAM_HEAD % told + _chunk(said[0]), *map(_chunk, said[1:]), _LAST_CHUNK]

    async def _fail(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        arrival: Arrival,
        pieces: list[bytes],
        kind: str,
        number: int,
    ) -> None:
        """Say a part of the answer only, and then nothing more."""
        wire = b"".join(pieces)
        head = wire.index(b"\r\n\r\n") + 4
        said = {
            "silent": 0,
            "reset in head": number % head,
            "reset in body": head + number % (len(wire) - head),
            "stalls": head + number % (len(wire) - head),
        }[kind]
        if said:
            writer.write(wire[:said])
            arrival.has_told_input = said > head
            if said >= len(wire) - len(_LAST_CHUNK) and len(pieces) > 1:
                arrival.outcome = ANSWERED
            await writer.drain()
        if kind in ("silent", "stalls"):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SILENT_FOR_S):
                    await reader.read(1)
        elif said:
            await asyncio.sleep(0.002)  # a reset overtakes what was sent just before it


def _bound() -> socket.socket:
    """A socket that keeps its port while it does not listen: the kernel does that only for a port that was asked for."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", port))
    sock.setblocking(False)
    return sock


def _parsed(head: bytes) -> tuple[str, dict[str, str]]:
    line, *lines = head.decode("latin-1").strip().split("\r\n")
    return line, {name.lower(): value.strip() for name, _, value in (one.partition(":") for one in lines)}


def _limits_told(number: int) -> bytes:
    """Header lines. Not all answers tell of tokens."""
    kinds = (b"requests", b"input-tokens", b"output-tokens")[: 1 if number % 3 == 1 else 3]
    line = b"anthropic-ratelimit-%b-%b: %d\r\n"
    return b"".join(line % (kind, what, ROOM) for kind in kinds for what in (b"limit", b"remaining"))


def _chunk(payload: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(payload), payload)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Break the connection, so that the other end gets an error rather than an end."""
    sock = writer.get_extra_info("socket")  # None: it is gone already
    with contextlib.suppress(OSError, AttributeError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    writer.transport.abort()
