"""What the seeds found, each by itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.load import SteadyUpstream, at_work, steady_load
from support.relay import AUTH, STREAM_BODY, client, config, provider, records, relaying
from support.serving import until
from support.totals import assert_totals_exact, spool_files
from support.upstream import EVENTS, RawUpstream, Request, Wire, event, stream_answer


def test_a_stream_that_stalls_before_its_content_moves_on_after_pings(tmp_path: Path) -> None:
    """After `silence_bound` the client has pings; a prelude is no content, so another target still takes over, unseen."""

    def stall(request: Request, wire: Wire) -> None:
        wire.begin_stream()
        wire.chunk(EVENTS[0])
        wire.wait_gone(20)

    with RawUpstream(stall) as first, RawUpstream(stream_answer) as second:
        providers = [provider("first", first.url, timeouts={"idle": "2s"}), provider("second", second.url)]
        with relaying(tmp_path, config(*providers, routing={"silence_bound": "300ms"})) as relay:
            with client(relay) as connection:
                connection.request("POST", "/v1/messages", STREAM_BODY, AUTH)
                assert connection.head().status == 200
                received = []
                while payload := connection.payload():
                    received.append(payload)
            until(lambda: records(relay), "the record")
            record = records(relay)[0]

    ping = event("ping", '{"type": "ping"}')
    assert received[0] == ping
    assert b"".join(received).replace(ping, b"") == b"".join(EVENTS)
    assert record["outcome"] == "served"
    assert [one["provider"] for one in record["attempts"]] == ["first", "second"]  # type: ignore[attr-defined]


def test_a_provider_that_says_why_it_fails_and_hangs_up_has_the_last_word(tmp_path: Path) -> None:
    """The client got two error events: the provider's, and the relay's for the missing end of the framing."""
    error = event("error", '{"type":"error","error":{"type":"overloaded_error","message":"no"}}')

    def fail(request: Request, wire: Wire) -> None:
        wire.begin_stream()
        for piece in (*EVENTS[:5], error):
            wire.chunk(piece)
        wire.sock.close()

    with RawUpstream(fail) as upstream, relaying(tmp_path, config(provider("one", upstream.url))) as relay:
        with client(relay) as connection:
            connection.request("POST", "/v1/messages", STREAM_BODY, AUTH)
            connection.head()
            received = b""
            while payload := connection.payload():
                received += payload
        until(lambda: records(relay), "the record")
        record = records(relay)[0]

    assert received == b"".join((*EVENTS[:5], error))
    assert record["outcome"] == "broken"
    assert [one["reason"] for one in record["attempts"]] == ["stream_error"]  # type: ignore[attr-defined]


@pytest.mark.timeout(120)
def test_usage_that_a_replaced_worker_leaves_is_delivered_by_who_is_there(tmp_path: Path) -> None:
    """The successor had looked for such files when it started, beside the old one, and never did again."""
    with SteadyUpstream() as upstream, relaying(tmp_path, config(provider("steady", upstream.url))) as relay:
        with steady_load(relay.url, upstream, whole=2, streams=1) as load:
            until(at_work(load, 20), "the load is on")
            control = relay.pids("ccr-control")[-1]
            os.kill(control, signal.SIGSTOP)
            relay.signal(signal.SIGUSR2)
            until(lambda: relay.events("workers_replaced"), "a successor serves")
            until(lambda: relay.events("usage_spooled"), "the old one has left its usage")
            os.kill(control, signal.SIGKILL)
        load.check()
        until(lambda: not spool_files(relay), "everything is delivered", 40)
        assert_totals_exact(relay, load.calls)


def test_what_was_half_written_by_a_killed_worker_is_removed(tmp_path: Path) -> None:
    """Each such file held every credential, and nobody ever took it away."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    own = tmp_path / "state" / "nodes" / "worker-0"
    (own / "spool").mkdir(parents=True, mode=0o700)
    (tmp_path / "state").chmod(0o700)
    left = [own / f".snapshot.pb.{dead.pid}.new", own / "spool" / f".j.spool.{dead.pid}.new"]
    kept = own / f".snapshot.pb.{os.getpid()}.new"  # somebody who lives may be writing it
    for path in (*left, kept):
        path.write_text("sk-half")
    with SteadyUpstream() as upstream, relaying(tmp_path, config(provider("steady", upstream.url))):
        assert not [path for path in left if path.exists()]
        assert kept.exists()
