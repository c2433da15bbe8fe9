"""A short wait for a newer credential, where a cloud refused the one there was and nothing else is left to try.

Short-lived credentials are renewed ahead of their end, so this is for those that somebody revoked, or whose account was changed: the
control plane hears of the refusal at once, renews, and its next snapshot brings what the request then goes out with, once more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from ccr_data.core.snapshot import NEVER_S, KeyState, Snapshot, Target, target

MAX_WAIT_S = 3.0
LOOK_EVERY_S = 0.05  # a look costs a microsecond, and few wait


class HasSnapshot(Protocol):
    """Where the newest accepted snapshot is."""

    current: Snapshot | None


def is_renewable(refused: Target) -> bool:
    """Whether the control plane renews the target's credential by itself."""
    return refused.key is not None and refused.key.expires_at_s != NEVER_S


def renewed(snapshot: Snapshot | None, refused: Target) -> Target | None:
    """The same target with a newer credential, if the snapshot has one."""
    key = refused.key
    provider = snapshot.providers.get(refused.provider.name) if snapshot is not None else None
    if provider is None or key is None or not provider.is_enabled:
        return None
    newer = next((one for one in provider.keys if one.label == key.label), None)
    if newer is None or newer.state is KeyState.DISABLED or newer.material == key.material:
        return None
    return target(provider, newer, refused.model)


class Renewal:
    """One wait. `then` gets the target to try, or None if there was no newer credential in time; never after `cancel`."""

    def __init__(self, store: HasSnapshot, refused: Target, then: Callable[[Target | None], None]) -> None:
        self._store = store
        self._refused = refused
        self._then = then
        self._loop = asyncio.get_running_loop()
        self._ends_s = self._loop.time() + MAX_WAIT_S
        self._timer = self._loop.call_later(LOOK_EVERY_S, self._look)

    def _look(self) -> None:
        found = renewed(self._store.current, self._refused)
        if found is None and self._loop.time() < self._ends_s:
            self._timer = self._loop.call_later(LOOK_EVERY_S, self._look)
        else:
            self._then(found)

    def cancel(self) -> None:
        """Nobody waits any more."""
        self._timer.cancel()
