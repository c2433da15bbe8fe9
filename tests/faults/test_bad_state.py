"""What is on disk is damaged, forbidden or full: serving goes on as far as it can, and the log says what is wrong."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.kinds import longer
from support.load import Load, SteadyUpstream, at_work, steady_load
from support.relay import config, provider, relaying
from support.serving import Relay, until
from support.totals import assert_totals_exact, counted, safe, spooled, status

pytestmark = pytest.mark.long

SNAPSHOT = "nodes/worker-0/snapshot.pb"


def run_once(directory: Path, text: str, upstream: SteadyUpstream) -> Load:
    """A relay that served some requests and ended in order; what it left behind is in `directory`."""
    with relaying(directory, text) as relay:
        with steady_load(relay.url, upstream, whole=2, streams=1) as load:
            until(at_work(load, 30), "the load is on")
            until(lambda: counted(relay) >= 10, "usage is counted")
        load.check()
        relay.signal(signal.SIGTERM)
        assert relay.wait_end() == 0
        assert safe(relay) == len(load.calls)
    (directory / "serve.log").unlink()
    return load


def serves(relay: Relay, upstream: SteadyUpstream) -> Load:
    """It answers everything."""
    with steady_load(relay.url, upstream, whole=2, streams=1) as load:
        until(at_work(load, 30), "the load is on")
    load.check()
    return load


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x40
    path.write_bytes(data)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def rubbish(path: Path) -> None:
    path.write_bytes(secrets.token_bytes(3000))


def open_to_others(path: Path) -> None:
    path.chmod(0o666)


def directory_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


def link_instead(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


@pytest.mark.parametrize("damage", [flip, link_instead, *longer(empty, rubbish, open_to_others, directory_instead)])
def test_a_damaged_snapshot_is_not_served(
    tmp_path: Path, upstream: SteadyUpstream, damage: Callable[[Path], None]
) -> None:
    """The node says so, waits for the control plane's, and keeps that one if it can."""
    text = config(provider("steady", upstream.url))
    run_once(tmp_path, text, upstream)
    damage(tmp_path / "state" / SNAPSHOT)
    with relaying(tmp_path, text) as relay:
        ignored = relay.events("snapshot_copy_ignored")
        assert len(ignored) == 1
        assert str(ignored[0]["path"]).endswith(SNAPSHOT)
        assert ignored[0]["reason"]
        serves(relay, upstream)
        until(lambda: status(relay)["exit_code"] == 0, "all is well")
        if damage is directory_instead:
            until(lambda: len(relay.events("snapshot_not_saved")) == 1, "it says that it cannot be kept")
        else:
            with contextlib.suppress(AssertionError):
                until(lambda: (tmp_path / "state" / SNAPSHOT).stat().st_size > 100, "a sound one is kept", 5)
            assert not (tmp_path / "state" / SNAPSHOT).is_symlink()
            assert (tmp_path / "state" / SNAPSHOT).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("damage", [flip, *longer(cut, rubbish)])
def test_a_damaged_spool_is_delivered_as_far_as_it_is_sound(
    tmp_path: Path, upstream: SteadyUpstream, damage: Callable[[Path], None]
) -> None:
    """Never more than there was, nothing twice; the log tells what is missing; new usage is counted as always."""
    with relaying(tmp_path, config(provider("steady", upstream.url))) as relay:
        until(lambda: status(relay)["exit_code"] == 0, "all is well")
        os.kill(relay.pids("ccr-control")[-1], signal.SIGSTOP)
        with steady_load(relay.url, upstream, whole=2, streams=1) as load:
            until(lambda: spooled(relay) >= 100, "the node keeps usage on disk")
        load.check()
        until(lambda: spooled(relay) == len(load.calls), "all of it")
        spool = next((tmp_path / "state" / "nodes").glob("*/spool/*.spool"))
        os.kill(relay.pids("worker-0")[-1], signal.SIGSTOP)
        damage(spool)
        sound = spooled(relay)
        assert sound < len(load.calls)
        os.kill(relay.pids("worker-0")[-1], signal.SIGKILL)
        until(lambda: len(relay.pids("worker-0")) == 2, "a successor starts")
        second = serves(relay, upstream)
        os.kill(relay.pids("ccr-control")[-1], signal.SIGCONT)
        until(lambda: counted(relay) >= sound + len(second.calls), "what is sound is counted")
        told = [*relay.events("usage_spool_cut"), *relay.events("usage_spool_unreadable")]
        assert len(told) == 1
        assert told[0]["path"] == str(spool)
        until(lambda: status(relay)["exit_code"] == 0, "all is well")
        # Batches that were on their way to the control plane when it was stopped are counted, too.
        assert sound + len(second.calls) <= counted(relay) <= len(load.calls) + len(second.calls)


