"""`ccr version`."""

from __future__ import annotations

import platform
from importlib.metadata import version as installed

from ccr_cli.options import Json
from ccr_cli.screen import print_json


def version(as_json: Json = False) -> None:
    """Print the versions of this relay, of Python and of the platform.

    Example: `ccr version --json`
    """
    facts = {"version": installed("cc-relay"), "python": platform.python_version(), "platform": platform.platform()}
    if as_json:
        print_json(facts)
    else:
        print(f"cc-relay {facts['version']}, Python {facts['python']}, {facts['platform']}")
