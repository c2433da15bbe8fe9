"""What is measured of size: one function for each question, all with the same stage to play on.

Each returns plain values for bench/scale.json, which ccr_bench/scale_report.py makes tables and curves of.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ccr_bench import growth, measure, targets
from ccr_bench.measure import Cores, Measurement, Plan, Result, say
from ccr_bench.processes import Processes, memory_mib
from ccr_bench.shapes import Relay, Shape, workers_of
from ccr_bench.targets import CannotStart, Target, Upstream
from ccr_bench.workload import CLIENT_KEY, Scenario, asked_model, request_body

KB = 1000
SNAPSHOT = "nodes/worker-0/snapshot.pb"  # in a state directory
JSON_ANSWER, STREAM_ANSWER = "b256", "n4-s24"


@dataclass(frozen=True, slots=True)
class Size:
    """How much of everything."""

    plan: Plan
    streams: tuple[int, ...] = (50, 200, 1000, 5000)
    events_per_s: int = 20_000  # of all streams together
    bodies: tuple[int, ...] = (KB, 10 * KB, 100 * KB, 1000 * KB, 10_000 * KB)
    workers: tuple[int, ...] = ()
    shapes: tuple[Shape, ...] = (
        Shape(1, 1),
        Shape(10, 10),
        Shape(100, 10),
        Shape(1, 1000, is_spread=True),
        Shape(100, 10, is_spread=True),
    )
    changes: int = 5  # of a configuration, that are timed
    sessions: tuple[int, ...] = (1, 1000, 100_000)
    swap: Shape = field(default_factory=lambda: Shape(100, 10))
    swap_rounds: int = 5
    swap_window_s: float = 5.0
    starts: int = 5
    serve_starts: int = 3  # cold, and as many warm
    requests: int = 3_000_000  # fewer do not tell growth from the ups and downs of caches
    chunks: int = 50
    soak_hours: tuple[int, ...] = (1, 12, 24)
    soak_sessions: int = 250
    shares: bool = False  # one relay for all that does not need one of its own: nothing is meant to be quoted


@dataclass(slots=True)
class Stage:
    """What all measurements share."""

    size: Size
    processes: Processes
    upstream: Upstream
    cores: Cores
    interpreter: str  # the relay's
    shared: tuple[Relay, Target] | None = None

    def measurement(self) -> Measurement:
        """One with a patience of its own."""
        return Measurement(self.size.plan, self.cores, self.processes.folder, self.upstream)

    def answers(self) -> tuple[str, ...]:
        """All that requests ask the mock for."""
        paced = (self._paced(count) for count in self.size.streams)
        return tuple({JSON_ANSWER, STREAM_ANSWER, *paced, *(f"b{size}" for size in self.size.bodies)})

    def _paced(self, streams: int) -> str:
        return f"n100000000-D{streams * 1_000_000 // self.size.events_per_s}-s24"

    def hold(self, streams: int) -> Scenario:
        """So many paced streams, all together as many events a second as ever."""
        ramp_s = max(0.3, streams / 500)
        rate = self.size.events_per_s
        return Scenario(f"streams-{streams}", "hold", self._paced(streams), streams, ramp_s=ramp_s, events_per_s=rate)

    @contextlib.contextmanager
    def relay(self, name: str, shape: Shape, *, serves: bool = False) -> Iterator[tuple[Relay, Target]]:
        """A relay while the block runs."""
        if self.size.shares and not serves and not name.startswith("left-"):
            if self.shared is None:
                relay = Relay(
                    name, self.size.shapes[0], self.answers(), self.processes, self.upstream, self.cores.proxy
                )
                self.shared = relay, relay.start()
            yield self.shared
            return
        processes = Processes(self.processes.folder)
        relay = Relay(name, shape, self.answers(), processes, self.upstream, self.cores.proxy)
        try:
            yield relay, relay.serve() if serves else relay.start()
        finally:
            processes.end()

    def left_behind(self, shape: Shape) -> Path:
        """The state directory of a relay of this shape that has ended, with the snapshot on disk. Raises CannotStart."""
        known = self.processes.folder / f"left-{shape.providers}-{shape.keys}" / "state"
        if known.exists():
            return known
        with self.relay(known.parent.name, shape):
            deadline_s = time.monotonic() + 20
            while not (known / SNAPSHOT).exists():
                if time.monotonic() > deadline_s:
                    raise CannotStart("the worker does not keep its snapshot")
                time.sleep(0.02)
        return known

    @contextlib.contextmanager
    def three(self, name: str) -> Iterator[list[Target]]:
        """No proxy, nginx if there is one, and the relay as most people have it."""
        processes = Processes(self.processes.folder)
        try:
            nginx = targets.start_nginx(processes, self.upstream, self.cores.proxy, connections=16_384)
            with self.relay(name, Shape()) as (_, relay):
                yield [one for one in (targets.direct(self.upstream), nginx, relay) if one]
        finally:
            processes.end()


Found = dict[str, Any]


def _in_rounds(stage: Stage, running: list[Target], scenarios: list[Scenario]) -> dict[str, dict[str, list[Result]]]:
    named = {one.name: one for one in scenarios}
    return stage.measurement().rounds(running, lambda _: named, named)


# --- 1. streams, 2. bodies, 5. sessions ---------------------------------------------------------------------------------


def streams(stage: Stage) -> Found:
    """More and more streams with the same number of events in all: CPU, delay, memory."""
    found: Found = {"events_per_s": stage.size.events_per_s, "idle": {}, "results": {}}
    with stage.three("streams") as running:
        for target in running:
            found["idle"][target.name] = {part: memory_mib(target.pids(part)) for part in target.roots}
        found["results"] = _in_rounds(stage, running, [stage.hold(count) for count in stage.size.streams])
    return found


def bodies(stage: Stage) -> Found:
    """Requests and answers of growing size: CPU and added time of each, and the most memory that was needed."""
    found: Found = {"results": {}, "peak_mib": {}}
    with stage.three("bodies") as running:
        for size in stage.size.bodies:
            connections = 16 if size < 1_000_000 else 4
            asked = [
                Scenario(f"up-{size}", "json", JSON_ANSWER, connections, body_bytes=size),
                Scenario(f"up-one-{size}", "json", JSON_ANSWER, 1, body_bytes=size),
                Scenario(f"down-{size}", "json", f"b{size}", connections),
                Scenario(f"down-one-{size}", "json", f"b{size}", 1),
            ]
            for scenario in asked:
                for target in running:
                    for pid in target.pids():
                        with contextlib.suppress(OSError):
                            Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak begins anew
                results = _in_rounds(stage, running, [scenario])
                for target in running:
                    found["results"].setdefault(target.name, {}).update(results[target.name])
                    peak = sum(_peak_mib(pid) for pid in target.pids(*_worker(target)))
                    found["peak_mib"].setdefault(target.name, {})[scenario.name] = peak
    return found


def _worker(target: Target) -> tuple[str, ...]:
    return ("worker",) if "worker" in target.roots else ()


def _peak_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


def sessions(stage: Stage) -> Found:
    """Requests of one session, of a thousand, and of as many as have had a pin."""
    found: Found = {"results": {}, "memory": {}}
    with stage.relay("sessions", Shape(2, 2, is_spread=True)) as (_, target):
        for count in stage.size.sessions:
            # All have been here once before anything is measured.
            fill = Scenario("fill", "json", JSON_ANSWER, 16, sessions=count, requests=count + 16)
            stage.measurement().run(target, fill, 600.0)
            scenario = Scenario(f"sessions-{count}", "json", JSON_ANSWER, 16, sessions=count)
            found["results"][str(count)] = _in_rounds(stage, [target], [scenario])["relay"][scenario.name]
            found["memory"][str(count)] = {part: memory_mib(target.pids(part)) for part in target.roots}
    return found


# --- 3. workers ---------------------------------------------------------------------------------------------------------


def workers(stage: Stage) -> Found:
    """`ccr serve` with one worker and with more, the mock and the load generator beside them on the same cores."""
    counts = stage.size.workers or tuple(range(1, (os.cpu_count() or 1) + 1))
    found: Found = {}
    for count in counts:
        with stage.relay(f"workers-{count}", Shape(workers=count), serves=True) as (_, target):
            deadline_s = time.monotonic() + 20
            while len(pids := workers_of(target)) < count and time.monotonic() < deadline_s:
                time.sleep(0.05)
            if len(pids) != count:
                raise CannotStart(f"{len(pids)} workers run instead of {count}")
            unpinned = replace(target, roots={"worker": target.roots["serve"]})
            bench = Measurement(stage.size.plan, Cores(None, None), stage.processes.folder, stage.upstream)
            scenario = Scenario(f"workers-{count}", "json", JSON_ANSWER, 16 * count)
            named = {scenario.name: scenario}
            found[str(count)] = bench.rounds([unpinned], lambda _: named, named)["relay"][scenario.name]
    return found


# --- 4. the snapshot's size ---------------------------------------------------------------------------------------------


def shapes(stage: Stage) -> Found:
    """Snapshots of growing size: what a request, an event and a change cost, and what memory they take."""
    found: Found = {}
    for number, shape in enumerate(stage.size.shapes):
        say(f"snapshot of {shape.name}")
        with stage.relay(f"shape-{number}", shape) as (relay, target):
            bench = stage.measurement()
            idle = {part: memory_mib(target.pids(part)) for part in target.roots}
            scenarios = [
                Scenario("request", "json", JSON_ANSWER, 16),
                replace(stage.hold(stage.size.streams[0]), name="event"),
            ]
            results = _in_rounds(stage, [target], scenarios)["relay"]
            bench.settle(target)
            changes = [relay.change() for _ in range(stage.size.changes)]
            snapshot = relay.state / SNAPSHOT
            found[f"{shape.name}{' all' if shape.is_spread else ''}"] = {
                "providers": shape.providers,
                "keys": shape.keys,
                "is_spread": shape.is_spread,
                "idle": idle,
                "results": results,
                "change_s": changes,
                "after_changes": {part: memory_mib(target.pids(part)) for part in target.roots},
                "wire_bytes": snapshot.stat().st_size if snapshot.exists() else 0,
            }
    return found


# --- 6. swaps -----------------------------------------------------------------------------------------------------------


def swaps(stage: Stage) -> Found:
    """Requests while snapshots are swapped ten times a second, and while they are not, in turn."""
    size = stage.size
    state = stage.left_behind(size.swap)
    copy = stage.processes.folder / "swap.pb"
    shutil.copy(state / SNAPSHOT, copy)
    processes = Processes(stage.processes.folder)
    socket = stage.processes.folder / "pusher.sock"
    command = [stage.interpreter, str(measure.BENCH / "pusher.py"), str(copy), str(socket), "10"]
    pusher = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert pusher.stdin
    assert pusher.stdout
    try:
        measure.pin([pusher.pid], stage.cores.load)
        if pusher.stdout.readline() != "ready\n":
            raise CannotStart("the pusher does not listen")
        alone = Relay("swaps", size.swap, stage.answers(), processes, stage.upstream, stage.cores.proxy, state=state)
        target = alone.worker_alone(f"unix:{socket}")
        targets.wait_until_up(target, lambda: None)
        bench, found = stage.measurement(), {"off": [], "on": []}
        scenario = Scenario("swaps", "json", JSON_ANSWER, 32, rate=500.0, sessions=1000)
        bench.run(target, scenario, min(1.0, size.swap_window_s))
        for number in range(2 * size.swap_rounds):
            word = ("off", "on")[(number + number // 2) % 2]  # off, on, on, off, …: neither is always the later one
            say(f"swaps {word}")
            pusher.stdin.write(f"{word}\n")
            pusher.stdin.flush()
            found[word].append(bench.run(target, scenario, size.swap_window_s))
        pusher.stdin.close()
        counted = json.loads(pusher.stdout.readline())
    finally:
        pusher.kill()
        pusher.wait()
        processes.end()
    if not counted["accepted"] or counted["rejected"]:
        raise CannotStart(f"snapshots were not all accepted: {counted}")
    return {"results": found, **counted, "keys": size.swap.providers * size.swap.keys}


# --- 7. starts ----------------------------------------------------------------------------------------------------------


def starts(stage: Stage) -> Found:
    """Seconds from the start of a process to the first answer of the provider."""
    found: dict[str, list[float]] = {"ccr-data, from its disk": [], "ccr serve, cold": [], "ccr serve, warm": []}
    state = stage.left_behind(Shape())
    for number in range(stage.size.starts):
        say(f"start {number + 1}/{stage.size.starts}")
        processes = Processes(stage.processes.folder)
        alone = Relay(f"start-{number}", Shape(), stage.answers(), processes, stage.upstream, None, state=state)
        nowhere = f"unix:{stage.processes.folder}/nobody.sock"
        found["ccr-data, from its disk"].append(_first_answer_s(lambda: alone.worker_alone(nowhere), alone.port))
        processes.end()
        if number >= stage.size.serve_starts:
            continue
        served = Relay(f"serve-{number}", Shape(), stage.answers(), processes, stage.upstream, None)
        for kind in ("cold", "warm"):
            found[f"ccr serve, {kind}"].append(_first_answer_s(lambda: _serve(served, processes), served.port))
            processes.end()
    return {"seconds": found}


def _serve(relay: Relay, processes: Processes) -> None:
    where = ["--config", str(relay.config), "--state-dir", str(relay.state), "--quiet"]
    processes.start(f"{relay.name}-serve", [targets.program("ccr", None), "serve", *where], None)


def _first_answer_s(start: Callable[[], object], port: int, within_s: float = 60.0) -> float:
    """Raises CannotStart."""
    began_s = time.monotonic()
    start()
    body = request_body(asked_model(JSON_ANSWER), False)
    headers = {"x-api-key": CLIENT_KEY, "content-type": "application/json"}
    while time.monotonic() < began_s + within_s:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            connection.request("POST", "/v1/messages", body, headers)
            if connection.getresponse().status == 200:
                return time.monotonic() - began_s
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()
        time.sleep(0.003)
    raise CannotStart(f"nothing serves on port {port} after {within_s:g} s")


# --- 8. memory ----------------------------------------------------------------------------------------------------------


def memory(stage: Stage) -> Found:
    """Memory while requests go through as fast as they can: small ones, streams, always new sessions, keys rotated now and then."""
    size = stage.size
    each = size.requests // size.chunks
    points: list[dict[str, float]] = []
    with stage.relay("memory", Shape(2, 5, is_spread=True)) as (relay, target):
        bench, done, began_s = impatient(stage), 0, time.monotonic()
        for number in range(size.chunks):
            say(f"memory {done:,}/{size.requests:,}")
            streams_now = number % 3 == 2
            scenario = Scenario(
                "memory",
                "sse" if streams_now else "json",
                STREAM_ANSWER if streams_now else JSON_ANSWER,
                16,
                sessions=each + 64,
                first_session=number * (each + 64),
                requests=each,
            )
            result = bench.run(target, scenario, 3600.0)
            done += result["all_requests"]
            if number % 5 == 4:
                relay.change()
            bench.settle(target)
            relay.empty_logs()
            mib = {part: memory_mib(target.pids(part)) for part in target.roots}
            now = {"requests": done, "at_s": time.monotonic() - began_s, "rps": result["rps"]}
            points.append(now | {part: one["rss"] for part, one in mib.items()})
    hundred_thousands = [point["requests"] / 100_000 for point in points]
    minutes = [point["at_s"] / 60 for point in points]
    slopes = {
        "worker": growth.after_warm_up(hundred_thousands, [point["worker"] for point in points]),
        "control": growth.after_warm_up(minutes, [point["control"] for point in points]),  # its series fill with time
    }
    return {"points": points, "slopes": {part: [one.each, one.error] for part, one in slopes.items()}}


def impatient(stage: Stage) -> Measurement:
    """A measurement that does not wait for quiet: memory does not mind."""
    plan = replace(stage.size.plan, patience_s=0.0, warmup_s=0.0)
    return Measurement(plan, stage.cores, stage.processes.folder, stage.upstream)


def soak(stage: Stage) -> Found:
    """A day of virtual time; see tools/simulate/soak.py."""
    say("soak")
    tools = measure.BENCH.parent / "tools"
    command = [stage.interpreter, "-m", "simulate.soak", "--sessions", str(stage.size.soak_sessions)]
    command += ["--at", *(str(hour) for hour in stage.size.soak_hours)]
    process = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(tools)}, check=False
    )
    if process.returncode:
        raise RuntimeError(f"the soak failed: {process.stderr[-2000:]}")
    return {"hours": [json.loads(line) for line in process.stdout.splitlines()]}


SWEEPS: dict[str, Callable[[Stage], Found]] = {
    "streams": streams,
    "bodies": bodies,
    "workers": workers,
    "shapes": shapes,
    "sessions": sessions,
    "swaps": swaps,
    "starts": starts,
    "memory": memory,
    "soak": soak,
}
