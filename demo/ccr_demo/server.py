"""The demo provider on a socket: reads requests, plays performances, records what it saw.

The shell around `api.py`. `DemoServer` runs it in the caller's event loop:

    async with DemoServer(script=[{"text": "hi"}]) as demo:
        ...                                   # talk to demo.url
        assert demo.requests[0].body == b"…"  # verbatim
        await demo.until(lambda: demo.stats.aborted_streams == 1)
"""

import asyncio
import base64
import contextlib
import json
import logging
import socket
import ssl
import struct
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

import yaml
from aiohttp import hdrs, web
from multidict import CIMultiDict

from ccr_demo.api import Api, Request
from ccr_demo.errors import ScriptInvalid
from ccr_demo.performance import AwaitStep, Break, Head, Pause, Performance, Send
from ccr_demo.script import Script, read_steps
from ccr_demo.settings import Settings, changed

log = logging.getLogger("ccr_demo")

STEP_LIMIT_S = 30.0  # for POST /__demo/step to find a stream that waits


@dataclass(slots=True)
class Record:
    """One request as it came, and what became of its answer. Times are seconds of time.monotonic()."""

    number: int
    method: str
    target: str
    http_version: str
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    arrived_s: float
    step: str = ""  # the scripted step that answered
    status: int | None = None
    events_sent: int = 0
    ended_s: float | None = None
    aborted_s: float | None = None  # when the client was found gone
    event_times_s: list[float] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """For GET /__demo/requests; the body in base64."""
        return {
            "number": self.number,
            "method": self.method,
            "target": self.target,
            "http_version": self.http_version,
            "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in self.headers],
            "body": base64.b64encode(self.body).decode(),
            "step": self.step,
            "status": self.status,
            "events_sent": self.events_sent,
            "arrived_s": self.arrived_s,
            "ended_s": self.ended_s,
            "aborted_s": self.aborted_s,
        }

    def header(self, name: str) -> str | None:
        """The first header of that name, in any case."""
        wanted = name.lower().encode()
        return next((value.decode("latin-1") for key, value in self.headers if key.lower() == wanted), None)

    def json(self) -> Any:
        """The decoded body."""
        return json.loads(self.body)


@dataclass(slots=True)
class Stats:
    """Counters since the start or the last reset."""

    requests: int = 0
    open_connections: int = 0
    open_streams: int = 0  # answers being sent, streamed or not
    aborted_streams: int = 0  # the client left before the end
    connections: int = 0


class Gates:
    """Lets lock-step streams go on, one event for each call of `release`."""

    def __init__(self) -> None:
        self._waiting: dict[str, asyncio.Queue[asyncio.Future[int]]] = {}

    def _queue(self, gate: str) -> asyncio.Queue[asyncio.Future[int]]:
        return self._waiting.setdefault(gate, asyncio.Queue(maxsize=10_000))

    async def release(self, gate: str) -> int:
        """Lets the next event of the stream at `gate` go; returns how many it has sent then."""
        sent: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._queue(gate).put_nowait(sent)
        async with asyncio.timeout(STEP_LIMIT_S):
            return await sent

    async def wait(self, gate: str) -> asyncio.Future[int]:
        """Waits for a release; ended by the client's leaving. The result is set when the event is sent."""
        while True:
            sent = await self._queue(gate).get()
            if not sent.done():  # whoever wanted it may have given up
                return sent


