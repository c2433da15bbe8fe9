"""The control plane, for scripts: a typed stub for every service, with address, token and deadlines seen to.

    from ccr_client import connect
    from ccr_rpc.v1 import providers_pb2

    with connect() as relay:
        for one in relay.providers.ListProviders(providers_pb2.ListProvidersRequest()).providers:
            print(one.name)

`connect_async` is the same for asyncio. Methods and messages are those of docs/reference/proto.md. What goes wrong is a
`ControlError` with a word that a script can tell apart.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ccr_client.connecting import AsyncControlPlane, ControlPlane, connect, connect_async
    from ccr_client.door import Door, NoDoor
    from ccr_client.errors import ControlError
    from ccr_client.paging import every, every_async

os.environ.setdefault(
    "GRPC_VERBOSITY", "NONE"
)  # read when gRPC is imported: its C core would write to stderr by itself

__all__ = [
    "AsyncControlPlane",
    "ControlError",
    "ControlPlane",
    "Door",
    "NoDoor",
    "connect",
    "connect_async",
    "every",
    "every_async",
]

_HOMES = {
    "connecting": ("AsyncControlPlane", "ControlPlane", "connect", "connect_async"),
    "door": ("Door", "NoDoor"),
    "errors": ("ControlError",),
    "paging": ("every", "every_async"),
}


def __getattr__(name: str) -> object:
    """Imported when asked for: gRPC takes 0.1 s, which who only looks for an address need not pay."""
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"ccr_client.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
