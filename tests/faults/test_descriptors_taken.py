"""A process runs out of file descriptors while it runs: it does not spin, what is open goes on, and it recovers by itself."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.load import SteadyUpstream, at_work, steady_load
from support.relay import config, provider, relaying
from support.serving import until
from support.totals import assert_totals_exact, status

TICKS_A_S = os.sysconf("SC_CLK_TCK")
WATCHED_S = 1.5
CLIENTS = 40


@contextlib.contextmanager
def hardly_any_left(pid: int, spare: int = 2) -> Iterator[None]:
    """The process may open only a few more while the block runs."""
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir(f"/proc/{pid}/fd"))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (highest + 1 + spare, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


@contextlib.contextmanager
def connected(address: tuple[str, int], count: int) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(socket.create_connection(address, timeout=20)) for _ in range(count)]


def busy(pid: int) -> float:
    """The share of a core that it uses while nothing but waiting is to be done."""

    def used_s() -> float:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_A_S

    began_s, before_s = time.monotonic(), used_s()
    until(lambda: time.monotonic() - began_s > WATCHED_S, "a while has passed")
    return (used_s() - before_s) / (time.monotonic() - began_s)


def place(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("http://").rpartition(":")
    return host, int(port)


@pytest.mark.long
def test_a_control_plane_without_descriptors(tmp_path: Path, upstream: SteadyUpstream) -> None:
    """Whoever is connected is served, the data plane does not notice, and it answers again when there are some."""
    with relaying(tmp_path, config(provider("steady", upstream.url))) as relay:
        until(lambda: status(relay)["exit_code"] == 0, "all is well")
        control = relay.pids("ccr-control")[-1]
        listen = place(str(relay.events("control_ready")[-1]["listen"]))
        with steady_load(relay.url, upstream, whole=2, streams=2) as load:
            with hardly_any_left(control), connected(listen, CLIENTS):
                until(at_work(load, 30), "the load goes on")
                assert busy(control) < 0.5
                until(at_work(load, 30), "the load goes on")
            until(lambda: status(relay)["exit_code"] == 0, "it answers again")
        load.check()
        assert_totals_exact(relay, load.calls)
        assert relay.events("child_ended") == []


def test_a_worker_without_descriptors(tmp_path: Path, upstream: SteadyUpstream) -> None:
    """Below what it counted on at its start: clients that were there notice nothing, and it serves new ones afterwards."""
    with relaying(tmp_path, config(provider("steady", upstream.url))) as relay:
        until(lambda: relay.events("snapshot_served"), "it has the configuration")
        worker = relay.pids("worker-0")[-1]
        with steady_load(relay.url, upstream, whole=2, streams=2) as load:
            until(at_work(load, 30), "the load is on")
            with hardly_any_left(worker):
                with connected(place(relay.url), CLIENTS) as clients:
                    for one in clients:
                        with contextlib.suppress(OSError):
                            one.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
                    until(at_work(load, 50), "the load goes on")
                assert busy(worker) < 0.9, "with four clients at work"
            with connected(place(relay.url), CLIENTS) as clients:
                for one in clients:
                    one.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
                    assert one.recv(1000).startswith(b"HTTP/1.1 200 ")
        load.check()
        assert_totals_exact(relay, load.calls)
        assert relay.events("child_ended") == []
