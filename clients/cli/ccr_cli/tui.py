"""`ccr tui`: becomes the dashboard, which is a package of its own."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from ccr_cli import places
from ccr_cli.failure import EXIT_USAGE, Failure
from ccr_cli.options import Control, StateDir


def tui(
    control: Control = None,
    state_dir: StateDir = None,
    no_mouse: Annotated[
        bool, typer.Option("--no-mouse", help="Leave the mouse to the terminal, to select text.")
    ] = False,
) -> None:
    """Watch the relay in the terminal, and act on it: providers, keys, sessions, live requests, routes, configuration.

    `?` shows the keys, `q` ends it. Colours are the terminal's own; NO_COLOR does without.

    Example: `ccr tui --no-mouse`
    """
    check_terminal()
    places.control_door(
        control, places.state_dir(state_dir, os.environ), os.environ
    )  # says what to do if there is none
    flags = ["--no-mouse"] if no_mouse else []
    command = dashboard(control, state_dir) + flags
    os.execv(command[0], command)  # noqa: S606 - this is what it is for


def check_terminal() -> None:
    """Raises Failure where nothing can be drawn."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()) or os.environ.get("TERM") == "dumb":
        raise Failure("the dashboard needs a terminal; `ccr status` and `ccr tail` are for scripts", EXIT_USAGE)


def dashboard(control: str | None, state_dir: str | None) -> list[str]:
    """The dashboard's command line."""
    given = {"--control": control, "--state-dir": state_dir}
    options = [word for name, value in given.items() if value is not None for word in (name, value)]
    # -P: the folder we are called from must not be able to replace a module
    return [sys.executable, "-P", "-m", "ccr_tui", *options]
