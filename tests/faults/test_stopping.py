"""A relay that stops, and workers that are replaced: what has begun is finished, and nobody loses a request."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import threading
import time
from pathlib import Path

from support.load import Call, Load, SteadyUpstream, at_work, steady_load
from support.relay import AUTH, BODY, STREAM_BODY, client, config, provider, records, relaying
from support.serving import Relay, until
from support.upstream import EVENTS, RawUpstream, Request, Wire


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


def test_what_takes_longer_than_a_worker_may_wait_is_ended_in_order(tmp_path: Path) -> None:
    """Claude Code asks again at an error event and at 503; a connection that just breaks says nothing. Nobody is blamed."""

    def endless(request: Request, wire: Wire) -> None:
        if b'"stream":true' in request.body:
            wire.begin_stream()
            wire.chunk(b"".join(EVENTS[:4]))
        wire.wait_gone(20)

    with RawUpstream(endless) as one:
        text = config(provider("one", one.url), server={"drain_timeout": "1s"})
        with relaying(tmp_path, text) as relay, client(relay) as streaming, client(relay) as waiting:
            streaming.request("POST", "/v1/messages", STREAM_BODY, AUTH)
            assert streaming.head().status == 200
            waiting.request("POST", "/v1/messages", BODY, AUTH)
            until(lambda: len(one.requests) == 2, "both are at the provider")
            relay.signal(signal.SIGUSR2)
            received = b""
            while payload := streaming.payload():
                received += payload
            refused = waiting.answer()
            until(lambda: len(records(relay)) == 2, "the records")
            ended = {str(record["outcome"]): record["attempts"][0]["reason"] for record in records(relay)}  # type: ignore[index]

    assert received.startswith(b"".join(EVENTS[:4]))
    assert b"the stream of provider one was cut off" in received.rpartition(b"event: error\n")[2]
    assert (refused.status, refused.header("retry-after")) == (503, "1")
    assert json.loads(refused.body)["error"]["type"] == "api_error"
    assert ended == {"broken": "stopped", "failed": "stopped"}
    assert not relay.events("circuit_opened")
