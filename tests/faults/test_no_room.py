"""No room for logs, pins and kept budgets: no request fails, it is said once, and with room everything is right again."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from faults.test_bad_state import fill, small_disk
from support.load import SteadyUpstream, at_work, steady_load
from support.relay import KEY, STREAM_BODY, client, config, provider, relaying
from support.serving import Relay, until
from support.totals import counted

KEYS = [{"label": "k", "key": "sk-up-k", "rpm_limit": 100_000}]


def told(relay: Relay, name: str) -> list[dict[str, object]]:
    """Events of that name; lines that the full disk has cut are passed over."""
    found = []
    for line in relay.output.splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and event.get("event") == name:
            found.append(event)
    return found


@pytest.mark.long
def test_a_full_disk_of_logs_costs_lines_and_says_how_many(tmp_path: Path, upstream: SteadyUpstream) -> None:
    """Filled under load; a worker and the control plane are killed meanwhile and come back; every request is answered."""
    with small_disk(tmp_path / "disk") as disk:
        (tmp_path / "serve.log").symlink_to(disk / "serve.log")
        with relaying(tmp_path, config(provider("steady", upstream.url)), "--workers", "2") as relay:
            until(lambda: len(relay.events("snapshot_served")) == 2, "both have the configuration")
            with steady_load(relay.url, upstream, whole=2, streams=2) as load:
                until(lambda: counted(relay) > 0, "usage is counted")
                fill(disk)
                until(at_work(load, 100), "the load goes on")
            load.check()
            os.kill(relay.pids("ccr-control")[-1], signal.SIGKILL)
            ready, pid = relay.state / "nodes" / "worker-0" / "ready", relay.pids("worker-0")[-1]
            os.kill(pid, signal.SIGKILL)
            until(lambda: ready.exists() and ready.read_text() not in ("", str(pid)), "the worker is back")
            with steady_load(relay.url, upstream, whole=2, streams=2) as second:
                until(at_work(second, 100), "the load goes on")
            second.check()
            (disk / "filler").unlink()
            with steady_load(relay.url, upstream, whole=2, streams=2) as third:
                until(lambda: told(relay, "log_lines_dropped"), "it is told how much is missing")
                until(at_work(third, 50), "the load goes on")
            third.check()
            total = len(load.calls) + len(second.calls) + len(third.calls)
            alive = {call.node for call in second.calls + third.calls}
            of_the_killed = sum(call.node not in alive for call in load.calls)  # what it knew of them went with it
            until(lambda: counted(relay) >= total - of_the_killed, "usage is counted")

            def untold() -> int:
                missing = sum(int(str(one["lines"])) for one in told(relay, "log_lines_dropped"))
                return total - len(told(relay, "request_done")) - missing

            assert len(told(relay, "request_done")) < total
            until(lambda: untold() <= of_the_killed, "all that is missing is told of", within_s=10)
            last = [line for line in relay.output.splitlines() if line][-20:]
            assert all(line.startswith("{") and line.endswith("}") for line in last), "lines are whole again"


def session(number: int) -> str:
    return f"x-claude-code-session-id: 00000000-0000-4000-8000-{number:012d}"


def used(budgets: Path) -> int:
    """Requests within the minute, as the file tells a successor."""
    try:
        return int(json.loads(budgets.read_bytes())["spent"][0][2][0])
    except (OSError, ValueError, IndexError):
        return -1


def test_pins_and_budgets_are_kept_again_when_there_is_room(tmp_path: Path, upstream: SteadyUpstream) -> None:
    """A worker that starts later knows the sessions and the minute of the time in which there was none."""

    def asks(relay: Relay, *sessions: int) -> None:
        for number in sessions:
            body = STREAM_BODY.replace(b'"hi"', b'"call %d of 1 events every 0 ms"' % number)
            with client(relay) as connection:
                assert connection.ask("POST", "/v1/messages", body, f"x-api-key: {KEY}", session(number)).status == 200

    with small_disk(tmp_path / "disk") as disk:
        text = config(provider("steady", upstream.url, keys=KEYS))
        with relaying(tmp_path, text, "--state-dir", str(disk)) as relay:
            relay.state = disk
            pins, budgets = disk / "pins" / "worker-0.log", disk / "nodes" / "worker-0" / "budgets.json"
            until(lambda: relay.events("snapshot_served"), "it has the configuration")
            asks(relay, 1, 2)
            until(lambda: pins.exists() and pins.read_bytes().count(b'"provider"') == 2, "pins are kept")
            until(budgets.exists, "budgets are kept")
            fill(disk)
            asks(relay, *range(3, 40))
            until(lambda: relay.events("pins_not_kept") and relay.events("budgets_not_kept"), "it is said")
            asks(relay, *range(40, 60))
            (disk / "filler").unlink()
            until(lambda: pins.read_bytes().count(b'"provider"') >= 59, "all pins are kept, also those from before")
            until(lambda: used(budgets) >= 20, "and what was used of the minute")
            assert len(relay.events("pins_not_kept")) == len(relay.events("budgets_not_kept")) == 1
            assert all(line.endswith(b"}") for line in pins.read_bytes().splitlines() if line)
