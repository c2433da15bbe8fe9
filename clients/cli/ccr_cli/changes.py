"""`ccr config diff|apply|revisions|rollback|overlay|import`: changes of the configuration in force, and back."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ccr_cli.failure import EXIT_NOT_WELL, EXIT_USAGE, Failure
from ccr_cli.options import Control, Json, StateDir
from ccr_cli.screen import print_diff, print_json, print_table

if TYPE_CHECKING:
    from ccr_rpc.v1 import config_pb2

File = Annotated[str, typer.Argument(metavar="FILE", help="A .yaml or .toml file; - for standard input.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would happen.")]


def register(app: typer.Typer) -> None:
    """Make them commands of `ccr config`."""
    for command in (diff, apply, revisions, rollback, overlay):
        app.command()(command)
    app.command("import")(import_config)


def diff(
    file: Annotated[
        str,
        typer.Argument(metavar="[FILE]", help="Compare with this text; absent: with the relay's file as it is now."),
    ] = "",
    from_revision: Annotated[
        int, typer.Option("--from", metavar="N", min=0, help="From this revision; 0: the newest.")
    ] = 0,
    to_revision: Annotated[int, typer.Option("--to", metavar="N", min=0, help="To this revision; 0: to the text.")] = 0,
    control: Control = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Show what a text, or another revision, would change. Effective configurations are compared, secrets as fingerprints.

    Exit codes: 0 it is known, 1 the text is no valid configuration.

    Examples: `ccr config diff new.yaml`, `ccr config diff --from 3 --to 5`
    """
    from ccr_rpc.v1 import config_pb2

    from ccr_cli.control import opened
    from ccr_cli.plain import plain

    request = config_pb2.DiffConfigRequest(from_revision=from_revision, to_revision=to_revision)
    if file:
        request.text, request.format = _text(file), _format(file)
    with opened(control, state_dir) as plane:
        answer = plane.config.DiffConfig(request)
    if as_json:
        print_json(plain(answer))
    else:
        _tell_problems(answer.problems)
        if not answer.problems:
            print_diff(answer.diff or "no difference\n")
    if answer.problems:
        raise typer.Exit(EXIT_NOT_WELL)


def apply(
    file: File,
    dry_run: DryRun = False,
    base: Annotated[
        int,
        typer.Option("--base", metavar="N", min=0, help="Only if this is still the newest revision; 0: in any case."),
    ] = 0,
    control: Control = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Put a configuration in force and write it to the relay's file; `ccr config rollback` undoes it.

    Exit codes: 0 it is in force (or would be), 1 it was refused and nothing has changed.

    Examples: `ccr config apply new.yaml --dry-run`, `ccr config apply new.yaml --base 7`
    """
    from ccr_rpc.v1 import config_pb2

    from ccr_cli.control import opened

    request = config_pb2.ApplyConfigRequest(text=_text(file), format=_format(file), base_revision=base, dry_run=dry_run)
    with opened(control, state_dir) as plane:
        _applied(plane.config.ApplyConfig(request, timeout=30), dry_run, as_json)


def rollback(
    revision: Annotated[int, typer.Argument(metavar="REVISION", min=1, help="As `ccr config revisions` shows it.")],
    dry_run: DryRun = False,
    control: Control = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Put an earlier revision in force again, as a new one.

    Exit codes: 0 it is in force (or would be), 1 it is not valid any more, 2 there is no such revision.

    Example: `ccr config rollback 6 --dry-run`
    """
    from ccr_rpc.v1 import config_pb2

    from ccr_cli.control import opened

    with opened(control, state_dir) as plane:
        request = config_pb2.RollbackConfigRequest(revision=revision, dry_run=dry_run)
        _applied(plane.config.RollbackConfig(request, timeout=30), dry_run, as_json)


def revisions(
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="At most so many.")] = 20,
    control: Control = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """List the configurations that were in force, newest first.

    Example: `ccr config revisions`
    """
    from ccr_client import every
    from ccr_rpc.v1 import config_pb2

    from ccr_cli.control import opened
    from ccr_cli.plain import plain

    request = config_pb2.ListRevisionsRequest(page_size=min(limit, 1000))
    with opened(control, state_dir) as plane:
        pages = every(plane.config.ListRevisions, request, lambda page: page.revisions)
        found = list(itertools.islice(pages, limit))
    if as_json:
        print_json([plain(one) for one in found])
    else:
        columns = ("revision", "since", "by", "lines", "hash", "repeats")
        print_table("Revisions", columns, [revision_row(one) for one in found], frozenset({0, 3, 5}))


