"""`ccr`: the command line. Commands import what is heavy when they run, so that help is quick."""

from __future__ import annotations

import contextlib
import io
import sys

import typer

from ccr_cli import (
    call,
    config,
    cost,
    explain,
    fleet,
    keys,
    providers,
    records,
    route,
    run,
    serve,
    sessions,
    status,
    strategy,
    tls,
    tokens,
    tui,
    version,
    web,
)
from ccr_cli.doctor import command as doctor
from ccr_cli.failure import Failure

app = typer.Typer(
    name="ccr",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="A relay between Claude Code and many Anthropic-compatible providers.",
    epilog="Begin with `ccr serve`; in another terminal: `ccr run claude`, `ccr status`, `ccr tail`, `ccr cost`.",
)
app.command()(serve.serve)
app.add_typer(run.app, name="run")
app.command()(status.status)
app.command()(doctor.doctor)
app.command()(tui.tui)
app.command()(web.web)
app.command()(records.tail)
app.command()(records.records)
app.command()(explain.explain)
app.command()(route.route)
app.command()(sessions.sessions)
app.command()(sessions.stats)
app.command()(cost.cost)
app.command()(cost.budgets)
app.command()(cost.prices)
app.add_typer(providers.app, name="providers")
app.command()(strategy.strategy)
app.add_typer(keys.app, name="keys")
app.command()(keys.scopes)
app.add_typer(fleet.app, name="nodes")
app.command()(fleet.events)
app.add_typer(config.app, name="config")
app.add_typer(tokens.app, name="tokens")
app.add_typer(tls.app, name="tls")
app.command()(call.call)
app.command()(sessions.unknowns)
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
