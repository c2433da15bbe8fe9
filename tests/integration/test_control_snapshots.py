"""ccr-control hands out snapshots: to every node, newest first, and no version ever comes back."""

from __future__ import annotations

import asyncio
import contextlib
import time
from itertools import pairwise
from pathlib import Path

import grpc.aio
import pytest
from ccr_rpc.v1 import fleet_pb2, fleet_pb2_grpc, snapshot_pb2, snapshot_pb2_grpc
from support.control import CONFIG, Control, running_control, until
from support.fake_node import FakeNode

MORE = CONFIG + "  - {name: spare, type: ollama}\n"


def has_spare(snapshot: snapshot_pb2.Snapshot) -> bool:
    return any(provider.name == "spare" for provider in snapshot.providers)


async def nodes(channel: grpc.aio.Channel) -> dict[str, fleet_pb2.Node]:
    answer = await fleet_pb2_grpc.FleetServiceStub(channel).ListNodes(fleet_pb2.ListNodesRequest())
    return {node.node_id: node for node in answer.nodes}


async def node_when(channel: grpc.aio.Channel, node_id: str, field: str, value: object) -> fleet_pb2.Node:
    """The node as soon as a field of it has a value."""
    seen = fleet_pb2.Node()

    async def is_so() -> bool:
        nonlocal seen
        seen = (await nodes(channel)).get(node_id, fleet_pb2.Node())
        return bool(getattr(seen, field) == value)

    await until(is_so, f"{field} of {node_id} is {value}")
    return seen


async def test_a_node_gets_the_snapshot_and_the_fleet_shows_that_it_serves_it(control: Control) -> None:
    async with control.channel() as channel:
        async with FakeNode(channel, node_id="test/new").watching() as node:
            snapshot = await node.got()
            assert [provider.name for provider in snapshot.providers] == ["anthropic"]
            seen = await node_when(channel, node.node_id, "served_version", snapshot.version)

        assert seen.connected
        assert seen.offered_version == snapshot.version
        assert seen.instance_id == "instance-1"
        gone = await node_when(channel, node.node_id, "connected", False)
        assert gone.served_version == snapshot.version


async def test_a_rejection_is_shown_with_its_reason_until_a_version_is_accepted(tmp_path: Path) -> None:
    async with running_control(tmp_path) as control, control.channel() as channel:
        rejecting = FakeNode(channel, reason_to_reject=lambda s: None if has_spare(s) else "no such route")
        async with rejecting.watching() as node:
            version = (await node.got()).version
            seen = await node_when(channel, node.node_id, "rejected_version", version)
            assert (seen.rejection_reason, seen.served_version) == ("no such route", 0)

            control.config_path.write_text(MORE)
            better = await node.got(has_spare)
            seen = await node_when(channel, node.node_id, "served_version", better.version)
            assert (seen.rejected_version, seen.rejection_reason) == (0, "")
        assert control.event("snapshot_rejected")


async def test_a_node_that_serves_the_newest_version_is_sent_nothing_until_there_is_a_newer_one(tmp_path: Path) -> None:
    """Reconnecting must not make every node swap its snapshot."""
    async with running_control(tmp_path) as control, control.channel() as channel:
        async with FakeNode(channel).watching() as node:
            version = (await node.got()).version
            await node_when(channel, node.node_id, "served_version", version)
        again = FakeNode(channel, served_version=version, instance_id="instance-2")
        async with again.watching():
            control.config_path.write_text(MORE)
            newer = await again.got()
            assert has_spare(newer)
            assert again.versions == [version + 1]


async def test_idle_streams_get_heartbeats(control: Control) -> None:
    """Both ends notice a dead connection."""
    async with (
        control.channel() as channel,
        FakeNode(channel).watching() as node,
    ):
        await until(lambda: node.heartbeats, "a heartbeat")


async def test_versions_go_on_after_a_restart_and_after_kill_9(tmp_path: Path) -> None:
    async with running_control(tmp_path) as control:
        seen = [control.event("control_ready")["snapshot_version"]]
        await control.stop()
        await control.start()
        seen.append(control.event("control_ready")["snapshot_version"])
        control.kill()
        await control.start()
        seen.append(control.event("control_ready")["snapshot_version"])
        assert all(later > earlier for earlier, later in pairwise(seen)), seen


@pytest.mark.parametrize("ahead", [0, 7])
async def test_versions_go_on_though_the_database_was_deleted(tmp_path: Path, ahead: int) -> None:
    """The nodes remember. With `ahead` 0 the node serves just the version that the new life gave away again."""
    async with running_control(tmp_path) as control:
        before = control.event("control_ready")["snapshot_version"] + ahead
        await control.stop()
        for file in control.state_dir.glob("control.db*"):
            file.unlink()
        await control.start()
        async with control.channel() as channel, FakeNode(channel, served_version=before).watching() as node:
            snapshot = await node.got()
            assert snapshot.version > before
            other = FakeNode(channel, node_id="test/worker-1", served_version=snapshot.version - 1)
            async with other.watching():
                assert (await other.got()).version == snapshot.version


