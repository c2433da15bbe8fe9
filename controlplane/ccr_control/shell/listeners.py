"""The two doors of ccr-control: a private Unix socket for its owner, and a port for holders of a token.

They are two gRPC servers with the same servicers, so that which door needs a token is a matter of construction.
"""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from ccr_control.core.addresses import Address
from ccr_control.shell.access import Doorman
from ccr_control.shell.guard import DoorGuard, HandlerGuard
from ccr_control.shell.log import Log
from ccr_control.shell.paths import CannotStart
from ccr_control.shell.streams import OpenStreams

MAX_MESSAGE_BYTES = 64 << 20
STOP_GRACE_S = 1.0  # for short calls; the long ones end before

OPTIONS: Sequence[tuple[str, int]] = (
    ("grpc.so_reuseport", 0),  # or a second server on the port would start, too, and take half the calls
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),  # nodes ping idle streams every 20 s
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
)

log = Log("listeners")
_Servicer = TypeVar("_Servicer")


class Services:
    """The servicers, for as many servers as want to offer them."""

    def __init__(self) -> None:
        self._adders: list[Callable[[grpc.aio.Server], None]] = []
        self._names: list[str] = []
        self._servicers: dict[str, object] = {}
        self._health = health.aio.HealthServicer()

    def add(self, name: str, add: Callable[[_Servicer, grpc.aio.Server], None], servicer: _Servicer) -> None:
        """A servicer, its full name and the generated function that adds it to a server."""
        self._names.append(name)
        self._servicers[name] = servicer
        self._adders.append(lambda server: add(servicer, server))

    def servicer(self, name: str) -> Any:
        """The servicer of that name, for another that shows what it answers; None if there is none."""
        return self._servicers.get(name)

    def offer_on(self, server: grpc.aio.Server) -> None:
        """Add all of them, health and reflection to a server."""
        for add in self._adders:
            add(server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = [*self._names, health.SERVICE_NAME, reflection.SERVICE_NAME]
        reflection.enable_server_reflection(names, server)

    def offer_to_browsers(self, server: Any, without: Collection[str]) -> None:
        """Add all but those named; `server` has the methods of a gRPC server that generated code calls."""
        for name, add in zip(self._names, self._adders, strict=True):
            if name not in without:
                add(server)

    async def say_serving(self) -> None:
        """Tell whoever asks for the health of a service that it is well."""
        for name in self._names:
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    async def say_stopping(self) -> None:
        """Tell whoever asks that nothing more should be sent here."""
        await self._health.enter_graceful_shutdown()


@asynccontextmanager
async def listening(
    socket_path: Path,
    address: Address,
    doorman: Doorman,
    services: Services,
    tls: grpc.ServerCredentials | None = None,
) -> AsyncIterator[Address]:
    """Serve at both doors while the block runs; yields the TCP address with its real port.

    `tls`: what the port is secured with. Raises CannotStart if an address cannot be had.
    """
    assert tls is not None or address.is_loopback, "tokens never pass in the clear"
    streams = OpenStreams()
    private = grpc.aio.server(interceptors=[DoorGuard(None), HandlerGuard(streams)], options=OPTIONS)
    public = grpc.aio.server(interceptors=[DoorGuard(doorman), HandlerGuard(streams)], options=OPTIONS)
    for server in (private, public):
        services.offer_on(server)
    bound = Address(address.host, _bind_tcp(public, address, tls))
    _bind_socket(private, socket_path)
    await private.start()
    await public.start()
    await services.say_serving()
    try:
        yield bound
    finally:
        await services.say_stopping()
        streams.stop()
        await public.stop(STOP_GRACE_S)
        await private.stop(STOP_GRACE_S)


def _bind_socket(server: grpc.aio.Server, path: Path) -> None:
    """Bind the Unix socket so that nobody else may connect. An older socket there is replaced: we hold the lock."""
    before = os.umask(0o077)
    try:
        server.add_insecure_port(f"unix:{path}")
    except RuntimeError as error:
        raise CannotStart(f"cannot listen on {path}") from error
    finally:
        os.umask(before)


def _bind_tcp(server: grpc.aio.Server, address: Address, tls: grpc.ServerCredentials | None) -> int:
    """Bind the port. Returns it, as 0 means any."""
    try:
        if tls is not None:
            return server.add_secure_port(str(address), tls)
        return server.add_insecure_port(str(address))
    except RuntimeError as error:
        raise CannotStart(f"cannot listen on {address} (control.listen): {_why_not(address)}") from error


def _why_not(address: Address) -> str:
    """What the kernel says to an attempt to bind there; gRPC does not tell."""
    try:
        family, kind, _, _, place = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as attempt:
            attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            attempt.bind(place)
            attempt.listen()
    except OSError as error:
        return error.strerror or str(error)
    return "refused"
