"""Watches the configuration file: editors' atomic saves, writes in place, and swapped symbolic links alike.

Directories are watched, not the file: a watch on a file goes deaf when the file is replaced. Every event means only
"look again"; the content decides whether anything changed.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import TypeAlias

from watchfiles import awatch

from ccr_control.shell.log import Log

STEP_MS = 10  # quiet time that ends a burst of events
DEBOUNCE_MS = 30  # longest burst
LOOK_ANYWAY_MS = 2_000  # network file systems tell nothing; also covers changes made while watches are renewed
MAX_LINKS = 40  # as many as the kernel follows

log = Log("watcher")

_Identities: TypeAlias = frozenset[tuple[Path, int, int]]  # path, device, inode


class _Moved(Exception):
    """Other directories than those watched have to be watched."""


def watched_directories(path: Path) -> frozenset[Path]:
    """The directories in which something happens when the file at `path` becomes another one.

    These are the directory of the file and that of each symbolic link on the way to it (Kubernetes mounts:
    `ccr.yaml` → `..data/ccr.yaml`, `..data` → `..2026_11_21`).
    """
    found: set[Path] = set()
    links = 0
    here, ahead = Path(path.anchor), list(path.parts[1:])
    while ahead:
        step = ahead.pop(0)
        if step == "..":
            here = here.parent
            continue
        place = here / step
        if not ahead:
            found.add(here)
        if place.is_symlink() and (links := links + 1) <= MAX_LINKS:
            found.add(here)
            target = Path(os.readlink(place))
            here = Path(target.anchor) if target.is_absolute() else here
            ahead = [*(target.parts[1:] if target.is_absolute() else target.parts), *ahead]
        else:
            here = place
    return frozenset(found)


async def watch(path: Path, look: Callable[[], Awaitable[object]]) -> None:
    """Call `look` whenever the file at `path` may have changed, and now and then anyway. Runs until cancelled."""
    loop, is_known = asyncio.get_running_loop(), False
    while True:
        began_s = loop.time()
        try:
            await _watch_once(path, look)
        except* _Moved:
            pass
        except* (OSError, RuntimeError) as group:  # a directory is gone, or the kernel has no watch left to give
            if not is_known or loop.time() - began_s > LOOK_ANYWAY_MS / 1000:
                is_known = True
                problem = str(group.exceptions[0])
                log.warning("config_watch_lost", problem=problem, effect=f"looking every {LOOK_ANYWAY_MS} ms")
            await asyncio.sleep(LOOK_ANYWAY_MS / 1000)
            await look()


async def _watch_once(path: Path, look: Callable[[], Awaitable[object]]) -> None:
    """Watch until other directories have to be watched: then it raises a group with _Moved.

    Raises a group with OSError or RuntimeError if they cannot be watched.
    """
    directories = watched_directories(path)
    before = _identities(directories)
    events = awatch(
        *directories,
        watch_filter=None,
        recursive=False,
        debounce=DEBOUNCE_MS,
        step=STEP_MS,
        rust_timeout=LOOK_ANYWAY_MS,
        yield_on_timeout=True,
    )
    async with aclosing(events), asyncio.TaskGroup() as tasks:
        # Begins when the loop below waits for the first time, thus with the watch in place: nothing falls in between.
        tasks.create_task(_look(path, look, before), name="look after the watch was renewed")
        async for _ in events:
            await _look(path, look, before)


async def _look(path: Path, look: Callable[[], Awaitable[object]], watched: _Identities) -> None:
    """Call `look`. Raises _Moved if meanwhile the way to the file leads through other directories."""
    await look()
    if _identities(watched_directories(path)) != watched:
        raise _Moved


def _identities(directories: frozenset[Path]) -> _Identities:
    """The directories with what tells them from others of the same name; 0 for what is not there."""
    found: set[tuple[Path, int, int]] = set()
    for directory in directories:
        try:
            seen = directory.stat()
        except OSError:
            found.add((directory, 0, 0))
        else:
            found.add((directory, seen.st_dev, seen.st_ino))
    return frozenset(found)
