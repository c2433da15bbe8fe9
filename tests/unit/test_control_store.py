"""The store keeps its promises while the disk is full, the file breaks or callers go away."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from ccr_control.core.ledger import MAX_COUNTER, OTHER, Counters, Duplicate, Gap, LedgerKey
from ccr_control.store import actor, database
from ccr_control.store.actor import Opened, Store, StoreUnavailable
from ccr_control.store.database import Batch, Counted, Database, Foreign, Verdict, is_hopeless
from support.control import until

KEY = LedgerKey(490_000, "anthropic", "team-a", "claude", "laptop", "messages")


def one(number: int, journal: str = "journal") -> Batch:
    return Batch(journal, number, {KEY: Counters(requests=1)})


def sqlite_error(kind: type[sqlite3.Error], code: int, text: str) -> sqlite3.Error:
    error = kind(text)
    error.sqlite_errorcode = code
    return error


FULL = sqlite_error(sqlite3.OperationalError, sqlite3.SQLITE_FULL, "database or disk is full")
CORRUPT = sqlite_error(sqlite3.DatabaseError, sqlite3.SQLITE_CORRUPT, "database disk image is malformed")


class FakeTables:
    """Raises what it is told to; remembers what was counted, group by group."""

    def __init__(self) -> None:
        self.trouble: sqlite3.Error | None = None
        self.groups: list[list[Batch]] = []
        self.versions: list[int] = []
        self.tries = 0
        self.may_count = threading.Event()
        self.may_count.set()

    def last_version(self) -> int:
        return 0

    def totals(self) -> dict[str, Counters]:
        return {}

    def keep_version(self, version: int) -> None:
        self._check()
        self.versions.append(version)

    def count(self, batches: Sequence[Batch], now_s: float) -> list[Verdict]:
        self.tries += 1
        self.may_count.wait(10)
        self._check()
        self.groups.append(list(batches))
        return [Counted() for _ in batches]

    def close(self) -> None:
        pass

    def _check(self) -> None:
        if self.trouble is not None:
            raise self.trouble


@asynccontextmanager
async def store_of(tables: FakeTables, path: Path) -> AsyncIterator[Store]:
    store = Store(path / "control.db", lambda *_: tables, lambda: 0.0, lambda _: None)
    async with asyncio.timeout(20), store.running():
        yield store


@pytest.fixture(autouse=True)
def _impatient_and_talkative(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(actor, "RETRY_S", 0.01)


async def test_a_full_disk_delays_batches_and_loses_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is acknowledged meanwhile; the trouble is logged once, and so is its end."""
    tables = FakeTables()
    tables.trouble = FULL
    async with store_of(tables, tmp_path) as store:
        waiting = asyncio.create_task(store.count(one(1)))
        await until(lambda: tables.tries >= 5, "it is tried again and again")
        assert not waiting.done()
        tables.trouble = None
        assert await waiting == Counted()
    assert [record.message for record in caplog.records] == ["store_unavailable", "store_available"]


async def test_a_version_is_not_held_back_by_a_full_disk(tmp_path: Path) -> None:
    """A change of configuration matters more than its number on disk."""
    tables = FakeTables()
    tables.trouble = FULL
    async with store_of(tables, tmp_path) as store:
        waiting = asyncio.create_task(store.count(one(1)))
        with pytest.raises(StoreUnavailable, match="full"):
            await store.keep_version(7)
        tables.trouble = None
        await waiting
        await store.keep_version(8)
    assert tables.versions == [8]


async def test_batches_whose_callers_went_away_are_not_tried_for_ever(tmp_path: Path) -> None:
    """A node that reconnects every second during a full disk must not make memory grow."""
    tables = FakeTables()
    tables.trouble = FULL
    async with store_of(tables, tmp_path) as store:
        for _ in range(3 * actor.MAX_WAITING):
            lost = asyncio.create_task(store.count(one(1)))
            await asyncio.sleep(0)
            lost.cancel()
        await asyncio.wait([lost])
        last = asyncio.create_task(store.count(one(1)))
        await until(lambda: tables.tries >= 5, "it is tried again and again")
        tables.trouble = None
        assert await last == Counted()
    assert sum(map(len, tables.groups)) <= 2


async def test_batches_that_arrive_during_a_transaction_share_the_next(tmp_path: Path) -> None:
    tables = FakeTables()
    tables.may_count.clear()
    async with store_of(tables, tmp_path) as store, asyncio.TaskGroup() as tasks:
        tasks.create_task(store.count(one(1)))
        await until(lambda: tables.tries, "the first transaction begins")
        for i in range(20):
            tasks.create_task(store.count(one(1, f"journal-{i}")))
        await until(lambda: store._jobs.qsize() == 20, "the others wait")
        tables.may_count.set()
    assert [len(group) for group in tables.groups] == [1, 20]


