"""A relay that stops, and workers that are replaced: what has begun is finished, and nobody loses a request."""

from __future__ import annotations

import contextlib
import http.client
import signal
import threading
import time
from pathlib import Path

from support.load import Call, Load, SteadyUpstream, at_work, steady_load
from support.relay import config, provider, relaying
from support.serving import Relay, until


def relay_config(upstream: SteadyUpstream, drain: str = "20s") -> str:
    """One provider; streams may take their time when the relay stops."""
    return config(provider("steady", upstream.url), server={"drain_timeout": drain})


def assert_refused(relay: Relay) -> None:
    """A new connection is refused, or answered with 503."""
    connection = http.client.HTTPConnection("127.0.0.1", int(relay.url.rpartition(":")[2]), timeout=5)
    with contextlib.closing(connection), contextlib.suppress(ConnectionError):
        connection.request("GET", "/ready")
        assert connection.getresponse().status == 503


def test_streams_that_are_open_at_sigterm_are_finished(tmp_path: Path, upstream: SteadyUpstream) -> None:
    """Restarting the machine's relay does not cut an answer in half; nobody gets in any more; it ends with 0."""
    with relaying(tmp_path, relay_config(upstream), "--workers", "2") as relay:
        load = Load(relay.url, upstream.background)
        ended: list[Call] = []
        threads = [threading.Thread(target=lambda: ended.append(load.ask(30, 50))) for _ in range(8)]
        for thread in threads:
            thread.start()
        until(lambda: len(upstream.arrivals) == 8, "every stream has begun")
        relay.signal(signal.SIGTERM)
        until(lambda: len(relay.events("node_draining")) == 2, "the workers drain")
        assert_refused(relay)
        assert len(ended) < 8
        for thread in threads:
            thread.join(20)
        assert relay.wait_end() == 0
        load.check()
        assert len(ended) == 8
        assert relay.events("child_killed") == []


def test_a_relay_that_stops_under_load_breaks_nothing(tmp_path: Path, upstream: SteadyUpstream) -> None:
    """What was accepted is answered in whole; what comes too late is refused before anything went upstream."""
    with relaying(tmp_path, relay_config(upstream), "--workers", "2") as relay:
        with steady_load(relay.url, upstream, whole=8, streams=8) as load:
            until(at_work(load, 200), "the load is on")
            relay.signal(signal.SIGTERM)
            assert relay.wait_end() == 0
        reached = set(upstream.numbers)
        broken = [call for call in load.failures if call.number in reached]
        assert not broken, "\n".join(map(str, broken[:5]))
        # One that nobody has accepted when the last process ends is reset by the kernel.
        late = [call for call in load.failures if not call.is_on_used_connection]
        assert all("cannot connect" in call.failure or "0 bytes read" in call.failure for call in late)
        lost = [call for call in load.failures if call.is_on_used_connection]
        assert not lost, "\n".join(map(str, lost[:5]))
        assert relay.events("child_killed") == []


def test_workers_are_replaced_without_losing_a_request(tmp_path: Path, upstream: SteadyUpstream) -> None:
    """SIGUSR2 after SIGUSR2, with clients that keep their connections and clients that do not."""
    with relaying(tmp_path, relay_config(upstream), "--workers", "2") as relay:
        with steady_load(relay.url, upstream, whole=8, streams=6, events=40, gap_ms=20) as load:
            load.add_clients(4, pause_s=0.0, keep_alive=False)
            load.add_clients(4, pause_s=0.1)
            for round_number in range(1, 4):
                relay.signal(signal.SIGUSR2)
                until(lambda n=round_number: len(relay.events("workers_replaced")) == n, "replaced", 30)  # type: ignore[misc]
            began_s = time.monotonic()
            until(lambda: len(relay.events("node_stopped")) == 6, "the old workers have ended", 20)
            print(f"the last old workers ended {time.monotonic() - began_s:.1f} s after the last replacement")
            until(at_work(load, 100), "the load goes on")
        load.check()
        assert len({call.node for call in load.calls}) == 8
        assert sorted(upstream.numbers) == sorted(call.number for call in load.calls), "each went upstream once"
        assert all(event["is_drained"] for event in relay.events("node_stopped"))
        assert relay.events("child_ended") == relay.events("child_killed") == []
