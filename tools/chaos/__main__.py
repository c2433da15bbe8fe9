"""Command line: `make chaos`, or `PYTHONPATH=tools python -m chaos`."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from chaos import plans
from chaos.playing import play_seeds


def main(arguments: list[str] | None = None) -> int:
    """Play seeds, and say what broke; exit code 1 if anything did."""
    options = _parser().parse_args(arguments)
    seeds = list(range(options.seed, options.seed + options.seeds))
    if options.from_start:
        seeds = list(range(plans.fleet_of(options.seed) * plans.SEEDS_OF_A_FLEET, options.seed + options.seeds))
    began_s = time.monotonic()
    results = play_seeds(seeds, options.keep, side_by_side=options.side_by_side, is_loud=True)
    failed = [one.seed for one in results if one.broken]
    requests = sum(one.requests for one in results)
    took_s = time.monotonic() - began_s
    print(f"{len(seeds)} seeds, {requests} requests in {took_s:.0f} s; broken: {failed or 'none'}")
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "chaos", description="Real processes under random faults; every promise is checked."
    )
    parser.add_argument("--seed", type=int, default=1, help="the first one")
    parser.add_argument("--seeds", type=int, default=1, help="how many")
    parser.add_argument("--from-start", action="store_true", help="also the earlier seeds of the same fleet")
    parser.add_argument("--side-by-side", type=int, default=2, help="fleets at a time")
    parser.add_argument(
        "--keep", type=Path, default=Path("chaos-failed"), help="where histories and logs of failures go"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
