"""A provider in a process of its own, so that it can be killed: `provider.py PORT [MARK]` (0: any port)."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.load import SteadyUpstream


def main() -> int:
    with SteadyUpstream(int(sys.argv[1])) as upstream:
        print(upstream.url, flush=True)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        signal.sigwait({signal.SIGTERM})
    return 0


if __name__ == "__main__":
    sys.exit(main())
