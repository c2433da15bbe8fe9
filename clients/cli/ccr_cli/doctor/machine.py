"""Checks of this machine: the state directory, its locks, the disk, and Claude Code's surroundings."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ccr_cli import places
from ccr_cli.claude import CREDENTIALS, DETOURS
from ccr_cli.doctor.findings import Finding, fail, ok, warn
from ccr_cli.reading_json import NotJson, read

_PUBLIC = frozenset({"ready"})  # marks of workers, without content
FEW_BYTES, LOW_BYTES = 16 << 20, 256 << 20
_PROXIES = ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")


def state_dir(state: Path) -> Iterator[Finding]:
    """Is it there, and private?"""
    try:
        found = state.stat()
    except OSError as error:
        yield fail(
            "state-dir", f"{state}: {error.strerror}", "start a relay with `ccr serve`, or name one: --state-dir"
        )
        return
    if found.st_uid != os.getuid():
        yield fail("state-dir", f"{state} belongs to another user", "choose one of yours with --state-dir")
    elif found.st_mode & 0o022:
        yield fail("state-dir", f"{state} is writable by others: no relay starts there", f"chmod 700 {state}")
    elif found.st_mode & 0o055:
        yield warn("state-dir", f"{state} can be looked into by others", f"chmod 700 {state}")
    else:
        yield ok("state-dir", f"{state} is private")
    if opened := sorted(_open_to_others(state)):
        names = ", ".join(str(path.relative_to(state)) for path in opened)
        yield fail(
            "file-modes",
            f"others can read or write {names}: there are secrets in the state directory",
            f"chmod 600 {' '.join(map(str, opened))}; then give new ones (`ccr keys rotate`, `ccr tokens revoke`)",
        )
    else:
        yield ok("file-modes", "nobody else can read what is in it")


def _open_to_others(state: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(state):
        for name in names:
            path = Path(folder, name)
            try:
                found = path.lstat()
            except OSError:
                continue
            if name not in _PUBLIC and stat.S_ISREG(found.st_mode) and found.st_mode & 0o077:
                yield path


def locks(state: Path) -> Iterator[Finding]:
    """Does the control plane live whose address is here?"""
    owner = places.read_line(state / "control.lock")
    holder = _holder(state / "control.lock")
    if holder is None:
        return  # this system does not tell
    if holder:
        yield ok("lock", f"held by pid {holder}")
    elif (state / "control.address").exists() or owner:
        yield fail(
            "lock",
            f"stale: the control plane that used {state} (pid {owner or 'unknown'}) has ended",
            "start it again with `ccr serve`; what it left behind is used then",
        )


def _holder(path: Path) -> int | None:
    """Pid of who holds a lock on a file. 0: nobody; None: it cannot be known."""
    try:
        locks_held = Path("/proc/locks").read_text(encoding="ascii").splitlines()
        found = path.stat()
    except FileNotFoundError:
        return 0 if Path("/proc/locks").exists() else None
    except OSError:
        return None
    place = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    for words in map(str.split, locks_held):
        if len(words) >= 6 and words[1] == "FLOCK" and words[5] == place:
            return int(words[4]) if int(words[4]) > 0 else -1
    return 0


def disk(state: Path) -> Iterator[Finding]:
    """Is there room for the store and the spools?"""
    try:
        found = os.statvfs(state)
    except OSError:
        return
    free = found.f_bavail * found.f_frsize
    words = f"{free >> 20} MiB free"
    if free < FEW_BYTES:
        yield fail("disk", f"{words} in {state}: usage cannot be kept", "make room")
    elif free < LOW_BYTES:
        yield warn("disk", f"{words} in {state}", "make room")
    else:
        yield ok("disk", words)


def claude_code(env: Mapping[str, str], settings: Mapping[Path, str], relay: str | None) -> Iterator[Finding]:
    """Would Claude Code, started here without `ccr run`, come to the relay? `settings`: files with their texts."""
    places_: list[tuple[str, Mapping[str, str]]] = [("the environment", env)]
    for path, text in settings.items():
        try:
            found = read(text) if text.strip() else {}
        except NotJson as error:
            yield warn("claude-code", f"{path} is no JSON: {error}", "mend it: Claude Code ignores it as it is")
            continue
        values = found.get("env", {})
        if isinstance(values, dict):
            places_.append((str(path), {name: str(value) for name, value in values.items()}))
        if found.get("apiKeyHelper"):
            yield warn(
                "claude-code", f"{path} has an apiKeyHelper: its key would be sent to the relay", "remove it there"
            )
    wrong = [one for where, values in places_ for one in _leading_astray(where, values, relay)]
    yield from wrong
    if wrong:
        return
    urls = {values["ANTHROPIC_BASE_URL"].rstrip("/") for _, values in places_ if values.get("ANTHROPIC_BASE_URL")}
    if urls:
        yield ok("claude-code", f"is pointed at {', '.join(sorted(urls))}")
    else:
        yield ok(
            "claude-code", "nothing leads it elsewhere; `ccr run claude` or `ccr config cc init` points it at the relay"
        )


def _leading_astray(where: str, values: Mapping[str, str], relay: str | None) -> Iterator[Finding]:
    url = values.get("ANTHROPIC_BASE_URL", "").rstrip("/")
    if url and relay and not same_place(url, relay):
        yield warn(
            "claude-code",
            f"{where} points Claude Code at {url}, the relay is {relay}",
            f"ANTHROPIC_BASE_URL={relay} there, or use `ccr run claude`",
        )
    if taken := [name for name in DETOURS if values.get(name)]:
        yield warn("claude-code", f"{where} sets {', '.join(taken)}, which leads past the relay", "remove it there")
    if url and values.get("ANTHROPIC_API_KEY"):
        yield warn(
            "claude-code",
            f"{where} sets ANTHROPIC_API_KEY, which Claude Code sends to the relay besides its key",
            "remove it there: the relay has keys of its own",
        )
    host = urlsplit(relay).hostname if relay else None
    proxies = [name for name in _PROXIES if values.get(name)]
    unproxied = f"{values.get('NO_PROXY', '')},{values.get('no_proxy', '')}".split(",")
    if host and proxies and host not in unproxied and "*" not in unproxied:
        yield warn(
            "claude-code", f"{where} sets {proxies[0]}: the relay would be sought behind the proxy", f"NO_PROXY={host}"
        )


def same_place(url: str, other: str) -> bool:
    """Whether two base URLs lead to one place; localhost is 127.0.0.1."""

    def key(text: str) -> tuple[str, str, int | None, str]:
        parts = urlsplit(text)
        host = (parts.hostname or "").replace("localhost", "127.0.0.1")
        return parts.scheme, host, parts.port, parts.path.rstrip("/")

    try:
        return key(url) == key(other)
    except ValueError:
        return False


def credentials(config: Mapping[str, Any], env: Mapping[str, str], key: str | None) -> Iterator[Finding]:
    """Do Claude Code's credentials and the relay's keys go together? `key` is the relay key that is used."""
    auth = (config.get("server") or {}).get("auth") or {}
    providers = [one for one in config.get("providers") or () if one.get("enabled", True)]
    login_only = [one for one in providers if one.get("type") == "anthropic" and not one.get("keys")]
    login = bool(env.get("CLAUDE_CODE_OAUTH_TOKEN"))
    others = [name for name in CREDENTIALS[:2] if env.get(name)]
    if login and not auth.get("allow_subscription"):
        yield fail(
            "subscription",
            "CLAUDE_CODE_OAUTH_TOKEN is a claude.ai login, and the relay accepts none",
            "server.auth.allow_subscription: true in the configuration, or unset it",
        )
    elif login and others:
        yield warn("subscription", f"{others[0]} hides the claude.ai login", "unset the one that is not meant")
    elif providers and len(login_only) == len(providers) and (key or auth.get("mode") == "none"):
        yield fail(
            "subscription",
            "no provider has a key, so only claude.ai logins are served, but requests come with a relay key or none",
            "`ccr run claude --subscription`, or add keys to a provider",
        )
    else:
        yield ok("subscription", "logins and keys do not contradict each other")
