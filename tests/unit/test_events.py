"""Events reach whoever watches once, in order, and only when they are kept."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from typing import TypeVar

import pytest
from ccr_control.core.events import Event
from ccr_control.shell import events as shell
from ccr_control.shell.events import EventLog
from ccr_control.store import change_tables
from ccr_control.store.actor import StoreUnavailable
from ccr_control.store.change_tables import FORGET_CHANGES_AFTER_S, FORGET_EVENTS_AFTER_S, ChangeTables

T = TypeVar("T")


class FakeStore:
    """Answers at once, or not at all."""

    def __init__(self) -> None:
        self.changes = ChangeTables(sqlite3.connect(":memory:", isolation_level=None))
        self.is_away = False

    async def ask(self, question: Callable[[FakeStore], T]) -> T:
        if self.is_away:
            raise StoreUnavailable("disk full")
        return question(self)


def numbered(*numbers: int) -> list[Event]:
    return [Event("audit", "x", number=number) for number in numbers]


async def test_watchers_see_events_in_the_order_of_their_numbers() -> None:
    """Changes are kept one after the other, but their callers wake in any order."""
    events = EventLog(FakeStore(), lambda: 0.0)
    events.begin(5)
    watcher = asyncio.create_task(events.after(5))
    await asyncio.sleep(0)
    events.told(numbered(7))
    await asyncio.sleep(0)
    assert not watcher.done()
    events.told(numbered(6, 8))
    async with asyncio.timeout(5):
        assert [event.number for event in await watcher] == [6, 7, 8]
        assert [event.number for event in await events.after(7)] == [8]


async def test_one_who_begins_further_back_reads_the_store() -> None:
    store = FakeStore()
    events = EventLog(store, lambda: 1.0)
    kept = store.changes.add_events([events.made("node", "node.join", f"nodes/{n}") for n in range(5)])
    events.begin(kept[-1].number)
    async with asyncio.timeout(5):
        assert [event.resource for event in await events.after(2)] == ["nodes/2", "nodes/3", "nodes/4"]


async def test_what_cannot_be_kept_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """And nobody sees it before it is kept: it could be gone after a restart."""
    monkeypatch.setattr(shell, "KEEP_AGAIN_S", 0.0)
    store = FakeStore()
    store.is_away = True
    events = EventLog(store, lambda: 1.0)
    running = asyncio.create_task(events.run())
    events.note("health", "circuit.open", "providers/zai")
    events.note("health", "circuit.closed", "providers/zai")
    watcher = asyncio.create_task(events.after(0))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not watcher.done()
    store.is_away = False
    async with asyncio.timeout(5):
        found = await watcher
    running.cancel()
    assert [(event.number, event.action) for event in found] == [(1, "circuit.open"), (2, "circuit.closed")]


async def test_a_watcher_of_a_database_that_is_no_more_goes_on_with_the_new_one() -> None:
    events = EventLog(FakeStore(), lambda: 0.0)
    events.begin(100)
    watcher = asyncio.create_task(events.after(100))
    await asyncio.sleep(0)
    events.begin(0)
    events.told(numbered(1))
    async with asyncio.timeout(5):
        assert [event.number for event in await watcher] == [1]


def test_old_events_go_and_changes_stay_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(change_tables, "PRUNE_EVERY", 1)
    tables = ChangeTables(sqlite3.connect(":memory:", isolation_level=None))
    now_s = FORGET_CHANGES_AFTER_S * 2
    ages_s = [FORGET_CHANGES_AFTER_S + 1, FORGET_EVENTS_AFTER_S + 1, 0.0]
    tables.add_events([Event(kind, "x", at_s=now_s - age_s) for age_s in ages_s for kind in ("audit", "node")])
    for _ in range(2):
        tables.add_events([Event("node", "last", at_s=now_s)])
    left = [(event.kind, event.at_s - now_s) for event in tables.events_after(0, 100) if event.action == "x"]
    assert left == [("audit", -ages_s[1]), ("audit", 0.0), ("node", 0.0)]


def test_resources_are_found_with_what_is_below_them() -> None:
    """Also where their names hold what SQL takes for a wildcard."""
    tables = ChangeTables(sqlite3.connect(":memory:", isolation_level=None))
    for resource in ("keys/a_b/x", "keys/a_b", "keys/aXb/x", "keys/a_bc"):
        tables.add_events([Event("audit", "x", resource)])
    found = tables.events_before("", "keys/a_b", 0, 10)
    assert [event.resource for event in found] == ["keys/a_b", "keys/a_b/x"]
    assert tables.events_before("node", "keys/a_b", 0, 10) == []
