"""The part of the database that keeps circuits, their history and learned organisations.

Its tables come into being where they are missing; a program that does not know them leaves them alone.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from ccr_control.core.circuits import Circuit, Closed, HalfOpen, Open
from ccr_control.core.health import Event, SavedCircuit, State, state_name
from ccr_control.core.organisations import Learned
from ccr_control.core.remembered import Remembered

MAX_EVENTS_A_PROVIDER = 500
FORGET_EVENTS_AFTER_S = 30 * 86_400.0
MAX_EVENTS_TOLD = 5000

_SCHEMA = """
CREATE TABLE IF NOT EXISTS circuits (
  provider TEXT NOT NULL, scope TEXT NOT NULL, identity TEXT NOT NULL, state TEXT NOT NULL, since REAL NOT NULL,
  until REAL NOT NULL, openings INTEGER NOT NULL, reason TEXT NOT NULL, has_probed_well INTEGER NOT NULL,
  PRIMARY KEY (provider, scope)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS health_events (
  number INTEGER PRIMARY KEY, at REAL NOT NULL, provider TEXT NOT NULL, scope TEXT NOT NULL, state TEXT NOT NULL,
  reason TEXT NOT NULL, open_for REAL NOT NULL);
CREATE INDEX IF NOT EXISTS health_events_of ON health_events (provider, number);
CREATE TABLE IF NOT EXISTS organisations (
  provider TEXT NOT NULL, key_label TEXT NOT NULL, fingerprint TEXT NOT NULL, organisation TEXT NOT NULL,
  PRIMARY KEY (provider, key_label)) WITHOUT ROWID;
"""
_EVENTS = "SELECT at, provider, state, reason, open_for, scope FROM health_events"
_PRUNE = (
    "DELETE FROM health_events WHERE provider = ? AND number NOT IN "
    "(SELECT number FROM health_events WHERE provider = ? ORDER BY number DESC LIMIT ?)"
)
_STATES: tuple[State, ...] = ("closed", "open", "half_open")


class HealthTables:
    """On a connection that belongs to `Database`. Every method may raise sqlite3.Error."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        for statement in _SCHEMA.split(";"):
            connection.execute(statement)

    def keep(self, state: Remembered, now_s: float) -> None:
        """Circuits and organisations as they are now, and events besides those kept. In one transaction."""
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.execute("DELETE FROM circuits")
            connection.executemany("INSERT INTO circuits VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", map(_row, state.circuits))
            connection.execute("DELETE FROM organisations")
            connection.executemany("INSERT INTO organisations VALUES (?, ?, ?, ?)", state.organisations)
            self._add(state.events, now_s)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _add(self, events: Iterable[Event], now_s: float) -> None:
        rows = [(one.at_s, one.provider, one.scope, one.state, one.reason, one.open_for_s) for one in events]
        if not rows:
            return
        self._connection.executemany(
            "INSERT INTO health_events (at, provider, scope, state, reason, open_for) VALUES (?, ?, ?, ?, ?, ?)", rows
        )
        self._connection.execute("DELETE FROM health_events WHERE at < ?", (now_s - FORGET_EVENTS_AFTER_S,))
        for provider in {row[1] for row in rows}:
            self._connection.execute(_PRUNE, (provider, provider, MAX_EVENTS_A_PROVIDER))

    def remembered(self) -> Remembered:
        """What was kept last, with all events."""
        circuits = [_saved(row) for row in self._connection.execute("SELECT * FROM circuits")]
        events = self._connection.execute(f"{_EVENTS} ORDER BY number")
        learned = self._connection.execute("SELECT * FROM organisations")
        return Remembered(
            tuple(one for one in circuits if one is not None),
            tuple(Event(*row) for row in events if row[2] in _STATES),
            tuple(Learned(*row) for row in learned),
        )

    def events(self, provider: str, since_s: float, limit: int) -> list[Event]:
        """What happened to the circuits of a provider, or (empty) of all, after a time; newest first."""
        rows = self._connection.execute(
            f"{_EVENTS} WHERE (? = '' OR provider = ?) AND at > ? ORDER BY number DESC LIMIT ?",
            (provider, provider, since_s, min(limit, MAX_EVENTS_TOLD)),
        )
        return [Event(*row) for row in rows if row[2] in _STATES]


def _row(saved: SavedCircuit) -> tuple[str | float, ...]:
    circuit = saved.circuit
    until_s = circuit.until_s if isinstance(circuit, Open) else 0.0
    reason = "" if isinstance(circuit, Closed) else circuit.reason
    state = state_name(circuit)
    place = (saved.provider, saved.scope, saved.identity)
    return (*place, state, circuit.since_s, until_s, circuit.openings, reason, int(saved.has_probed_well))


def _saved(row: tuple[str, str, str, str, float, float, int, str, int]) -> SavedCircuit | None:
    provider, scope, identity, state, since_s, until_s, openings, reason, has_probed_well = row
    circuit: Circuit
    match state:
        case "closed":
            circuit = Closed(since_s, openings)
        case "open":
            circuit = Open(since_s, until_s, openings, reason)
        case "half_open":
            circuit = HalfOpen(since_s, openings, reason)
        case _:  # of a program to come
            return None
    return SavedCircuit(provider, scope, identity, circuit, bool(has_probed_well))
