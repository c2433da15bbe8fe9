"""The demo provider on a socket: reads requests, plays performances, records what it saw.

The shell around `api.py`. `DemoServer` runs it in the caller's event loop:

    async with DemoServer(script=[{"text": "hi"}]) as demo:
        ...                                   # talk to demo.url
        assert demo.requests[0].body == b"…"  # verbatim
        await demo.until(lambda: demo.stats.aborted_streams == 1)
"""

import asyncio
import logging
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Self

from aiohttp import web

from ccr_demo.api import Api
from ccr_demo.clouds import answered
from ccr_demo.control import control
from ccr_demo.gates import Gates
from ccr_demo.performance import AwaitStep, Break, Pause, Performance, Send
from ccr_demo.records import Record, Stats
from ccr_demo.request import Request
from ccr_demo.script import Script, read_steps
from ccr_demo.settings import Settings, changed
from ccr_demo.wire import base_url, bound, break_off, read_body, response_for, write

log = logging.getLogger("ccr_demo")

STEP_LIMIT_S = 30.0  # for POST /__demo/step to find a stream that waits


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
        sock = self._listen or bound(*self._address)
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
    def steps_left(self) -> int:
        """Steps of the script that no request has taken yet."""
        return self.api.script.steps_left

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
            return await control(self, request, path.removeprefix("/__demo/"))
        body = await read_body(request, self.api.max_body_bytes(path))
        record = self._record(request, body or b"")
        if body is None:
            performance = self.api.too_large()
        else:
            asked = Request(request.method, request.raw_path, request.raw_headers, body, base_url(request))
            performance, record.step = answered(self.api, asked, time.time())
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
        response = response_for(performance.head)
        if performance.head is not None:
            record.status = performance.head.status
            if performance.closes:
                response.force_close()
            await response.prepare(request)
        waited: asyncio.Future[int] | None = None
        for act in performance.acts:
            match act:
                case Send():
                    await write(request, response, performance.head, act.data)
                    self._note_event(record, act, performance)
                    if waited is not None and not waited.done():
                        waited.set_result(record.events_sent)
                    waited = None
                case Pause():
                    await asyncio.sleep(act.seconds)
                case AwaitStep():
                    waited = await self.gates.wait(act.gate)
                case Break():
                    break_off(request, act)
                    return response
        if performance.head is None:
            break_off(request, Break("close"))
        else:
            await response.write_eof()
        return response

    def _note_event(self, record: Record, act: Send, performance: Performance) -> None:
        if act.is_event:
            record.events_sent += 1
            record.event_times_s.append(time.monotonic())
        if performance.is_stream:
            self.notice()


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
