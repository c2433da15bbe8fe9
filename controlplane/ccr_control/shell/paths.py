"""Where ccr-control finds its configuration and keeps its state, and who else may.

The layout of the state directory is a contract with ccr-data and ccr:
`control.address` (where to dial, written when ready), `control.sock`, `control.token` (for the TCP port),
`control.lock`, `control.db`, `web.address` (URL of the web page), `store.key` (what seals the secrets in it).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

MAX_SOCKET_PATH_BYTES = 100  # the kernel's limit is 107


class CannotStart(Exception):
    """The surroundings do not allow a start; the message is one line for the operator."""


class NoConfig(Exception):
    """No configuration file was named or found; the message says where it was looked for."""


@dataclass(frozen=True, slots=True)
class StateDir:
    """A private directory, and the names of the things in it."""

    path: Path
    socket: Path

    @property
    def database(self) -> Path:
        """Versions, journals and the ledger."""
        return self.path / "control.db"

    @property
    def sealing_key(self) -> Path:
        """What secrets in the database are sealed with."""
        return self.path / "store.key"

    @property
    def address(self) -> str:
        """What gRPC dials."""
        return f"unix:{self.socket}"


def config_file(named: str | None, env: Mapping[str, str]) -> Path:
    """The configuration file: as named, $CCR_CONFIG, ./ccr.yaml or the user's config.yaml (or .yml, or .toml).

    A named one need not exist. Raises NoConfig if there is none.
    """
    if named or (named := env.get("CCR_CONFIG")):
        return Path(named).expanduser().absolute()
    home = Path(env.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    places = [
        place.with_suffix(ending)
        for place in (Path.cwd() / "ccr", home / "cc-relay" / "config")
        for ending in (".yaml", ".yml", ".toml")
    ]
    for place in places:
        if place.is_file():
            return place
    raise NoConfig(
        f"no configuration found: neither --config nor $CCR_CONFIG is set, and there is no {places[0]} or {places[3]} "
        "(nor .yml or .toml); `ccr config init` writes one"
    )


def reading_in(folder: Path) -> Callable[[str], str]:
    """Reads a file that a configuration in a folder names. Raises OSError or UnicodeDecodeError."""
    return lambda name: (folder / Path(name).expanduser()).read_text(encoding="utf-8")


def state_dir(named: str | None, env: Mapping[str, str]) -> StateDir:
    """The state directory, made if needed: as named, $CCR_STATE_DIR, or cc-relay in the user's state directory.

    Raises CannotStart if it cannot be made or is open to others.
    """
    default = Path(env.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "cc-relay"
    path = Path(named or env.get("CCR_STATE_DIR") or default).expanduser().absolute()
    _make_private(path)
    return StateDir(path, _socket_path(path))


def _socket_path(directory: Path) -> Path:
    """The socket's path, moved to a short private directory if the kernel would refuse its length."""
    path = directory / "control.sock"
    if len(os.fsencode(path)) <= MAX_SOCKET_PATH_BYTES:
        return path
    short = Path(f"/tmp/cc-relay-{os.getuid()}")  # noqa: S108 - checked to be ours and closed to others
    _make_private(short)
    return short / f"{hashlib.sha256(os.fsencode(directory)).hexdigest()[:16]}.sock"


def _make_private(path: Path) -> None:
    """Make a directory for this user alone, or check that it is one."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
        found = path.stat()
        is_foreign_link = path.lstat().st_uid != os.getuid()  # in /tmp anybody may have put one there
    except OSError as error:
        raise CannotStart(f"cannot use the directory {path}: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode):
        raise CannotStart(f"{path} is not a directory")
    if found.st_uid != os.getuid() or is_foreign_link:
        raise CannotStart(f"the directory {path} belongs to another user; choose another one")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise CannotStart(f"the directory {path} is writable by others; run: chmod 700 {path}")


@contextlib.contextmanager
def locked(state: StateDir) -> Iterator[None]:
    """Be the only control plane of this state directory while the block runs. Raises CannotStart if there is one."""
    path = state.path / "control.lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CannotStart(f"cannot write {path}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            raise CannotStart(f"another ccr-control (pid {owner}) already uses {state.path}") from error
        with contextlib.suppress(OSError):  # the disk is full; who holds the lock is only for a message
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def token(state: StateDir) -> str:
    """The token for the TCP port: the one on disk, or a new one if there is none that only we could read."""
    path = state.path / "control.token"
    with contextlib.suppress(OSError):
        if is_ours_alone(path):
            kept = path.read_text().strip()
            if len(kept) >= 32:
                return kept
    fresh = secrets.token_urlsafe(32)
    write_private(path, fresh + "\n")
    return fresh


def is_ours_alone(path: Path) -> bool:
    """Whether it is a file that nobody else could read or write."""
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077


def write_private(path: Path, text: str) -> None:
    """Write a file for this user alone; readers see the old text or the new one, never half. Raises CannotStart.

    What is there already is left as it is: so a restart succeeds on a full disk.
    """
    if is_ours_alone(path) and path.read_text(errors="replace") == text:
        return
    half = path.with_name(f".{path.name}.new")
    try:
        half.unlink(missing_ok=True)
        descriptor = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "w") as file:
            file.write(text)
        half.replace(path)
    except OSError as error:
        raise CannotStart(f"cannot write {path}: {error.strerror}") from error
