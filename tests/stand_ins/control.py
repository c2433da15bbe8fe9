"""Stands in for ccr-control: the same command line and signals; notes in its state directory what it was told."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser()
    for name in ("--config", "--state-dir", "--log-format", "--workers"):
        parser.add_argument(name)
    options = parser.parse_args()
    state = Path(options.state_dir)
    if exit_code := os.environ.get("STAND_IN_CONTROL_EXIT"):
        print("stand-in control: cannot start", file=sys.stderr)
        return int(exit_code)
    signals = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    (state / "control.pid").write_text(str(os.getpid()))
    while signal.sigwait(signals) == signal.SIGHUP:
        with (state / "reloads").open("a") as file:
            file.write("reload\n")
    with (state / "ends").open("a") as file:
        file.write("ccr-control\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
