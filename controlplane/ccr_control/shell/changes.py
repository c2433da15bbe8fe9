"""Changes at run time: decided on what is in force, kept with their event, put in force, published. In this order, one after another.

A change that cannot be kept is not made. One that was begun is finished also if whoever asked for it has gone: changes happen in a
task of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from ccr_control.core.access import ROLES, Role, Token
from ccr_control.core.errors import NotNow
from ccr_control.core.events import Event
from ccr_control.core.overlay import Entry, Overlay
from ccr_control.core.secret import Secret
from ccr_control.shell.access import Doorman
from ccr_control.shell.config_file import ConfigFile, with_overlay
from ccr_control.shell.events import EventLog
from ccr_control.shell.log import Log
from ccr_control.shell.publisher import Publisher
from ccr_control.shell.sealing import Sealer, Unreadable
from ccr_control.store.actor import Store, StoreUnavailable, Tables
from ccr_control.store.change_tables import Kept, KeptEntry, KeptToken

MAX_WAITING = 256

_T = TypeVar("_T")

log = Log("changes")


@dataclass(frozen=True, slots=True)
class Altered:
    """What a change makes of the overlay, and what there is to say about it."""

    overlay: Overlay
    events: Sequence[Event]


Alter = Callable[[Overlay], Altered | None]
"""Decides upon a change; None: it changes nothing. Raises Refused."""


@dataclass(frozen=True, slots=True)
class _Job:
    work: Callable[[], Awaitable[Any]]
    done: asyncio.Future[Any] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Changes:
    """Makes changes. All methods are for the event loop."""

    def __init__(
        self,
        file: ConfigFile,
        publisher: Publisher,
        store: Store,
        events: EventLog,
        sealer: Callable[[], Sealer],
        doorman: Doorman,
        now: Callable[[], float],
    ) -> None:
        """`sealer` gives what seals secrets; it is asked for when there is one to seal."""
        self._file, self._publisher, self._store, self._events = file, publisher, store, events
        self._sealer, self._doorman, self.now = sealer, doorman, now
        self._has_begun = False
        self._jobs: asyncio.Queue[_Job] = asyncio.Queue(MAX_WAITING)

    @property
    def overlay(self) -> Overlay:
        """All changes in force."""
        return self._file.overlay

    def take_up(self, kept: Kept) -> None:
        """A store was opened. The first one tells what an earlier life has kept; a later one is a new one: it is told."""
        if self._has_begun:
            with contextlib.suppress(asyncio.QueueFull):
                self._jobs.put_nowait(_Job(self._keep_again))
            return
        self._has_begun = True
        self._doorman.hold(map(_token, kept.tokens))
        self._restore(kept.overlay)

    async def _keep_again(self) -> None:
        entries = await asyncio.to_thread(self._kept_entries, self.overlay)
        tokens = [kept_token(one) for one in self._doorman.tokens()]

        def keep(tables: Tables) -> list[Event]:
            for one in tokens:
                tables.changes.keep_token(one, [])
            return tables.changes.keep_overlay(entries, [])

        await self.keep(keep)

    def _restore(self, entries: Sequence[KeptEntry]) -> None:
        """What an earlier life has kept. A secret that cannot be read any more is left out, and said so."""
        found: dict[tuple[str, str], Entry] = {}
        for one in entries:
            try:
                value = one.value if one.sealed is None else Secret(self._sealer().unseal(one.sealed, _purpose(one)))
            except (Unreadable, NotNow) as error:
                problem, effect = str(error), "as if it had not been changed: rotate or add the key again"
                log.warning("secret_unreadable", resource=one.resource, problem=problem, effect=effect)
                continue
            found[one.resource, one.field] = Entry(value, one.changed_by, one.changed_at_s)
        self._file.put_on(Overlay(found))
        if found:
            log.info("overlay_restored", entries=len(found))

    async def do(self, work: Callable[[], Awaitable[_T]]) -> _T:
        """Have something done when its turn comes, also if the caller goes away meanwhile."""
        job = _Job(work)
        await self._jobs.put(job)
        return cast("_T", await job.done)

    async def run(self) -> None:
        """Do what there is to do, until cancelled."""
        while True:
            job = await self._jobs.get()
            try:
                result = await job.work()
            except Exception as error:
                if not job.done.done():
                    job.done.set_exception(error)
            else:
                if not job.done.done():
                    job.done.set_result(result)

    async def change(self, alter: Alter) -> int:
        """Make a change. Returns the version of a snapshot that has it: it is on its way to every node.

        Raises Refused; then nothing has changed.
        """
        await self.do(lambda: self._change(alter))
        return await self._publisher.settled()

    async def _change(self, alter: Alter) -> None:
        async with self._file.changing:
            altered = alter(self._file.overlay)
            if altered is None:
                return
            in_force = await asyncio.to_thread(with_overlay, self._file.revision, altered.overlay)
            entries = await asyncio.to_thread(self._kept_entries, altered.overlay)
            kept = await self.keep(lambda tables: tables.changes.keep_overlay(entries, altered.events))
            self._file.put_on(altered.overlay, in_force)
            self._publisher.offer(in_force.snapshot)
            self._events.told(kept)
        for event in kept:
            log.info("changed", action=event.action, resource=event.resource, actor=event.actor)

    async def keep(self, question: Callable[[Tables], _T]) -> _T:
        """Write to the store. Raises Refused if that is not possible now."""
        try:
            return await self._store.ask(question)
        except StoreUnavailable as error:
            raise NotNow("STORE_UNAVAILABLE", f"nothing was changed: it could not be kept ({error})") from error

    def _kept_entries(self, overlay: Overlay) -> list[KeptEntry]:
        return [self._kept(resource, name, entry) for (resource, name), entry in overlay.entries.items()]

    def _kept(self, resource: str, name: str, entry: Entry) -> KeptEntry:
        kept = KeptEntry(resource, name, "", None, entry.changed_by, entry.changed_at_s)
        if isinstance(entry.value, Secret):
            sealed = self._sealer().seal(entry.value.reveal(), _purpose(kept))
            return KeptEntry(resource, name, "", sealed, entry.changed_by, entry.changed_at_s)
        return KeptEntry(resource, name, entry.value, None, entry.changed_by, entry.changed_at_s)


def _token(kept: KeptToken) -> Token:
    role: Role = kept.role if kept.role in ROLES else "viewer"
    return Token(kept.name, kept.sha256, role, kept.created_at_s, kept.expires_at_s, kept.last_used_at_s)


def kept_token(token: Token) -> KeptToken:
    """A token as the store has it."""
    return KeptToken(token.name, token.sha256, token.role, token.created_at_s, token.expires_at_s, token.last_used_at_s)


def _purpose(entry: KeptEntry) -> str:
    return f"overlay {entry.resource} {entry.field}"
