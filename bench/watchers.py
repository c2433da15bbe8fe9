"""What 200 screens cost the data plane: a worker's CPU per request without them and with them, alternating in one run.

    .venv/bin/python bench/watchers.py [--rounds 3] [--watchers 200]

Every screen asks for everything that a screen can show, four times a second. They run on the core of the load generator; both planes
share the other one.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1] / "tests")]

from ccr_bench import measure, screens, targets
from ccr_bench.processes import Processes, free_port
from ccr_bench.workload import SCENARIOS
from ccr_client import connect_async
from ccr_rpc.v1 import dashboard_pb2, records_pb2

EVERYTHING = dashboard_pb2.WatchRequest(
    stats=True,
    providers=True,
    keys=True,
    nodes=True,
    config=True,
    events=True,
    sessions=True,
    records=records_pb2.RecordFilter(),
    series=True,
)


async def watch(count: int, state: str) -> None:
    """So many screens, until killed. Says when all have had a message."""
    waiting = count
    heard = asyncio.Event()

    async def one() -> None:
        nonlocal waiting
        async with connect_async(state_dir=state) as control:
            is_first = True
            async for _ in control.dashboard.Watch(EVERYTHING):
                waiting -= is_first
                is_first = False
                if not waiting:
                    heard.set()

    async with asyncio.TaskGroup() as tasks:
        for _ in range(count):
            tasks.create_task(one())
        await heard.wait()
        print("watching", flush=True)


@contextlib.contextmanager
def watchers(count: int, state: Path, cores: measure.Cores):
    arguments = [__file__, "--watch", str(state), "--watchers", str(count)]
    with screens.player(arguments, cores.load) as line:
        if line != "watching":
            raise RuntimeError("the screens do not see anything")
        yield


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--watchers", type=int, default=200)
    parser.add_argument("--watch", metavar="STATE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.watch:
        asyncio.run(watch(options.watchers, options.watch))
        return 0
    measure.build()
    cores, plan = measure.Cores({0}, {1}), measure.Plan(rounds=1, patience_s=0.0)
    found: dict[bool, list[tuple[float, float, float]]] = {False: [], True: []}
    with tempfile.TemporaryDirectory(prefix="ccr-bench-") as folder:
        processes = Processes(Path(folder))
        try:
            upstream = measure.start_upstream(processes, cores, (free_port(), free_port()))
            relay = targets.start_relay(processes, upstream, cores.proxy, None)
            bench = measure.Measurement(plan, cores, Path(folder), upstream)
            for number in range(options.rounds * 2):
                has_screens = number % 2 == 1
                with (
                    watchers(options.watchers, Path(folder) / "relay-state", cores)
                    if has_screens
                    else contextlib.nullcontext()
                ):
                    time.sleep(1.0)  # a window without what starting costs
                    result = bench.run(relay, SCENARIOS["json-small"], plan.window_s)
                cpu = result["cpu_us"]
                found[has_screens].append((cpu["worker"], cpu["control"], result["rps"]))
        finally:
            processes.end()
    for has_screens, runs in found.items():
        worker, control, rate = (median(column) for column in zip(*runs, strict=True))
        print(
            f"{f'{options.watchers} screens' if has_screens else 'no screen':>12}: worker {worker:.1f} µs a request, "
            f"control plane {control:.1f} µs a request, at {rate:.0f} requests/s"
        )
    ratio = median(run[0] for run in found[True]) / median(run[0] for run in found[False])
    print(f"       ratio: {ratio:.2f}x of the worker's CPU per request")
    return 0


if __name__ == "__main__":
    sys.exit(main())
