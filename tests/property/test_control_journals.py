"""The ledger counts each batch exactly once, whatever order of sends, resends, crashes and losses it sees.

A model node keeps what is not acknowledged and sends it again; a model network and a model crash lose what they like.
The database is the real one.
"""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
from pathlib import Path

from ccr_control.core.ledger import COUNTERS, Counters, Duplicate, Gap, LedgerKey
from ccr_control.store.database import Batch, Counted, Database
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

JOURNALS = ("a", "b")
KEY = LedgerKey(490_000, "anthropic", "team-a", "claude", "laptop", "messages")


def sums(requests: int) -> dict[LedgerKey, Counters]:
    return {KEY: Counters(requests=requests, total_us=requests * 7)}


class Killed(Exception):
    """The process died here."""


class Mortal:
    """A connection whose process dies after some statements: none is executed any more."""

    def __init__(self, connection: sqlite3.Connection, statements: int) -> None:
        self._connection, self._left = connection, statements

    def execute(self, sql: str, *arguments: object) -> object:
        self._live_on()
        return self._connection.execute(sql, *arguments)

    def executemany(self, sql: str, *arguments: object) -> object:
        self._live_on()
        return self._connection.executemany(sql, *arguments)

    def _live_on(self) -> None:
        if self._left == 0:
            raise Killed
        self._left -= 1


class ExactlyOnce(RuleBasedStateMachine):
    """Two journals, one database, any misfortune."""

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "control.db"
        self.database = Database.open(self.path, 0)
        self.made = {journal: [] for journal in JOURNALS}  # sizes of the batches made so far
        self.acknowledged = dict.fromkeys(JOURNALS, 0)  # as the node knows it
        self.counted = dict.fromkeys(JOURNALS, 0)  # as the model knows it

    def teardown(self) -> None:
        if hasattr(self, "database"):
            self.database.close()
            self.folder.cleanup()

    @rule(journal=st.sampled_from(JOURNALS), requests=st.integers(1, 5))
    def make(self, journal: str, requests: int) -> None:
        """Requests finish at a node."""
        self.made[journal].append(requests)

    def unacknowledged(self, data: st.DataObject, journal: str) -> list[Batch]:
        """What a node sends on a new stream, up to where the network cuts it."""
        first = self.acknowledged[journal]
        count = data.draw(st.integers(0, len(self.made[journal]) - first), label="batches that arrive")
        return [Batch(journal, n + 1, sums(self.made[journal][n])) for n in range(first, first + count)]

    def expected(self, batches: list[Batch]) -> list[object]:
        """What the model says to them; counts them."""
        answers: list[object] = []
        for batch in batches:
            known = self.counted[batch.journal]
            if batch.number == known + 1:
                self.counted[batch.journal] += 1
                answers.append(Counted())
            else:
                answers.append(Duplicate(known) if batch.number <= known else Gap(known + 1))
        return answers

    @rule(data=st.data(), is_acknowledged=st.booleans())
    def deliver(self, data: st.DataObject, is_acknowledged: bool) -> None:
        """Batches of both journals arrive, share a transaction, and are acknowledged, or the answer is lost."""
        batches = [batch for journal in JOURNALS for batch in self.unacknowledged(data, journal)]
        assert self.database.count(batches, 0) == self.expected(batches)
        if is_acknowledged:
            self.acknowledged.update(self.counted)

    @rule(data=st.data(), statements=st.integers(0, 30))
    def die(self, data: st.DataObject, statements: int) -> None:
        """The process is killed between any two statements: all batches of the transaction are kept, or none."""
        batches = [batch for journal in JOURNALS for batch in self.unacknowledged(data, journal)]
        connection = self.database._connection
        self.database._connection = Mortal(connection, statements)  # type: ignore[assignment]
        with contextlib.suppress(Killed):
            verdicts = self.database.count(batches, 0)
            assert verdicts == self.expected(batches)
        connection.close()
        self.database = Database.open(self.path, 0)

    @rule()
    def restart(self) -> None:
        """Memory is lost, the file is not."""
        self.database.close()
        self.database = Database.open(self.path, 0)

    @rule(data=st.data(), journal=st.sampled_from(JOURNALS))
    def skip_one(self, data: st.DataObject, journal: str) -> None:
        """A broken node leaves a batch out: nothing is counted until it goes back. An unknown journal may begin so."""
        known = self.counted[journal]
        if known:
            number = known + data.draw(st.integers(2, 5))
            assert self.database.count([Batch(journal, number, sums(1))], 0) == [Gap(known + 1)]

    @invariant()
    def the_ledger_holds_each_batch_once(self) -> None:
        if not hasattr(self, "database"):
            return
        requests = sum(sum(self.made[journal][: self.counted[journal]]) for journal in JOURNALS)
        totals = self.database.totals().get("anthropic", Counters())
        assert (totals.requests, totals.total_us) == (requests, requests * 7)


ExactlyOnce.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
test_batches_are_counted_exactly_once = ExactlyOnce.TestCase


def test_the_columns_are_those_of_the_counters() -> None:
    """A counter that is added later must not be written into another one's column."""
    one_each = Counters(*range(1, len(COUNTERS) + 1))
    with tempfile.TemporaryDirectory() as folder:
        database = Database.open(Path(folder) / "control.db", 0)
        database.count([Batch("a", 1, {KEY: one_each}), Batch("a", 2, {KEY: one_each})], 0)
        assert database.totals() == {"anthropic": Counters(*(2 * n for n in range(1, len(COUNTERS) + 1)))}
        database.close()
