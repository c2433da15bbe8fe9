"""A node's usage reaches the control plane exactly once, whatever happens to either of them."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from ccr_data.core.batches import Limits
from ccr_data.core.budget import Lease
from ccr_data.core.node import NodeIdentity, NodeStatus
from ccr_data.core.records import RateLimitSighting, Reason, Record
from ccr_data.shell import report
from ccr_data.shell.control_link import ControlAddress, LinkPolicy
from ccr_data.shell.logs import logging_to
from ccr_data.shell.node_dir import NodeDir
from ccr_data.shell.report import Reporter
from ccr_rpc.v1 import usage_pb2
from support.control import until
from support.fake_control import Batches, FakeControl, controlling
from support.node_values import NODE, record

HASTY = LinkPolicy(silence_s=0.3, acknowledge_s=0.3, first_pause_s=0.01, longest_pause_s=0.05, first_wait_s=0.0)


class Node:
    """A process as far as reports go. `kill` leaves nothing in order."""

    def __init__(self, state: Path, socket: Path, journal: str, name: str = "worker-0", **options: object) -> None:
        self.directory = NodeDir(state, name)
        self.logged: list[Record] = []
        self.reporter = Reporter(
            NODE,
            self.directory,
            lambda: ControlAddress(f"unix:{socket}"),
            journal=journal,
            log_requests=self.logged.extend,
            policy=HASTY,
            **options,  # type: ignore[arg-type]  # passed on as they are
        )
        self.spool_path = self.directory.spool(journal)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self.reporter.run())

    def note(self, *names: str, failed: bool = False) -> None:
        for name in names:
            self.reporter.note(record(name, failed=failed))

    async def kill(self) -> None:
        """The locks of a dead process go with its descriptors."""
        if self._task is not None:
            task, self._task = self._task, None
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        self.reporter._spool.close()
        for lane in self.reporter._delivery._lanes[1:]:
            lane._orphan.close()  # type: ignore[attr-defined]  # what the kernel would do

    async def end(self) -> None:
        """Ends in order, as ccr-data does."""
        await self.reporter.flush(1.0)
        await self.kill()


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def socket(tmp_path: Path) -> Path:
    return tmp_path / "control.sock"


@pytest.fixture
async def new_node(state: Path, socket: Path) -> AsyncIterator[Callable[..., Node]]:
    """Starts nodes, and ends those that are left."""
    nodes: list[Node] = []

    def start(journal: str, **options: object) -> Node:
        nodes.append(Node(state, socket, journal, **options))  # type: ignore[arg-type]
        nodes[-1].start()
        return nodes[-1]

    yield start
    for node in nodes:
        await node.kill()


async def counted(control: FakeControl, *names: str) -> None:
    """Wait until exactly these were counted."""
    expected = sorted(names)
    await until(lambda: len(control.batches.request_ids) >= len(expected), f"{len(expected)} counted requests")
    assert sorted(control.batches.request_ids) == expected


# in quiet times


async def test_requests_are_told_in_batches_with_everything_about_them(
    new_node: Callable[..., Node], socket: Path
) -> None:
    async with controlling(socket) as control:
        node = new_node("j1", status=lambda: NodeStatus(3, 4, 5))
        node.reporter.note_sighting(RateLimitSighting("anthropic", "team-a", 1.5, 429, {"retry-after": "7"}))
        node.note("a", "b")
        await counted(control, "a", "b")

        assert (control.usage_hellos[0].node_id, control.usage_hellos[0].instance_id) == (NODE.node_id, "instance-1")
        batch = next(batch for batch in control.batches.counted if batch.records)
        assert batch.journal == "j1"
        assert [one.request_id for one in batch.records] == ["a", "b"]
        assert batch.records[0].tokens.input == 5120
        assert batch.rate_limits[0].headers["retry-after"] == "7"
        status = control.batches.counted[0].status
        assert (status.open_requests, status.open_connections, status.unauthorized_total) == (3, 4, 5)
        assert status.resident_bytes > 1 << 20
        assert [one.request_id for one in node.logged] == ["a", "b"]
        assert not node.spool_path.exists()


async def test_a_node_without_requests_still_says_how_it_is(new_node: Callable[..., Node], socket: Path) -> None:
    async with controlling(socket) as control:
        new_node("j1", status=lambda: NodeStatus(open_requests=9))
        await until(lambda: control.batches.counted, "a batch")
        assert control.batches.counted[0].status.open_requests == 9


async def test_what_is_open_is_told_when_it_changes(
    new_node: Callable[..., Node], socket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A screen shows what is in flight, not what was when the last request ended."""
    monkeypatch.setattr("ccr_data.shell.report.STATUS_EVERY_S", 3600.0)
    now_open: tuple[tuple[str, int], ...] = ()
    async with controlling(socket) as control:
        new_node("j1", status=lambda: NodeStatus(open_by_provider=now_open), now_open=lambda: now_open)
        for expected in ((), (("anthropic", 2), ("zai", 1)), (("anthropic", 1),), ()):
            now_open = expected
            await until(lambda: _open_told(control) == expected, f"{expected} is told")  # noqa: B023 - waited for here


