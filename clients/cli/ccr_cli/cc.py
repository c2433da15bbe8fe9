"""`ccr config cc …`: points Claude Code at the relay for every start, in its own settings, and takes it back."""

from __future__ import annotations

import contextlib
import difflib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from ccr_cli import places, run, settings_file
from ccr_cli.failure import EXIT_NOT_WELL, EXIT_USAGE, Failure
from ccr_cli.options import Control, StateDir, Url
from ccr_cli.screen import print_diff
from ccr_cli.settings_file import Changed, Note, NotUnderstood

app = typer.Typer(no_args_is_help=True, help="Point Claude Code at the relay for every start, and take it back.")

Settings = Annotated[
    str | None,
    typer.Option("--settings", metavar="FILE", help="Claude Code's settings (else $CLAUDE_CONFIG_DIR's, the user's)."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")]


@app.command()
def init(
    settings: Settings = None,
    dry_run: DryRun = False,
    url: Url = None,
    key_env: Annotated[
        str | None, typer.Option(metavar="VARIABLE", help=f"Holds the relay key (else ${run.KEY_VARIABLE}, if set).")
    ] = None,
    subscription: Annotated[
        bool, typer.Option("--subscription", help="Keep Claude Code's own credentials, such as a claude.ai login.")
    ] = False,
    control: Control = None,
    state_dir: StateDir = None,
) -> None:
    """Write the relay's address and key into Claude Code's settings.json, for every start of it.

    Only the variables ANTHROPIC_BASE_URL, ANTHROPIC_AUTH_TOKEN and CLAUDE_CODE_ENABLE_GATEWAY_MODEL_DISCOVERY below
    "env" are touched; a copy of the file as it was stays beside it. What is not understood is refused.

    Exit codes: 0 done, 1 the settings are such that it would not work, 3 no relay answers, 4 it wants another key.

    Example: `ccr config cc init --dry-run`
    """
    path = _path(settings)
    relay = run.relay_address(url, control, state_dir)
    token = None if subscription else run.relay_key(key_env, os.environ)
    run.check_relay(relay, token, key_env)
    text = _text(path)
    with _understood(path):
        changed = settings_file.with_relay(text, relay, token, _note(path))
    _apply(path, text, changed, dry_run)
    if not dry_run:
        print(f"{path}: Claude Code goes to {relay} from its next start on; `ccr config cc remove` takes it back")


@app.command()
def remove(settings: Settings = None, dry_run: DryRun = False) -> None:
    """Take out of Claude Code's settings.json what `init` wrote, and bring back what was there before.

    What somebody changed since then stays as it is, and is named.

    Example: `ccr config cc remove`
    """
    path = _path(settings)
    note = _note(path)
    if note is None:
        raise Failure(f"{path}: nothing was written there by `ccr config cc init`", EXIT_NOT_WELL)
    text = _text(path)
    with _understood(path):
        changed = settings_file.without_relay(text, note)
    _apply(path, text, changed, dry_run)
    for name in changed.left:
        print(f"env.{name} was changed since and stays as it is")
    if not dry_run:
        print(f"{path}: as it was before")


def settings_path(named: str | None, env: dict[str, str]) -> Path:
    """Claude Code's settings of the user."""
    home = env.get("CLAUDE_CONFIG_DIR") or Path(env.get("HOME") or Path.home()) / ".claude"
    return Path(named).expanduser() if named else Path(home) / "settings.json"


def _path(named: str | None) -> Path:
    path = settings_path(named, dict(os.environ))
    return path.resolve() if path.is_symlink() else path.absolute()  # people link it from their dotfiles


def _note_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.cc-relay-note")


def _note(path: Path) -> Note | None:
    text = places.read_line(_note_path(path))
    if text is None:
        return None
    with _understood(_note_path(path)):
        return settings_file.note_from(text)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"{path} cannot be read: {error}", EXIT_USAGE) from error


@contextlib.contextmanager
def _understood(path: Path) -> Iterator[None]:
    try:
        yield
    except NotUnderstood as error:
        raise Failure(f"{path}: {error}; nothing has changed", EXIT_NOT_WELL) from None


def _apply(path: Path, text: str, changed: Changed, dry_run: bool) -> None:
    if dry_run:
        before, after = (settings_file.masked(one) if one.strip() else "" for one in (text, changed.text))
        names = (str(path), f"{path} (new)")
        lines = difflib.unified_diff(before.splitlines(True), after.splitlines(True), *names)
        print_diff("".join(lines) or "nothing would change\n")
        return
    backup = path.with_name(f"{path.name}.cc-relay-backup")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if changed.note is not None:
            if text and not _note_path(path).exists():
                write(backup, text, 0o600)
            write(_note_path(path), changed.note.text(), 0o600)
        write(path, changed.text, None)
        if changed.note is None:
            _note_path(path).unlink(missing_ok=True)
    except OSError as error:
        raise Failure(f"{error.filename or path} cannot be written: {error.strerror}", EXIT_USAGE) from error


def write(path: Path, text: str, mode: int | None) -> None:
    """Replace a file at once; a mode of None: as it has, or for this user alone. Raises OSError."""
    half = path.with_name(f".{path.name}.new")
    with contextlib.suppress(OSError):
        mode = path.stat().st_mode & 0o777 if mode is None else mode
    half.unlink(missing_ok=True)
    descriptor = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(descriptor)
    half.chmod(mode if mode is not None else 0o600)
    half.replace(path)
