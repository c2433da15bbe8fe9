"""The web page before a fake of the control plane, served as ccr-control serves it.

async with page_of(FakeAdmin(small())) as url:
    await page.goto(f"{url}/#token=any")
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from ccr_control.shell.web import LOOPBACK_NAMES, application
from ccr_control.shell.web_grpc import GrpcWeb
from ccr_control.shell.web_pages import BUILT, pages

from support.fake_admin import SERVICES, FakeAdmin, Service


@asynccontextmanager
async def page_of(admin: FakeAdmin, *more: Service) -> AsyncIterator[str]:
    """Serve the page and the services of a fake, with `more` than every fake has. Yields the page's URL."""
    calls = GrpcWeb()
    for add in (*SERVICES, *more):
        add(admin, calls)
    runner = web.AppRunner(
        application(calls, pages(BUILT), LOOPBACK_NAMES), handler_cancellation=True, shutdown_timeout=0.1
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
