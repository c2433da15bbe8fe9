"""What a worker finds at its start is nobody's work, or of another version: each file is named once, and it serves."""

from __future__ import annotations

import random
import secrets
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from ccr_data.core.errors import SnapshotInvalid
from ccr_data.shell.store import read_snapshot
from support.load import SteadyUpstream, at_work, steady_load
from support.relay import KEY, STREAM_BODY, client, config, provider, relaying
from support.serving import Relay, until
from support.totals import counted, safe, status

pytestmark = pytest.mark.long

KEYS = [{"label": "k", "key": "sk-up-k", "rpm_limit": 100_000}]
NODE = "nodes/worker-0"
ORPHAN = f"{NODE}/spool/00000000000000aa.spool"
FILES = (f"{NODE}/snapshot.pb", f"{NODE}/budgets.json", ORPHAN, "pins/worker-0.log", "pins/salt", "control.db")
SAID = {
    f"{NODE}/snapshot.pb": ("snapshot_copy_ignored",),
    f"{NODE}/budgets.json": ("budgets_ignored",),
    ORPHAN: ("usage_spool_unreadable", "usage_spool_cut"),
}


def empty(path: Path) -> None:
    path.write_bytes(b"")


def garbage(path: Path) -> None:
    path.write_bytes(secrets.token_bytes(700))


def zeros(path: Path) -> None:
    """As some file systems leave a file after a power cut."""
    path.write_bytes(bytes(path.stat().st_size))


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def newer(path: Path) -> None:
    """Of a version that is not written yet."""
    data = path.read_bytes()
    if path.suffix == ".json":
        path.write_bytes(b'{"version":9,"budgets":[]}')
    else:
        path.write_bytes(data.replace(b" 1\n", b" 9\n", 1) if b" 1\n" in data[:40] else b"9" + data)


DAMAGES: list[Callable[[Path], None]] = [empty, garbage, zeros, half, newer]


def is_sound(path: Path) -> bool:
    try:
        read_snapshot(path)
    except (OSError, SnapshotInvalid):
        return False
    return True


def asks(relay: Relay, number: int) -> None:
    body = STREAM_BODY.replace(b'"hi"', b'"call %d of 1 events every 0 ms"' % number)
    session = f"x-claude-code-session-id: 00000000-0000-4000-8000-{number:012d}"
    with client(relay) as connection:
        assert connection.ask("POST", "/v1/messages", body, f"x-api-key: {KEY}", session).status == 200


@pytest.fixture(scope="module")
def left_behind(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """What a relay that ended in order left: its state directory and its configuration."""
    directory = tmp_path_factory.mktemp("before")
    with SteadyUpstream() as steady:
        text = config(provider("steady", steady.url, keys=KEYS))
        with relaying(directory, text) as relay:
            until(lambda: relay.events("snapshot_served"), "it has the configuration")
            for number in range(1, 6):
                asks(relay, number)
            until((directory / "state" / NODE / "budgets.json").exists, "budgets are kept")
            until(lambda: safe(relay) == 5, "all is counted")
            relay.signal(signal.SIGTERM)
            assert relay.wait_end() == 0
    for name in FILES:
        assert name == ORPHAN or (directory / "state" / name).exists(), name
    return directory / "state", text


@pytest.mark.parametrize("attempt", [1, 2])
def test_every_file_at_once(
    tmp_path: Path, upstream: SteadyUpstream, left_behind: tuple[Path, str], attempt: int
) -> None:
    """Each is damaged in some way. It serves, counts, ends over none of it, and keeps all of them anew."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}, attempt {attempt}")
    roll = random.Random(seed)
    before, text = left_behind
    state = tmp_path / "state"
    shutil.copytree(before, state)
    (state / ORPHAN).parent.mkdir(mode=0o700, exist_ok=True)
    (state / ORPHAN).write_bytes(b"ccr-spool 1\n" + bytes(50))
    done = {name: roll.choice(DAMAGES) for name in FILES}
    print({name: damage.__name__ for name, damage in done.items()})
    for name, damage in done.items():
        damage(state / name)
    port = text[text.index("http://127.0.0.1:") :].partition('"')[0]
    with relaying(tmp_path, text.replace(port, upstream.url)) as relay:
        with steady_load(relay.url, upstream, whole=2, streams=1) as load:
            until(at_work(load, 30), "the load is on")
        load.check()
        until(lambda: counted(relay) >= len(load.calls), "usage is counted")
        until(lambda: status(relay)["exit_code"] == 0, "all is well")
        for name, events in SAID.items():
            told = [one for event in events for one in relay.events(event) if str(one["path"]).endswith(name)]
            assert len(told) == 1, (name, told)
        assert relay.events("child_ended") == []
        until(lambda: is_sound(state / f"{NODE}/snapshot.pb"), "the snapshot is kept anew")
        until(lambda: (state / f"{NODE}/budgets.json").read_bytes().startswith(b'{"at_s":'), "and what was used")
