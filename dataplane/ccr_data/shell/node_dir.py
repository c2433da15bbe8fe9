"""Where a node keeps what must outlive it: files for this user alone, replaced whole or not at all.

<state-dir>/nodes/<node-name>/snapshot.pb             the last accepted snapshot
<state-dir>/nodes/<node-name>/budgets.json           what was used of limits in the last minute (shell/kept_budgets.py)
<state-dir>/nodes/<node-name>/budgets.lock, finishing-*.json  of workers that take each other's place (shell/succession.py)
<state-dir>/nodes/<node-name>/spool/<journal>.spool   usage that the control plane has not acknowledged
<state-dir>/pins/                                      where sessions live, shared by all nodes (shell/shared_pins.py)
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SPOOL_SUFFIX = ".spool"
HALF_SUFFIX = ".new"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True, slots=True)
class NodeDir:
    """The directory of one node name, below the state directory that all nodes of this machine share."""

    state_dir: Path
    node_name: str

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.node_name):
            raise ValueError(f"a node name has letters, digits, '.', '_' and '-' only, not {self.node_name!r}")

    @property
    def path(self) -> Path:
        """The directory itself."""
        return self.state_dir / "nodes" / self.node_name

    @property
    def snapshot(self) -> Path:
        """The last accepted snapshot."""
        return self.path / "snapshot.pb"

    def spool(self, journal: str) -> Path:
        """Unacknowledged usage of one process."""
        return self.path / "spool" / f"{journal}{SPOOL_SUFFIX}"

    def all_spools(self) -> list[Path]:
        """The spools of all nodes of this machine, oldest first."""
        found = []
        for path in matching(self.state_dir / "nodes", f"*/spool/*{SPOOL_SUFFIX}"):
            with contextlib.suppress(OSError):
                found.append((path.stat().st_mtime_ns, path))
        return [path for _, path in sorted(found)]


def matching(folder: Path, pattern: str) -> list[Path]:
    """The files of a folder, in order; none where it cannot be looked at, as without free descriptors. Never raises."""
    try:
        return sorted(folder.glob(pattern))
    except OSError:
        return []


def make_private(directory: Path, below: Path) -> None:
    """Make a directory and those between it and `below`, open to this user alone. Raises OSError."""
    missing = []
    while directory not in (below, directory.parent):
        missing.append(directory)
        directory = directory.parent
    below.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in reversed(missing):
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)


def replace_file(path: Path, parts: list[bytes], prepare: Callable[[int], object] | None = None) -> int:
    """Write a file beside `path`, to the disk, then under its name: nobody ever sees half of it. Raises OSError.

    `prepare` gets the open descriptor before the file has its name. Returns that descriptor; the caller closes it.
    """
    half = path.with_name(f".{path.name}.{os.getpid()}{HALF_SUFFIX}")
    half.unlink(missing_ok=True)
    descriptor = os.open(half, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        if prepare is not None:
            prepare(descriptor)
        for part in parts:
            write_all(descriptor, part)
        os.fsync(descriptor)
        half.replace(path)
        _sync_directory(path.parent)
    except BaseException:
        os.close(descriptor)
        half.unlink(missing_ok=True)
        raise
    return descriptor


def remove_halves(directory: NodeDir) -> None:
    """Remove what processes of this node that were killed while they wrote left behind: it holds credentials. Never raises."""
    for folder in (directory.path, directory.path / "spool"):
        for half in matching(folder, f".*{HALF_SUFFIX}"):
            pid = half.name.removesuffix(HALF_SUFFIX).rpartition(".")[2]
            if pid.isdigit() and not _is_alive(int(pid)):
                with contextlib.suppress(OSError):
                    half.unlink()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # somebody else's
        return True
    return pid != os.getpid()


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of it, however little the kernel takes at once. Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