@pytest.mark.parametrize("damage", [rubbish, *longer(cut, directory_instead)])
def test_a_damaged_database_costs_statistics_and_nothing_else(
    tmp_path: Path, upstream: SteadyUpstream, damage: Callable[[Path], None]
) -> None:
    """It is moved aside and another one begun; snapshots go on with higher versions than before."""
    text = config(provider("steady", upstream.url))
    run_once(tmp_path, text, upstream)
    damage(tmp_path / "state" / "control.db")
    with relaying(tmp_path, text) as relay:
        load = serves(relay, upstream)
        until(lambda: status(relay)["exit_code"] == 0, "all is well")
        until(lambda: counted(relay) >= len(load.calls), "usage is counted")
        said = [*relay.events("store_given_up"), *relay.events("store_unavailable")]
        if damage is rubbish:
            assert len(said) == 1
            assert "moved_to" in said[0]
        versions = [int(str(event["version"])) for event in relay.events("snapshot_served")]
        assert versions == sorted(versions)


def test_a_state_directory_that_others_may_write_is_refused(tmp_path: Path, upstream: SteadyUpstream) -> None:
    """Whoever could write there could send requests elsewhere. One line says what to do."""
    text = config(provider("steady", upstream.url))
    run_once(tmp_path, text, upstream)
    (tmp_path / "state").chmod(0o777)
    with pytest.raises(AssertionError, match="ended with 69"), relaying(tmp_path, text):
        pass
    lines = (tmp_path / "serve.log").read_text().splitlines()
    assert len(lines) == 1
    assert "chmod 700" in lines[0]


@contextlib.contextmanager
def small_disk(directory: Path) -> Iterator[Path]:
    """A file system of its own; skips where none may be mounted."""
    directory.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", str(directory)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.decode().strip()}")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


def fill(directory: Path) -> None:
    """Leave no room at all."""
    with (directory / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)


def test_a_full_disk_ends_nothing(tmp_path: Path, upstream: SteadyUpstream) -> None:
    """Filled under load, with a reload, a worker and the control plane killed: every request is answered.

    When there is room again, all is well without anybody's help, and the totals are exact.
    """
    first_text = config(provider("steady", upstream.url, headers={"x-mark": "a"}))
    with small_disk(tmp_path / "disk") as disk:
        arguments = ("--state-dir", str(disk), "--workers", "2")
        with relaying(tmp_path, first_text, *arguments) as relay:
            relay.state = disk
            with steady_load(relay.url, upstream, whole=2, streams=2) as load:
                until(lambda: status(relay)["exit_code"] == 0, "all is well")
                until(lambda: counted(relay) > 0, "usage is counted")
                fill(disk)
                (tmp_path / "ccr.yaml").write_text(first_text.replace('"x-mark": "a"', '"x-mark": "b"'))
                until(lambda: any(call.mark == "b" for call in load.calls), "a reload applies")
                until(at_work(load, 300), "the load goes on")
                os.kill(relay.pids("ccr-control")[-1], signal.SIGKILL)
                until(lambda: len(relay.events("control_ready")) == 2, "the control plane is back, without a disk")
                until(at_work(load, 300), "the load goes on")
            load.check()
            assert relay.events("snapshot_not_saved")
            (disk / "filler").unlink()
            assert_totals_exact(relay, load.calls, within_s=20.0)
            fill(disk)
            starts = len(relay.events("node_ready"))
            for worker in ("worker-0", "worker-1"):
                os.kill(relay.pids(worker)[-1], signal.SIGKILL)
            until(lambda: len(relay.events("node_ready")) == starts + 2, "workers start on a full disk")
            serves(relay, upstream)
            (disk / "filler").unlink()
            until(lambda: status(relay)["exit_code"] == 0, "all is well")


def test_a_page_that_moved_is_served_on_a_full_disk(tmp_path: Path, upstream: SteadyUpstream) -> None:
    """Where it is cannot be written down; nor is it left there where it was."""
    text = config(provider("steady", upstream.url)).replace('"control": {', '"control": {"web_listen": "127.0.0.1:0", ')
    with small_disk(tmp_path / "disk") as disk, relaying(tmp_path, text, "--state-dir", str(disk)) as relay:
        relay.state = disk
        assert relay.events("control_ready")[-1]["web"] == (disk / "web.address").read_text().strip()
        fill(disk)
        os.kill(relay.pids("ccr-control")[-1], signal.SIGKILL)
        until(lambda: len(relay.events("control_ready")) == 2, "the control plane is back, without a disk")
        assert relay.events("control_ready")[-1]["web"]
        assert relay.events("web_address_not_kept")
        assert not (disk / "web.address").exists()
        (disk / "filler").unlink()


def test_a_start_on_a_read_only_directory_is_refused_in_one_line(tmp_path: Path, upstream: SteadyUpstream) -> None:
    """It would forget everything at its end, and nobody would know before."""
    with small_disk(tmp_path / "disk") as disk:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        text = config(provider("steady", upstream.url))
        with pytest.raises(AssertionError, match="ended with 69"), relaying(tmp_path, text, "--state-dir", str(disk)):
            pass
        lines = (tmp_path / "serve.log").read_text().splitlines()
        assert len(lines) == 1
        assert "Read-only file system" in lines[0]
