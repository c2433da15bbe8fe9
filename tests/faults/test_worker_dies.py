"""A worker is killed: only what it had in hand is lost, others go on, and what it had told or kept is counted once."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest
from support.load import Call, SteadyUpstream, at_work, steady_load
from support.relay import config, provider, relaying
from support.serving import Relay, until
from support.totals import assert_totals_exact, counted, safe, spool_files, spooled, status

pytestmark = pytest.mark.long

UNREPORTED_S = 0.25  # a worker tells, at the latest, this long after a request has ended
COMMIT_S = 0.25  # and the control plane keeps it in far less than this


def reporters(relay: Relay) -> list[dict[str, object]]:
    """Each time that a node began to report."""
    return [event for event in relay.events("control_connected") if event["stream"] == "usage"]


def settled(relay: Relay, column: str = "requests") -> int:
    """What is counted when nothing was added for a second, four times what a node takes to tell."""
    seen, since_s = counted(relay, column), time.monotonic()

    def is_settled() -> bool:
        nonlocal seen, since_s
        if (now := counted(relay, column)) != seen:
            seen, since_s = now, time.monotonic()
        return time.monotonic() - since_s > 4 * UNREPORTED_S

    until(is_settled, "nothing more is counted")
    return seen


def had_in_hand(calls: list[Call], before_s: float, after_s: float) -> list[Call]:
    """Those that were open when a worker was killed; a client learns of it a little later."""
    return [call for call in calls if call.began_s < after_s + 0.1 and call.ended_s > before_s]


def test_killed_with_another_beside_it(tmp_path: Path, upstream: SteadyUpstream) -> None:
    """Only requests that were in its hands fail, each at once; nobody who comes later does; soon there are two again."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    roll = random.Random(seed)
    with relaying(tmp_path, config(provider("steady", upstream.url)), "--workers", "2") as relay:
        killed: list[tuple[float, float]] = []
        with steady_load(relay.url, upstream, whole=6, streams=4, events=40, gap_ms=10) as load:
            load.add_clients(4, pause_s=0.0, keep_alive=False)
            for number in range(3):
                until(at_work(load, roll.randrange(50, 300)), "the load goes on")
                worker = f"worker-{roll.randrange(2)}"
                starts, reporting = len(relay.events("node_ready")), len(reporters(relay))
                began_s = time.monotonic()
                os.kill(relay.pids(worker)[-1], signal.SIGKILL)
                killed.append((began_s, time.monotonic()))
                until(lambda: len(relay.events("node_ready")) > starts, f"it is back, round {number}")  # noqa: B023
                until(lambda: len(reporters(relay)) > reporting, "and it reports")  # noqa: B023
                print(f"{worker} killed; it serves and reports again after {time.monotonic() - began_s:.2f} s")
            until(at_work(load, 100), "the load goes on")
        failures = load.failures
        allowed = {call.number for kill in killed for call in had_in_hand(load.calls, *kill)}
        assert [str(call) for call in failures if call.number not in allowed] == []
        late = [call for call in failures if min(abs(call.ended_s - at_s) for _, at_s in killed) > 1.0]
        assert [str(call) for call in late] == [], "a lost request is noticed at once"
        assert len(failures) <= 3 * (6 + 4 + 4)  # none, if the other worker had all of them
        # Nothing was sent upstream twice, and what is answered was sent once.
        assert len(set(upstream.numbers)) == len(upstream.numbers)
        assert {call.number for call in load.answered} <= set(upstream.numbers)
        assert len({call.node for call in load.answered}) == 5
        until(lambda: status(relay)["exit_code"] == 0, "all is well")

        # A record is lost only if its request ended in the last moments of its worker.
        until(lambda: counted(relay) >= least_counted(load.answered, killed), "what must be counted is counted")
        lost = len(load.answered) - settled(relay, "served")
        at_risk = len(load.answered) - least_counted(load.answered, killed)
        unreported = len(load.answered) - least_counted(load.answered, killed, UNREPORTED_S)
        print(
            f"{len(load.calls)} requests, {len(failures)} in hand and lost; {lost} records lost, {unreported} had ended "
            f"in the last {UNREPORTED_S * 1e3:.0f} ms of their worker"
        )
        assert 0 <= lost <= at_risk


