"""A public name that resolves to a private address is not connected to."""

from __future__ import annotations

import asyncio
import socket

import pytest
from ccr_data.core.addresses import is_public
from ccr_data.core.snapshot import Origin
from ccr_data.shell.upstream import Pool, UpstreamConnection
from ccr_data.shell.wire import to_snapshot
from support.node_values import snapshot_message


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "100.100.100.200",
        "169.254.169.254",
        "192.0.0.192",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1",
        "fe80::1%eth0",
        "fd00:ec2::254",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "localhost",
        "",
    ],
)
def test_these_are_not_the_internet(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["160.79.104.10", "8.8.8.8", "2607:6bc0::10", "::ffff:8.8.8.8", "198.18.0.7"])
def test_these_are(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "localtest.invalid"])
async def test_a_name_that_leads_home_is_refused_unless_that_is_allowed(host: str) -> None:
    """Nobody is connected to, not even for a moment: the listening socket sees no connection."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        port = listening.getsockname()[1]
        found: list[UpstreamConnection | None] = []
        await Pool().connect(Origin("http", host, port, "", is_public=True), 5.0, found.append)
        assert found == [None]
        with pytest.raises(BlockingIOError):
            listening.accept()
        if host != "localtest.invalid":
            await Pool().connect(Origin("http", host, port), 5.0, found.append)
            assert found[1] is not None
            found[1].abandon()
            await asyncio.sleep(0)


def test_a_snapshot_says_which_providers_are_public() -> None:
    message = snapshot_message(1, providers=2)
    message.providers[1].public_only = True
    providers = to_snapshot(message).providers
    assert [providers[name].origin.is_public for name in ("p0", "p1")] == [False, True]
