"""`python -m ccr_tui`: the dashboard as a process of its own; `ccr tui` becomes it.

Exit codes: 0 it was quit, 2 nothing says where the control plane is, 70 it failed.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

EXIT_USAGE = 2
EXIT_FAILED = 70


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the dashboard until it is quit. Returns the exit code."""
    options = _parser().parse_args(arguments)
    os.environ["GRPC_VERBOSITY"] = "NONE"  # its C core would write over the screen
    from ccr_client import NoDoor, connect_async  # noqa: PLC0415 - after the line above
    from ccr_client.door import find, state_dir  # noqa: PLC0415

    from ccr_tui.shell.app import Dashboard  # noqa: PLC0415 - takes 0.2 s, which a wrong option need not

    state = state_dir(options.state_dir, os.environ)
    try:
        door = find(options.control, state, os.environ)
    except NoDoor as error:
        print(f"ccr: {error}", file=sys.stderr)
        return EXIT_USAGE
    if door is None:
        print(f"ccr: no control plane runs here ({state / 'control.address'} is not there)", file=sys.stderr)
        return EXIT_USAGE
    app = Dashboard(lambda: connect_async(door), door.target, ends_relay=options.ends_relay)
    result = app.run(mouse=not options.no_mouse)
    return EXIT_FAILED if result is None else result


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ccr tui", description="A dashboard in the terminal.", allow_abbrev=False)
    parser.add_argument("--control", metavar="ADDRESS", help="unix:/path or host:port")
    parser.add_argument("--state-dir", metavar="DIR")
    parser.add_argument("--no-mouse", action="store_true", help="leave the mouse to the terminal")
    parser.add_argument("--ends-relay", action="store_true", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