async def test_a_lease_is_acknowledged_at_once(
    new_node: Callable[..., Node], socket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a node gives up is free for others only then."""
    monkeypatch.setattr("ccr_data.shell.report.STATUS_EVERY_S", 3600.0)
    taken: list[Lease] = []
    async with controlling(socket) as control:
        control.leases = [usage_pb2.Lease(provider="p", scope="a", serial=7)]
        new_node("j1", take_lease=taken.append)
        await until(lambda: len([one for one in control.batches.counted if one.HasField("status")]) == 2, "it says so")
        assert [lease.serial for lease in taken] == [7]


def _open_told(control: FakeControl) -> tuple[tuple[str, int], ...] | None:
    told = [one.status.open for one in control.batches.counted if one.HasField("status")]
    return tuple((one.provider, one.requests) for one in told[-1]) if told else None


async def test_failures_are_told_at_once(
    new_node: Callable[..., Node], socket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The circuit of a provider opens on what nodes tell: they do not wait for the next time to collect, here in an hour."""
    monkeypatch.setattr(report, "COLLECT_WITHIN_S", 3600.0)
    async with controlling(socket) as control:
        node = new_node("j1")
        for index in range(5):
            node.note(f"served-{index}")
            node.note(f"failed-{index}", failed=True)
            await until(lambda: f"failed-{index}" in control.batches.request_ids, "told")  # noqa: B023
        node.reporter.note_failure("anthropic", Reason.CONNECT, "team-a", "org-a")
        await until(
            lambda: any(batch.failures for batch in control.batches.counted), "also before its request has ended"
        )


async def test_a_crowd_of_records_is_told_without_holding_up_the_loop(
    new_node: Callable[..., Node], socket: Path
) -> None:
    async with controlling(socket) as control:
        node = new_node("j1", limits=Limits(told_a_period=5000))
        names = [f"r{index}" for index in range(5000)]
        node.note(*names)
        turns, most_between = 0, 0
        while len(control.batches.request_ids) < 5000:
            before = len(node.logged)
            await asyncio.sleep(0)
            most_between = max(most_between, len(node.logged) - before)
            turns += 1
        await counted(control, *names)
        assert len(node.logged) == 5000
        assert most_between <= 2 * report.SLICE_RECORDS, "the loop has its turn after each slice"
        assert turns >= 5000 // (2 * report.SLICE_RECORDS)


# while the control plane is away


async def test_a_restart_of_the_control_plane_loses_and_doubles_nothing(
    new_node: Callable[..., Node], socket: Path
) -> None:
    async with controlling(socket) as control:
        node = new_node("j1")
        names: list[str] = []
        for is_there in (True, False, True, False, True, False):
            if is_there and names:
                await control.start()
            elif not is_there:
                await control.stop()
            for _ in range(20):
                names.append(f"r{len(names)}")
                node.note(names[-1])
                await asyncio.sleep(0.005)
        await control.start()
        await counted(control, *names)


async def test_what_is_sent_again_is_byte_for_byte_the_same(new_node: Callable[..., Node], socket: Path) -> None:
    """Or a control plane that has counted half of it could not tell."""
    async with controlling(socket) as control:
        control.acknowledges = False
        node = new_node("j1")
        node.note("a")
        await until(lambda: len(control.batches.received) >= 3, "two more deliveries of the same batch")
        control.acknowledges = True
        await counted(control, "a")

        first = control.batches.received[0]
        assert all(message[2:40] == first[2:40] for message in control.batches.received[:3])


async def test_what_waits_is_on_disk_within_two_seconds_and_off_it_when_delivered(
    new_node: Callable[..., Node], socket: Path
) -> None:
    node = new_node("j1")
    node.note("a")
    await until(node.spool_path.exists, "the spool")
    node.note("b")
    async with controlling(socket) as control:
        await counted(control, "a", "b")
        await until(lambda: not node.spool_path.exists(), "an end of the spool")


async def test_a_hanging_control_plane_is_as_good_as_none(new_node: Callable[..., Node], socket: Path) -> None:
    """Stopped (SIGSTOP) while the stream is open: what it does not acknowledge belongs on disk."""
    async with controlling(socket) as control:
        node = new_node("j1")
        node.note("a")
        await counted(control, "a")
        control.acknowledges = False
        node.note("b")
        await until(node.spool_path.exists, "the spool")
        control.acknowledges = True
        await counted(control, "a", "b")


async def test_a_successor_delivers_what_a_killed_node_had_spooled(new_node: Callable[..., Node], socket: Path) -> None:
    """Under the dead journal's name, so that nothing is counted twice that had arrived before."""
    async with controlling(socket) as control:
        dead = new_node("j1")
        dead.note("before")
        await counted(control, "before")
        control.acknowledges = False
        dead.note("arrived, not acknowledged")
        await until(dead.spool_path.exists, "the spool")
        await control.stop()
        dead.note("later")
        await until(lambda: dead.reporter._journal._spooled == 3, "the later batch on disk")
        await dead.kill()

        control.acknowledges = True
        await control.start()
        alive = new_node("j2", name="worker-1")
        alive.note("mine")
        await counted(control, "before", "arrived, not acknowledged", "later", "mine")
        await until(lambda: not dead.spool_path.exists(), "an end of the dead node's spool")
        assert {batch.journal for batch in control.batches.counted} == {"j1", "j2"}


async def test_two_successors_do_not_deliver_the_same_spool(new_node: Callable[..., Node], socket: Path) -> None:
    dead = new_node("j1")
    dead.note(*map(str, range(100)))
    await until(dead.spool_path.exists, "the spool")
    await dead.kill()
    async with controlling(socket) as control:
        for index in range(3):
            new_node(f"j{index + 2}", name=f"worker-{index}")
        await counted(control, *map(str, range(100)))
        assert sum(b'"j1' in message or b"\x0a\x02j1" in message for message in control.batches.received) == 1


async def test_a_long_spool_is_delivered_beside_the_news(new_node: Callable[..., Node], socket: Path) -> None:
    dead = new_node("j1")
    for index in range(300):
        dead.reporter._journal.note([record(str(index))])
        dead.reporter._journal.seal(0.0)
    await until(lambda: dead.reporter._journal._spooled == 300, "everything on disk")
    await dead.kill()
    async with controlling(socket) as control:
        alive = new_node("j2")
        alive.note("news")
        await counted(control, "news", *map(str, range(300)))


async def test_a_node_that_ends_in_order_delivers_or_spools_the_rest(
    new_node: Callable[..., Node], socket: Path
) -> None:
    async with controlling(socket) as control:
        node = new_node("j1")
        await until(lambda: control.usage_hellos, "a stream")
        node.note("delivered")
        await node.end()
        assert control.batches.request_ids == ["delivered"]
        assert not node.spool_path.exists()
    node = new_node("j2")
    node.note("spooled")
    await node.end()
    assert node.spool_path.exists()
    async with controlling(socket, control.batches) as again:
        new_node("j3")
        await counted(again, "delivered", "spooled")


async def test_a_node_that_ends_in_order_says_so(new_node: Callable[..., Node], socket: Path) -> None:
    """Its leases need not be kept for it as long as if it were cut off. Also if it has nothing else to say, or no place any more."""
    has_place = True
    async with controlling(socket) as control:
        node = new_node("j1", has_place=lambda: has_place)
        await until(lambda: control.batches.counted, "it reports")
        assert not any(batch.is_last for batch in control.batches.counted)
        has_place = False
        await node.end()
        assert control.batches.counted[-1].is_last


async def test_a_node_ends_soon_although_the_control_plane_hangs(new_node: Callable[..., Node], socket: Path) -> None:
    async with controlling(socket) as control:
        control.acknowledges = False
        node = new_node("j1")
        await until(lambda: control.usage_hellos, "a stream")
        node.note("a")
        async with asyncio.timeout(20):  # it would wait for ever
            await node.reporter.flush(0.01)
        assert node.spool_path.exists()


@pytest.fixture
def without_disk(state: Path) -> None:
    state.mkdir()
    (state / "nodes").write_text("a file where the directory should be")


@pytest.mark.usefixtures("without_disk")
async def test_a_disk_that_takes_nothing_loses_nothing_while_the_node_lives(
    new_node: Callable[..., Node], socket: Path, caplog: pytest.LogCaptureFixture
) -> None:
    node = new_node("j1")
    node.note("a")
    await until(lambda: "usage_not_spooled" in caplog.text, "a warning")
    async with controlling(socket) as control:
        await counted(control, "a")
    assert caplog.text.count("usage_not_spooled") == 1


async def test_beyond_the_limit_requests_are_folded_and_none_is_lost(
    new_node: Callable[..., Node], state: Path, socket: Path
) -> None:
    """Neither in memory nor, when the node is killed, of what was on disk."""
    dead = new_node("j1", limits=Limits(records=100), max_spool_bytes=30_000)
    for round_ in range(8):
        dead.note(*(f"{round_}-{index}" for index in range(64)))
        await until(lambda: not dead.reporter._noted, "taken in")
        await until(lambda: dead.reporter._journal._spooled, "the spool")
    journal = dead.reporter._journal
    await until(lambda: journal._spooled_revision == journal._revision, "the draft on disk")
    assert dead.spool_path.stat().st_size < 60_000
    await dead.kill()
    async with controlling(socket) as control:
        new_node("j2")
        await until(lambda: control.batches.request_count >= 512, "512 counted requests")
        assert control.batches.request_count == 512
        assert 100 <= len(control.batches.request_ids) < 300


# a control plane that has lost its memory, or its mind


async def test_a_control_plane_that_forgot_everything_gets_the_rest(
    new_node: Callable[..., Node], socket: Path
) -> None:
    async with controlling(socket) as control:
        node = new_node("j1")
        node.note("a")
        await counted(control, "a")
    async with controlling(socket, Batches()) as forgetful:
        node.note("b")
        await counted(forgetful, "b")


async def test_a_control_plane_restored_from_a_backup_gets_the_rest_under_another_name(
    new_node: Callable[..., Node], socket: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It expects a number that it had acknowledged, and that nobody has any more."""
    async with controlling(socket) as control:
        node = new_node("j1")
        for names in (["a"], ["a", "b"], ["a", "b", "c"]):
            node.note(names[-1])
            await counted(control, *names)
        await until(lambda: not node.reporter._journal.has_any, "acknowledgements")
    async with controlling(socket, Batches(acknowledged={"j1": 1})) as restored:
        node.note("d")
        await counted(restored, "d")
        assert restored.batches.counted[-1].journal == "j1.2"
        assert "usage_journal_renamed" in caplog.text
        node.note("e")
        await counted(restored, "d", "e")


async def test_a_control_plane_that_lost_a_batch_gets_it_again(new_node: Callable[..., Node], socket: Path) -> None:
    node = new_node("j1")
    for name in ("a", "b", "c"):
        node.reporter._journal.note([record(name)])
        node.reporter._journal.seal(time.monotonic())
    node.reporter._journal.waiting.acknowledged = 1  # it believes that 1 is kept, but still has it
    async with controlling(socket, Batches(acknowledged={"j1": 0})) as control:
        await counted(control, "a", "b", "c")


async def test_acknowledgements_of_strange_things_are_ignored(new_node: Callable[..., Node], socket: Path) -> None:
    async with controlling(socket, Batches(acknowledged={"j1": 0})) as control:
        real_take = control._take

        async def take(batch: object, context: object) -> int:
            await real_take(batch, context)  # type: ignore[arg-type]  # passed on as they are
            return 1 << 60 if len(control.batches.received) == 1 else control.batches.acknowledged["j1"]

        control._take = take  # type: ignore[method-assign]  # our own fake
        node = new_node("j1")
        node.note("a")
        await counted(control, "a")
        node.note("b")
        await counted(control, "a", "b")


# on the request path


async def test_a_log_that_fails_keeps_no_usage_back(state: Path) -> None:
    """Nor does it end the node."""

    def fail(_: object) -> None:
        raise RuntimeError("no line")

    reporter = Reporter(NODE, NodeDir(state, "w"), lambda: None, journal="j", log_requests=fail)
    reporter.note(record("r"))
    sink: list[bytes] = []
    with logging_to(sink.append, "json", is_terminal=False):
        await reporter._take_in()

    assert reporter._journal.seal(0.0) is not None
    assert b'"requests_not_logged"' in b"".join(sink)


def test_noting_costs_next_to_nothing(state: Path) -> None:
    """It is called once for every request: a few calls of functions, and nothing that waits, encodes or writes."""
    reporter = Reporter(NodeIdentity("n", "i", "v", 1), NodeDir(state, "w"), lambda: None, journal="j")
    one, calls = record("r"), Counter[str]()

    def count(frame: object, what: str, argument: object) -> None:
        calls[what] += 1

    sys.setprofile(count)
    try:
        for _ in range(1000):
            reporter.note(one)
    finally:
        sys.setprofile(None)

    assert calls["call"] + calls["c_call"] <= 5 * 1000
    assert len(reporter._noted) == 1000
