"""Publishes snapshots: gives each a version that was never used before, and wakes whoever waits for a newer one.

A version is kept in the store before anybody sees it. Should the store have been lost, the nodes remember: one that
serves a version at or above ours makes us publish again, above it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from ccr_rpc.v1 import snapshot_pb2

from ccr_control.shell.log import Log
from ccr_control.store.actor import StoreUnavailable

COALESCE_S = 0.005
"""Changes within this time become one version."""

MAX_VERSION = 1 << 62
"""A node that says it serves more than this is broken; believing it would use up all versions."""

log = Log("publisher")


class Publisher:
    """Holds the newest snapshot. All methods are for the event loop."""

    def __init__(
        self,
        keep_version: Callable[[int], Awaitable[None]],
        coalesce_s: float = COALESCE_S,
        overlay: Callable[[snapshot_pb2.Snapshot], None] = lambda _: None,
    ) -> None:
        """`keep_version` remembers a version beyond our own life; it may raise StoreUnavailable.

        `overlay` writes into each snapshot what changes without the configuration: the circuits.
        """
        self._overlay = overlay
        self._keep_version = keep_version
        self._coalesce_s = coalesce_s
        self._used = 0  # the highest version known to have been used, by us or before us
        self._content: snapshot_pb2.Snapshot | None = None  # what was offered last, whatever its version says
        self._current: snapshot_pb2.Snapshot | None = None  # what is published
        self._wants = 0  # how often a publication was wanted, and up to which of these it has happened
        self._wants_met = 0
        self._is_wanted = asyncio.Event()
        self._is_published = asyncio.Event()  # replaced by each publication, so that nobody misses one

    @property
    def version(self) -> int:
        """Version of the newest snapshot. 0: none was published yet."""
        return self._current.version if self._current else 0

    def note_used(self, version: int) -> None:
        """A version was used before, by an earlier life of this control plane: what comes next goes beyond it.

        If that is not below the version published now, the snapshot is published again.
        """
        if version > MAX_VERSION:
            return
        self._used = max(self._used, version)
        if self._current is not None and version >= self._current.version:
            self._want()

    def offer(self, snapshot: snapshot_pb2.Snapshot) -> None:
        """Publish this snapshot, whatever its version says, unless another one is offered within moments."""
        self._content = snapshot
        self._want()

    def renew(self) -> None:
        """Publish the same snapshot with what the overlay says of it now."""
        if self._content is not None:
            self._want()

    async def run(self) -> None:
        """Publish what is offered, until cancelled."""
        while True:
            await self._is_wanted.wait()
            await asyncio.sleep(self._coalesce_s)
            await self.publish()

    async def publish(self) -> None:
        """Publish what was offered last, now. Waits for the store only. Not to be called twice at a time."""
        assert self._content is not None, "something was offered"
        self._is_wanted.clear()
        wants, content = self._wants, self._content
        version = self._used = self._used + 1
        try:
            await self._keep_version(version)
        except StoreUnavailable as error:  # not a reason to hold back a change: the nodes remember their versions
            log.warning("version_not_kept", version=version, problem=str(error))
        snapshot = snapshot_pb2.Snapshot()
        snapshot.CopyFrom(content)
        snapshot.version = version
        self._overlay(snapshot)
        self._current, self._wants_met = snapshot, wants
        published, self._is_published = self._is_published, asyncio.Event()
        published.set()
        log.info(
            "snapshot_published", version=version, config_hash=snapshot.config_hash[:12], bytes=snapshot.ByteSize()
        )

    async def newer_than(self, version: int) -> snapshot_pb2.Snapshot:
        """The newest snapshot, as soon as its version is above `version`. The caller limits the wait."""
        while self._current is None or self._current.version <= version:
            await self._is_published.wait()
        return self._current

    async def settled(self) -> int:
        """The newest version, once everything offered until now is published. Needs `run`."""
        wants = self._wants
        while self._wants_met < wants:
            await self._is_published.wait()
        return self.version

    def _want(self) -> None:
        self._wants += 1
        self._is_wanted.set()
