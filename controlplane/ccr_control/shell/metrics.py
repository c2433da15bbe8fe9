"""The door for Prometheus: `GET /metrics`, on a port of its own, for whoever may connect to it. It shows names and numbers only.

A request for another host (a foreign name that was made to point here, so that a web page may read the answer) is turned away.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from ccr_control.core.addresses import Address
from ccr_control.shell.listening import listen
from ccr_control.shell.log import Log
from ccr_control.shell.paths import CannotStart

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
STOP_WITHIN_S = 1.0
_LOOPBACK = re.compile(r"127(\.\d{1,3}){3}")

_SETTING = "control.metrics_listen"

log = Log("metrics")


@asynccontextmanager
async def serving_metrics(
    address: Address | None, made: Callable[[], Awaitable[bytes]]
) -> AsyncIterator[Address | None]:
    """Serve while the block runs; yields the address with its real port, None if there is none or it cannot be had.

    That is no reason for the control plane not to start: the log says why.
    """
    if address is None:
        yield None
        return

    async def metrics(request: web.Request) -> web.Response:
        if not is_at_home(request.host):
            return web.Response(status=421, text="This port answers to the names of this machine only.\n")
        return web.Response(body=await made(), headers={"Content-Type": CONTENT_TYPE})

    application = web.Application()
    application.router.add_get("/metrics", metrics)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=STOP_WITHIN_S)
    await runner.setup()
    try:
        yield await _listen(runner, address)
    finally:
        await runner.cleanup()


def is_at_home(host: str) -> bool:
    """Whether a request was meant for this machine, by a name that no web page can have."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    return name in ("localhost", "[::1]") or _LOOPBACK.fullmatch(name) is not None


async def _listen(runner: web.AppRunner, address: Address) -> Address | None:
    try:
        listening = listen(address.host, address.port, setting=_SETTING)
    except CannotStart as error:
        log.warning("metrics_unavailable", listen=str(address), problem=str(error), setting=_SETTING)
        return None
    await web.SockSite(runner, listening).start()
    return Address(address.host, listening.getsockname()[1])
