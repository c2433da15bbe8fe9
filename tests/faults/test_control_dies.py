"""The control plane is killed, or hangs: no request notices, and its totals are exact when it is back."""

from __future__ import annotations

import http.client
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from support.load import SteadyUpstream, at_work, steady_load
from support.relay import config, provider, relaying
from support.serving import REAL_SERVE, Relay, environment, until
from support.totals import assert_totals_exact, counted, safe, spool_files, spooled


def control_pid(relay: Relay) -> int:
    return relay.pids("ccr-control")[-1]


def kill_control(relay: Relay) -> float:
    """Kill it as it is; returns how long until another one is ready."""
    starts, ready = len(relay.pids("ccr-control")), len(relay.events("control_ready"))
    os.kill(control_pid(relay), signal.SIGKILL)
    began_s = time.monotonic()
    until(lambda: len(relay.pids("ccr-control")) > starts, "it is started again")
    until(lambda: len(relay.events("control_ready")) > ready, "it is ready again")
    return time.monotonic() - began_s


def test_killed_again_and_again_under_load(tmp_path: Path, upstream: SteadyUpstream) -> None:
    """0 failed requests; every one of them is in the totals, and none twice."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    roll = random.Random(seed)
    with relaying(tmp_path, config(provider("steady", upstream.url)), "--workers", "2") as relay:
        back_after_s = []
        with steady_load(relay.url, upstream) as load:
            for _ in range(4):
                until(at_work(load, roll.randrange(10, 300)), "the load goes on")
                back_after_s.append(kill_control(relay))
            until(at_work(load, 100), "the load goes on")
        load.check()
        assert_totals_exact(relay, load.calls)
        assert sorted(upstream.numbers) == sorted(call.number for call in load.calls), "each went upstream once"
        assert len(relay.pids("worker-0")) == len(relay.pids("worker-1")) == 1
        until(lambda: not spool_files(relay), "nothing is left on disk")
    print(f"{len(load.calls)} requests; ready again after", [f"{one:.2f} s" for one in back_after_s])


@pytest.mark.long
def test_killed_at_every_moment_of_a_report(tmp_path: Path, upstream: SteadyUpstream) -> None:
    """Between a batch's arrival, its place in the store and its acknowledgement: it is counted once.

    The kill follows the store's newest commit by a time that differs from round to round.
    """
    with relaying(tmp_path, config(provider("steady", upstream.url))) as relay:
        with steady_load(relay.url, upstream, whole=6, streams=0) as load:
            for number in range(3):
                before = counted(relay)
                until(lambda: counted(relay) > before, "another batch is counted")  # noqa: B023
                until(at_work(load, number * 7), "some more")
                kill_control(relay)
        load.check()
        assert_totals_exact(relay, load.calls)


def test_hanging_for_longer_than_a_heartbeat(tmp_path: Path, upstream: SteadyUpstream) -> None:
    """Stopped with SIGSTOP it answers nothing, and nothing breaks either. Nodes wait on disk, and then go on."""
    with relaying(tmp_path, config(provider("steady", upstream.url))) as relay:
        with steady_load(relay.url, upstream, whole=2, streams=2) as load:
            until(at_work(load, 100), "the load is on")
            until(lambda: counted(relay) > 0, "usage is counted")
            pid, already = control_pid(relay), len(relay.events("control_away"))
            os.kill(pid, signal.SIGSTOP)
            try:
                until(lambda: len(relay.events("control_away")) == already + 2, "the node gives both streams up", 20)
                assert spooled(relay) > 0
                until(at_work(load, 50), "the load goes on")
            finally:
                os.kill(pid, signal.SIGCONT)
            until(at_work(load, 50), "the load goes on")
        load.check()
        assert_totals_exact(relay, load.calls)
        assert control_pid(relay) == pid
        until(lambda: not spool_files(relay), "nothing is left on disk")


@contextmanager
def data_alone(state: Path, log: Path) -> Iterator[str]:
    """A ccr-data without supervisor and control plane; yields its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [*REAL_SERVE[:-1], "ccr_data.app", "--listen", address, "--state-dir", str(state), "--log-format", "json"]
    with log.open("ab") as stderr:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=stderr, env=environment())
    try:
        until(lambda: '"node_ready"' in log.read_text(), "it serves")
        yield address
        process.terminate()
        assert process.wait(20) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


def test_a_node_starts_from_its_disk_alone(tmp_path: Path, upstream: SteadyUpstream) -> None:
    """A machine that boots while the control plane is broken serves nevertheless, and the usage is counted later."""
    text = config(provider("steady", upstream.url))
    with relaying(tmp_path, text) as relay:
        with steady_load(relay.url, upstream) as first:
            until(at_work(first, 50), "the load is on")
        first.check()
        relay.signal(signal.SIGTERM)
        assert relay.wait_end() == 0
        assert safe(relay) == len(first.calls)
    with data_alone(relay.state, tmp_path / "data.log") as address:
        asked = http.client.HTTPConnection(address, timeout=10)
        with closing(asked):
            asked.request("GET", "/ready")
            assert asked.getresponse().status == 200
        with steady_load(f"http://{address}", upstream) as second:
            until(at_work(second, 200), "the load is on")
        second.check()
    assert safe(relay) == len(first.calls) + len(second.calls)
    (tmp_path / "serve.log").unlink()
    with relaying(tmp_path, text) as relay:
        assert_totals_exact(relay, [*first.calls, *second.calls])
        until(lambda: not spool_files(relay), "nothing is left on disk")


@pytest.mark.timeout(60)
def test_a_worker_that_is_restarted_while_it_is_dead_serves_at_once(tmp_path: Path, upstream: SteadyUpstream) -> None:
    """The successor needs nobody but its disk; what its predecessor had on disk is counted in the end."""
    with relaying(tmp_path, config(provider("steady", upstream.url))) as relay:
        with steady_load(relay.url, upstream, whole=4, streams=0) as load:
            until(at_work(load, 100), "the load is on")
            until(lambda: counted(relay) >= 100, "usage is counted")
            os.kill(control_pid(relay), signal.SIGSTOP)
            until(lambda: spooled(relay) > 0, "the node takes it for dead")
        load.check()
        until(lambda: len(relay.events("request_done")) == len(load.calls), "every record is written")
        until(lambda: safe(relay) >= len(load.calls), "every record is safe")
        os.kill(relay.pids("worker-0")[-1], signal.SIGKILL)
        began_s = time.monotonic()
        with steady_load(relay.url, upstream) as second:  # connects at once: the socket is the supervisor's
            until(at_work(second, 100), "the successor serves")
        second.check()
        first_answer_s = min(call.ended_s for call in second.calls) - began_s
        os.kill(control_pid(relay), signal.SIGKILL)
        assert_totals_exact(relay, [*load.calls, *second.calls])
        until(lambda: not spool_files(relay), "nothing is left on disk")
    print(f"first answer {first_answer_s:.2f} s after the kill; no request failed")
