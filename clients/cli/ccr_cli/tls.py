"""`ccr tls …`: certificates for the admin API beyond this machine. The work is done by the control plane's package."""

from __future__ import annotations

import subprocess
import sys
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Certificates for the admin API beyond this machine.")


@app.callback()
def _group() -> None:
    """Keeps `init` a command of its own."""


@app.command()
def init(
    folder: Annotated[str, typer.Option("--dir", metavar="DIR", help="Where to write them.")] = "tls",
    host: Annotated[
        list[str] | None, typer.Option("--host", metavar="NAME", help="Name or address of the server; may be repeated.")
    ] = None,
    client: Annotated[
        list[str] | None, typer.Option("--client", metavar="NAME", help="A client to make one for; may be repeated.")
    ] = None,
    node: Annotated[
        list[str] | None,
        typer.Option("--node", metavar="NAME", help="A machine with workers to make one for; may be repeated."),
    ] = None,
    days: Annotated[int, typer.Option("--days", metavar="N", help="How long they are valid.")] = 397,
    force: Annotated[
        bool, typer.Option("--force", help="Replace certificates that exist; never the authority.")
    ] = False,
) -> None:
    """Make an authority of your own, and certificates by it. An authority that is there already is used again.

    The server's certificate stays as it is if only clients or nodes are named.

    Example: `ccr tls init --dir ~/.config/cc-relay/tls --host relay.example.org --client laptop`
    """
    arguments = ["init", "--dir", folder, "--days", str(days), *(["--force"] if force else [])]
    arguments += [word for name in host or () for word in ("--host", name)]
    arguments += [word for name in client or () for word in ("--client", name)]
    arguments += [word for name in node or () for word in ("--node", name)]
    command = [sys.executable, "-P", "-m", "ccr_control.tls", *arguments]
    raise typer.Exit(subprocess.run(command, check=False).returncode)  # noqa: S603 - our own
