"""The part of the database that keeps what people changed: the overlay, revisions of the configuration, tokens, and events.

Secrets and texts of configurations come sealed (shell/sealing.py), tokens as hashes. What is written here is on the disk, not only
with the operating system, when the call returns: a change that was acknowledged survives a power cut.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

from ccr_control.core.events import MAX_MESSAGE_CHARS, Event, Kind

FORGET_EVENTS_AFTER_S = 90 * 86_400.0
FORGET_CHANGES_AFTER_S = 400 * 86_400.0  # events of kind audit and config
MAX_EVENTS = 200_000
MAX_EVENTS_TOLD = 1000
MAX_REVISIONS = 1000
PRUNE_EVERY = 500  # events

_CHANGES = ("audit", "config")
_SCHEMA = """
CREATE TABLE IF NOT EXISTS overlay (
  number INTEGER PRIMARY KEY, resource TEXT NOT NULL, field TEXT NOT NULL, value TEXT NOT NULL, sealed BLOB,
  changed_by TEXT NOT NULL, changed_at REAL NOT NULL, UNIQUE (resource, field));
CREATE TABLE IF NOT EXISTS revisions (
  number INTEGER PRIMARY KEY AUTOINCREMENT, applied_at REAL NOT NULL, config_hash TEXT NOT NULL, applied_by TEXT NOT NULL,
  lines INTEGER NOT NULL, rolled_back_to INTEGER NOT NULL, format TEXT NOT NULL, sealed BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS tokens (
  name TEXT PRIMARY KEY, sha256 BLOB NOT NULL UNIQUE, role TEXT NOT NULL, created_at REAL NOT NULL,
  expires_at REAL NOT NULL, last_used_at REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS events (
  number INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, kind TEXT NOT NULL, action TEXT NOT NULL,
  resource TEXT NOT NULL, actor TEXT NOT NULL, before_json TEXT NOT NULL, after_json TEXT NOT NULL, message TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS events_of ON events (kind, number);
"""
_EVENTS = "SELECT kind, action, resource, actor, before_json, after_json, message, at, number FROM events"
_NEWEST_ALERTS = "SELECT max(number) FROM events WHERE kind = 'alert' GROUP BY resource"
_REVISION = "SELECT number, applied_at, config_hash, applied_by, lines, rolled_back_to, format, sealed FROM revisions"


@dataclass(frozen=True, slots=True)
class KeptEntry:
    """An entry of the overlay as it is kept."""

    resource: str
    field: str
    value: str  # empty if it is sealed
    sealed: bytes | None
    changed_by: str
    changed_at_s: float


@dataclass(frozen=True, slots=True)
class KeptRevision:
    """A configuration that was in force."""

    applied_at_s: float
    config_hash: str
    applied_by: str
    lines: int
    rolled_back_to: int  # 0: it repeats none
    format: str
    sealed: bytes = field(repr=False)  # its text
    number: int = 0


@dataclass(frozen=True, slots=True)
class KeptToken:
    """A token of the admin API, without itself."""

    name: str
    sha256: bytes = field(repr=False)
    role: str
    created_at_s: float
    expires_at_s: float  # 0: never
    last_used_at_s: float = 0.0  # 0: never


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept of changes, as a control plane that begins needs it."""

    overlay: tuple[KeptEntry, ...] = ()
    tokens: tuple[KeptToken, ...] = ()
    newest: KeptRevision | None = None
    last_event: int = 0
    alerted: tuple[Event, ...] = ()  # the newest alert about each thing, oldest first


class ChangeTables:
    """On a connection that belongs to `Database`. Every method may raise sqlite3.Error."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._until_prune = 0
        for statement in _SCHEMA.split(";"):
            connection.execute(statement)

    def kept(self) -> Kept:
        """Everything but old revisions and events."""
        last = self._connection.execute("SELECT max(number) FROM events").fetchone()[0]
        alerted = self._connection.execute(f"{_EVENTS} WHERE number IN ({_NEWEST_ALERTS}) ORDER BY number")
        return Kept(
            tuple(self._overlay()), tuple(self._tokens()), self.revision(0), last or 0, tuple(map(_event, alerted))
        )

    def keep_overlay(self, entries: Iterable[KeptEntry], events: Sequence[Event]) -> list[Event]:
        """The overlay as it is from now on, and what there is to say about it. Returns the events with their numbers."""
        with self._transaction():
            self._connection.execute("DELETE FROM overlay")
            self._connection.executemany(
                "INSERT INTO overlay (resource, field, value, sealed, changed_by, changed_at) VALUES (?, ?, ?, ?, ?, ?)",
                [(one.resource, one.field, one.value, one.sealed, one.changed_by, one.changed_at_s) for one in entries],
            )
            return self._add(events)

    def requests_by_key(self) -> dict[tuple[str, str], int]:
        """How many requests finished with each key, by provider and label. Cost: the whole ledger."""
        rows = self._connection.execute(
            "SELECT provider, key_label, SUM(requests) FROM ledger GROUP BY provider, key_label"
        )
        return {(row[0], row[1]): int(row[2]) for row in rows}

    def _overlay(self) -> Iterator[KeptEntry]:
        query = "SELECT resource, field, value, sealed, changed_by, changed_at FROM overlay ORDER BY number"
        for row in self._connection.execute(query):
            yield KeptEntry(*row)

    # revisions

    def keep_revision(self, revision: KeptRevision, events: Sequence[Event]) -> tuple[KeptRevision, list[Event]]:
        """Another revision. Returns it with its number."""
        row = (
            *(revision.applied_at_s, revision.config_hash, revision.applied_by, revision.lines),
            *(revision.rolled_back_to, revision.format, revision.sealed),
        )
        with self._transaction():
            done = self._connection.execute(
                "INSERT INTO revisions (applied_at, config_hash, applied_by, lines, rolled_back_to, format, sealed) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                row,
            )
            number = done.lastrowid or 0
            self._connection.execute("DELETE FROM revisions WHERE number <= ?", (number - MAX_REVISIONS,))
            return replace(revision, number=number), self._add(events)

    def revision(self, number: int) -> KeptRevision | None:
        """A revision by its number; 0: the newest."""
        found = self.revisions(number + 1 if number else 0, 1)
        return found[0] if found and number in (0, found[0].number) else None

    def revisions(self, below: int, limit: int) -> list[KeptRevision]:
        """Revisions with numbers below one (0: all), newest first."""
        rows = self._connection.execute(
            f"{_REVISION} WHERE ? = 0 OR number < ? ORDER BY number DESC LIMIT ?", (below, below, limit)
        )
        return [replace(KeptRevision(*row[1:]), number=row[0]) for row in rows]

    # tokens

    def keep_token(self, token: KeptToken, events: Sequence[Event]) -> list[Event]:
        """Another token."""
        with self._transaction():
            self._connection.execute(
                "INSERT INTO tokens VALUES (?, ?, ?, ?, ?, ?)",
                (token.name, token.sha256, token.role, token.created_at_s, token.expires_at_s, token.last_used_at_s),
            )
            return self._add(events)

    def drop_token(self, name: str, events: Sequence[Event]) -> list[Event]:
        """One token less."""
        with self._transaction():
            self._connection.execute("DELETE FROM tokens WHERE name = ?", (name,))
            return self._add(events)

    def note_used(self, used_at_s: Iterable[tuple[str, float]]) -> None:
        """When tokens were used last."""
        self._connection.executemany(
            "UPDATE tokens SET last_used_at = ? WHERE name = ?", [(at_s, name) for name, at_s in used_at_s]
        )

    def _tokens(self) -> Iterator[KeptToken]:
        for row in self._connection.execute("SELECT * FROM tokens ORDER BY name"):
            yield KeptToken(*row)

    # events

    def add_events(self, events: Sequence[Event]) -> list[Event]:
        """Keep events. Returns them with their numbers."""
        with self._transaction():
            return self._add(events)

    def events_before(self, kind: str, resource: str, below: int, limit: int) -> list[Event]:
        """Events with numbers below one (0: all), newest first; of a kind and about a resource, or (empty) of all."""
        below_it = resource.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "/%"
        rows = self._connection.execute(
            f"{_EVENTS} WHERE (? = '' OR kind = ?) AND (? = '' OR resource = ? OR resource LIKE ? ESCAPE '\\') "
            "AND (? = 0 OR number < ?) ORDER BY number DESC LIMIT ?",
            (kind, kind, resource, resource, below_it, below, below, min(limit, MAX_EVENTS_TOLD)),
        )
        return [_event(row) for row in rows]

    def events_after(self, number: int, limit: int) -> list[Event]:
        """Events after one, oldest first."""
        rows = self._connection.execute(
            f"{_EVENTS} WHERE number > ? ORDER BY number LIMIT ?", (number, min(limit, MAX_EVENTS_TOLD))
        )
        return [_event(row) for row in rows]

    def _add(self, events: Sequence[Event]) -> list[Event]:
        numbered: list[Event] = []
        for one in events:
            message = one.message[:MAX_MESSAGE_CHARS]
            row = (one.at_s, one.kind, one.action, one.resource, one.actor, one.before_json, one.after_json, message)
            done = self._connection.execute(
                "INSERT INTO events (at, kind, action, resource, actor, before_json, after_json, message) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                row,
            )
            numbered.append(replace(one, number=done.lastrowid or 0, message=message))
        self._until_prune -= len(events)
        if self._until_prune < 0 and numbered:
            self._until_prune = PRUNE_EVERY
            self._prune(numbered[-1])
        return numbered

    def _prune(self, newest: Event) -> None:
        others = f"kind NOT IN ({', '.join('?' * len(_CHANGES))})"
        self._connection.execute(
            f"DELETE FROM events WHERE number <= ? OR at < ? OR (at < ? AND {others})",  # noqa: S608 - our words
            (
                *(newest.number - MAX_EVENTS, newest.at_s - FORGET_CHANGES_AFTER_S),
                *(newest.at_s - FORGET_EVENTS_AFTER_S, *_CHANGES),
            ),
        )

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """All or nothing, and on the disk at the end."""
        connection = self._connection
        connection.execute("PRAGMA synchronous = FULL")
        try:
            connection.execute("BEGIN IMMEDIATE")
            yield
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        finally:
            connection.execute("PRAGMA synchronous = NORMAL")


def _event(row: Sequence[object]) -> Event:
    kind, action, resource, actor, before, after, message, at, number = row
    return Event(
        kind=cast("Kind", kind),
        action=str(action),
        resource=str(resource),
        actor=str(actor),
        before_json=str(before),
        after_json=str(after),
        message=str(message),
        at_s=cast("float", at),
        number=cast("int", number),
    )