class DemoServer:
    """One scripted provider on one address. Safe to use from tests: one event loop, no globals."""

    def __init__(
        self,
        script: object = (),
        *,
        settings: Settings | None = None,
        ssl_context: ssl.SSLContext | None = None,
        listen: socket.socket | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        **changes: Any,
    ) -> None:
        """`script` is a list of steps as JSON values; `changes` are single settings (`pace_ms=20`)."""
        start = settings or Settings()
        self._start_settings = changed(start, changes) if changes else start
        self.api = Api(
            self._start_settings, Script.of(read_steps(list(script) if isinstance(script, tuple) else script))
        )
        self.requests: deque[Record] = deque()
        self.stats = Stats()
        self.gates = Gates()
        self.url = ""
        self._ssl_context = ssl_context
        self._listen = listen
        self._address = (host, port)
        self._runner: web.ServerRunner | None = None
        self._waiting: list[asyncio.Future[None]] = []  # those that wait in `until`
        self._recorded_bytes = 0

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Binds and serves. Raises OSError if the address is taken."""
        server = _CountingServer(self, self._handle)
        self._runner = web.ServerRunner(server, handle_signals=False, shutdown_timeout=0.5)
        await self._runner.setup()
        sock = self._listen or _bound(*self._address)
        await web.SockSite(self._runner, sock, ssl_context=self._ssl_context, backlog=1024).start()
        name = sock.getsockname()
        scheme = "https" if self._ssl_context else "http"
        self.url = f"{scheme}://{name[0]}:{name[1]}" if isinstance(name, tuple) else ""

    async def stop(self) -> None:
        """Closes every connection."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self.url.rsplit(":", 1)[1])

    def play(self, *steps: object) -> None:
        """Replaces the script."""
        self.api.script = Script.of(read_steps(list(steps)))

    def add(self, *steps: object) -> None:
        """Appends to the script."""
        self.api.script = self.api.script.extended(read_steps(list(steps)))

    def configure(self, **changes: Any) -> None:
        """Changes single settings."""
        self.api.configure(changed(self.api.settings, changes))

    def reset(self) -> None:
        """Forgets script, state, records and counters; open connections stay."""
        self.api.start_again(self._start_settings, Script())
        self.forget_requests()
        self.gates = Gates()
        self.stats = Stats(open_connections=self.stats.open_connections, open_streams=self.stats.open_streams)

    def forget_requests(self) -> None:
        """Drops the records."""
        self.requests.clear()
        self._recorded_bytes = 0

    async def step(self, gate: str = "") -> int:
        """Lets one event of a lock-step stream go; returns the number of its events sent by then."""
        return await self.gates.release(gate)

    async def until(self, condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
        """Waits until something about requests or counters holds. Raises TimeoutError."""
        async with asyncio.timeout(timeout_s):
            while not condition():
                changed_again: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._waiting.append(changed_again)
                await changed_again

    def message_requests(self, path: str = "/v1/messages") -> list[Record]:
        """The recorded requests to one path, whatever their query."""
        return [record for record in self.requests if record.target.partition("?")[0] == path]

    def notice(self) -> None:
        """Wakes those that wait in `until`."""
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if not each.done():
                each.set_result(None)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.raw_path.partition("?")[0]
        if path.startswith("/__demo/"):
            return await self._control(request, path.removeprefix("/__demo/"))
        body = await _read_body(request, self.api.max_body_bytes(path))
        record = self._record(request, body or b"")
        if body is None:
            performance = self.api.too_large()
        else:
            asked = Request(request.method, request.raw_path, request.raw_headers, body, _base_url(request))
            performance, record.step = self.api.answer(asked, time.time())
        log.info(
            "%s %s -> %s", request.method, request.raw_path, performance.head.status if performance.head else "raw"
        )
        self.stats.open_streams += 1
        try:
            return await self._play(request, performance, record)
        except (asyncio.CancelledError, ConnectionError):
            self.stats.aborted_streams += 1
            record.aborted_s = time.monotonic()
            raise
        finally:
            self.stats.open_streams -= 1
            record.ended_s = time.monotonic()
            self.notice()

    def _record(self, request: web.BaseRequest, body: bytes) -> Record:
        version = f"{request.version.major}.{request.version.minor}"
        self.stats.requests += 1
        record = Record(
            self.stats.requests,
            request.method,
            request.raw_path,
            version,
            request.raw_headers,
            body,
            time.monotonic(),
        )
        if self.api.settings.record_last:
            self.requests.append(record)
            self._recorded_bytes += len(body)
        while self.requests and (
            len(self.requests) > self.api.settings.record_last or self._recorded_bytes > self.api.settings.record_bytes
        ):
            self._recorded_bytes -= len(self.requests.popleft().body)
        self.notice()
        return record

    async def _play(self, request: web.BaseRequest, performance: Performance, record: Record) -> web.StreamResponse:
        if performance.before_head_s:
            await asyncio.sleep(performance.before_head_s)
        response = _response(performance.head)
        if performance.head is not None:
            record.status = performance.head.status
            if performance.closes:
                response.force_close()
            await response.prepare(request)
        waited: asyncio.Future[int] | None = None
        for act in performance.acts:
            match act:
                case Send():
                    await _write(request, response, performance.head, act.data)
                    self._note_event(record, act, performance)
                    if waited is not None and not waited.done():
                        waited.set_result(record.events_sent)
                    waited = None
                case Pause():
                    await asyncio.sleep(act.seconds)
                case AwaitStep():
                    waited = await self.gates.wait(act.gate)
                case Break():
                    _break_off(request, act)
                    return response
        if performance.head is None:
            _break_off(request, Break("close"))
        else:
            await response.write_eof()
        return response

    def _note_event(self, record: Record, act: Send, performance: Performance) -> None:
        if act.is_event:
            record.events_sent += 1
            record.event_times_s.append(time.monotonic())
        if performance.is_stream:
            self.notice()

    async def _control(self, request: web.BaseRequest, name: str) -> web.StreamResponse:
        """The demo's own endpoints; see `ccr_demo.__main__`."""
        try:
            return await self._controlled(request, name)
        except ScriptInvalid as error:
            return web.json_response({"error": str(error)}, status=400)
        except TimeoutError:
            return web.json_response({"error": "no stream waits for this step"}, status=408)

    async def _controlled(self, request: web.BaseRequest, name: str) -> web.StreamResponse:
        match request.method, name:
            case "POST", "script":
                steps = read_steps(read_script_text(await request.text()))
                self.api.script = Script.of(steps)
                return web.json_response({"steps": len(steps)})
            case "GET", "script":
                return web.json_response({"steps_left": self.api.script.steps_left})
            case "POST", "settings":
                self.configure(**read_script_text(await request.text()))
                return web.json_response({})
            case "GET", "requests":
                return web.json_response({"requests": [record.as_json() for record in self.requests]})
            case "DELETE", "requests":
                self.forget_requests()
                return web.json_response({})
            case "GET", "stats":
                return web.json_response({name: getattr(self.stats, name) for name in Stats.__slots__})
            case "POST", "step":
                return web.json_response({"events_sent": await self.step(request.query.get("id", ""))})
            case "POST", "reset":
                self.reset()
                return web.json_response({})
        return web.json_response({"error": f"no such demo endpoint: {request.method} {name}"}, status=404)


class _CountingServer(web.Server):
    """aiohttp's server, which also counts connections as they come and go."""

    def __init__(self, demo: DemoServer, handler: Any) -> None:
        super().__init__(handler, handler_cancellation=True, auto_decompress=False, access_log=None)
        self._demo = demo

    def connection_made(self, handler: Any, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        self._demo.stats.connections += 1
        self._demo.stats.open_connections += 1
        self._demo.notice()

    def connection_lost(self, handler: Any, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        self._demo.stats.open_connections -= 1
        self._demo.notice()


def read_script_text(text: str) -> Any:
    """A script or settings as JSON or YAML. Raises ScriptInvalid."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ScriptInvalid(f"neither JSON nor YAML: {error}") from None


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    return sock


async def _read_body(request: web.BaseRequest, limit: int) -> bytes | None:
    """The whole body, or None if it is above the limit."""
    chunks, size = [], 0
    async for chunk in request.content.iter_any():
        chunks.append(chunk)
        size += len(chunk)
        if size > limit:
            return None
    return b"".join(chunks)


def _base_url(request: web.BaseRequest) -> str:
    return f"{request.scheme}://{request.headers.get(hdrs.HOST, '')}"


def _response(head: Head | None) -> web.StreamResponse:
    if head is None:
        return web.StreamResponse()
    response = web.StreamResponse(status=head.status, headers=CIMultiDict(head.headers))
    if head.length is None:
        response.enable_chunked_encoding()
    else:
        response.content_length = head.length
    return response


async def _write(request: web.BaseRequest, response: web.StreamResponse, head: Head | None, data: bytes) -> None:
    if head is not None:
        await response.write(data)
        return
    transport = request.transport
    if transport is None:
        raise ConnectionResetError
    transport.write(data)


def _break_off(request: web.BaseRequest, act: Break) -> None:
    """Ends the connection behind what was written."""
    transport = request.transport
    if transport is None:
        return
    if act.how == "reset":
        sock = transport.get_extra_info("socket")
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    else:
        transport.close()