async def test_a_file_that_breaks_while_running_is_moved_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    opened: list[Opened] = []
    breaking = FakeTables()
    breaking.trouble = CORRUPT

    def open_tables(path: Path, now_s: float) -> FakeTables | Database:
        return breaking if len(opened) == 0 else Database.open(path, now_s)

    path = tmp_path / "control.db"
    path.write_bytes(b"broken")
    store = Store(path, open_tables, lambda: 1.0, opened.append)
    async with asyncio.timeout(20), store.running():
        await asyncio.sleep(0)
        assert await store.count(one(1)) == Counted()
    assert (tmp_path / "control.db.corrupt-1000").read_bytes() == b"broken"
    assert len(opened) == 2
    assert "store_given_up" in [record.message for record in caplog.records]


async def test_a_store_that_cannot_be_opened_yet_lets_the_process_start(tmp_path: Path) -> None:
    """Batches wait until it can."""
    tables, opened = FakeTables(), list[Opened]()
    may_open = False

    def open_tables(path: Path, now_s: float) -> FakeTables:
        if not may_open:
            raise FULL
        return tables

    store = Store(tmp_path / "control.db", open_tables, lambda: 0.0, opened.append)
    async with asyncio.timeout(20), store.running():
        with pytest.raises(StoreUnavailable):
            await store.keep_version(1)
        waiting = asyncio.create_task(store.count(one(1)))
        await asyncio.sleep(0)
        may_open = True
        assert await waiting == Counted()
    assert len(opened) == 1


def test_a_journal_unknown_to_a_new_database_begins_with_the_first_number_heard(tmp_path: Path) -> None:
    """Its node no longer has the batches that a lost database had acknowledged."""
    tables = Database.open(tmp_path / "control.db", 0)
    assert tables.count([one(17), one(17), one(19), one(18)], 0) == [Counted(), Duplicate(17), Gap(18), Counted()]
    tables.close()


def test_journals_of_long_ago_are_forgotten_when_the_database_is_opened(tmp_path: Path) -> None:
    """One for each start of a node: they would pile up."""
    path = tmp_path / "control.db"
    tables = Database.open(path, 0)
    tables.count([one(1, "old")], 0)
    tables.count([one(1, "young")], database.FORGET_JOURNAL_AFTER_S)
    tables.close()
    tables = Database.open(path, database.FORGET_JOURNAL_AFTER_S + 1)
    assert tables.count([one(5, "young"), one(5, "old")], 0) == [Gap(2), Counted()]
    tables.close()


def test_an_hour_keeps_a_bounded_number_of_models_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients may ask for any name; the sums stay exact."""
    monkeypatch.setattr(database, "MAX_KEYS_AN_HOUR", 10)
    tables = Database.open(tmp_path / "control.db", 0)
    for number in range(1, 101):
        key = KEY._replace(model_used=f"model-{number}-{'x' * 500}")
        tables.count([Batch("journal", number, {key: Counters(requests=1)})], 0)
    tables.count([Batch("journal", 101, {KEY._replace(model_used=f"model-1-{'x' * 500}"): Counters(requests=1)})], 0)
    rows = tables._connection.execute("SELECT model_used, requests FROM ledger").fetchall()
    tables.close()
    assert len(rows) == 11
    assert dict(rows)[OTHER] == 90
    assert sum(requests for _, requests in rows) == 101
    assert max(len(model) for model, _ in rows) == 200


def test_versions_kept_never_get_smaller(tmp_path: Path) -> None:
    tables = Database.open(tmp_path / "control.db", 0)
    for version in (3, 9, 4):
        tables.keep_version(version)
    assert tables.last_version() == 9
    tables.close()


def test_a_database_of_a_newer_release_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "control.db"
    Database.open(path, 0).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(Foreign, match="99"):
        Database.open(path, 0)


def test_what_may_pass_is_tried_again_and_what_cannot_is_given_up() -> None:
    assert not is_hopeless(FULL)
    assert not is_hopeless(sqlite_error(sqlite3.OperationalError, sqlite3.SQLITE_BUSY, "locked"))
    assert not is_hopeless(sqlite_error(sqlite3.OperationalError, sqlite3.SQLITE_IOERR, "I/O"))
    assert is_hopeless(CORRUPT)
    assert is_hopeless(sqlite_error(sqlite3.OperationalError, sqlite3.SQLITE_READONLY, "readonly"))


def test_half_a_million_absurd_batches_fit_into_the_ledger() -> None:
    assert MAX_COUNTER * 500_000 < 2**63


async def test_whoever_went_away_during_the_transaction_still_has_it_counted(tmp_path: Path) -> None:
    """The node sends it again and the ledger knows it: this is the statistics' only chance."""
    tables, told = FakeTables(), list[str]()
    tables.may_count.clear()
    async with store_of(tables, tmp_path) as store:
        gone = asyncio.create_task(store.count(one(1), lambda: told.append("counted")))
        await until(lambda: tables.tries == 1, "the transaction has begun")
        gone.cancel()
        await asyncio.wait([gone])
        tables.may_count.set()
        await until(lambda: told, "it is told")
    assert told == ["counted"]
