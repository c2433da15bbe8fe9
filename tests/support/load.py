"""Steady load on a relay, and the provider behind it, both in one thread beside the test; every request is remembered.

with steady_load(relay.url, upstream, streams=4) as load:
    ...  # break something
load.check()  # every request was answered, whole and as the provider meant it

A request carries a number. The provider answers with that number, the model it was asked for and the value of its
`x-mark` header, in a form that both ends can compute: so an answer proves who it was for and under which
configuration it was sent, and is compared byte for byte.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from support.relay import KEY
from support.upstream import event

ASKED_MODEL = "claude-test"
ANSWER_WITHIN_S = 20.0
INPUT_TOKENS, OUTPUT_TOKENS = 3, 5  # of each answer
_ASKED = re.compile(rb'"model":"([^"]*)".*"call (\d+) of (\d+) events every (\d+) ms"')
_SEEN = re.compile(rb'"model":"([^"]*) ([^"]*)"')


def request_body(number: int, events: int, gap_ms: int) -> bytes:
    """A request; 0 events ask for an answer in one piece."""
    asked = f"call {number} of {events} events every {gap_ms} ms"
    body = {"model": ASKED_MODEL, "max_tokens": 9, "messages": [{"role": "user", "content": asked}]}
    if events:
        body["stream"] = True
    return json.dumps(body, separators=(",", ":")).encode()


def whole_answer(number: int, model: str, mark: str) -> bytes:
    """What the provider says in one piece."""
    answer = {
        "id": f"msg_{number}",
        "type": "message",
        "role": "assistant",
        "model": f"{model} {mark}",
        "content": [{"type": "text", "text": "é😀" * 20}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": INPUT_TOKENS, "output_tokens": OUTPUT_TOKENS},
    }
    return json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode()


def stream_events(number: int, events: int, model: str, mark: str) -> list[bytes]:
    """What the provider says in pieces."""
    usage = f'{{"input_tokens":{INPUT_TOKENS},"output_tokens":1}}'
    named = f'{{"id":"msg_{number}","model":"{model} {mark}","usage":{usage}}}'
    block = '{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}'
    ended = (
        f'{{"type":"message_delta","delta":{{"stop_reason":"end_turn"}},"usage":{{"output_tokens":{OUTPUT_TOKENS}}}}}'
    )
    delta = '{{"type":"content_block_delta","index":0,"delta":{{"type":"text_delta","text":"{} of {}, é😀"}}}}'
    return [
        event("message_start", f'{{"type":"message_start","message":{named}}}'),
        event("content_block_start", block),
        *(event("content_block_delta", delta.format(n, number)) for n in range(events)),
        event("content_block_stop", '{"type":"content_block_stop","index":0}'),
        event("message_delta", ended),
        event("message_stop", '{"type":"message_stop"}'),
    ]


@dataclass(frozen=True)
class Arrival:
    """A request as the provider saw it."""

    number: int
    at_s: float
    model: str
    mark: str
    path: str


@dataclass
class Call:
    """A request as its client saw it. Times are seconds of the monotonic clock."""

    number: int
    events: int  # 0: an answer in one piece
    is_on_used_connection: bool
    began_s: float
    head_s: float = 0.0
    ended_s: float = 0.0
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    model: str = ""  # as the provider saw it
    mark: str = ""
    failure: str = ""  # empty: the whole answer came, and it is the right one

    @property
    def node(self) -> str:
        """What is the same in all answers of one process of the data plane; empty if there was no answer."""
        return self.headers.get("x-cc-relay-request-id", "")[:-8]

    def __str__(self) -> str:
        return (
            f"call {self.number} ({self.events} events, {'used' if self.is_on_used_connection else 'new'} connection, "
            f"began {self.began_s:.3f}, head after {max(self.head_s - self.began_s, 0):.3f} s, "
            f"ended after {self.ended_s - self.began_s:.3f} s, node {self.node}): "
            f"{self.status} {self.failure or 'complete'} {self.body[-200:]!r}"
        )


class Background:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="load", daemon=True)
        self._thread.start()

    def run(self, coroutine: object, within_s: float = 30.0) -> object:
        """Run a coroutine there, and wait for it here."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(within_s)  # type: ignore[arg-type]

    def close(self) -> None:
        """End the thread."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10.0)
        self.loop.close()


class BackgroundServer:
    """Listens on loopback in an event loop beside the test; `answer` says what becomes of a request. Use it as `with`."""

    def __init__(self, background: Background, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.background = background
        self._port, self._tls = port, tls
        self._tasks: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        self.background.run(self._listen())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.background.run(self._close())

    @property
    def url(self) -> str:
        """Its base URL."""
        scheme = "https" if self._tls is not None else "http"
        return f"{scheme}://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; whether the connection can take another."""
        raise NotImplementedError

    def hang_up(self, writer: asyncio.StreamWriter) -> None:
        """End a connection."""
        writer.close()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port, backlog=1024, ssl=self._tls)

    async def _close(self) -> None:
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        try:
            while await self.answer(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            self.hang_up(writer)


class SteadyUpstream(BackgroundServer):
    """A provider that answers as the request says, and remembers every request."""

    def __init__(self, port: int = 0) -> None:
        super().__init__(Background(), port)
        self.arrivals: list[Arrival] = []
        self.answer_after_s = 0.0
        self.refuses: Callable[[str], bool] = lambda key: False  # answers 401

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self.background.close()

    @property
    def numbers(self) -> list[int]:
        """Numbers of the requests that came."""
        return [arrival.number for arrival in self.arrivals]

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Say what the request asks for."""
        line, headers = _parse(await reader.readuntil(b"\r\n\r\n"))
        if line.startswith("GET "):  # a probe
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
            return True
        body = await reader.readexactly(int(headers["content-length"]))
        if self.refuses(headers.get("x-api-key", "")):
            writer.write(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 2\r\n\r\n{}")
            return True
        found = _ASKED.search(body)
        assert found, body
        model, mark = found[1].decode(), headers.get("x-mark", "")
        number, events, gap_ms = (int(found[n]) for n in (2, 3, 4))
        self.arrivals.append(Arrival(number, time.monotonic(), model, mark, line.split(" ")[1]))
        if self.answer_after_s:
            await asyncio.sleep(self.answer_after_s)
        if not events:
            answer = whole_answer(number, model, mark)
            head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(answer)}\r\n\r\n"
            writer.write(head.encode() + answer)
            return True
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for piece in stream_events(number, events, model, mark):
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await writer.drain()
            if gap_ms:
                await asyncio.sleep(gap_ms / 1000)
        writer.write(b"0\r\n\r\n")
        return True


def _parse(head: bytes) -> tuple[str, dict[str, str]]:
    line, *lines = head.decode("latin-1").strip().split("\r\n")
    return line, {name.lower(): value.strip() for name, _, value in (one.partition(":") for one in lines)}


class Load:
    """Clients that ask one thing after another. Use `steady_load`."""

    def __init__(self, url: str, background: Background) -> None:
        self.calls: list[Call] = []  # that have ended
        self.open: dict[int, Call] = {}
        self._address = (str(urlsplit(url).hostname), urlsplit(url).port)
        self._background = background
        self._stopping = False
        self._clients: list[asyncio.Task[None]] = []
        self._started = 0

    @property
    def failures(self) -> list[Call]:
        """Calls that did not get their whole, right answer."""
        return [call for call in self.calls if call.failure]

    @property
    def answered(self) -> list[Call]:
        """Calls that did."""
        return [call for call in self.calls if not call.failure]

    def check(self) -> None:
        """Fail, with all that is known, unless every request was answered."""
        failures = self.failures
        shown = "\n".join(str(call) for call in failures[:5])
        assert not failures, f"{len(failures)} of {len(self.calls)} requests failed:\n{shown}"
        assert self.calls, "there was no load"

    def add_clients(
        self, count: int, *, events: int = 0, gap_ms: int = 0, pause_s: float = 0.005, keep_alive: bool = True
    ) -> None:
        """More clients; each asks, pauses and asks again."""

        async def add() -> None:
            for _ in range(count):
                client = self._client(events, gap_ms, pause_s, keep_alive)
                self._clients.append(asyncio.get_running_loop().create_task(client))

        self._background.run(add())

    def ask(self, events: int = 0, gap_ms: int = 0) -> Call:
        """One request on a new connection, from this thread."""

        async def once() -> Call:
            async with self._connection() as (reader, writer):
                return await self._call(reader, writer, events, gap_ms, is_used=False)

        call = self._background.run(once())
        assert isinstance(call, Call)
        return call

    def finish(self, within_s: float = 30.0) -> None:
        """Let every client finish what it has asked for, then end."""
        self._stopping = True
        self._background.run(self._gather(within_s), within_s + 5.0)

    async def _gather(self, within_s: float) -> None:
        async with asyncio.timeout(within_s):
            await asyncio.gather(*self._clients)

    async def _client(self, events: int, gap_ms: int, pause_s: float, keep_alive: bool) -> None:
        while not self._stopping:
            try:
                async with self._connection() as (reader, writer):
                    is_used = False
                    while not self._stopping and not (reader.at_eof() or writer.is_closing()):
                        call = await self._call(reader, writer, events, gap_ms, is_used=is_used)
                        is_used = True
                        await asyncio.sleep(pause_s)
                        if call.failure or call.headers.get("connection") == "close" or not keep_alive:
                            break
            except OSError as error:
                call = Call(self._next(), events, False, time.monotonic(), failure=f"cannot connect: {error!r}")
                call.ended_s = time.monotonic()
                self.calls.append(call)
                await asyncio.sleep(0.02)

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await asyncio.open_connection(*self._address, limit=1 << 20)
        try:
            yield reader, writer
        finally:
            writer.close()

    def _next(self) -> int:
        self._started += 1
        return self._started

    async def _call(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, events: int, gap_ms: int, *, is_used: bool
    ) -> Call:
        call = Call(self._next(), events, is_used, time.monotonic())
        self.open[call.number] = call
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S + events * gap_ms / 1000):
                await self._exchange(reader, writer, call, request_body(call.number, events, gap_ms))
            call.failure = _wrong_with(call)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError, IndexError) as error:
            call.failure = f"broke off: {error!r}"
        finally:
            call.ended_s = time.monotonic()
            self.open.pop(call.number, None)
            self.calls.append(call)
        return call

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, call: Call, body: bytes
    ) -> None:
        head = f"POST /v1/messages HTTP/1.1\r\nhost: relay\r\nx-api-key: {KEY}\r\ncontent-length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        line, call.headers = _parse(await reader.readuntil(b"\r\n\r\n"))
        call.head_s = time.monotonic()
        call.status = int(line.split(" ")[1])
        if "content-length" in call.headers:
            call.body = await reader.readexactly(int(call.headers["content-length"]))
            return
        while size := int(await reader.readuntil(b"\r\n"), 16):
            call.body += (await reader.readexactly(size + 2))[:-2]
        await reader.readexactly(2)


def _wrong_with(call: Call) -> str:
    """What is wrong with an answer that came to its end; empty: nothing."""
    found = _SEEN.search(call.body)
    if call.status != 200 or found is None:
        return f"status {call.status}"
    call.model, call.mark = found[1].decode(), found[2].decode()
    if call.events:
        expected = b"".join(stream_events(call.number, call.events, call.model, call.mark))
    else:
        expected = whole_answer(call.number, call.model, call.mark)
    if call.body != expected:
        at = next((n for n, (a, b) in enumerate(zip(call.body, expected, strict=False)) if a != b), len(call.body))
        return f"another answer than the provider's, from byte {at} of {len(expected)}"
    return ""


@contextlib.contextmanager
def steady_load(
    url: str,
    upstream: SteadyUpstream,
    *,
    whole: int = 4,
    streams: int = 4,
    events: int = 20,
    gap_ms: int = 5,
    keep_alive: bool = True,
) -> Iterator[Load]:
    """Clients at work, until the block ends and they have finished."""
    load = Load(url, upstream.background)
    load.add_clients(whole, keep_alive=keep_alive)
    load.add_clients(streams, events=events, gap_ms=gap_ms, keep_alive=keep_alive)
    try:
        yield load
    finally:
        load.finish()


def at_work(load: Load, more: int = 20) -> Callable[[], bool]:
    """A condition: that many more requests have ended since now."""
    target = len(load.calls) + more
    return lambda: len(load.calls) >= target
