"""What `ccr config cc` changes in Claude Code's settings.json, and how it takes it back.

Pure. Only the variables in `OURS` below "env" are touched. What was there before, and a digest of what was written, is kept beside the
file (`Note`), so that `remove` can tell what is ours from what somebody changed since.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ccr_cli.claude import CREDENTIALS, DETOURS
from ccr_cli.reading_json import NotJson, read

OURS = ("ANTHROPIC_BASE_URL", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_ENABLE_GATEWAY_MODEL_DISCOVERY")
ENV = "env"
_HELPERS = ("apiKeyHelper", "awsAuthRefresh", "awsCredentialExport")


class NotUnderstood(Exception):
    """The settings are not such that they can be changed safely; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Note:
    """What was done to the settings. Digests, so that a token is in one file less."""

    before: Mapping[str, str | None]  # variable → value; None: it was not there
    written: Mapping[str, str]  # variable → SHA-256 of what was written
    had_env: bool

    def text(self) -> str:
        """As it is kept."""
        return json.dumps({"before": self.before, "written": self.written, "had_env": self.had_env}, indent=2) + "\n"


def note_from(text: str) -> Note:
    """The reverse. Raises NotUnderstood."""
    try:
        kept = read(text)
        return Note(dict(kept["before"]), dict(kept["written"]), bool(kept["had_env"]))
    except (NotJson, KeyError, TypeError, ValueError) as error:
        raise NotUnderstood(
            f"the note of what was changed is damaged ({error}): take the change back by hand"
        ) from None


@dataclass(frozen=True, slots=True)
class Changed:
    """New settings."""

    text: str
    note: Note | None  # None: nothing of ours is in them any more
    left: tuple[str, ...] = ()  # variables that somebody changed since, and that stay


def with_relay(text: str, url: str, token: str | None, earlier: Note | None) -> Changed:
    """The settings with Claude Code pointed at the relay. A token of None leaves its credentials to it.

    `earlier` is the note of a change that is still in there. Raises NotUnderstood.
    """
    settings, env = _read(text)
    _refuse_detours(settings, env, token)
    ours = {"ANTHROPIC_BASE_URL": url, "CLAUDE_CODE_ENABLE_GATEWAY_MODEL_DISCOVERY": "1"}
    if token is not None:
        ours["ANTHROPIC_AUTH_TOKEN"] = token
    elif "ANTHROPIC_AUTH_TOKEN" in env and not _is_ours("ANTHROPIC_AUTH_TOKEN", env, earlier):
        raise NotUnderstood(
            "env.ANTHROPIC_AUTH_TOKEN is set, which hides a claude.ai login: remove it, or leave out --subscription"
        )
    before = {name: _before(name, env, earlier) for name in OURS}
    kept = {name: value for name, value in env.items() if name not in OURS}
    settings[ENV] = {**kept, **ours}
    had_env = earlier.had_env if earlier else ENV in _read(text)[0]
    note = Note(before, {name: digest(value) for name, value in ours.items()}, had_env)
    return Changed(_written(settings, text), note)


def without_relay(text: str, note: Note) -> Changed:
    """The settings as they were before, but for what somebody else changed since. Raises NotUnderstood."""
    settings, env = _read(text)
    left = []
    for name, written in note.written.items():
        if name not in env:
            continue
        if digest(env[name]) != written:
            left.append(name)
        elif (before := note.before.get(name)) is None:
            del env[name]
        else:
            env[name] = before
    for name, before in note.before.items():
        if before is not None and name not in note.written and name not in env:
            env[name] = before
    if env or note.had_env:
        settings[ENV] = env
    else:
        settings.pop(ENV, None)
    return Changed(_written(settings, text), None, tuple(left))


def digest(value: str) -> str:
    """What is kept of a value."""
    return hashlib.sha256(value.encode()).hexdigest()


def masked(text: str) -> str:
    """Settings for a screen: credentials as "***". Raises NotUnderstood."""
    settings, env = _read(text)
    for name in (*CREDENTIALS, "ANTHROPIC_CUSTOM_HEADERS"):
        if name in env:
            env[name] = "***"
    if ENV in settings:
        settings[ENV] = env
    return _written(settings, text)


def _read(text: str) -> tuple[dict[str, Any], dict[str, str]]:
    """The settings, and a copy of their variables."""
    if not text.strip():
        return {}, {}
    try:
        settings = read(text)
    except NotJson as error:
        raise NotUnderstood(f"it is not plain JSON ({error}): mend it, or add the variables by hand") from None
    env = settings.get(ENV, {})
    if not isinstance(env, dict) or not all(isinstance(value, str) for value in env.values()):
        raise NotUnderstood('"env" in it is not an object of strings: mend it first')
    return settings, dict(env)


def _refuse_detours(settings: Mapping[str, Any], env: Mapping[str, str], token: str | None) -> None:
    past = [f"env.{name}" for name in DETOURS if env.get(name)]
    if token is not None:
        past += [f"env.{name}" for name in CREDENTIALS if name != "ANTHROPIC_AUTH_TOKEN" and env.get(name)]
        past += [name for name in _HELPERS if settings.get(name)]
    if past:
        raise NotUnderstood(
            f"{', '.join(past)} would lead past the relay or hide its key: remove it first, it is not ours"
        )


def _is_ours(name: str, env: Mapping[str, str], earlier: Note | None) -> bool:
    return earlier is not None and name in env and earlier.written.get(name) == digest(env[name])


def _before(name: str, env: Mapping[str, str], earlier: Note | None) -> str | None:
    """What a variable was before us; what somebody set since then is what to come back to."""
    if earlier is not None and (_is_ours(name, env, earlier) or name not in env):
        return earlier.before.get(name)
    return env.get(name)


def _written(settings: dict[str, Any], like: str) -> str:
    """The settings as text, indented as they were."""
    indent: int | str = 2
    for line in like.splitlines():
        blanks = line[: len(line) - len(line.lstrip())]
        if blanks:
            indent = "\t" if "\t" in blanks else len(blanks)
            break
    return json.dumps(settings, indent=indent, ensure_ascii=False) + "\n"
