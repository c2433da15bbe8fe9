"""Strangers at the web door: however many they are and however slow, they use up nothing."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web
from ccr_control.shell.listening import listen
from ccr_control.shell.web_visitors import Limits, receiving
from support.control import until
from support.tls import make_certificates

WITHIN_S = 20.0
ASKING = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"


@asynccontextmanager
async def door(limits: Limits, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """The port of a web server that answers "well"."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(text="well")

    application = web.Application()
    application.router.add_get("/", answer)
    listening = listen("127.0.0.1", 0)
    async with receiving(application, listening, tls, limits):
        yield listening.getsockname()[1]


class Visitor:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def is_answered(self) -> bool:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            self._writer.write(ASKING)
            async with asyncio.timeout(WITHIN_S):
                return (await self._reader.readuntil(b"well")).startswith(b"HTTP/1.1 200 ")
        return False

    async def is_turned_out_after(self, said: bytes) -> bool:
        self._writer.write(said)
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(WITHIN_S):
                return not await self._reader.read()
        return True

    def leave(self) -> None:
        self._writer.close()


@asynccontextmanager
async def visiting(port: int, tls: ssl.SSLContext | None = None) -> AsyncIterator[Visitor]:
    visitor = Visitor(*await asyncio.open_connection("127.0.0.1", port, ssl=tls))
    try:
        yield visitor
    finally:
        visitor.leave()


async def test_who_sends_no_whole_head_is_turned_out() -> None:
    """Neither at first nor after an answer."""
    async with door(Limits(head_within_s=0.5)) as port:

        async def is_turned_out(said: bytes, *, asks_before: bool) -> bool:
            async with visiting(port) as visitor:
                assert not asks_before or await visitor.is_answered()
                return await visitor.is_turned_out_after(said)

        every = [(said, before) for said in (b"", b"GET / HTTP/1.1\r\nhost: loc") for before in (False, True)]
        assert all(await asyncio.gather(*(is_turned_out(said, asks_before=before) for said, before in every)))


async def test_who_does_not_shake_hands_is_turned_out(tmp_path: Path) -> None:
    """With TLS nothing of HTTP is there yet. It keeps nobody else out."""
    own = make_certificates(tmp_path)
    async with door(Limits(head_within_s=0.5), own.server_context()) as port:
        for said in (b"\x16\x03\x01", ASKING):
            async with visiting(port) as visitor:
                assert await visitor.is_turned_out_after(said)
    async with door(Limits(), own.server_context()) as port, visiting(port) as silent:
        async with visiting(port, ssl.create_default_context(cafile=own.ca_file)) as visitor:
            assert await visitor.is_answered()
        silent.leave()


async def test_beyond_the_limit_nobody_gets_in_until_somebody_leaves() -> None:
    async with door(Limits(most=2, head_within_s=600.0)) as port, visiting(port) as first, visiting(port) as second:
        assert await first.is_answered()
        assert await second.is_answered()
        async with visiting(port) as third:
            assert await third.is_turned_out_after(b"")
        assert await second.is_answered()
        first.leave()

        async def is_in() -> bool:
            async with visiting(port) as another:
                return await another.is_answered()

        await until(is_in, "there is room again", WITHIN_S)
