"""The store keeps its promises while the disk is full, the file breaks or callers go away."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from ccr_control.core.circuits import Closed, Failures, HalfOpen, Open
from ccr_control.core.config import load
from ccr_control.core.health import Event, SavedCircuit
from ccr_control.core.ledger import MAX_COUNTER, OTHER, Counters, Duplicate, Gap, LedgerKey
from ccr_control.core.organisations import Learned
from ccr_control.core.remembered import Remembered
from ccr_control.core.report import Line, Question
from ccr_control.core.spending import Spent
from ccr_control.shell.health import HealthKeeper
from ccr_control.store import actor, database
from ccr_control.store.actor import Opened, Store, StoreUnavailable
from ccr_control.store.change_tables import ChangeTables
from ccr_control.store.database import Batch, Counted, Database, Foreign, Verdict, is_hopeless
from ccr_control.store.health_tables import FORGET_EVENTS_AFTER_S, MAX_EVENTS_A_PROVIDER, HealthTables
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
        memory = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self.health = HealthTables(memory)
        self.changes = ChangeTables(memory)

    def last_version(self) -> int:
        return 0

    def today(self, now_s: float) -> Counters:
        return Counters()

    def report(self, question: Question) -> list[Line]:
        return []

    def totals(self) -> dict[str, Counters]:
        return {}

    def keep_ledger_for(self, seconds: float) -> None:
        pass

    def spent(self) -> Spent:
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


def event(at_s: float, provider: str = "a", scope: str = "") -> Event:
    return Event(at_s, provider, "open", "connect", 30.0, scope)


async def test_circuits_and_their_history_outlive_the_process(tmp_path: Path) -> None:
    """What was open stays open; what happened can be asked for."""
    circuits = (
        SavedCircuit("a", "", "1", Open(10.0, 40.0, 2, "connect"), has_probed_well=True),
        SavedCircuit("a", "org", "2", HalfOpen(11.0, 1, "key_refused")),
        SavedCircuit("b", "", "3", Closed(12.0, 3)),
    )
    learned = (Learned("a", "k", "0123", "org-1"),)
    path = tmp_path / "control.db"
    opened: list[Opened] = []
    for events in ((event(10.0), event(11.0, scope="org")), (event(12.0, "b"),)):
        store = Store(path, Database.open, lambda: 100.0, opened.append)
        async with asyncio.timeout(20), store.running():
            await store.ask(lambda tables: tables.health.keep(Remembered(circuits, events, learned), 100.0))  # noqa: B023
    store = Store(path, Database.open, lambda: 100.0, opened.append)
    async with asyncio.timeout(20), store.running():
        found = [
            await store.ask(lambda tables: tables.health.events(*asked))  # noqa: B023
            for asked in (("", 0.0, 9), ("a", 0.0, 9), ("a", 10.0, 9), ("", 0.0, 1))
        ]
    first, _, third = opened
    assert first.remembered == Remembered()
    assert third.remembered == Remembered(circuits, (event(10.0), event(11.0, scope="org"), event(12.0, "b")), learned)
    times = [[one.at_s for one in each] for each in found]
    assert times == [[12.0, 11.0, 10.0], [11.0, 10.0], [11.0], [12.0]]


def test_history_is_bounded_in_number_and_age() -> None:
    tables = HealthTables(sqlite3.connect(":memory:", isolation_level=None))
    tables.keep(Remembered(events=(event(1.0, "old"), event(2.0))), 2.0)
    many = tuple(event(3.0 + n) for n in range(MAX_EVENTS_A_PROVIDER + 9))
    tables.keep(Remembered(events=many), 600.0)
    kept = tables.events("", 0.0, 10_000)
    assert len(kept) == MAX_EVENTS_A_PROVIDER + 1
    assert kept[0] == many[-1]
    tables.keep(Remembered(events=(event(FORGET_EVENTS_AFTER_S * 2),)), FORGET_EVENTS_AFTER_S * 2)
    assert len(tables.events("", 0.0, 10_000)) == 1


async def test_circuits_that_cannot_be_kept_are_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk delays that, like everything else; relaying goes on."""
    monkeypatch.setattr("ccr_control.shell.health.SAVE_AGAIN_S", 0.01)
    config = load("version: 1\nproviders: [{name: a, type: ollama}]", file="f", fmt="yaml", env={}).config
    keeper = HealthKeeper(lambda: config, lambda: None, lambda: 100.0)
    tries: list[Remembered] = []
    is_kept = asyncio.Event()

    class Full:
        async def ask(self, question: Callable[[FakeTables], object]) -> None:
            tables = FakeTables()
            question(tables)
            tries.append(tables.health.remembered())
            if len(tries) < 3:
                raise actor.StoreUnavailable("full")
            is_kept.set()

    keeper.heard("j", 1, [Failures("a", "connect", 5, 100.0, 100.0, 5)])
    saving = asyncio.create_task(keeper.keep_saved(Full()))  # type: ignore[arg-type]
    async with asyncio.timeout(20):
        await is_kept.wait()
    saving.cancel()
    await asyncio.wait([saving])
    assert [len(one.events) for one in tries] == [1, 1, 1]
    assert isinstance(tries[-1].circuits[0].circuit, Open)
