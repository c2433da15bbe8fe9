"""One supervisor for each state directory, also right after another one was killed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from ccr_control.shell.paths import CannotStart, StateDir

TAKEOVER_PATIENCE_S = 10.0
"""How long the programs of a supervisor that was killed may take to end; they are told at once."""


@contextlib.contextmanager
def only_one(state: StateDir) -> Iterator[float]:
    """Be the only supervisor of this state directory while the block runs. Raises CannotStart if there is one.

    Yields how long, in seconds, to wait for what is still taken: 0, or TAKEOVER_PATIENCE_S if the supervisor before
    this one did not end in order, so that its programs may be ending right now.
    """
    path = state.path / "serve.lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CannotStart(f"cannot write {path}: {error.strerror}") from error
    try:
        left_behind = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CannotStart(
                f"another ccr serve (pid {left_behind or 'unknown'}) already uses {state.path}; "
                "stop it or choose another --state-dir"
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        try:
            yield TAKEOVER_PATIENCE_S if left_behind else 0.0
        finally:
            os.ftruncate(descriptor, 0)  # only a killed supervisor leaves its number behind
    finally:
        os.close(descriptor)


def wait_until_free(lock: Path, patience_s: float) -> None:
    """Return when nobody holds a lock file, or after `patience_s`: who needs the lock will say that it is held."""
    deadline_s = time.monotonic() + patience_s
    while time.monotonic() < deadline_s and not _is_free(lock):
        time.sleep(0.05)


def _is_free(lock: Path) -> bool:
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return True  # not there: nobody ever held it
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        return True
    finally:
        os.close(descriptor)
