"""`ccr`: the command line. Commands import what is heavy when they run, so that help is quick."""

from __future__ import annotations

import contextlib
import io
import sys

import typer

from ccr_cli import config, explain, providers, route, run, serve, status, version
from ccr_cli.failure import Failure

app = typer.Typer(
    name="ccr",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="A relay between Claude Code and many Anthropic-compatible providers.",
)
app.command()(serve.serve)
app.command()(status.status)
app.command()(explain.explain)
app.command()(route.route)
app.add_typer(config.app, name="config")
app.add_typer(providers.app, name="providers")
app.add_typer(run.app, name="run")
app.command()(version.version)


def main() -> None:
    """Run a command and end with its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a locale without our characters is no reason to fail
    try:
        app()
    except Failure as failure:
        with contextlib.suppress(BrokenPipeError):
            print(f"ccr: {failure}", file=sys.stderr)
        sys.exit(failure.exit_code)


if __name__ == "__main__":
    main()
