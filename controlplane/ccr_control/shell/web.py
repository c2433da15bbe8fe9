"""The web door of ccr-control: the page, and grpc-web for it, on one port.

It knows its own names only: a request for another host (a foreign name that was made to point here) is turned away, whatever it asks.
Beyond loopback it is https, and its names are those of its
certificate, too. Tokens come in the `authorization` of each call and never in a cookie, so that no other site can make use of them.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

from aiohttp import web

from ccr_control.core.addresses import Address
from ccr_control.shell.access import Doorman
from ccr_control.shell.guard import DoorGuard, HandlerGuard
from ccr_control.shell.listeners import Services
from ccr_control.shell.listening import listen
from ccr_control.shell.log import Log
from ccr_control.shell.paths import CannotStart
from ccr_control.shell.streams import OpenStreams
from ccr_control.shell.web_grpc import GrpcWeb, Receive, Scope, Send
from ccr_control.shell.web_pages import BUILT, GUARDS, INDEX, NOT_BUILT, Page, page_at, pages
from ccr_control.shell.web_tls import WebTls
from ccr_control.shell.web_visitors import receiving

LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")
NODES_ONLY = frozenset(("ccr.rpc.v1.SnapshotService", "ccr.rpc.v1.UsageService"))
"""What is not for browsers: streams in both directions, with secrets."""

_Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]
_Asgi: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

_SETTING = "control.web_listen"

log = Log("web")


@asynccontextmanager
async def serving_web(
    address: Address, doorman: Doorman, services: Services, tls: WebTls | None = None, folder: Path = BUILT
) -> AsyncIterator[str | None]:
    """Serve the page while the block runs; yields its URL, or None if the address cannot be had.

    `tls`: what it is secured with beyond loopback; on loopback it is not.

    That is no reason for the control plane not to start: whoever wants the page finds why in the log.
    """
    assert tls is not None or address.is_loopback, "tokens never pass in the clear"
    secured = None if address.is_loopback else tls
    streams = OpenStreams()
    calls = GrpcWeb([DoorGuard(doorman), HandlerGuard(streams)])
    services.offer_to_browsers(calls, without=NODES_ONLY)
    listening = _listening(address)
    if listening is None:
        yield None
        return
    names = {*LOOPBACK_NAMES, _host_name(address), *(secured.names if secured else ())}
    served = application(calls, pages(folder), names)
    async with receiving(served, listening, secured.context if secured else None):
        try:
            yield _url(address, listening.getsockname()[1], secured)
        finally:
            streams.stop()


def _listening(address: Address) -> socket.socket | None:
    """The socket of the door, None if the address cannot be had."""
    try:
        return listen(address.host, address.port, setting=_SETTING)
    except CannotStart as error:
        log.warning("web_unavailable", listen=str(address), problem=str(error), setting=_SETTING)
        return None


def _url(address: Address, port: int, tls: WebTls | None) -> str:
    """Where the page is for whoever is on this machine, by a name that its certificate has."""
    if tls is None:
        return f"http://{Address(address.host, port)}"
    wanted = (_host_name(address), *LOOPBACK_NAMES[1:], *(one for one in tls.names if not one.startswith("*")))
    name = next((one for one in wanted if _is_ours(one, tls.names)), _host_name(address))
    return f"https://{name}:{port}"


def application(calls: _Asgi, known: Mapping[str, Page], hosts: Collection[str]) -> web.Application:
    """The web server's application; `hosts` are the names it answers to, without ports."""
    is_built = known[INDEX].body != NOT_BUILT.encode()

    async def page(request: web.Request) -> web.StreamResponse:
        return _page_response(request, known, is_built=is_built)

    @web.middleware
    async def guarded(request: web.Request, handler: _Handler) -> web.StreamResponse:
        if not _is_ours(_name_of(request.host), hosts):
            return web.Response(
                status=421, text=f"This is not {request.host!r}. Names it answers to: {', '.join(sorted(hosts))}\n"
            )
        return await handler(request)

    made = web.Application(middlewares=[guarded])
    made.router.add_route("*", "/ccr.rpc.v1.{call:.*}", _bridge(calls))
    made.router.add_get("/{path:.*}", page)
    return made


def _page_response(request: web.Request, known: Mapping[str, Page], *, is_built: bool) -> web.Response:
    found = page_at("/" if request.path == "/" else request.path, known)
    if found is None:
        return web.Response(status=404, text="There is no such file.\n", headers=dict(GUARDS))
    headers = {**GUARDS, "ETag": found.etag, "Cache-Control": found.caching}
    if request.headers.get("If-None-Match") == found.etag:
        return web.Response(status=304, headers=headers)
    return web.Response(
        status=200 if is_built else 503, body=found.body, headers={**headers, "Content-Type": found.kind}
    )


def _bridge(app: _Asgi) -> _Handler:
    """An ASGI application as a handler of aiohttp's: so one HTTP server is enough."""

    async def handle(request: web.Request) -> web.StreamResponse:
        response: web.StreamResponse | None = None
        is_read = False

        async def receive() -> dict[str, Any]:
            nonlocal is_read
            if is_read:
                await asyncio.Event().wait()  # the handler is cancelled when the browser leaves
            try:
                body = await request.content.readany()
            except OSError:
                return {"type": "http.disconnect"}
            is_read = request.content.at_eof()
            return {"type": "http.request", "body": body, "more_body": not is_read}

        async def send(event: dict[str, Any]) -> None:
            nonlocal response
            if event["type"] == "http.response.start":
                response = web.StreamResponse(status=event["status"])
                for key, value in event["headers"]:
                    response.headers.add(key.decode("latin1"), value.decode("latin1"))
                await response.prepare(request)
                return
            assert response is not None, "headers come first"
            if event["body"]:
                await response.write(event["body"])
            if not event.get("more_body"):
                await response.write_eof()

        await app(_scope(request), receive, send)
        return response or web.Response(status=499)  # it has left: nobody reads this

    return handle


def _scope(request: web.Request) -> Scope:
    """A request as ASGI describes it, as far as it is read here."""
    peer = request.transport.get_extra_info("peername") if request.transport else None
    return {
        "type": "http",
        "method": request.method,
        "scheme": request.scheme,
        "path": request.path,
        "headers": [(key.lower(), value) for key, value in request.raw_headers],
        "client": peer[:2] if isinstance(peer, tuple) else None,
    }


def _name_of(host: str) -> str:
    """The name in a `Host` header, without the port."""
    name = host.lower()
    return name if name.endswith("]") else name.rpartition(":")[0] or name


def _is_ours(name: str, hosts: Collection[str]) -> bool:
    """Whether one of our names is meant; `*.` at the beginning of one stands for one part."""
    return name in hosts or f"*.{name.partition('.')[2]}" in hosts


def _host_name(address: Address) -> str:
    return f"[{address.host}]" if ":" in address.host else address.host.lower()
