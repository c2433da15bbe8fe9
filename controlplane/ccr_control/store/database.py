"""The embedded database: newest version, journals, hourly ledger, circuits (health_tables), what people changed (change_tables).

SQLite in WAL mode, used by one thread.

`synchronous=NORMAL` survives the death of the process at any moment; after a power cut the last transactions may be
missing, but the file is whole.
"""

# ruff: noqa: S608 - statements are made of our own names only

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ccr_control.core.ledger import (
    COUNTERS,
    MAX_LABEL_CHARS,
    Counters,
    Detail,
    DetailKey,
    Duplicate,
    Gap,
    LedgerKey,
    Next,
    Sums,
    bounded,
    bounded_detail,
    counters_of,
    judge,
)
from ccr_control.core.report import Dimension, Line, Question
from ccr_control.core.spending import DAY_S, Spent
from ccr_control.store.change_tables import ChangeTables
from ccr_control.store.health_tables import HealthTables

SCHEMA_VERSION = 2
MAX_KEYS_AN_HOUR = 5000  # about 1 MB of rows
MAX_DETAIL_AN_HOUR = 5000
KEEP_DETAIL_HOURS = 25  # the last 24 hours, the one that has begun included
KEEP_LEDGER_S = 365 * 86_400.0  # unless configured
FORGET_JOURNAL_AFTER_S = 90 * 86_400
FORGET_SPENT_AFTER_DAYS = 400

_LINE = "hour, provider, key_label, model_used, client, endpoint, scope"
_LINE_COLUMNS = """hour INTEGER NOT NULL, provider TEXT NOT NULL, key_label TEXT NOT NULL, model_used TEXT NOT NULL,
  client TEXT NOT NULL, endpoint TEXT NOT NULL, scope TEXT NOT NULL"""
_COUNTER_COLUMNS = ", ".join(f"{name} INTEGER NOT NULL DEFAULT 0" for name in COUNTERS)
_LEDGER = f"CREATE TABLE ledger ({_LINE_COLUMNS}, {_COUNTER_COLUMNS}, PRIMARY KEY ({_LINE})) WITHOUT ROWID;"
_SCHEMA = f"""
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE journals (journal TEXT PRIMARY KEY, acknowledged INTEGER NOT NULL, last_seen INTEGER NOT NULL)
  WITHOUT ROWID;
{_LEDGER}
PRAGMA user_version = {SCHEMA_VERSION};
"""
_BEFORE_2 = 15  # counters of a ledger of schema 1, the first ones; it had no scope and no costs
_FROM_1 = f"""
ALTER TABLE ledger RENAME TO ledger_1;
{_LEDGER}
INSERT INTO ledger ({_LINE}, {", ".join(COUNTERS[:_BEFORE_2])}, unpriced_requests)
  SELECT hour, provider, key_label, model_used, client, endpoint, '', {", ".join(COUNTERS[:_BEFORE_2])}, requests FROM ledger_1;
DROP TABLE ledger_1;
PRAGMA user_version = 2;
"""
# The last day with sessions; and what retention has taken out of the ledger, by provider.
_DETAIL = f"""CREATE TABLE IF NOT EXISTS detail ({_LINE_COLUMNS}, session TEXT NOT NULL, agent TEXT NOT NULL,
  request_class TEXT NOT NULL, {_COUNTER_COLUMNS}, PRIMARY KEY ({_LINE}, session, agent, request_class)) WITHOUT ROWID"""
