"""docs/reference/cli.md, from the command line itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from ccr_cli import failure
from ccr_cli.main import app

from ccr_docs.markdown import made_from, table
from ccr_docs.markdown import page as joined

CODES = {
    "EXIT_OK": "all is well",
    "EXIT_NOT_WELL": "the relay is degraded, a configuration is invalid, a change was refused",
    "EXIT_USAGE": "wrong options or arguments",
    "EXIT_UNREACHABLE": "no control plane, or no relay, answers at the address",
    "EXIT_DENIED": "it answers, but wants another credential",
    "EXIT_INTERNAL": "it answers, with an error of its own",
    "EXIT_NOT_FOUND": "a program to run is not there",
}
SERVE_CODES = """\
`ccr serve` ends with 0 when it was stopped in order, 2 for wrong options, 69 if a port, the state directory or a lock
cannot be had, 78 if the configuration is wrong, and 128 + n if a second signal n ended it at once."""


def page(_root: Path) -> str:
    """The whole page."""
    named = {name for name in vars(failure) if name.startswith("EXIT_")}
    assert named == set(CODES), f"exit codes changed: {sorted(named ^ set(CODES))}"
    rows = [(f"{getattr(failure, name)}", meaning) for name, meaning in CODES.items()]
    return joined(
        "# Command line",
        made_from("the commands in clients/cli/ccr_cli"),
        *_commands(typer.main.get_command(app), "ccr"),
        "## Exit codes",
        table(("code", "meaning"), rows),
        SERVE_CODES,
    )


def _commands(command: Any, name: str) -> Iterator[str]:
    below = getattr(command, "commands", None)
    if below:
        for word, one in below.items():
            yield from _commands(one, f"{name} {word}")
        return
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    usage = " ".join([name, "[OPTIONS]", *(one.metavar or f"[{one.name.upper()}]" for one in arguments)])
    yield f"## {name}"
    yield f"`{usage}`"
    yield "\n".join(line.strip() for line in (command.help or "").strip().split("\n"))
    rows = [(f"`{one.metavar or one.name.upper()}`", one.help or "") for one in arguments]
    rows += [
        (f"`{', '.join(one.opts)}{'' if one.is_flag else f' {one.metavar or one.name.upper()}'}`", one.help or "")
        for one in command.params
        if one.param_type_name == "option" and not one.hidden
    ]
    if rows:
        yield table(("option", "meaning"), rows)
