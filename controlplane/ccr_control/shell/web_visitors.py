"""Connections to the web door. Whoever reaches its port can open some, without a token; they must not use up the descriptors of all.

So there are only so many at once; what comes beyond is closed at once, before TLS. One that has not shaken hands, or sent a whole head,
within a limit is closed, too, and so is one that asks for nothing more for as long after an answer.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from ccr_control.shell.log import Log

STOP_WITHIN_S = 1.0
RETRY_S = 1.0  # after a failure to accept: without descriptors the next try fails, too
TELL_EVERY_S = 60.0

log = Log("web")


@dataclass(frozen=True, slots=True)
class Limits:
    """What strangers may do."""

    most: int = 256
    head_within_s: float = 10.0


LIMITS = Limits()


@asynccontextmanager
async def receiving(
    application: web.Application, listening: socket.socket, tls: ssl.SSLContext | None, limits: Limits = LIMITS
) -> AsyncIterator[None]:
    """Serve who comes while the block runs. The socket, which does not block, is closed at the end."""
    runner = web.AppRunner(
        application,
        handler_cancellation=True,  # or nobody would tell us that a browser has left
        access_log=None,
        shutdown_timeout=STOP_WITHIN_S,
        keepalive_timeout=limits.head_within_s,  # aiohttp counts it from the beginning of a connection, too
    )
    await runner.setup()
    assert runner.server is not None, "it is set up"
    accepting = asyncio.create_task(_accept(listening, runner.server, tls, limits), name="web door")
    try:
        yield
    finally:
        accepting.cancel()
        await asyncio.wait([accepting])
        listening.close()
        await runner.cleanup()


async def _accept(listening: socket.socket, server: web.Server, tls: ssl.SSLContext | None, limits: Limits) -> None:
    """Let in who comes, until cancelled."""
    loop = asyncio.get_running_loop()
    entering: set[asyncio.Task[None]] = set()
    told_s = float("-inf")
    async with asyncio.TaskGroup() as tasks:
        while True:
            try:
                connection, _ = await loop.sock_accept(listening)
            except ConnectionAbortedError:  # it has left already
                continue
            except OSError as error:
                log.warning("web_not_accepting", reason=error.strerror or str(error), retry_s=RETRY_S)
                await asyncio.sleep(RETRY_S)
                continue
            if len(server.connections) + len(entering) < limits.most:
                task = tasks.create_task(_enter(connection, server, tls, limits.head_within_s), name="web visitor")
                entering.add(task)
                task.add_done_callback(entering.discard)
                continue
            connection.close()
            if loop.time() - told_s > TELL_EVERY_S:
                told_s = loop.time()
                log.warning("web_full", connections=limits.most, consequence="others are turned away")
            await asyncio.sleep(0)  # or a crowd would let nothing else have its turn


async def _enter(connection: socket.socket, server: web.Server, tls: ssl.SSLContext | None, within_s: float) -> None:
    try:
        await asyncio.get_running_loop().connect_accepted_socket(
            server, connection, ssl=tls, ssl_handshake_timeout=within_s if tls else None
        )
    except OSError:  # no TLS, none of ours, or too slow
        connection.close()
    except Exception:  # whatever strangers may do, the door stays open
        log.exception("web_visitor_failed")
        connection.close()