_FORGOTTEN = f"CREATE TABLE IF NOT EXISTS forgotten (provider TEXT PRIMARY KEY, {_COUNTER_COLUMNS}) WITHOUT ROWID"
_GROW = f"ON CONFLICT DO UPDATE SET {', '.join(f'{name} = {name} + excluded.{name}' for name in COUNTERS)}"
_ADD = f"INSERT INTO ledger VALUES ({', '.join('?' * (len(LedgerKey._fields) + len(COUNTERS)))}) {_GROW}"
_ADD_DETAIL = f"INSERT INTO detail VALUES ({', '.join('?' * (len(LedgerKey._fields) + 3 + len(COUNTERS)))}) {_GROW}"
_SUMS = ", ".join(f"SUM({name})" for name in COUNTERS)
_TOTALS = (
    f"SELECT provider, {_SUMS} FROM (SELECT provider, {', '.join(COUNTERS)} FROM ledger "
    f"UNION ALL SELECT provider, {', '.join(COUNTERS)} FROM forgotten) GROUP BY provider"
)
_DAY = f"SELECT {_SUMS} FROM ledger WHERE hour >= ?"
_FORGET = f"INSERT INTO forgotten SELECT provider, {_SUMS} FROM ledger WHERE hour < ? GROUP BY provider {_GROW}"
# A table that files of older releases lack; they need nothing else for it.
_SPENT = """CREATE TABLE IF NOT EXISTS spent (
  client TEXT NOT NULL, day INTEGER NOT NULL, nano_usd INTEGER NOT NULL, PRIMARY KEY (client, day)) WITHOUT ROWID"""
_SPEND = "INSERT INTO spent VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET nano_usd = nano_usd + excluded.nano_usd"
_KEEP_VERSION = (
    "INSERT INTO meta VALUES ('last_version', ?) ON CONFLICT DO UPDATE SET value = max(value, excluded.value)"
)
_ACKNOWLEDGE = (
    "INSERT INTO journals VALUES (?, ?, ?) "
    "ON CONFLICT DO UPDATE SET acknowledged = excluded.acknowledged, last_seen = excluded.last_seen"
)

_COLUMNS: dict[Dimension, str] = {
    "client": "client",
    "provider": "provider",
    "scope": "scope",
    "key": "key_label",
    "model": "model_used",
    "session": "session",
    "agent": "agent",
    "request_class": "request_class",
    "endpoint": "endpoint",
    "hour": "hour",
    "day": "hour / 24",
}


@dataclass(frozen=True, slots=True)
class Batch:
    """One numbered batch of a journal, folded."""

    journal: str
    number: int
    sums: Sums
    spent: Spent = field(default_factory=dict)
    detail: Detail = field(default_factory=dict)  # the same requests with their sessions


@dataclass(frozen=True, slots=True)
class Counted:
    """The batch is in the ledger, since now."""


Verdict = Counted | Duplicate | Gap


class Foreign(Exception):
    """The file is a database, but not one that this version can use."""


