"""`ccr serve` cannot start: one clear line and a non-zero exit code, before anything is running."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.serving import CONFIG, RELAY_KEY, SECRET, environment, is_alive, served, until


@contextlib.contextmanager
def taken_port(family: socket.AddressFamily = socket.AF_INET, host: str = "127.0.0.1") -> Iterator[int]:
    with socket.socket(family) as other:
        other.bind((host, 0))
        other.listen()
        yield other.getsockname()[1]


def test_a_taken_port_is_named_with_its_owner(tmp_path: Path) -> None:
    """The most common reason: the relay is already running, or something else is."""
    with taken_port() as port, served(tmp_path, CONFIG.replace("127.0.0.1:0", f"127.0.0.1:{port}", 1)) as relay:
        assert relay.wait_end() == 69
        assert f"ccr serve: cannot listen on 127.0.0.1:{port}: the port is taken by" in relay.output
        assert f"(pid {os.getpid()})" in relay.output
        assert len(relay.output.splitlines()) == 1
        assert relay.every_pid() == []


def test_every_problem_of_a_bad_configuration_is_shown(tmp_path: Path) -> None:
    """Mending one mistake at a time is tiresome."""
    bad = CONFIG.replace("drain_timeout: 20s", "drain_timeout: 20, wrokers: 2").replace("anthropic,", "antropic,", 2)
    with served(tmp_path, bad) as relay:
        assert relay.wait_end() == 78
        assert "drain_timeout" in relay.output
        assert "wrokers" in relay.output
        assert "antropic" in relay.output
        assert "ccr.yaml:2:" in relay.output
        assert SECRET not in relay.output
        assert relay.every_pid() == []


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """It was asked for, so the demo is no answer."""
    with served(tmp_path, None, "--config", "nowhere.yaml") as relay:
        assert relay.wait_end() == 78
        assert "nowhere.yaml" in relay.output
        assert "no such file" in relay.output


def test_demo_and_config_exclude_each_other(tmp_path: Path) -> None:
    """Neither may silently win."""
    with served(tmp_path, CONFIG, "--demo", "--config", "ccr.yaml") as relay:
        assert relay.wait_end() == 2
        assert "leave out --demo or --config" in relay.output


def test_listening_elsewhere_is_for_the_built_in_configuration(tmp_path: Path) -> None:
    """One place says where the relay listens; the control plane reads it, too."""
    with served(tmp_path, CONFIG, "--listen", "127.0.0.1:0") as relay:
        assert relay.wait_end() == 2
        assert f"set server.listen in {tmp_path / 'ccr.yaml'}" in relay.output
    with served(tmp_path, CONFIG, "--listen", "8787") as relay:
        assert relay.wait_end() == 2
        assert "write host:port" in relay.output


def test_without_keys_the_built_in_configuration_stays_on_loopback(tmp_path: Path) -> None:
    """Else everybody on the network would spend the owner's money."""
    with served(tmp_path, CONFIG, "--demo", "--listen", "0.0.0.0:0") as relay:
        assert relay.wait_end() == 78
        assert "server.listen" in relay.output or "loopback" in relay.output
        assert relay.every_pid() == []


def test_an_address_of_another_machine_is_refused(tmp_path: Path) -> None:
    """192.0.2.0/24 belongs to nobody (RFC 5737)."""
    beyond = CONFIG.replace("127.0.0.1:0", "192.0.2.1:8787", 1)
    beyond = beyond.replace("{mode: none}", '{keys: [{name: laptop, key: "' + RELAY_KEY + '"}]}')
    with served(tmp_path, beyond) as relay:
        assert relay.wait_end() == 69
        assert "this machine has no address 192.0.2.1" in relay.output
        assert RELAY_KEY not in relay.output


def test_a_state_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """For example in a container with a read-only disk."""
    (tmp_path / "state").write_text("a file, not a directory")
    with served(tmp_path) as relay:
        assert relay.wait_end() == 69
        assert "state is not a directory" in relay.output


def test_two_supervisors_cannot_share_a_state_directory(tmp_path: Path) -> None:
    """Their control planes would fight for the socket, their workers for the spool."""
    with served(tmp_path) as first:
        first.wait_ready()
        with served(tmp_path) as second:
            assert second.wait_end() == 69
            assert f"another ccr serve (pid {first.process.pid}) already uses" in second.output


