"""Every request is counted exactly once, whatever happens between a node, its disk and its control plane."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from ccr_data.core.batches import Journal, Limits, Waiting
from ccr_data.core.folding import SumKey, UsageSum
from ccr_data.core.records import RateLimitSighting, Record
from hypothesis import given, settings
from hypothesis import strategies as st
from support.node_values import record

LIMITS = Limits(records=12, payload_bytes=4000, sum_keys=3)


class LineEncoder:
    """Batches as lines of JSON. Clients are unique in these tests, so that a folded request can still be told apart."""

    def head(self, journal: str, number: int) -> bytes:
        return _line(["head", journal, number])

    def records(self, records: Sequence[Record]) -> bytes:
        return b"".join(_line(["request", one.client, 1]) for one in records)

    def sums(self, sums: Mapping[SumKey, UsageSum]) -> bytes:
        return b"".join(_line(["request", key.client, part.requests]) for key, part in sums.items())

    def sightings(self, sightings: Iterable[RateLimitSighting]) -> bytes:
        return b"".join(_line(["sighting", seen.provider]) for seen in sightings)


def _line(value: object) -> bytes:
    return json.dumps(value).encode() + b"\n"


class Ledger:
    """A control plane's store, as the contract has it."""

    def __init__(self) -> None:
        self.acknowledged: dict[str, int] = {}
        self.counted: Counter[str] = Counter()

    def take(self, journal: str, number: int, payload: bytes) -> int | None:
        """Count a batch; the number expected if it is beyond the next."""
        acknowledged = self.acknowledged.get(journal, number - 1)
        if number > acknowledged + 1:
            return acknowledged + 1
        if number == acknowledged + 1:
            for kind, name, *rest in map(json.loads, payload.splitlines()):
                if kind == "request":
                    self.counted[name] += rest[0]
        self.acknowledged[journal] = max(acknowledged, number)
        return None


class Lane:
    """What shell/deliver.py does with one journal on one stream."""

    def __init__(self, waiting: Waiting[bytes] | Journal) -> None:
        self.owner = waiting
        self.waiting = waiting.waiting if isinstance(waiting, Journal) else waiting
        self.sent = self.waiting.acknowledged


