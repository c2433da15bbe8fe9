"""More clients than a worker has file descriptors for: nobody is dropped, the log says it, and all are served in turn."""

from __future__ import annotations

import contextlib
import shlex
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from support.load import SteadyUpstream, at_work, steady_load
from support.relay import config, provider
from support.serving import REAL_SERVE, Relay, served, until
from support.totals import assert_totals_exact, status

LIMIT = 96
LIMITED = ("sh", "-c", f'ulimit -n {LIMIT}; exec {shlex.join(REAL_SERVE)} "$@"', "sh")


@contextlib.contextmanager
def silent_clients(relay: Relay, count: int) -> Iterator[list[socket.socket]]:
    """Connections on which nothing is asked."""
    parts = urlsplit(relay.url)
    with contextlib.ExitStack() as stack:
        address = (str(parts.hostname), parts.port)
        yield [stack.enter_context(socket.create_connection(address, timeout=20)) for _ in range(count)]


def test_more_silent_clients_than_descriptors(tmp_path: Path, upstream: SteadyUpstream) -> None:
    """Whoever was there before goes on; those who come later get their turn, also while the silent ones stay."""
    with served(tmp_path, config(provider("steady", upstream.url)), command=LIMITED) as relay:
        relay.wait_ready()
        until(lambda: status(relay)["exit_code"] == 0, "all is well")
        with steady_load(relay.url, upstream, whole=2, streams=2) as load:
            until(at_work(load, 20), "the load is on")
            with silent_clients(relay, LIMIT) as clients:
                until(lambda: relay.events("connections_full"), "the log says it")
                until(at_work(load, 100), "clients that were there before go on")
                late = clients[-1]
                late.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
                assert late.recv(1000).startswith(b"HTTP/1.1 200 "), "the last one waits, and is served"
            until(at_work(load, 100), "the load goes on")
        load.check()
        assert_totals_exact(relay, load.calls)
        assert relay.events("child_ended") == []


def test_more_busy_clients_than_descriptors(tmp_path: Path, upstream: SteadyUpstream) -> None:
    """Hundreds of clients that each ask: all of them are answered, though not all at once; no provider is blamed."""
    with served(tmp_path, config(provider("steady", upstream.url)), command=LIMITED) as relay:
        relay.wait_ready()
        with steady_load(relay.url, upstream, whole=0, streams=2 * LIMIT, keep_alive=False) as load:
            until(at_work(load, 3 * LIMIT), "each had its turn")
        load.check()
        assert len({call.number for call in load.calls}) == len(set(upstream.numbers)) == len(upstream.numbers)
        assert relay.events("connections_full")
        assert relay.events("child_ended") == []
        assert_totals_exact(relay, load.calls)
