"""One run: build, start, check, measure in alternating rounds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ccr_bench.processes import CpuTime, Processes, cpu_time, machine_busy_ns, memory_mib, pin, tree
from ccr_bench.targets import CannotStart, Target, Upstream
from ccr_bench.workload import HEADERS, MEMORY, SCENARIOS, Scenario, request_body, sized_body

BENCH = Path(__file__).parents[1]
BIN = BENCH / "bin"
Result = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how often."""

    rounds: int = 3
    window_s: float = 2.0
    warmup_s: float = 0.4
    retries: int = 1  # of a window in which other programs took more than `max_foreign` of a core
    max_foreign: float = 0.08
    patience_s: float = 60.0  # in all: for other programs to pause, and for measuring again


@dataclass(frozen=True, slots=True)
class Cores:
    """Who runs where. None: not pinned."""

    proxy: set[int] | None
    load: set[int] | None


@dataclass(frozen=True, slots=True)
class Mark:
    """What had been spent when a window began or ended."""

    at_ns: int
    machine_ns: int
    parts: dict[str, CpuTime]  # of the target
    bench: CpuTime  # the load generator, the mock and this program


def build() -> None:
    BIN.mkdir(exist_ok=True)
    for name, libraries in (("mock_upstream", ["-ldl"]), ("load", ["-lm"])):
        source, program = BENCH / f"{name}.c", BIN / name
        if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
            subprocess.run([os.environ.get("CC", "cc"), "-O2", "-o", str(program), str(source), *libraries], check=True)


def start_upstream(processes: Processes, cores: Cores, ports: tuple[int, int]) -> Upstream:
    """The mock with a certificate made for this run."""
    certificate, key = processes.folder / "upstream.pem", processes.folder / "upstream-key.pem"
    make = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost".split()
    )
    make += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(make, check=True, capture_output=True)
    upstream = Upstream(*ports, certificate)
    command = [str(BIN / "mock_upstream"), "--port", str(ports[0]), "--tls-port", str(ports[1])]
    processes.start("mock", [*command, "--cert", str(certificate), "--key", str(key)], cores.load)
    for _ in range(50):
        try:
            upstream.stats()
            return upstream
        except OSError:
            time.sleep(0.1)
    raise CannotStart("the mock provider does not answer")


