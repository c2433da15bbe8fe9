"""A process is stopped as it is, for longer than anybody waits, and goes on: others serve, nothing is lost or overdrawn."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.load import Call, Load, SteadyUpstream, at_work, steady_load
from support.relay import config, provider, relaying
from support.serving import Relay, until
from support.totals import assert_totals_exact, counted, spool_files

LIMIT = 40
KEYS = [{"label": "k", "key": "sk-up-k", "rpm_limit": LIMIT}]


@contextlib.contextmanager
def paused(pid: int) -> Iterator[None]:
    """Stopped while the block runs."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def worker_of(relay: Relay, node: str) -> str:
    """The worker whose answers have this in common (`Call.node`)."""

    def is_told() -> bool:
        return node in {str(one["request_id"])[:-8] for one in relay.events("request_done")}

    until(is_told, "its log tells of a request")
    found = next(one for one in relay.events("request_done") if str(one["request_id"]).startswith(node))
    return str(found["node"]).rpartition("/")[2]


def test_a_worker_that_is_stopped_holds_up_nobody_else(tmp_path: Path, upstream: SteadyUpstream) -> None:
    """Its clients wait and are answered in the end, streams in whole; new ones are served by the other worker."""
    with relaying(tmp_path, config(provider("steady", upstream.url)), "--workers", "2") as relay:
        until(lambda: len(relay.events("snapshot_served")) == 2, "both have the configuration")
        with steady_load(relay.url, upstream, whole=8, streams=0, keep_alive=False) as first:
            until(lambda: len({call.node for call in first.calls}) == 2, "both serve")
        first.check()
        load = Load(relay.url, upstream.background)
        ended: list[Call] = []
        threads = [threading.Thread(target=lambda: ended.append(load.ask(40, 50))) for _ in range(12)]
        for thread in threads:
            thread.start()
        until(lambda: sum(call.status == 200 for call in load.open.values()) == 12, "every stream has begun")
        holds_up = next(call.node for call in load.open.values())
        with paused(relay.pids(worker_of(relay, holds_up))[-1]):
            with steady_load(relay.url, upstream, whole=3, streams=2, keep_alive=False) as second:
                until(at_work(second, 100), "the other worker serves")
                began_s = time.monotonic()
                until(lambda: time.monotonic() - began_s > 2.5, "longer than a stream takes", 10)
                until(at_work(second, 20), "the other worker still serves")
            nodes = {call.node for call in second.calls}
        for thread in threads:
            thread.join(30)
        load.check()
        second.check()
        assert len(ended) == 12
        assert holds_up in {call.node for call in load.calls}
        assert len(nodes) == 1, "nobody was left to the one that did not move"
        assert holds_up not in nodes
        assert relay.events("child_ended") == relay.events("child_killed") == []
        assert_totals_exact(relay, [*first.calls, *load.calls, *second.calls])


@pytest.mark.long
def test_leases_are_not_overdrawn_while_a_worker_or_the_control_plane_stands_still(
    tmp_path: Path, upstream: SteadyUpstream
) -> None:
    """Whoever is stopped keeps its part, and has no more than that when it goes on."""
    text = config(provider("steady", upstream.url, keys=KEYS))
    with relaying(tmp_path, text, "--workers", "2") as relay:
        until(lambda: len(relay.events("snapshot_served")) == 2, "both have the configuration")
        with steady_load(relay.url, upstream, whole=4, streams=0, keep_alive=False) as load:
            until(lambda: len(upstream.arrivals) >= 8, "some are served")
            with paused(relay.pids("ccr-control")[-1]):
                until(at_work(load, 50), "the load goes on, or is told to wait")
            with paused(relay.pids("worker-1")[-1]):
                began_s = time.monotonic()
                until(lambda: time.monotonic() - began_s > 2.5, "the other would like its part", 10)
                until(at_work(load, 20), "the load goes on, or is told to wait")
            until(at_work(load, 100), "the load goes on, or is told to wait")
        came_s = sorted(arrival.at_s for arrival in upstream.arrivals)
        for began_s in came_s:
            assert sum(0 <= at_s - began_s < 60 for at_s in came_s) <= LIMIT
        assert {call.status for call in load.calls} <= {200, 429}
        assert sum(call.status == 200 for call in load.calls) == len(came_s)
        until(lambda: counted(relay, "served") == len(came_s), "all is counted, once")
        until(lambda: not spool_files(relay), "nothing is left on disk")