async def test_a_slow_node_skips_versions_but_never_goes_back(tmp_path: Path) -> None:
    async with (
        running_control(tmp_path) as control,
        control.channel() as channel,
        FakeNode(channel).watching() as node,
    ):
        for i in range(20):
            control.config_path.write_text(CONFIG.replace("team-a", f"team-{i}"))
        last = await node.got(lambda s: s.providers[0].keys[0].label == "team-19")
        assert node.versions == sorted(set(node.versions))
        assert node.versions[-1] == last.version


async def test_stopping_is_quick_though_nodes_are_watching(tmp_path: Path) -> None:
    """A supervisor waits for it."""
    async with (
        running_control(tmp_path) as control,
        control.channel() as channel,
        FakeNode(channel).watching() as node,
    ):
        await node.got()
        began = time.monotonic()
        assert await control.stop() == 0
        assert time.monotonic() - began < 1.0
        async with asyncio.timeout(5):
            await asyncio.wait([node.ended])
        assert node.ended.exception() is None, "the stream ended in order"


async def test_a_node_whose_process_dies_leaves_no_trace_in_the_log(control: Control) -> None:
    """Nodes come and go; only mistakes are errors."""
    for _ in range(3):
        async with control.channel() as channel, FakeNode(channel, node_id="test/dies").watching() as node:
            await node.got()
    async with control.channel() as channel:
        await node_when(channel, "test/dies", "connected", False)
    assert not control.event("handler_failed")


@pytest.mark.parametrize(
    "request_",
    [
        snapshot_pb2.WatchSnapshotsRequest(),
        snapshot_pb2.WatchSnapshotsRequest(accepted=snapshot_pb2.SnapshotAccepted(version=1)),
        snapshot_pb2.WatchSnapshotsRequest(hello=snapshot_pb2.NodeHello(instance_id="x")),
        snapshot_pb2.WatchSnapshotsRequest(
            hello=snapshot_pb2.NodeHello(node_id="x", instance_id="x", served_version=-1)
        ),
        snapshot_pb2.WatchSnapshotsRequest(
            hello=snapshot_pb2.NodeHello(node_id="x", instance_id="x", served_version=2**63 - 1)
        ),
    ],
)
async def test_a_stream_that_begins_wrongly_is_refused(
    control: Control, request_: snapshot_pb2.WatchSnapshotsRequest
) -> None:
    """In particular one whose version would use up all others."""
    async with control.channel() as channel:
        call = snapshot_pb2_grpc.SnapshotServiceStub(channel).WatchSnapshots()
        await call.write(request_)
        with contextlib.suppress(grpc.aio.AioRpcError):
            assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_second_hello_is_refused(control: Control) -> None:
    async with (
        control.channel() as channel,
        FakeNode(channel).watching() as node,
    ):
        await node.got()
        hello = snapshot_pb2.NodeHello(node_id="x", instance_id="x")
        await node.call.write(snapshot_pb2.WatchSnapshotsRequest(hello=hello))
        assert await node.call.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_node_that_came_back_on_a_new_stream_stays_connected_when_the_old_one_ends(control: Control) -> None:
    async with control.channel() as channel:
        old = FakeNode(channel, node_id="test/back")
        async with contextlib.AsyncExitStack() as old_stream:
            await old_stream.enter_async_context(old.watching())
            await old.got()
            async with FakeNode(channel, node_id=old.node_id, instance_id="instance-2").watching() as new:
                await new.got()
                await old_stream.aclose()
                await node_when(channel, new.node_id, "instance_id", "instance-2")
                await asyncio.wait([old.ended])
                assert (await nodes(channel))[new.node_id].connected


async def test_a_state_directory_with_a_long_path_works(tmp_path: Path) -> None:
    """The kernel limits socket paths to 107 bytes."""
    deep = tmp_path / ("long-" * 20) / ("name-" * 20)
    deep.mkdir(parents=True)
    async with running_control(deep) as control, control.channel() as channel:
        assert control.address.startswith("unix:/tmp/cc-relay-")
        async with FakeNode(channel).watching() as node:
            await node.got()


def test_the_support_module_leaves_no_process(tmp_path: Path) -> None:
    """`kill` without a start is harmless."""
    Control(tmp_path).kill()


async def test_a_node_that_does_not_read_delays_the_stop_by_the_grace_only(tmp_path: Path) -> None:
    """Its stream is full; the write under way cannot be taken back."""
    models = ", ".join(f"model-{i}-{'x' * 150}" for i in range(5000))
    large = CONFIG + f"  - {{name: large, type: ollama, models: [{models}]}}\n"
    async with running_control(tmp_path, large) as control, control.channel() as channel:
        call = snapshot_pb2_grpc.SnapshotServiceStub(channel).WatchSnapshots()
        hello = snapshot_pb2.NodeHello(node_id="stalled", instance_id="x")
        await call.write(snapshot_pb2.WatchSnapshotsRequest(hello=hello))
        await until(lambda: control.event("node_joined"), "the node has joined")
        began = time.monotonic()
        assert await control.stop() == 0
        assert time.monotonic() - began < 5.0
        assert not control.event("handler_failed")
        call.cancel()
