"""`python -m ccr_control.offline`: what can be done with a configuration while nothing runs.

    validate FILE|-             checks it; every problem on a line of its own
    show FILE|-                 prints it as it takes effect, defaults included, secrets as "***"
    snapshot FILE|-             writes what nodes would decide by, serialised and without secrets, to stdout
    schema                      prints the JSON Schema, for editors
    init [--out FILE] [--force] writes a configuration to begin with
    import FILE|-               makes a configuration of another program's; what is not carried over goes to stderr

Exit codes: 0 all is well, 1 the configuration has problems, 2 the command was used wrongly or a file cannot be
read or written. Output goes to stdout, problems and warnings to stderr.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import get_args

from ccr_control.core.compile import check, compile_snapshot, json_schema, redacted_yaml
from ccr_control.core.config import Format, Loaded, as_text, load
from ccr_control.core.errors import ConfigInvalid, Problem
from ccr_control.core.importing import NotRecognised, Source, imported
from ccr_control.core.withheld import without_secrets
from ccr_control.shell.paths import reading_in

OK, PROBLEMS, USAGE = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; the exit code."""
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except ConfigInvalid as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        return PROBLEMS
    except BrokenPipeError:  # the reader, `head` for one, has seen enough
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - lives until the process ends
        return OK
    except OSError as error:
        print(f"{error.filename or 'standard input'}: {error.strerror}", file=sys.stderr)
        return USAGE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ccr config", description="Works with configurations while nothing runs.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, command, explained in (
        ("validate", _validate, "check a configuration and list every problem"),
        ("show", _show, 'print a configuration as it takes effect, secrets as "***"'),
        ("snapshot", _snapshot, "write the snapshot of a configuration, serialised and without secrets"),
    ):
        reading = commands.add_parser(name, help=explained)
        reading.add_argument("file", metavar="FILE", help="a .yaml or .toml file; - for standard input")
        reading.add_argument("--format", choices=("yaml", "toml"), help="default: by the file's name, else yaml")
        reading.set_defaults(command=command)
    commands.add_parser("schema", help="print the JSON Schema").set_defaults(command=_schema)
    init = commands.add_parser("init", help="write a configuration to begin with")
    init.add_argument("--out", metavar="FILE", default="ccr.yaml", help="default: %(default)s; - for standard output")
    init.add_argument("--force", action="store_true", help="replace the file if it exists")
    init.set_defaults(command=_init)
    importing = commands.add_parser("import", help="make a configuration of another program's")
    importing.add_argument("file", metavar="FILE", help="its configuration; - for standard input")
    importing.add_argument("--from", dest="source", choices=get_args(Source), help="default: found out by its keys")
    importing.add_argument("--out", metavar="FILE", default="-", help="default: standard output")
    importing.add_argument("--force", action="store_true", help="replace the file if it exists")
    importing.set_defaults(command=_import)
    return parser


def _validate(options: argparse.Namespace) -> int:
    loaded = _loaded(options)
    _warn(loaded.warnings)
    print(f"{options.file}: valid")
    return OK


def _show(options: argparse.Namespace) -> int:
    loaded = _loaded(options)
    _warn(loaded.warnings)
    print(redacted_yaml(loaded.config), end="")
    return OK


def _snapshot(options: argparse.Namespace) -> int:
    loaded = _loaded(options)
    snapshot = compile_snapshot(loaded.config, version=1, created_at=datetime.fromtimestamp(0, UTC))
    if problems := check(snapshot):
        raise ConfigInvalid([Problem(options.file, 0, 0, "", problem) for problem in problems])
    sys.stdout.buffer.write(without_secrets(snapshot).SerializeToString())
    return OK


def _schema(_: argparse.Namespace) -> int:
    print(json.dumps(json_schema(), indent=2))
    return OK


def _init(options: argparse.Namespace) -> int:
    text = resources.files("ccr_control").joinpath("starter.yaml").read_text(encoding="utf-8")
    if options.out == "-":
        print(text, end="")
        return OK
    if (code := _write_out(options, text)) == OK:
        print(f"wrote {options.out}: set ANTHROPIC_API_KEY, then run `ccr serve --config {options.out}`")
    return code


def _write_out(options: argparse.Namespace, text: str) -> int:
    try:
        # "x" never overwrites, and never follows a dangling link
        with open(options.out, "w" if options.force else "x", encoding="utf-8") as out:
            out.write(text)
    except FileExistsError:
        print(f"{options.out}: exists already; --force replaces it", file=sys.stderr)
        return USAGE
    return OK


def _import(options: argparse.Namespace) -> int:
    try:
        text = sys.stdin.read() if options.file == "-" else Path(options.file).read_text(encoding="utf-8")
        made = imported(text, options.source)
    except UnicodeDecodeError:
        print(f"{options.file}: is not UTF-8 text", file=sys.stderr)
        return PROBLEMS
    except NotRecognised as error:
        print(f"{options.file}: {error}", file=sys.stderr)
        return PROBLEMS
    for lost in made.not_carried_over:
        print(f"not carried over: {lost}", file=sys.stderr)
    if options.out == "-":
        print(made.text, end="")
        return OK
    return _write_out(options, made.text)


def _loaded(options: argparse.Namespace) -> Loaded:
    """Raises ConfigInvalid or OSError."""
    is_stdin = options.file == "-"
    file = "<stdin>" if is_stdin else options.file
    blob = sys.stdin.buffer.read() if is_stdin else Path(options.file).read_bytes()
    fmt: Format = options.format or ("toml" if file.endswith(".toml") else "yaml")
    folder = Path() if is_stdin else Path(options.file).parent
    return load(
        as_text(blob, file=file),
        file=file,
        fmt=fmt,
        env=os.environ,
        read_file=reading_in(folder),
    )


def _warn(warnings: Sequence[Problem]) -> None:
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
