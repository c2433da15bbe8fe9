"""Clients that ask one thing after another, never retry, and remember what they got."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections.abc import AsyncIterator

from chaos import answers
from chaos.history import COMPLETE, CUT, ERROR_EVENT, HUNG, REFUSED, WRONG, Request
from chaos.plans import Episode

HUNG_AFTER_S = 25.0  # more than all attempts together may take, on a busy machine
NEW_CONNECTION = 0.1  # share of requests that do not use the connection of the one before
_PING = b'event: ping\ndata: {"type": "ping"}\n\n'
_GONE = (OSError, EOFError, asyncio.LimitOverrunError, ValueError, IndexError)


class Load:
    """All clients of a fleet. Numbers are never used twice."""

    def __init__(self, port: int) -> None:
        self.requests: list[Request] = []
        self._port = port
        self._count = 0

    async def play(self, plan: Episode, roll: random.Random) -> None:
        """The load of an episode; returns when every request has ended."""
        ends_s = time.monotonic() + plan.load_s
        kinds = [0] * plan.whole_clients + [plan.events] * plan.stream_clients
        async with asyncio.TaskGroup() as tasks:
            for events in kinds:
                own = random.Random(roll.getrandbits(64))
                tasks.create_task(self._client(own, ends_s, events, plan.gap_ms), name="client")

    async def ask(self, events: int = 0) -> Request:
        """One request, on a connection of its own."""
        async with self._connection() as (reader, writer):
            return await self._ask(reader, writer, "asked", 0, events, 0)

    async def _client(self, roll: random.Random, ends_s: float, events: int, gap_ms: int) -> None:
        session, turn = "", 0
        while time.monotonic() < ends_s:
            try:
                async with self._connection() as (reader, writer):
                    is_usable, is_used = True, False
                    while is_usable and time.monotonic() < ends_s:
                        if not session or roll.random() < 0.4:
                            session, turn = f"{roll.getrandbits(64):016x}", 0
                        turn += 1
                        request = await self._ask(reader, writer, session, turn, events, gap_ms, is_used=is_used)
                        is_used = True
                        is_usable = (
                            request.outcome in (COMPLETE, REFUSED)
                            and request.headers.get("connection") != "close"
                            and roll.random() > NEW_CONNECTION
                        )
                        await asyncio.sleep(roll.uniform(0.0, 0.07))
                        is_usable = is_usable and not reader.at_eof() and not writer.is_closing()
            except OSError as error:  # the door is never shut
                request = self._next(session, events)
                request.outcome, request.what, request.ended_s = CUT, f"cannot connect: {error}", time.monotonic()
                await asyncio.sleep(0.05)

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 20)
        try:
            yield reader, writer
        finally:
            writer.close()

    def _next(self, session: str, events: int) -> Request:
        self._count += 1
        request = Request(self._count, session, bool(events), time.monotonic())
        self.requests.append(request)
        return request

    async def _ask(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        session: str,
        turn: int,
        events: int,
        gap_ms: int,
        *,
        is_used: bool = False,
    ) -> Request:
        request = self._next(session, events)
        request.is_on_used_connection = is_used
        body = answers.request_body(request.number, events, gap_ms, turn)
        got = bytearray()
        try:
            async with asyncio.timeout(HUNG_AFTER_S):
                writer.write(
                    b"POST /v1/messages HTTP/1.1\r\nhost: relay\r\nx-api-key: %b\r\nx-claude-code-session-id: %b\r\n"
                    b"content-length: %d\r\n\r\n%b" % (answers.CLIENT_KEY.encode(), session.encode(), len(body), body)
                )
                await self._read(reader, request, got)
            judge(request, bytes(got), events)
        except TimeoutError:
            request.outcome = HUNG
        except _GONE as error:
            request.outcome, request.what = CUT, f"{error!r} after {len(got)} bytes of the body"
        request.ended_s = time.monotonic()
        return request

    async def _read(self, reader: asyncio.StreamReader, request: Request, got: bytearray) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        request.head_s = time.monotonic()
        line, *lines = head.decode("latin-1").strip().split("\r\n")
        request.status = int(line.split(" ")[1])
        request.headers = {name.lower(): value.strip() for name, _, value in (one.partition(":") for one in lines)}
        request.request_id = request.headers.get("x-cc-relay-request-id", request.headers.get("request-id", ""))
        request.node = request.request_id[:-8]
        if "content-length" in request.headers:
            got += await reader.readexactly(int(request.headers["content-length"]))
            return
        while size := int(await reader.readuntil(b"\r\n"), 16):
            got += (await reader.readexactly(size + 2))[:-2]
            request.has_content = request.has_content or b"content_block" in got
        await reader.readexactly(2)


def judge(request: Request, body: bytes, events: int) -> None:
    """What an answer that came to its end is: note it in the request."""
    if request.status != 200:
        request.outcome = REFUSED
        request.what = body.decode("utf-8", "replace")[:300]
        if not _is_error(body):
            request.outcome = WRONG
        return
    if not events:
        request.provider, request.mark = _speaks_of(body)
        is_right = body == answers.whole_answer(request.number, request.provider, request.mark)
        request.outcome = COMPLETE if is_right else WRONG
        request.what = "" if is_right else body.decode("utf-8", "replace")[:300]
        return
    said = body.replace(_PING, b"")
    request.provider, request.mark = _speaks_of(said)
    whole = b"".join(answers.stream_events(request.number, events, request.provider, request.mark))
    if said == whole:
        request.outcome = COMPLETE
        return
    before, found, last = said.rpartition(b"event: error\ndata: ")
    request.what = last.decode("utf-8", "replace")[:300]
    if found and _is_error(last.strip()) and is_beginning(before, whole):
        request.outcome = ERROR_EVENT
    else:
        request.outcome = WRONG
        request.what = said[-300:].decode("utf-8", "replace")


def is_beginning(said: bytes, whole: bytes) -> bool:
    """Whether what came before the error is how the answer begins: whole events, then perhaps one that is marked incomplete."""
    kept, cut, rest = said.rpartition(b"\nevent: incomplete\n\n")
    if cut and not rest.strip():
        return whole.startswith(kept)
    return whole.startswith(said) and (not said or said.endswith(b"\n\n"))


def _is_error(body: bytes) -> bool:
    try:
        decoded = json.loads(body)
    except ValueError:
        return False
    return isinstance(decoded, dict) and decoded.get("type") == "error" and "type" in decoded.get("error", {})


def _speaks_of(body: bytes) -> tuple[str, str]:
    """Provider and mark of the configuration, as the answer says them."""
    provider, _, mark = body.partition(b'"model":"')[2].partition(b'"')[0].decode("utf-8", "replace").partition(" ")
    return provider, mark
