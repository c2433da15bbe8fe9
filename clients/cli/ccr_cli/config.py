"""`ccr config …`: writes, checks, shows and reloads configurations.

With a FILE the work is done here, by a process of the control plane's package; without one the running control plane
is asked.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Annotated

import typer

from ccr_cli import cc, changes
from ccr_cli.failure import EXIT_NOT_WELL
from ccr_cli.options import Control, Json, StateDir
from ccr_cli.screen import print_json

app = typer.Typer(no_args_is_help=True, help="Write, check, show, change and undo the configuration.")
changes.register(app)
app.add_typer(cc.app, name="cc")


@app.command()
def init(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Where to write it; - for standard output.")] = "ccr.yaml",
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
) -> None:
    """Write a configuration to begin with.

    Example: `ccr config init ccr.yaml`
    """
    _offline("init", "--out", file, *(["--force"] if force else []))


@app.command()
def schema() -> None:
    """Print the JSON Schema of the configuration, for editors.

    Example: `ccr config schema > ccr.schema.json`
    """
    _offline("schema")


@app.command()
def validate(
    file: Annotated[
        str | None, typer.Argument(metavar="[FILE]", help="A .yaml or .toml file, - for standard input.")
    ] = None,
    control: Control = None,
    state_dir: StateDir = None,
) -> None:
    """Check a configuration and list every problem; without FILE, the file of the running control plane.

    Exit codes: 0 valid, 1 it has problems.

    Example: `ccr config validate ccr.yaml`
    """
    if file is not None:
        _offline("validate", file)
    from ccr_rpc.v1 import config_pb2

    from ccr_cli.control import opened
    from ccr_cli.reading import problem_text

    with opened(control, state_dir) as plane:
        answer = plane.config.GetConfig(config_pb2.GetConfigRequest())
    for warning in answer.warnings:
        print(f"warning: {problem_text(warning)}", file=sys.stderr)
    for problem in answer.refusal.problems:
        print(problem_text(problem), file=sys.stderr)
    if answer.refusal.problems:
        raise typer.Exit(EXIT_NOT_WELL)
    print(f"{answer.source}: valid, in force as snapshot {answer.snapshot_version}")


@app.command()
def show(
    file: Annotated[str | None, typer.Argument(metavar="[FILE]", help="A .yaml or .toml file.")] = None,
    control: Control = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Print the configuration as it takes effect, defaults included, secrets as "***".

    Example: `ccr config show ccr.yaml`
    """
    if file is not None:
        _offline("show", file)
    from ccr_rpc.v1 import config_pb2

    from ccr_cli.control import opened
    from ccr_cli.reading import config_state

    with opened(control, state_dir) as plane:
        answer = plane.config.GetConfig(config_pb2.GetConfigRequest())
    if as_json:
        import dataclasses

        print_json({**dataclasses.asdict(config_state(answer)), "yaml": answer.redacted_yaml})
    else:
        print(f"# {answer.source}, snapshot {answer.snapshot_version}")
        print(answer.redacted_yaml, end="")


@app.command()
def reload(control: Control = None, state_dir: StateDir = None, as_json: Json = False) -> None:
    """Have the running control plane read its file again now.

    Exit codes: 0 the file is in force, 1 it was refused and the one before stays in force.

    Example: `ccr config reload`
    """
    from ccr_rpc.v1 import config_pb2

    from ccr_cli.control import opened
    from ccr_cli.reading import problem_text

    with opened(control, state_dir) as plane:
        answer = plane.config.ReloadConfig(config_pb2.ReloadConfigRequest())
    problems = [problem_text(problem) for problem in answer.problems]
    if as_json:
        print_json({"changed": answer.changed, "snapshot_version": answer.snapshot_version, "problems": problems})
    else:
        for problem in problems:
            print(problem, file=sys.stderr)
        outcome = "refused" if problems else "applied" if answer.changed else "unchanged"
        print(f"{outcome}: snapshot {answer.snapshot_version} is in force")
    if problems:
        raise typer.Exit(EXIT_NOT_WELL)


def _offline(*arguments: str) -> None:
    """Have the control plane's package do it, and end as it ends."""
    sys.stdout.flush()
    done = subprocess.run([sys.executable, "-P", "-m", "ccr_control.offline", *arguments], check=False)  # noqa: S603 - our own
    raise typer.Exit(done.returncode)
