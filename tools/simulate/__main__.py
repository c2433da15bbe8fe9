"""Command line: `make simulate`, or `PYTHONPATH=tools python -m simulate`."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from typing import Any

from simulate import report, scenarios
from simulate.bars import bars
from simulate.plans import POLICIES, Policy
from simulate.world import World


def main(arguments: list[str] | None = None) -> int:
    """Run, report; exit code 1 if an invariant is broken or a bar missed."""
    options = _parser().parse_args(arguments)
    result: dict[str, Any] = {"seed": options.seed}
    is_well = True
    if options.bars != "none":
        found = list(bars(options.seed))
        is_well = all(one.holds for one in found)
        result["bars"] = [
            {"name": one.name, "found": one.found, "wanted": one.wanted, "holds": one.holds} for one in found
        ]
        _say(options, report.bar_lines(found) + "\n")
    if options.bars != "only":
        by_policy: dict[Policy, dict[str, Any]] = {}
        for policy in options.policy or POLICIES:
            began_s = time.perf_counter()
            plan = scenarios.fleet(
                options.seed,
                policy,
                nodes=options.nodes,
                scopes=options.scopes,
                sessions=options.sessions,
                minutes=options.minutes,
                mean_turns=options.turns,
                load=options.load,
                troubles=options.troubles,
                is_rough=not options.calm,
            )
            if not by_policy:
                _say(options, report.described(plan))
            world = World(plan).run()
            one = by_policy[policy] = report.figures(world)
            one["events"], one["cpu_s"] = world.clock.events, round(time.perf_counter() - began_s, 2)
            is_well = is_well and not any(each["broken"] for each in one["invariants"].values())
            _say(
                options,
                f"\n{policy}: {one['requests']:,} requests, {world.clock.events:,} events in {one['cpu_s']:.1f} s",
            )
            _say(options, report.curves(world))
            _say(options, report.invariants(one))
        _say(options, "\n" + report.comparison(by_policy))
        result["policies"] = by_policy
    if options.json:
        json.dump(result, sys.stdout, indent=1)
        print()
    return 0 if is_well else 1


def _say(options: argparse.Namespace, text: str) -> None:
    if not options.json:
        print(text, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "simulate", description="Both planes' decisions on a virtual clock. The same arguments, the same run."
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--nodes", type=int, default=8, help="processes of the data plane")
    parser.add_argument("--scopes", type=int, default=12, help="accounts at providers")
    parser.add_argument("--sessions", type=int, default=2_000, help="conversations")
    parser.add_argument("--minutes", type=float, default=20.0, help="of virtual time in which they begin")
    parser.add_argument("--turns", type=float, default=8.0, help="of a conversation, on average")
    parser.add_argument("--load", type=float, default=0.7, help="demand, as a share of what the accounts allow")
    parser.add_argument("--troubles", type=float, default=1.0, help="spells of trouble for each provider, on average")
    parser.add_argument("--calm", action="store_true", help="no process crashes and no message is lost or late")
    parser.add_argument("--policy", action="append", choices=POLICIES, help="only this one; may be given again")
    parser.add_argument("--bars", choices=("all", "none", "only"), default="all", help="the scripted runs before it")
    parser.add_argument("--json", action="store_true", help="figures and curves as JSON instead of text")
    return parser


if __name__ == "__main__":
    logging.getLogger("ccr").setLevel(logging.CRITICAL)  # what goes wrong is meant to
    sys.exit(main())
