"""`ccr serve` while it runs and ends: crashes, signals, draining, orphans."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from support.serving import CONFIG, STAND_IN_SERVE, Relay, is_alive, served, until


@contextlib.contextmanager
def open_stream(relay: Relay, folder: Path) -> Iterator[socket.socket]:
    """A stream that has begun and goes on until `folder`/go exists."""
    folder.mkdir(exist_ok=True)
    with relay.connect() as connection:
        connection.sendall(f"GET /stream{folder} HTTP/1.1\r\nhost: relay\r\n\r\n".encode())
        seen = b""
        while b"begun" not in seen:
            seen += connection.recv(4096)
        yield connection


def rest_of(connection: socket.socket) -> bytes:
    """Everything until the other end closes."""
    rest = b""
    while part := connection.recv(4096):
        rest += part
    return rest


def ends(relay: Relay) -> list[str]:
    """The programs that ended in order, in their order."""
    return (relay.state / "ends").read_text().splitlines()


def refuses(relay: Relay) -> bool:
    try:
        relay.connect(within_s=1).close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_crashed_worker_is_restarted_and_its_port_never_closes(tmp_path: Path) -> None:
    """A connection made while no worker is there waits for the next one instead of being refused."""
    with served(tmp_path) as relay:
        relay.wait_ready()
        with contextlib.suppress(http.client.HTTPException, ConnectionError):
            relay.get("/crash")
        assert relay.get("/pid") == str(relay.pids("worker-0")[1])
        ended = relay.events("child_ended")
        assert [(event["child"], event["how"], event["restart_in_s"]) for event in ended] == [
            ("worker-0", "exit 3", 0.2)
        ]


def test_a_crash_loop_slows_down(tmp_path: Path) -> None:
    """Waits double from crash to crash."""
    with served(tmp_path) as relay:
        relay.wait_ready()
        for crashes in range(1, 4):
            until(lambda: len(relay.pids("worker-0")) == crashes, "the next start")  # noqa: B023 - used within the round
            os.kill(relay.pids("worker-0")[-1], signal.SIGKILL)
        until(lambda: len(relay.events("child_ended")) == 3, "three crashes")
        assert [event["restart_in_s"] for event in relay.events("child_ended")] == [0.2, 0.4, 0.8]
        assert {event["how"] for event in relay.events("child_ended")} == {"killed by SIGKILL"}


def test_a_crashed_control_plane_is_restarted_and_workers_stay(tmp_path: Path) -> None:
    """They serve from what they have; nothing about them changes."""
    with served(tmp_path) as relay:
        relay.wait_ready()
        os.kill(relay.pids("ccr-control")[0], signal.SIGKILL)
        until(lambda: len(relay.pids("ccr-control")) == 2, "a restart")
        assert relay.get("/pid") == str(relay.pids("worker-0")[0])
        assert len(relay.pids("worker-0")) == 1


def test_stopping_lets_open_streams_finish(tmp_path: Path) -> None:
    """The port closes at once, the answer that was being given is given to its end, and in order: workers first."""
    with served(tmp_path, CONFIG, "--workers", "2") as relay:
        relay.wait_ready()
        with open_stream(relay, tmp_path / "stream") as connection:
            relay.signal(signal.SIGTERM)
            until(lambda: refuses(relay), "the port closes")
            assert relay.process.poll() is None
            assert is_alive(relay.pids("ccr-control")[0])
            (tmp_path / "stream" / "go").touch()
            assert rest_of(connection).endswith(b"done\n")
        assert relay.wait_end() == 0
        assert sorted(ends(relay)[:2]) == ["worker-0", "worker-1"]
        assert ends(relay)[2:] == ["ccr-control"]
        assert not (relay.state / "relay.address").exists()
        assert not any(is_alive(pid) for pid in relay.every_pid())


def test_draining_ends_at_its_timeout(tmp_path: Path) -> None:
    """A stream that never ends does not keep the relay from ending."""
    with served(tmp_path, CONFIG.replace("drain_timeout: 20s", "drain_timeout: 1s")) as relay:
        relay.wait_ready()
        with open_stream(relay, tmp_path / "stream") as connection:
            relay.signal(signal.SIGINT)
            assert b"done" not in rest_of(connection)
        assert relay.wait_end() == 0


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    """Somebody has pressed Ctrl-C twice."""
    with served(tmp_path) as relay:
        relay.wait_ready()
        with open_stream(relay, tmp_path / "stream"):
            relay.signal(signal.SIGINT)
            until(lambda: relay.events("stopping"), "the first is obeyed")
            began_s = time.monotonic()
            relay.signal(signal.SIGINT)
            assert relay.wait_end() == 130
            assert time.monotonic() - began_s < 5
        assert not any(is_alive(pid) for pid in relay.every_pid())


def test_a_killed_supervisor_leaves_no_orphans(tmp_path: Path) -> None:
    """Nothing goes on listening with nobody to stop it."""
    with served(tmp_path, CONFIG, "--workers", "2") as relay:
        relay.wait_ready()
        relay.signal(signal.SIGKILL)
        relay.wait_end()
        until(lambda: not any(is_alive(pid) for pid in relay.every_pid()), "all programs end")
        assert refuses(relay)


def test_hang_up_reaches_the_control_plane_and_nobody_else(tmp_path: Path) -> None:
    """`kill -HUP` reads the configuration again."""
    with served(tmp_path) as relay:
        relay.wait_ready()
        until((relay.state / "control.pid").exists, "ccr-control listens to signals")
        relay.signal(signal.SIGHUP)
        until((relay.state / "reloads").exists, "the reload")
        assert relay.get("/pid") == str(relay.pids("worker-0")[0])


def test_closing_the_terminal_stops_the_relay(tmp_path: Path) -> None:
    """The same signal as for a reload, but nobody is left to stop it later."""
    master, slave = os.openpty()
    take_terminal = (
        "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_DFL); "  # nohup would be inherited
        "os.open(sys.argv[1], os.O_RDWR); os.execv(sys.executable, sys.argv[2:])"
    )
    command = (sys.executable, "-c", take_terminal, os.ttyname(slave), *STAND_IN_SERVE)
    with served(tmp_path, command=command) as relay:
        relay.wait_ready()
        os.close(slave)
        os.close(master)
        assert relay.wait_end() == 0
        assert relay.events("reload_asked") == []
        assert not any(is_alive(pid) for pid in relay.every_pid())


def test_workers_are_replaced_without_refusing_or_breaking_anything(tmp_path: Path) -> None:
    """A new version of the code, or a worker that has grown: SIGUSR2."""
    with served(tmp_path, CONFIG, "--workers", "2") as relay:
        relay.wait_ready()
        old = {relay.pids("worker-0")[0], relay.pids("worker-1")[0]}
        with open_stream(relay, tmp_path / "stream") as connection:
            relay.signal(signal.SIGUSR2)
            answered = []
            until(lambda: answered.append(relay.get("/pid")) or relay.events("workers_replaced"), "the replacement")
            until(lambda: len([pid for pid in old if is_alive(pid)]) == 1, "the idle old worker ends")
            new = {relay.pids("worker-0")[1], relay.pids("worker-1")[1]}
            assert all(is_alive(pid) for pid in new)
            (tmp_path / "stream" / "go").touch()
            assert rest_of(connection).endswith(b"done\n")
        until(lambda: not any(is_alive(pid) for pid in old), "the other old worker ends")
        assert int(relay.get("/pid")) in new
        assert set(map(int, answered)) <= old | new
        relay.signal(signal.SIGTERM)
        assert relay.wait_end() == 0
        assert relay.events("child_ended") == []


def test_workers_get_the_allocator_and_silence_of_grpc(tmp_path: Path) -> None:
    """Both must be in the environment before the process starts."""
    with served(tmp_path) as relay:
        relay.wait_ready()
        assert relay.get("/env/MALLOC_MMAP_THRESHOLD_") == "33554432"
        assert relay.get("/env/MALLOC_TRIM_THRESHOLD_") == "134217728"
        assert relay.get("/env/GRPC_VERBOSITY") == "NONE"