@pytest.mark.parametrize("program", ["CONTROL", "DATA"])
@pytest.mark.parametrize("exit_code", [69, 78])
def test_a_program_that_cannot_start_ends_everything(tmp_path: Path, program: str, exit_code: int) -> None:
    """Its own message says what to mend; a restart loop would bury it."""
    env = environment(**{f"STAND_IN_{program}_EXIT": str(exit_code)})
    with served(tmp_path, env=env) as relay:
        assert relay.wait_end() == exit_code
        assert f"stand-in {program.lower()}: cannot start" in relay.output
        assert len(relay.events("cannot_start")) == 1
        assert not any(is_alive(pid) for pid in relay.every_pid())


@pytest.mark.parametrize(("listen", "host"), [("localhost:0", "127.0.0.1"), ("'[::1]:0'", "[::1]")])
def test_names_and_ipv6_can_be_listened_on(tmp_path: Path, listen: str, host: str) -> None:
    """A name means its first IPv4 address."""
    with served(tmp_path, CONFIG.replace('"127.0.0.1:0"', listen, 1)) as relay:
        relay.wait_ready()
        assert relay.url.startswith(f"http://{host}:")
        assert relay.get("/pid") == str(relay.pids("worker-0")[0])
        assert (relay.state / "relay.address").read_text().strip() == relay.url


def test_without_configuration_and_key_the_demo_starts_and_says_so(tmp_path: Path) -> None:
    """`make run` on a fresh machine."""
    with served(tmp_path, None, "--listen", "127.0.0.1:0") as relay:
        relay.wait_ready()
        until(lambda: "DEMO: no configuration was found" in relay.output, "the banner")
        assert f"export ANTHROPIC_BASE_URL={relay.url}" in relay.output
        assert len(relay.pids("demo")) == 1


def test_with_a_key_in_the_environment_its_provider_is_used(tmp_path: Path) -> None:
    """The file that is written names the variable; the key itself appears nowhere."""
    env = environment(ANTHROPIC_API_KEY=SECRET, ZAI_API_KEY=SECRET + "-2")
    with served(tmp_path, None, "--listen", "127.0.0.1:0", env=env) as relay:
        relay.wait_ready()
        until(lambda: "Try it:" in relay.output, "the banner")
        assert "anthropic, zai" in relay.output
        assert "DEMO" not in relay.output
        assert relay.pids("demo") == []
        assert SECRET not in relay.output
        assert SECRET not in (relay.state / "builtin.yaml").read_text()
        assert (relay.state / "builtin.yaml").stat().st_mode & 0o077 == 0


def test_relay_keys_are_never_shown(tmp_path: Path) -> None:
    """Neither in the banner nor in any log line, whatever the relay goes through."""
    with_keys = CONFIG.replace("{mode: none}", '{keys: [{name: laptop, key: "${TEST_RELAY_KEY}"}]}')
    with served(tmp_path, with_keys, env=environment(TEST_RELAY_KEY=RELAY_KEY)) as relay:
        relay.wait_ready()
        os.kill(relay.pids("worker-0")[0], signal.SIGKILL)
        until(lambda: len(relay.pids("worker-0")) == 2, "a restart")
        relay.signal(signal.SIGTERM)
        assert relay.wait_end() == 0
        assert "<one of your relay keys>" in relay.output
        assert RELAY_KEY not in relay.output
        assert SECRET not in relay.output


def test_what_a_killed_supervisor_left_is_waited_for(tmp_path: Path) -> None:
    """A service manager starts the next one at once, while the old programs are still ending."""
    with served(tmp_path) as first:
        first.wait_ready()
        port = first.url.rpartition(":")[2]
        first.process.kill()
        first.process.wait()
        (tmp_path / "again").mkdir()
        # the same state directory, and the port that old workers may still hold
        again = CONFIG.replace("127.0.0.1:0", f"127.0.0.1:{port}", 1)
        with served(tmp_path / "again", again, "--state-dir", str(first.state)) as second:
            second.wait_ready()
            assert second.url == first.url


def test_start_is_quick(tmp_path: Path) -> None:
    """From the command to the first possible request, without the time that real programs need."""
    began_s = time.monotonic()
    with served(tmp_path) as relay:
        relay.wait_ready()
    assert time.monotonic() - began_s < 10
