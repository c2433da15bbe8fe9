"""Plays seeds, fleet by fleet, and says what broke."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import uvloop

from chaos import plans
from chaos.checks import broken
from chaos.episodes import play
from chaos.fleet import Fleet
from chaos.history import History


@dataclass(slots=True)
class Result:
    """What became of a seed."""

    seed: int
    broken: list[str] = field(default_factory=list)
    requests: int = 0
    plan: plans.Episode | None = None
    kept: Path | None = None
    last_events: list[str] = field(default_factory=list)

    def told(self) -> str:
        """For people: what broke, what was done, what happened last, and how to see it again."""
        faults = [f"  {one}" for one in self.plan.faults] if self.plan else []
        lines = [f"seed {self.seed} broke {len(self.broken)}:", *(f"  {one}" for one in self.broken[:20])]
        lines += ["faults:", *faults, "last events:", *(f"  {one}" for one in self.last_events)]
        lines += [
            f"history and logs: {self.kept}",
            f"again: make chaos SEED={self.seed} (ARGS=--from-start: as it came about)",
        ]
        return "\n".join(lines)


def play_seeds(seeds: Sequence[int], keep: Path, *, side_by_side: int = 1, is_loud: bool = False) -> list[Result]:
    """Play seeds; those of one fleet in order on the same processes, some fleets beside each other."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_play_fleets(seeds, keep, side_by_side, is_loud))


async def _play_fleets(seeds: Sequence[int], keep: Path, side_by_side: int, is_loud: bool) -> list[Result]:
    room = asyncio.Semaphore(side_by_side)
    results: list[Result] = []

    async def play_all(fleet: int, waiting: list[int]) -> None:
        async with room:
            while waiting:  # a fleet that did not come back is left behind
                played = await _play_fleet(fleet, waiting, keep, is_loud)
                waiting = waiting[len(played) :]
                results.extend(played)

    async with asyncio.TaskGroup() as tasks:
        for fleet, group in groupby(seeds, key=plans.fleet_of):
            tasks.create_task(play_all(fleet, list(group)), name=f"fleet {fleet}")
    return sorted(results, key=lambda one: one.seed)


async def _play_fleet(number: int, seeds: Sequence[int], keep: Path, is_loud: bool) -> list[Result]:
    """Results of the first seeds, up to the last or one after which the fleet is not well."""
    directory = Path(tempfile.mkdtemp(prefix="chaos-"))  # short: there are sockets in it
    results = []
    try:
        async with Fleet(directory, plans.topology(number)) as fleet:
            for seed in seeds:
                began_s = time.monotonic()
                plan = plans.episode(seed)
                history = await play(fleet, plan)
                results.append(_result(fleet, plan, history, keep))
                if is_loud:
                    took_s = time.monotonic() - began_s
                    print(f"seed {seed}: {_counts(history)}, {took_s:.1f} s", flush=True)
                    if results[-1].broken:
                        print(results[-1].told(), flush=True)
                if history.unhealed:
                    break
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return results


def _counts(history: History) -> str:
    outcomes = [one.outcome for one in history.requests]
    return ", ".join(f"{outcomes.count(one)} {one}" for one in sorted(set(outcomes)))


def _result(fleet: Fleet, plan: plans.Episode, history: History, keep: Path) -> Result:
    result = Result(plan.seed, broken(history), len(history.requests), plan)
    if result.broken:
        result.kept = keep / f"seed-{plan.seed}"
        result.kept.mkdir(parents=True, exist_ok=True)
        history.write(result.kept / "history.jsonl")
        fleet.keep(result.kept)
        result.last_events = history.last_events()
    return result
