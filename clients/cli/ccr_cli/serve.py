"""`ccr serve`: becomes the supervisor, which belongs to the control plane's package."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from ccr_cli.failure import EXIT_USAGE, Failure
from ccr_cli.options import StateDir


def serve(
    state_dir: StateDir = None,
    config: Annotated[
        str | None, typer.Option(metavar="FILE", help="Configuration (else $CCR_CONFIG, ./ccr.yaml, the user's).")
    ] = None,
    listen: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="host:port, for starts without a configuration.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(metavar="N", min=1, max=256, help="ccr-data processes (else server.workers).")
    ] = None,
    demo: Annotated[bool, typer.Option("--demo", help="Answer from a scripted provider, without any key.")] = False,
    log_format: Annotated[
        str | None, typer.Option(metavar="FORMAT", help="json, text or auto (else server.log_format).")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Do not print how to use the relay.")] = False,
    tui: Annotated[
        bool, typer.Option("--tui", help="Open the dashboard, with the log in serve.log of the state directory.")
    ] = False,
) -> None:
    """Run the relay on this machine: control plane, workers and, without any key, a demo provider.

    SIGTERM or Ctrl-C lets open requests finish; a second one ends at once. SIGHUP reads the configuration again,
    SIGUSR2 replaces the workers one by one.

    Examples: `ccr serve`, `ccr serve --demo --listen 127.0.0.1:8787`
    """
    given = {
        "--config": config,
        "--listen": listen,
        "--workers": workers,
        "--state-dir": state_dir,
        "--log-format": log_format,
    }
    options = [word for name, value in given.items() if value is not None for word in (name, str(value))]
    flags = [name for name, is_set in (("--demo", demo), ("--quiet", quiet)) if is_set]
    if tui:
        from ccr_cli.serve_tui import serve_behind_dashboard

        if log_format is not None:
            raise Failure("--log-format is for the terminal; with --tui the log is JSON lines in a file", EXIT_USAGE)
        raise typer.Exit(serve_behind_dashboard([*options, *(["--demo"] if demo else [])], state_dir))
    # -P: the folder we are called from must not be able to replace a module
    os.execv(sys.executable, [sys.executable, "-P", "-m", "ccr_control.serve", *options, *flags])  # noqa: S606