class World:
    """Processes that start and die, their disk, a network that breaks, a ledger that may forget everything."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.now_s = 0.0
        self.noted: list[str] = []
        self.had_to_be_safe: set[str] = set()  # from the moment it was, whatever dies
        self.may_be_missing: set[str] = set()  # noted by a process that died before it had to be safe
        self.sent: dict[tuple[str, int], bytes] = {}
        self.process_count = 0
        self.files: dict[str, dict[int, bytes]] = {}  # journal → what a reader would find in its spool
        self.lanes: list[Lane] = []  # of the stream, if there is one
        self.acks: list[tuple[str, int]] = []  # on their way to the node
        self.start()

    def start(self) -> None:
        """A process starts, and adopts what dead ones left."""
        self.process_count += 1
        self.journal = Journal(f"j{self.process_count}", LineEncoder(), LIMITS)
        self.orphans: list[Waiting[bytes]] = []
        self.files = {name: frames for name, frames in self.files.items() if frames}
        for name, frames in self.files.items():
            waiting: Waiting[bytes] = Waiting(name)
            for number, payload in sorted(frames.items()):
                waiting.add(number, payload)
            self.orphans.append(waiting)
        self.disconnect()

    # what happens in the process

    def requests_finish(self, count: int) -> None:
        """Every other crowd is too much to be told one by one."""
        names = [f"c{len(self.noted) + index}" for index in range(count)]
        self.noted += names
        records = [record(name, client=name) for name in names]
        told = 1 if len(self.noted) % 2 else count
        self.journal.note(records[:told], records[told:])

    def seal(self, how: int) -> None:
        self.journal.sight(RateLimitSighting("p", "k", 1.0, 200, {}))
        self.journal.seal(self.now_s, even_if_empty=how == 1)

    def time_passes(self, tenths: int) -> None:
        self.now_s += tenths / 5

    def keep_disk(self, how: int) -> None:
        """As shell/report.py does, sometimes replacing the file."""
        journal = self.journal
        file = self.files.setdefault(journal.waiting.journal, {})
        if journal.is_spool_spent:
            file.clear()
            journal.spool_emptied()
        elif journal.is_cut_off(self.now_s):
            new = journal.unspooled()
            if how == 1 or not file:
                new = journal.everything()
                file.clear()
            file.update(new.frames())
            journal.spooled(new)
            waiting = [batch.payload for batch in journal.waiting]
            draft = journal.everything().draft
            self.had_to_be_safe |= _clients(waiting + ([draft.payload] if draft and journal.is_held_back else []))

    def kill(self, _: int) -> None:
        self.may_be_missing |= set(self.noted) - self.safe()
        self.start()

    def end_in_order(self, _: int) -> None:
        self.files.setdefault(self.journal.waiting.journal, {}).update(self.journal.everything().frames())
        self.had_to_be_safe |= set(self.noted) - self.may_be_missing
        self.start()

    def safe(self) -> set[str]:
        """What is counted or on disk."""
        return set(self.ledger.counted) | _clients(one for frames in self.files.values() for one in frames.values())

    # what happens on the way

    def connect(self, _: int) -> None:
        self.disconnect()
        self.lanes = [Lane(self.journal), *map(Lane, self.orphans)]

    def disconnect(self, _: int = 0) -> None:
        self.lanes, self.acks = [], []

    def send(self, which: int) -> bool:
        """The next batch of a lane arrives. False if there is none, or the stream ended."""
        if not self.lanes:
            return False
        lane = self.lanes[which % len(self.lanes)]
        found = lane.waiting.after(lane.sent)
        if found is None:
            return False
        number, item = found
        payload = item if isinstance(item, bytes) else item.payload
        if lane.owner is self.journal:
            assert self.sent.setdefault((lane.waiting.journal, number), payload) == payload, "a sent batch changed"
        lane.sent = number
        expected = self.ledger.take(lane.waiting.sent_as, number, payload)
        if expected is None:
            self.acks.append((lane.waiting.sent_as, self.ledger.acknowledged[lane.waiting.sent_as]))
            return True
        lane.owner.resume_at(expected)
        self.disconnect()
        return False

    def ack(self, _: int) -> None:
        """An acknowledgement arrives at the node."""
        if not self.acks:
            return
        journal, number = self.acks.pop(0)
        for lane in tuple(self.lanes):
            if lane.waiting.sent_as == journal:
                lane.owner.ack(number)
        for waiting in [one for one in self.orphans if not len(one)]:
            self.orphans.remove(waiting)
            del self.files[waiting.journal]
            self.lanes = [lane for lane in self.lanes if lane.waiting is not waiting]

    def lose_ledger(self, _: int) -> None:
        self.may_be_missing |= set(self.ledger.counted)
        self.had_to_be_safe -= set(self.ledger.counted)
        self.ledger = Ledger()
        self.disconnect()

    # what always holds

    def check(self) -> None:
        assert all(count == 1 for count in self.ledger.counted.values()), "counted twice"
        assert self.had_to_be_safe <= self.safe(), "neither counted nor on disk"
        assert sum(batch.weight for batch in self.journal.waiting) < LIMITS.records + MAX_NOTED
        assert sum(len(batch.payload) for batch in self.journal.waiting) < LIMITS.payload_bytes + 4000

    def settle(self) -> None:
        """The control plane is there for long enough."""
        for _ in range(2 * LIMITS.records * self.process_count):
            self.journal.seal(self.now_s)
            if not self.lanes:
                self.connect(0)
            for which in range(len(self.lanes)):
                while self.send(which):
                    pass
            while self.acks:
                self.ack(0)
            if not self.journal.has_any and not self.orphans:
                return
        raise AssertionError("never came to an end")


def _clients(payloads: Iterable[bytes]) -> set[str]:
    parts = [part for payload in payloads for part in map(json.loads, payload.splitlines())]
    return {part[1] for part in parts if part[0] == "request"}


WHAT_HAPPENS = {
    World.requests_finish: 8,
    World.seal: 8,
    World.send: 8,
    World.ack: 6,
    World.time_passes: 5,
    World.keep_disk: 5,
    World.connect: 4,
    World.disconnect: 1,
    World.kill: 1,
    World.end_in_order: 1,
    World.lose_ledger: 1,
}
EVENTS = [event for event, weight in WHAT_HAPPENS.items() for _ in range(weight)]
MAX_NOTED = 6
events = st.tuples(st.sampled_from(EVENTS), st.integers(1, MAX_NOTED))


@settings(max_examples=400, deadline=None)
@given(st.lists(events, min_size=30, max_size=120))
def test_every_request_is_counted_exactly_once(history: list[tuple[Callable[[World, int], object], int]]) -> None:
    """Except what a process that was killed had kept for less than a second, or a lost ledger had counted before."""
    world = World()
    for event, how in history:
        event(world, how)
        world.check()
    world.settle()
    world.check()

    assert set(world.noted) - set(world.ledger.counted) <= world.may_be_missing