class Database:
    """One connection. Not for use by more than one thread."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.health = HealthTables(connection)
        self.changes = ChangeTables(connection)
        self._keys: dict[int, set[LedgerKey]] = {}  # of the hours written lately
        self._detail_keys: dict[int, set[DetailKey]] = {}
        self._pruned_hour = 0
        self._keep_ledger_s = KEEP_LEDGER_S

    @classmethod
    def open(cls, path: Path, now_s: float) -> Database:
        """Open or create the database and check that it is whole.

        Raises sqlite3.Error if it cannot be used now, Foreign if it never can.
        """
        connection = sqlite3.connect(path, isolation_level=None, timeout=5.0, cached_statements=32)
        try:
            with contextlib.suppress(OSError):
                path.chmod(0o600)  # what belongs to it gets the same mode
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            found = _checked_version(connection)
            if found == 0:
                connection.executescript(f"BEGIN; {_SCHEMA} COMMIT;")
            elif found == 1:
                connection.executescript(f"BEGIN IMMEDIATE; {_FROM_1} COMMIT;")
            connection.execute(_DETAIL)
            connection.execute(_FORGOTTEN)
            connection.execute(_SPENT)
            connection.execute("DELETE FROM spent WHERE day < ?", (int(now_s) // DAY_S - FORGET_SPENT_AFTER_DAYS,))
            connection.execute("DELETE FROM journals WHERE last_seen < ?", (int(now_s) - FORGET_JOURNAL_AFTER_S,))
            return cls(connection)
        except BaseException:
            connection.close()
            raise

    def close(self) -> None:
        """Close the connection; the write-ahead log is folded into the file."""
        self._connection.close()

    def last_version(self) -> int:
        """The newest version kept. 0: none."""
        row = self._connection.execute("SELECT value FROM meta WHERE name = 'last_version'").fetchone()
        return int(row[0]) if row else 0

    def keep_version(self, version: int) -> None:
        """Remember a version; a smaller one than before changes nothing."""
        self._connection.execute(_KEEP_VERSION, (version,))

    def totals(self) -> dict[str, Counters]:
        """Sums of the whole ledger by provider. Cost: all rows."""
        return {row[0]: Counters(*map(int, row[1:])) for row in self._connection.execute(_TOTALS)}

    def today(self, now_s: float) -> Counters:
        """The sum of what began today, UTC."""
        row = self._connection.execute(_DAY, (int(now_s) // DAY_S * 24,)).fetchone()
        return Counters(*(int(one or 0) for one in row))

    def keep_ledger_for(self, seconds: float) -> None:
        """Hours that are older are forgotten, with the next batch; totals stay whole."""
        if seconds != self._keep_ledger_s:
            self._keep_ledger_s, self._pruned_hour = seconds, 0

    def report(self, question: Question) -> list[Line]:
        """Sums by the dimensions asked for. The session of what is older than a day is not known."""
        if question.until_hour <= question.since_hour:
            return []
        columns = [_COLUMNS[one] for one in question.by]
        where = ["hour >= ?", "hour < ?", *(f"{_COLUMNS[one]} = ?" for one, _ in question.where)]
        sql = (
            f"SELECT {''.join(f'{one}, ' for one in columns)}{_SUMS} "
            f"FROM {'detail' if question.needs_detail else 'ledger'} WHERE {' AND '.join(where)}"
        )
        if columns:
            sql += f" GROUP BY {', '.join(columns)}"
        values = (question.since_hour, question.until_hour, *(value for _, value in question.where))
        size = len(columns)
        return [
            Line(tuple(row[:size]), Counters(*map(int, row[size:])))
            for row in self._connection.execute(sql, values)
            if row[size] is not None
        ]

    def spent(self) -> Spent:
        """What clients have spent by day."""
        return {(row[0], int(row[1])): int(row[2]) for row in self._connection.execute("SELECT * FROM spent")}

    def count(self, batches: Sequence[Batch], now_s: float) -> list[Verdict]:
        """Count batches in one transaction: after it all of them are kept, or, if it raises, none.

        Raises sqlite3.Error.
        """
        with self._transaction():
            self._prune(int(now_s))
            return [self._count(batch, int(now_s)) for batch in batches]

    def _prune(self, now_s: int) -> None:
        """Once an hour: forget what is kept no longer. Totals stay whole."""
        if self._pruned_hour == (hour := now_s // 3600):
            return
        self._pruned_hour = hour
        self._connection.execute("DELETE FROM detail WHERE hour <= ?", (hour - KEEP_DETAIL_HOURS,))
        oldest = hour - int(self._keep_ledger_s) // 3600
        self._connection.execute(_FORGET, (oldest,))
        self._connection.execute("DELETE FROM ledger WHERE hour < ?", (oldest,))

    def _count(self, batch: Batch, now_s: int) -> Verdict:
        row = self._connection.execute(
            "SELECT acknowledged FROM journals WHERE journal = ?", (batch.journal,)
        ).fetchone()
        verdict = judge(row[0] if row else None, batch.number)
        if not isinstance(verdict, Next):
            return verdict
        self._connection.execute(_ACKNOWLEDGE, (batch.journal, batch.number, now_s))
        self._connection.executemany(_ADD, self._rows(batch.sums))
        if batch.detail:
            self._connection.executemany(_ADD_DETAIL, self._detail_rows(batch.detail, now_s // 3600))
        if batch.spent:
            self._connection.executemany(_SPEND, [(*key, amount) for key, amount in batch.spent.items()])
        return Counted()

    def _rows(self, sums: Sums) -> list[tuple[str | int, ...]]:
        kept: Sums = {}
        for key, counters in sums.items():
            counters_of(kept, self._kept_key(key)).add(counters)
        return [(*key, *(getattr(counters, name) for name in COUNTERS)) for key, counters in kept.items()]

    def _detail_rows(self, detail: Detail, this_hour: int) -> list[tuple[str | int, ...]]:
        kept: Detail = {}
        for key, counters in detail.items():
            if key.line.hour > this_hour - KEEP_DETAIL_HOURS:
                counters_of(kept, self._kept_detail_key(key)).add(counters)
        return [
            (*key.line, key.session, key.agent, key.request_class, *(getattr(counters, name) for name in COUNTERS))
            for key, counters in kept.items()
        ]

    def _kept_detail_key(self, key: DetailKey) -> DetailKey:
        session, agent, request_class = (label[:MAX_LABEL_CHARS] for label in key[1:])
        known = self._detail_keys_of(key.line.hour)
        kept = bounded_detail(DetailKey(_short(key.line), session, agent, request_class), known, MAX_DETAIL_AN_HOUR)
        known.add(kept)
        return kept

    def _detail_keys_of(self, hour: int) -> set[DetailKey]:
        found = self._detail_keys.get(hour)
        if found is None:
            if len(self._detail_keys) >= 2:
                del self._detail_keys[next(iter(self._detail_keys))]
            size = len(LedgerKey._fields)
            rows = self._connection.execute(
                f"SELECT {_LINE}, session, agent, request_class FROM detail WHERE hour = ?",
                (hour,),
            )
            found = self._detail_keys[hour] = {DetailKey(LedgerKey(*row[:size]), *row[size:]) for row in rows}
        return found

    def _kept_key(self, key: LedgerKey) -> LedgerKey:
        hour, short = key.hour, _short(key)
        known = self._keys_of(hour)
        kept = bounded(short, known, MAX_KEYS_AN_HOUR)
        known.add(kept)
        return kept

    def _keys_of(self, hour: int) -> set[LedgerKey]:
        found = self._keys.get(hour)
        if found is None:
            if len(self._keys) >= 4:  # spools bring old hours, one after the other
                del self._keys[next(iter(self._keys))]
            rows = self._connection.execute(
                f"SELECT {_LINE} FROM ledger WHERE hour = ?",
                (hour,),
            )
            found = self._keys[hour] = {LedgerKey(*row) for row in rows}
        return found

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            self._keys.clear()  # it may hold keys that are now rolled back
            self._detail_keys.clear()
            self._pruned_hour = 0
            with contextlib.suppress(sqlite3.Error):  # some errors have ended the transaction already
                self._connection.execute("ROLLBACK")
            raise


def _short(key: LedgerKey) -> LedgerKey:
    hour, *labels = key
    return LedgerKey(hour, *(label[:MAX_LABEL_CHARS] for label in labels))


def _checked_version(connection: sqlite3.Connection) -> int:
    """The schema's version, 0 for a new file. Raises sqlite3.DatabaseError if the file is damaged, or Foreign."""
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version not in range(SCHEMA_VERSION + 1):
        raise Foreign(f"its schema has version {version}, this program knows {SCHEMA_VERSION}")
    if (found := connection.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
        raise sqlite3.DatabaseError(found)
    return version


def is_hopeless(error: Exception) -> bool:
    """Whether the file has to be given up: corrupt, no database, of a foreign schema, or not ours to write.

    Everything else (disk full, locked, I/O) may pass and is worth another try.
    """
    if isinstance(error, Foreign):
        return True
    if not isinstance(error, sqlite3.DatabaseError):
        return False
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:  # our own, from the check
        return True
    hopeless = (
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_ERROR,  # tables are missing or have other columns
    )
    return (code & 0xFF) in hopeless


def move_aside(path: Path, now_s: float) -> Path | None:
    """Rename the database and what belongs to it. Returns the new name, None if nothing was there.

    Raises OSError.
    """
    aside = path.with_name(f"{path.name}.corrupt-{int(now_s * 1000)}")
    for ending in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + ending).rename(aside.with_name(aside.name + ending))
    try:
        path.rename(aside)
    except FileNotFoundError:
        return None
    return aside