def least_counted(
    answered: list[Call], killed: list[tuple[float, float]], risky_s: float = UNREPORTED_S + COMMIT_S
) -> int:
    """How many requests ended long enough before the kill of their worker that it had told their records."""
    last_s: dict[str, float] = {}
    for call in answered:
        last_s[call.node] = max(last_s.get(call.node, 0.0), call.ended_s)

    def is_at_risk(call: Call) -> bool:
        died_s = next((at_s for _, at_s in killed if abs(last_s[call.node] - at_s) < 0.2), None)
        return died_s is not None and call.ended_s > died_s - risky_s

    return sum(not is_at_risk(call) for call in answered)


def test_what_it_kept_on_disk_is_delivered_by_its_successor(tmp_path: Path, upstream: SteadyUpstream) -> None:
    """The control plane hangs, the worker spools and is killed under load: the totals are what was told or on disk.

    Not one more, not one less; what is lost had ended in the last moments.
    """
    with relaying(tmp_path, config(provider("steady", upstream.url))) as relay:
        with steady_load(relay.url, upstream, whole=4, streams=0) as load:
            until(lambda: counted(relay) >= 50, "usage is counted")
            control = relay.pids("ccr-control")[-1]
            os.kill(control, signal.SIGSTOP)
            until(lambda: spooled(relay) > 300, "the node takes it for dead and keeps usage on disk")
            on_disk = spool_files(relay)
            assert len(on_disk) == 1
            assert on_disk[0].stat().st_mode & 0o077 == 0
            killed_s = time.monotonic()
            os.kill(relay.pids("worker-0")[-1], signal.SIGKILL)
            dead = on_disk[0]
            kept = spooled(relay) if spool_files(relay) == [dead] else -1
            before = counted(relay)
            told = safe(relay)
            until(lambda: any(call.began_s > killed_s and not call.failure for call in load.calls), "it serves again")
            until(at_work(load, 50), "the load goes on")
            os.kill(control, signal.SIGCONT)
        dead_node = load.answered[0].node  # its last answers may arrive after the kill
        first = [call for call in load.answered if call.node == dead_node]
        second = [call for call in load.answered if call.node != dead_node]
        adopted = relay.events("usage_spool_adopted")
        assert dead.stem in [event["journal"] for event in adopted]
        until(lambda: not spool_files(relay), "everything is delivered")
        until(lambda: counted(relay) >= told + len(second), "everything is counted")
        total = settled(relay)
        lost = len(first) + len(second) - total
        ends = sorted(call.ended_s for call in first)
        at_risk = sum(killed_s - ended_s < 2 * UNREPORTED_S + COMMIT_S for ended_s in ends)
        print(
            f"{len(first)} requests before the kill: {before} counted, {kept} on disk; {lost} lost, {at_risk} at risk"
        )
        if lost > 0:
            print(f"the lost ones are those of the last {(killed_s - ends[-lost]) * 1e3:.0f} ms")
        assert 0 <= lost <= at_risk
        assert all(call.ended_s > killed_s for call in load.failures)


@pytest.mark.long
def test_nothing_is_lost_when_nothing_was_in_hand(tmp_path: Path, upstream: SteadyUpstream) -> None:
    """Once a record is told or spooled, killing whoever had it any number of times costs nothing."""
    with relaying(tmp_path, config(provider("steady", upstream.url)), "--workers", "2") as relay:
        calls: list[Call] = []
        for number in range(3):
            with steady_load(relay.url, upstream, whole=4, streams=2) as load:
                until(at_work(load, 150), "the load is on")
                if number == 1:
                    os.kill(relay.pids("ccr-control")[-1], signal.SIGSTOP)
                    until(lambda: spooled(relay) > 0, "usage is kept on disk")
            load.check()
            calls += load.calls
            until(lambda: safe(relay) >= len(calls), "every record is told or on disk")  # noqa: B023
            starts = len(relay.events("node_ready"))
            for worker in ("worker-0", "worker-1"):
                os.kill(relay.pids(worker)[-1], signal.SIGKILL)
            if number == 1:
                os.kill(relay.pids("ccr-control")[-1], signal.SIGKILL)
            until(lambda: len(relay.events("node_ready")) == starts + 2, "both are back")  # noqa: B023
        assert_totals_exact(relay, calls)
        until(lambda: not spool_files(relay), "nothing is left on disk")