def overlay(
    clear: Annotated[bool, typer.Option("--clear", help="Take back what was changed at run time.")] = False,
    resource: Annotated[
        str, typer.Option("--resource", metavar="NAME", help="With --clear: only about this, such as providers/zai.")
    ] = "",
    export: Annotated[
        bool, typer.Option("--export", help="Print the configuration's text with the changes worked in, to be applied.")
    ] = False,
    control: Control = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Show what was changed at run time on top of the configuration, take it back, or work it into the text.

    Examples: `ccr config overlay`, `ccr config overlay --export > new.yaml`, `ccr config overlay --clear --resource keys/zai`
    """
    from ccr_rpc.v1 import config_pb2

    from ccr_cli.control import opened
    from ccr_cli.plain import iso, plain

    if clear and export:
        raise Failure("--clear or --export, not both", EXIT_USAGE)
    if resource and not clear:
        raise Failure("--resource goes with --clear", EXIT_USAGE)
    with opened(control, state_dir) as plane:
        if clear:
            cleared = plane.config.ClearOverlay(config_pb2.ClearOverlayRequest(resource=resource))
            if as_json:
                print_json(plain(cleared))
            else:
                print(f"{cleared.cleared} changes taken back; snapshot {cleared.snapshot_version}")
            return
        answer = plane.config.GetOverlay(config_pb2.GetOverlayRequest())
    if as_json:
        print_json(plain(answer))
    elif export:
        print(answer.merged_text, end="")
    else:
        rows = [
            (one.resource, one.field, one.configured or "-", one.value, one.changed_by, iso(one.changed_at)[:19])
            for one in answer.entries
        ]
        print_table("Changed at run time", ("about", "what", "configured", "now", "by", "since"), rows)


def import_config(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Another program's configuration; - for standard input.")],
    source: Annotated[
        str,
        typer.Option(
            "--from", metavar="PROGRAM", help="cc-relay-go, claude-code-router or litellm; absent: found out."
        ),
    ] = "",
    out: Annotated[str, typer.Option("--out", metavar="FILE", help="Where to write it; - for standard output.")] = "-",
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
) -> None:
    """Make a configuration of another program's: the Go cc-relay's, claude-code-router's or LiteLLM's. Nothing is applied.

    What could not be carried over is told on standard error. Secrets become variables to be set.

    Exit codes: 0 done, 1 it cannot be read as one of these.

    Example: `ccr config import ~/.claude-code-router/config.json --out ccr.yaml`
    """
    options = [*(["--from", source] if source else []), "--out", out, *(["--force"] if force else [])]
    sys.stdout.flush()
    command = [sys.executable, "-P", "-m", "ccr_control.offline", "import", file, *options]
    raise typer.Exit(subprocess.run(command, check=False).returncode)  # noqa: S603 - our own


def revision_row(one: config_pb2.Revision) -> tuple[str, ...]:
    """A revision for a table."""
    from ccr_cli.plain import iso

    repeats = str(one.rolled_back_to) if one.rolled_back_to else "-"
    return (str(one.number), iso(one.applied_at)[:19], one.applied_by, str(one.lines), one.config_hash[:12], repeats)


def _applied(answer: config_pb2.ApplyConfigResponse, dry_run: bool, as_json: bool) -> None:
    from ccr_cli.plain import plain
    from ccr_cli.reading import problem_text

    if as_json:
        print_json(plain(answer))
    else:
        _tell_problems(answer.problems)
        for warning in answer.warnings:
            print(f"warning: {problem_text(warning)}", file=sys.stderr)
        if answer.diff:
            print_diff(answer.diff)
        print(_outcome(answer, dry_run))
    if answer.problems:
        raise typer.Exit(EXIT_NOT_WELL)


def _outcome(answer: config_pb2.ApplyConfigResponse, dry_run: bool) -> str:
    if answer.problems:
        return "refused; nothing has changed"
    after = f"; after the next start only: {', '.join(answer.restart_needed)}" if answer.restart_needed else ""
    if dry_run:
        return f"{'would be applied' if answer.diff else 'would change nothing'}{after}"
    if not answer.HasField("revision"):
        return "nothing has changed: it is in force already"
    return f"revision {answer.revision.number} is in force as snapshot {answer.snapshot_version}{after}"


def _tell_problems(problems: Iterable[config_pb2.ConfigProblem]) -> None:
    from ccr_cli.reading import problem_text

    for problem in problems:
        print(problem_text(problem), file=sys.stderr)


def _text(file: str) -> str:
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except OSError as error:
        raise Failure(f"{file}: {error.strerror}", EXIT_USAGE) from error
    except UnicodeDecodeError:
        raise Failure(f"{file}: is not UTF-8 text", EXIT_USAGE) from None


def _format(file: str) -> config_pb2.ConfigFormat.ValueType:
    from ccr_rpc.v1 import config_pb2

    is_toml = file.lower().endswith(".toml")
    return config_pb2.CONFIG_FORMAT_TOML if is_toml else config_pb2.CONFIG_FORMAT_YAML