class Measurement:
    """Runs the load generator against targets and reads what they spent meanwhile."""

    def __init__(self, plan: Plan, cores: Cores, folder: Path, upstream: Upstream) -> None:
        self._plan, self._cores, self._folder, self._upstream = plan, cores, folder, upstream
        self._patience_s = plan.patience_s

    def rounds(
        self,
        targets: list[Target],
        rows_of: Callable[[Target], Iterable[str]],
        scenarios: Mapping[str, Scenario] = SCENARIOS,
    ) -> dict[str, dict[str, list[Result]]]:
        """Results by target and scenario, one for each round. Neighbours in time are what is compared."""
        found: dict[str, dict[str, list[Result]]] = {target.name: {} for target in targets}
        for number in range(self._plan.rounds):
            for name, scenario in scenarios.items():
                for target in targets if number % 2 == 0 else reversed(targets):
                    if name in rows_of(target):
                        say(f"round {number + 1}/{self._plan.rounds}  {name}  {target.name}")
                        found[target.name].setdefault(name, []).append(self._calm_run(target, scenario))
        return found

    def memory(self, target: Target) -> Result:
        """Idle, and with 1,000 open streams, of a process that has done nothing else yet. MiB."""
        say(f"memory  {target.name}")
        self.settle(target)
        idle = {part: memory_mib(target.pids(part)) for part in target.roots}
        busy = self.run(target, MEMORY, window_s=1.0)["memory"]
        self.settle(target)
        return {"idle": idle, "streams": busy}

    def _calm_run(self, target: Target, scenario: Scenario) -> Result:
        """The calmest of a few tries."""
        tries: list[Result] = []
        while len(tries) <= self._plan.retries:
            self._await_quiet()
            tries.append(self.run(target, scenario, self._plan.window_s))
            self.settle(target)
            if tries[-1]["foreign_cores"] <= self._plan.max_foreign or self._patience_s <= 0:
                break
            self._patience_s -= self._plan.window_s
        return min(tries, key=lambda result: result["foreign_cores"])

    def run(self, target: Target, scenario: Scenario, window_s: float) -> Result:
        """One window. Raises RuntimeError if an answer was wrong or late: a figure would mean nothing."""
        command = self._load_command(target, scenario, window_s)
        load = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        pin([load.pid], self._cores.load)
        parts = {part: target.pids(part) for part in target.roots}
        marks = []
        result: Result = {}
        assert load.stdout
        for line in load.stdout:
            if line.startswith("@"):
                marks.append(self._mark(parts, load.pid))
                memory = {part: memory_mib(pids) for part, pids in parts.items()} if scenario.mode == "hold" else {}
            elif line.startswith("{"):
                result = json.loads(line)
        load.wait()
        if not result or len(marks) != 2:
            raise RuntimeError(f"the load generator failed: {' '.join(command)}")
        self._judge(target, scenario, result)
        before, after = marks
        spent = {part: after.parts[part].since(before.parts[part]) for part in parts}
        count = result["events"] if scenario.mode == "hold" else result["requests"]
        foreign = after.machine_ns - before.machine_ns - sum(spent.values()) - after.bench.since(before.bench)
        result["cpu_us"] = {part: ns / 1000 / count for part, ns in spent.items()}
        result["foreign_cores"] = max(0.0, foreign / (after.at_ns - before.at_ns))
        result["memory"] = memory
        return result

    @staticmethod
    def _mark(parts: dict[str, list[int]], load: int) -> Mark:
        mock = [pid for pid in tree([os.getpid()]) if Path(f"/proc/{pid}/comm").read_text().strip() == "mock_upstream"]
        cpu = {part: cpu_time(pids) for part, pids in parts.items()}
        return Mark(time.monotonic_ns(), machine_busy_ns(), cpu, cpu_time([load, os.getpid(), *mock]))

    def _load_command(self, target: Target, scenario: Scenario, window_s: float) -> list[str]:
        body = self._folder / f"body-{target.name}.json"
        model = target.model(scenario.answer, scenario.over_tls)
        body.write_bytes(
            sized_body(model, scenario.body_bytes)
            if scenario.body_bytes
            else request_body(model, scenario.mode != "json", scenario.body_kib)
        )
        options = {
            "port": target.tls_port if scenario.over_tls else target.port,
            "path": target.path,
            "body": body,
            "mode": scenario.mode,
            "conns": scenario.connections,
            "duration": window_s,
            "warmup": self._plan.warmup_s,
            "ramp": scenario.ramp_s,
            "deltas": scenario.deltas,
            "session": "x-claude-code-session-id",
            "rate": scenario.rate,
            "sessions": scenario.sessions,
            "first-session": scenario.first_session,
            "max-requests": scenario.requests,
        }
        if scenario.mode != "hold":
            options |= {
                "min-requests": 1,
                "max-duration": 30.0,
            }  # on a busy machine a short window may pass without any
        command = [str(BIN / "load"), *(str(word) for name, value in options.items() for word in (f"--{name}", value))]
        for name, value in {**HEADERS, **target.headers}.items():
            command += ["--header", f"{name}: {value}"]
        return command

    @staticmethod
    def _judge(target: Target, scenario: Scenario, result: Result) -> None:
        errors, count = result["all_errors"] + result["conn_errors"], result["requests"] + result["events"]
        if errors or not count:
            raise RuntimeError(
                f"{target.name}, {scenario.name}: {errors} wrong answers. {result.get('first_error', '')}"
            )
        if result["deltas_s"] < 0.97 * scenario.events_per_s:
            result["late"] = f"only {result['deltas_s']:,.0f} of {scenario.events_per_s:,} events/s arrived"

    def _await_quiet(self) -> None:
        while self._patience_s > 0:
            before = machine_busy_ns()
            time.sleep(0.3)
            self._patience_s -= 0.3
            if machine_busy_ns() - before < 0.12 * 0.3e9:
                return

    def settle(self, target: Target) -> None:
        """Wait until nothing is left of the last window. Raises RuntimeError if streams outlive their clients by 10 s."""
        give_up, streams = time.monotonic() + 10, 0
        while time.monotonic() < give_up:
            before = cpu_time(target.pids())
            time.sleep(0.15)
            used = cpu_time(target.pids()).since(before)
            streams = self._upstream.stats()["active_streams"]
            if streams == 0 and used < 0.08 * 0.15e9:
                return
        if streams:
            raise RuntimeError(f"{target.name}: {streams} streams are open upstream, 10 s after their clients left")


def say(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
