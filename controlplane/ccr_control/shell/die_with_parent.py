"""Start a program that is told to end (SIGTERM) when the process that started it dies, however it dies.

Run as a script by `shell.children`: `python -I -S die_with_parent.py PARENT_PID COMMAND…`. It asks the kernel for the
signal and then becomes the program, keeping its process id. Doing this between fork and exec in the parent would run
Python in a half-copied process; doing it in the program would bind ccr-data and ccr-demo to a supervisor of their own.
Elsewhere than on Linux it just becomes the program.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # prctl(2); survives the exec, is cleared by a fork


def main() -> None:
    """Become the command, unless the parent is gone already."""
    parent_pid, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent_pid:  # it died before we asked
            sys.exit(1)
    os.execv(command[0], command)  # noqa: S606 - this is what it is for


if __name__ == "__main__":
    main()
