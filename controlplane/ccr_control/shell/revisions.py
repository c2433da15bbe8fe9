"""Every configuration that was in force: kept, compared, applied, and put in force again.

Texts are kept sealed: a file may hold secrets. A file that somebody edits becomes a revision as soon as the store takes it; one that
comes by a call is kept before it is in force.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import cast

from ccr_control.core.difference import NO_DIFFERENCE, Difference, difference
from ccr_control.core.errors import ConfigInvalid, NoSuchThing, NotNow, NotPossible, OutOfDate, Problem, SnapshotInvalid
from ccr_control.core.events import Event
from ccr_control.shell.changes import Changes
from ccr_control.shell.config_file import ConfigFile, ConfigFormat, Revision, revise, with_overlay
from ccr_control.shell.config_writing import put, written
from ccr_control.shell.events import EventLog
from ccr_control.shell.log import Log
from ccr_control.shell.publisher import Publisher
from ccr_control.shell.sealing import Sealer, Unreadable
from ccr_control.store.change_tables import Kept, KeptRevision

KEEP_AGAIN_S = 1.0
TEXT = "<text>"
BY_FILE = "file"
PURPOSE = "revision"  # of what is sealed
_PASSING = (
    "in force until the relay is started again without a configuration, which writes this file anew: "
    "to keep a text make it a file of your own, and start with --config"
)

log = Log("revisions")


@dataclass(frozen=True, slots=True)
class Applied:
    """What came of applying a text."""

    revision: KeptRevision | None = None  # None: nothing was applied
    problems: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()
    diff: str = ""
    restart_needed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Compared:
    """What differs, or why it cannot be said."""

    difference: Difference = NO_DIFFERENCE
    problems: tuple[Problem, ...] = ()


class Revisions:
    """Keeps and applies revisions. All methods are for the event loop."""

    def __init__(
        self,
        file: ConfigFile,
        publisher: Publisher,
        changes: Changes,
        events: EventLog,
        sealer: Callable[[], Sealer],
        env: Mapping[str, str],
        now: Callable[[], float],
        *,
        is_builtin: bool,
    ) -> None:
        """`is_builtin`: the file is one of `ccr serve`, which writes it again at every start."""
        self._file, self._publisher, self._changes, self._events = file, publisher, changes, events
        self._sealer, self._env, self._now = sealer, env, now
        self._passing = (Problem(str(file.path), 0, 0, "", _PASSING),) if is_builtin else ()
        self._waiting: list[tuple[Revision, str]] = []  # revisions by the file, with their texts, that are not kept yet
        self._is_waiting = asyncio.Event()
        self._newest: KeptRevision | None = None

    @property
    def number(self) -> int:
        """Of the revision in force. 0: it is not kept yet."""
        return self._newest.number if self._newest is not None and not self._waiting else 0

    def take_up(self, kept: Kept) -> None:
        """A store was opened."""
        self._newest = kept.newest
        revision = self._file.revision
        if self._newest is None or self._newest.config_hash != revision.config_hash:
            self.note(revision, self._file.text)

    def note(self, revision: Revision, text: str) -> None:
        """The file has brought another configuration in force."""
        self._waiting.append((revision, text))
        self._is_waiting.set()

    def refused(self, problems: tuple[Problem, ...]) -> None:
        """The file has become one that cannot be used."""
        self._events.note("config", "config.refuse", "config", message="\n".join(map(str, problems[:20])))

    async def run(self) -> None:
        """Keep what the file brings, until cancelled."""
        while True:
            await self._is_waiting.wait()
            self._is_waiting.clear()
            try:
                await self._changes.do(self._keep_waiting)
            except NotNow:  # the store has said why
                await asyncio.sleep(KEEP_AGAIN_S)
                self._is_waiting.set()

    async def _keep_waiting(self) -> None:
        while self._waiting:
            revision, text = self._waiting[0]
            before = self._newest.config_hash if self._newest is not None else ""
            event = self._events.made(
                "config",
                "config.apply",
                "config",
                actor=BY_FILE,
                before={"config_hash": before},
                after={"config_hash": revision.config_hash},
            )
            kept = await asyncio.to_thread(self._kept, revision, text, BY_FILE, self._file.format)
            await self._keep(kept, [event])
            self._waiting.pop(0)

    async def _keep(self, revision: KeptRevision, events: list[Event]) -> KeptRevision:
        numbered, told = await self._changes.keep(lambda tables: tables.changes.keep_revision(revision, events))
        self._newest = numbered
        self._events.told(told)
        return numbered

    def _kept(self, revision: Revision, text: str, by: str, fmt: ConfigFormat, rolled_back_to: int = 0) -> KeptRevision:
        sealed = self._sealer().seal(text, PURPOSE)
        lines = len(text.splitlines())
        return KeptRevision(self._now(), revision.config_hash, by, lines, rolled_back_to, fmt, sealed)

    async def listed(self, below: int, limit: int) -> list[KeptRevision]:
        """Revisions with numbers below one (0: all), newest first. Raises NotNow."""
        return await self._changes.keep(lambda tables: tables.changes.revisions(below, limit))

    async def text_of(self, number: int) -> tuple[str, ConfigFormat]:
        """The text of a revision (0: the newest), and how it is written. Raises NoSuchThing, NotPossible, NotNow."""
        if number == 0:
            return self._file.text, self._file.format
        found = await self._changes.keep(lambda tables: tables.changes.revision(number))
        if found is None or number < 0:
            raise NoSuchThing("NO_SUCH_REVISION", f"there is no revision {number}")
        try:
            text = await asyncio.to_thread(lambda: self._sealer().unseal(found.sealed, PURPOSE))
        except Unreadable as error:
            raise NotPossible("REVISION_UNREADABLE", f"revision {number} cannot be read: {error}") from error
        return text, cast("ConfigFormat", found.format)

    async def compare(
        self, from_number: int, to_number: int, text: str, fmt: ConfigFormat, *, for_admin: bool
    ) -> Compared:
        """What changes from a revision (0: the newest) to another one, or (0) to a text, or (empty) to the file as it is now.

        Raises NoSuchThing, NotPossible, NotNow.
        """
        try:
            before = await self._revision(from_number)
            if to_number:
                after, name = await self._revision(to_number), f"revision {to_number}"
            elif text:
                after, name = await self._revised(text, fmt, TEXT), TEXT
            else:
                after, name = await asyncio.to_thread(self._file.read_now), str(self._file.path)
        except (ConfigInvalid, SnapshotInvalid) as error:
            return Compared(problems=problems_of(error))
        from_name = f"revision {from_number or self.number}"
        salt = b"" if for_admin else secrets.token_bytes(32)
        return Compared(await asyncio.to_thread(difference, before.config, after.config, from_name, name, salt))

    async def _revision(self, number: int) -> Revision:
        if number == 0:
            return self._file.revision
        text, fmt = await self.text_of(number)
        return await self._revised(text, fmt, f"<revision {number}>")

    async def _revised(self, text: str, fmt: ConfigFormat, name: str) -> Revision:
        return await asyncio.to_thread(
            revise, text, file=name, fmt=fmt, env=self._env, now_s=self._now(), folder=self._file.path.parent
        )

    async def apply(
        self,
        text: str,
        fmt: ConfigFormat,
        by: str,
        *,
        base: int = 0,
        rolled_back_to: int = 0,
        dry_run: bool = False,
        name: str = TEXT,
    ) -> Applied:
        """Put a text in force and write it to the file. A bad one changes nothing and is told in the answer.

        Raises Refused: the base is out of date, the file or the store cannot be written, another format.
        """
        return await self._changes.do(
            lambda: self._apply(text, fmt, by, base=base, rolled_back_to=rolled_back_to, dry_run=dry_run, name=name)
        )

    async def _apply(
        self, text: str, fmt: ConfigFormat, by: str, *, base: int, rolled_back_to: int, dry_run: bool, name: str
    ) -> Applied:
        file = self._file
        await self._keep_waiting()
        async with file.changing:
            if base and base != self.number:
                raise OutOfDate(
                    "BASE_OUT_OF_DATE", f"revision {self.number} is in force, not {base}: look what changed"
                )
            if fmt != file.format:
                ending = PurePath(file.path).suffix or "no ending"
                raise NotPossible("OTHER_FORMAT", f"the text is {fmt}, the file {file.format} (it ends in {ending})")
            try:
                revision = await self._revised(text, fmt, name)
                in_force = await asyncio.to_thread(with_overlay, revision, file.overlay)
            except (ConfigInvalid, SnapshotInvalid) as error:
                return Applied(problems=problems_of(error))
            before = file.revision
            differs = await asyncio.to_thread(
                difference, before.config, revision.config, f"revision {self.number}", name
            )
            warnings = (*self._passing, *revision.warnings)
            applied = Applied(None, (), warnings, differs.diff, tuple(file.restart_needed_with(revision)))
            if dry_run:
                return applied
            if text == file.text and file.refusal is None:
                return replace(applied, revision=self._newest)
            event = self._events.made(
                "audit",
                "config.rollback" if rolled_back_to else "config.apply",
                "config",
                actor=by,
                before={"revision": self.number, "config_hash": before.config_hash},
                after={"config_hash": revision.config_hash, "changed": list(differs.paths[:100])},
                message=f"back to revision {rolled_back_to}" if rolled_back_to else "",
            )
            with written(file.path, text.encode()) as ready:
                kept = await asyncio.to_thread(self._kept, revision, text, by, fmt, rolled_back_to)
                numbered = await self._keep(kept, [event])
                try:
                    put(ready, file.path)
                except NotPossible:  # the newest revision is to be the one in force
                    self.note(before, file.text)
                    raise
            if file.take(text, revision, in_force):
                self._publisher.offer(in_force.snapshot)
        log.info("changed", action=event.action, resource="config", actor=by, revision=numbered.number)
        return replace(applied, revision=numbered)


def problems_of(error: ConfigInvalid | SnapshotInvalid) -> tuple[Problem, ...]:
    """What is wrong, for an answer."""
    if isinstance(error, ConfigInvalid):
        return error.problems
    return tuple(Problem(TEXT, 0, 0, "", text) for text in error.problems)
