"""The relay's listening socket, made once by the supervisor and inherited by every worker (docs/adr/0002)."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ccr_control.shell.paths import CannotStart

BACKLOG = 4096  # connections waiting to be accepted; the kernel caps it at net.core.somaxconn
_RETRY_EVERY_S = 0.05

_Address = tuple[Any, ...]  # as getaddrinfo says it: its shape depends on the family


def listen(host: str, port: int, *, patience_s: float = 0.0, setting: str = "server.listen") -> socket.socket:
    """A socket that listens on the address; a port of 0 takes any free one.

    Of several addresses of a host name the first IPv4 one is taken. Tries for `patience_s` while the port is taken.
    Raises CannotStart, with one line that names the address and what to do: `setting` says where else to listen.
    """
    family, address = _resolved(host, port, setting)
    deadline_s = time.monotonic() + patience_s
    while True:
        try:
            return _listening(family, address)
        except OSError as error:
            if error.errno == errno.EADDRINUSE and time.monotonic() < deadline_s:
                time.sleep(_RETRY_EVERY_S)
                continue
            raise CannotStart(f"cannot listen on {shown(host, port)}: {_why(error, host, port, setting)}") from error


def _resolved(host: str, port: int, setting: str) -> tuple[socket.AddressFamily, _Address]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise CannotStart(
            f"cannot listen on {shown(host, port)}: the name {host!r} has no address ({error.strerror}); "
            f"use an IP address of this machine in {setting}"
        ) from error
    found.sort(key=lambda one: one[0] != socket.AF_INET)  # stable: IPv4 first, otherwise as the resolver says
    return found[0][0], found[0][4]


def _listening(family: socket.AddressFamily, address: _Address) -> socket.socket:
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # old connections may linger in TIME_WAIT
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(address[0] != "::"))  # [::] means both
        opened.bind(address)
        opened.listen(BACKLOG)
        opened.setblocking(False)
    except OSError:
        opened.close()
        raise
    return opened


def shown(host: str, port: int) -> str:
    """An address for people and for URLs: `127.0.0.1:8787`, `[::1]:8787`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def reachable_at(listening: socket.socket) -> tuple[str, int]:
    """Where a client on this machine reaches the socket; for a wildcard address that is loopback."""
    host, port = listening.getsockname()[:2]
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port  # noqa: S104 - compared, not bound


def _why(error: OSError, host: str, port: int, setting: str) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            owner = _owner_of(port)
            who = f"by {owner}" if owner else "by another program"
            option = ", or --listen" if setting == "server.listen" else ""
            return f"the port is taken {who}; stop it or listen elsewhere ({setting}{option})"
        case errno.EACCES | errno.EPERM:
            return f"no permission; ports below 1024 need root or CAP_NET_BIND_SERVICE; change {setting}"
        case errno.EADDRNOTAVAIL:
            return f"this machine has no address {host}; change {setting}"
        case _:
            return error.strerror or str(error)


def _owner_of(port: int) -> str | None:
    """The program that listens on a port, as far as /proc tells us; None elsewhere or if it is not ours to see."""
    inodes = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            for descriptor in (process / "fd").iterdir():
                with contextlib.suppress(OSError):
                    if os.readlink(descriptor) in inodes:
                        return f"{(process / 'comm').read_text().strip()} (pid {process.name})"
    return None


def _listening_inodes(port: int) -> Iterator[str]:
    """Inodes of the sockets that listen on a port; proc(5), /proc/net/tcp: field 1 address, 3 state, 9 inode."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:  # 0A: TCP_LISTEN
                    yield fields[9]
