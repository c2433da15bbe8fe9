"""The wall clock is set, by an hour or a day, while everything runs: no request, no usage and no budget notices."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.ccr import ccr
from support.client import Answer
from support.clock import Clock
from support.load import SteadyUpstream, at_work, steady_load
from support.relay import AUTH, BODY, client, config, provider
from support.serving import REAL_SERVE, Relay, environment, served, until
from support.totals import counted
from support.upstream import MESSAGE, RawUpstream, Request, Wire, error_answer, json_answer

pytestmark = pytest.mark.long

HOUR_S, DAY_S = 3600, 86_400
OFFSETS_S = {"an hour forward": HOUR_S, "an hour back": 0, "another hour back": -HOUR_S, "a day forward": DAY_S}
LIMIT = 12
FLAKY, LIMITED = (BODY.replace(b"claude-test", name) for name in (b"claude-flaky", b"claude-limited"))


class Fleet:
    """A relay whose clock is set, with a provider that fails on demand and one that is limited."""

    def __init__(self, relay: Relay, clock: Clock, flaky: RawUpstream) -> None:
        self.relay, self.clock, self.flaky = relay, clock, flaky
        self.is_failing = False
        self.served = 0
        flaky.answer = self._answer

    def _answer(self, request: Request, wire: Wire) -> None:
        failing = self.is_failing and request.path.startswith("/v1/messages")
        wire.send(error_answer("500 Error", "api_error") if failing else json_answer(MESSAGE))

    def ask(self, body: bytes) -> Answer:
        with client(self.relay) as connection:
            answer = connection.ask("POST", "/v1/messages", body, AUTH)
        self.served += answer.status == 200
        return answer

    def status(self) -> dict[str, object]:
        done = ccr("status", "--json", "--state-dir", str(self.relay.state), **self.clock.env)
        return {"exit_code": done.returncode, **json.loads(done.stdout)}

    def limited(self) -> int:
        """How many more the limited provider serves; whoever is refused is told a time to wait that is one."""
        count = 0
        while (answer := self.ask(LIMITED)).status == 200:
            count += 1
        assert answer.status == 429
        assert 1 <= int(answer.header("retry-after") or 0) <= 61
        return count

    def circuit_opens_and_closes(self) -> None:
        opened, closed = (len(self.relay.events(f"circuit_{state}")) for state in ("opened", "closed"))
        self.is_failing = True

        def is_open() -> bool:
            assert self.ask(FLAKY).status == 200, "the other provider serves"
            return len(self.relay.events("circuit_opened")) > opened

        until(is_open, "it opens")
        self.is_failing = False
        until(lambda: len(self.relay.events("circuit_closed")) > closed, "a probe finds it back")


def ahead_s(relay: Relay) -> float:
    """How far the relay's clock is ahead of the true one."""
    said = datetime.fromisoformat(str(relay.events("circuit_closed")[-1]["ts"]))
    return (said - datetime.now(UTC)).total_seconds()


def negative(found: object, path: str = "") -> Iterator[str]:
    """Numbers below 0 in what `ccr status` says."""
    if isinstance(found, dict):
        for name, value in found.items():
            yield from negative(value, f"{path}.{name}")
    elif isinstance(found, list):
        for place, value in enumerate(found):
            yield from negative(value, f"{path}[{place}]")
    elif isinstance(found, (int, float)) and found < 0:
        yield f"{path}: {found}"


@pytest.mark.timeout(120)
def test_the_clock_is_set_under_load(tmp_path: Path, upstream: SteadyUpstream) -> None:
    """Circuits open and close after each step, nobody gets more than the limit, workers start anew, and all is counted."""
    clock = Clock(tmp_path)
    with RawUpstream() as flaky, RawUpstream() as scarce:
        came_s: list[float] = []

        def answer(request: Request, wire: Wire) -> None:
            if request.body == LIMITED:
                came_s.append(time.monotonic())
            wire.send(json_answer(MESSAGE))

        scarce.answer = answer
        keys = [{"label": "k", "key": "sk-up-k", "rpm_limit": LIMIT}]
        text = config(
            provider("flaky", flaky.url, serves=["claude-flaky"]),
            provider("scarce", scarce.url, serves=["claude-limited"], keys=keys),
            provider("steady", upstream.url, priority=1, serves=["claude-test"]),
            provider("spare", scarce.url, priority=1, serves=["claude-flaky"]),
            routing={"cooldown": "0s"},
            health={
                "circuit": {"failures": 3, "open_for": "300ms"},
                "probe": {"interval": "100ms", "idle_interval": "0"},
            },
        )
        env = environment(**clock.env)
        with served(tmp_path, text, "--workers", "2", env=env, command=REAL_SERVE) as relay:
            relay.wait_ready()
            until(lambda: len(relay.events("snapshot_served")) >= 2, "both workers have the configuration")
            fleet = Fleet(relay, clock, flaky)
            with steady_load(relay.url, upstream, whole=2, streams=2) as load:
                until(lambda: fleet.status()["exit_code"] == 0, "all is well")
                fleet.circuit_opens_and_closes()
                assert 1 <= fleet.limited() <= LIMIT
                for name, offset_s in OFFSETS_S.items():
                    clock.set(offset_s)
                    until(at_work(load, 30), f"the load goes on, {name}")
                    fleet.circuit_opens_and_closes()
                    fleet.limited()
                    assert abs(ahead_s(relay) - offset_s) < 600, "the clock was set for the processes"
                    found = fleet.status()
                    assert found["exit_code"] == 0, (name, found)
                    assert not list(negative(found)), name
            load.check()
            starts = len(relay.events("node_ready"))
            until(lambda: counted(relay, "served") == len(load.calls) + fleet.served, "every request is counted")
            clock.set(2 * DAY_S)
            for worker in ("worker-0", "worker-1"):
                os.kill(relay.pids(worker)[-1], signal.SIGKILL)
            until(lambda: len(relay.events("node_ready")) == starts + 2, "both workers are back")
            fleet.limited()
            for began_s in came_s:
                assert sum(0 <= at_s - began_s < 60 for at_s in came_s) <= LIMIT, "of any minute that really passed"
            until(lambda: counted(relay, "served") == len(load.calls) + fleet.served, "every request is counted")
