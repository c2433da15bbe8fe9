"""Stands in for the demo provider: holds its socket until it is told to end."""

from __future__ import annotations

import signal
import sys


def main() -> int:
    signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    signal.sigwait(signals)
    return 0


if __name__ == "__main__":
    sys.exit(main())
