"""A node follows its control plane: takes what is newer and sound, answers each, and is not disturbed by anything else."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio
import pytest
from ccr_data.shell.control_link import ControlAddress, FindControl, LinkPolicy, control_address
from ccr_data.shell.node_dir import NodeDir
from ccr_data.shell.store import SnapshotStore, read_snapshot
from ccr_data.shell.watch import PARSED_ON_LOOP_BYTES, follow_snapshots
from ccr_rpc.v1 import snapshot_pb2
from support.control import until
from support.fake_control import FakeControl, WatchStream, controlling
from support.node_values import NODE, snapshot_message

HASTY = LinkPolicy(silence_s=0.3, acknowledge_s=0.5, first_pause_s=0.01, longest_pause_s=0.05, first_wait_s=0.0)
CALM = LinkPolicy(first_pause_s=0.01, longest_pause_s=0.05, first_wait_s=0.0)


@pytest.fixture
def socket(tmp_path: Path) -> Path:
    return tmp_path / "control.sock"


@pytest.fixture
def directory(tmp_path: Path) -> NodeDir:
    return NodeDir(tmp_path / "state", "worker-0")


@asynccontextmanager
async def following(
    directory: NodeDir, find_control: FindControl, policy: LinkPolicy = CALM
) -> AsyncIterator[SnapshotStore]:
    """A node that follows while the block runs."""
    store = SnapshotStore(directory)
    await store.load()
    task = asyncio.create_task(follow_snapshots(find_control, NODE, store, policy))
    try:
        yield store
        assert not task.done(), "following never ends by itself"
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@asynccontextmanager
async def watched(
    directory: NodeDir, socket: Path, policy: LinkPolicy = CALM
) -> AsyncIterator[tuple[FakeControl, WatchStream, SnapshotStore]]:
    async with controlling(socket) as control, following(directory, lambda: control.address, policy) as store:
        yield control, await control.watch(), store


async def test_a_node_says_who_it_is_and_serves_what_it_gets(directory: NodeDir, socket: Path) -> None:
    async with watched(directory, socket) as (_, stream, store):
        assert stream.hello == snapshot_pb2.NodeHello(
            node_id=NODE.node_id, instance_id=NODE.instance_id, software_version="0.1.0", pid=4711, served_version=0
        )
        for version in (3, 7):
            await stream.send(snapshot_message(version))
            assert (await stream.answer()).accepted.version == version
            assert store.version == version


async def test_what_it_serves_is_on_disk_for_the_next_start(directory: NodeDir, socket: Path) -> None:
    async with watched(directory, socket) as (_, stream, _):
        await stream.send(snapshot_message(3))
        await until(directory.snapshot.exists, "the copy on disk")
        await stream.send(snapshot_message(4))
        await until(lambda: read_snapshot(directory.snapshot).snapshot.version == 4, "the newer copy on disk")

    async with following(directory, lambda: None) as store:
        assert store.version == 4


async def test_a_disk_that_takes_nothing_disturbs_nobody(
    directory: NodeDir, socket: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory.path.parent.mkdir(parents=True)
    directory.path.write_text("a file where the directory should be")
    async with watched(directory, socket) as (_, stream, store):
        for version in (3, 4):
            await stream.send(snapshot_message(version))
            assert (await stream.answer()).accepted.version == version
        await until(lambda: "snapshot_not_saved" in caplog.text, "a warning")
        assert store.version == 4


async def test_an_unfit_snapshot_is_rejected_with_the_reason_and_the_one_before_stays(
    directory: NodeDir, socket: Path
) -> None:
    async with watched(directory, socket) as (_, stream, store):
        await stream.send(snapshot_message(3))
        assert (await stream.answer()).accepted.version == 3
        unfit = snapshot_message(4, secret="sk-ant-secret\n0002")
        await stream.send(unfit)
        rejected = (await stream.answer()).rejected

        assert rejected.version == 4
        assert "key k has characters" in rejected.reason
        assert "secret" not in rejected.reason
        assert store.version == 3
        await stream.send(snapshot_message(5))
        assert (await stream.answer()).accepted.version == 5


async def test_versions_never_go_back(directory: NodeDir, socket: Path) -> None:
    async with watched(directory, socket) as (_, stream, store):
        await stream.send(snapshot_message(5))
        assert (await stream.answer()).accepted.version == 5
        before = store.current

        await stream.send(snapshot_message(4))
        assert "older than version 5" in (await stream.answer()).rejected.reason
        await stream.send(snapshot_message(5, secret="another"))
        assert "with other content" in (await stream.answer()).rejected.reason
        await stream.send(snapshot_message(5))
        assert (await stream.answer()).accepted.version == 5, "it does serve exactly this"

        assert store.current is before


async def test_a_large_snapshot_is_taken_as_well(directory: NodeDir, socket: Path) -> None:
    message = snapshot_message(3, providers=6000)
    assert message.ByteSize() > PARSED_ON_LOOP_BYTES
    async with watched(directory, socket) as (_, stream, store):
        await stream.send(message)
        assert (await stream.answer()).accepted.version == 3
        assert store.current is not None
        assert len(store.current.providers) == 6000


async def test_heartbeats_and_what_a_newer_control_plane_may_say_keep_the_stream(
    directory: NodeDir, socket: Path
) -> None:
    async with watched(directory, socket) as (_, stream, _):
        await stream.send_bytes(
            snapshot_pb2.WatchSnapshotsResponse(heartbeat=snapshot_pb2.Heartbeat()).SerializeToString()
        )
        await stream.send_bytes(b"\x9a\x06\x03new")  # field 99
        await stream.send(snapshot_message(3))
        assert (await stream.answer()).accepted.version == 3


async def test_after_a_restart_of_the_control_plane_the_node_is_back_with_its_version(
    directory: NodeDir, socket: Path
) -> None:
    async with watched(directory, socket) as (control, stream, store):
        await stream.send(snapshot_message(3))
        assert (await stream.answer()).accepted.version == 3
        await control.stop()
        await asyncio.wait_for(stream.ended.wait(), 5)
        assert store.version == 3
        await control.start()

        again = await control.watch()
        assert again.hello.served_version == 3
        await again.send(snapshot_message(4))
        assert (await again.answer()).accepted.version == 4


async def test_a_silent_control_plane_is_left_for_a_new_connection(directory: NodeDir, socket: Path) -> None:
    """It hangs, or the machine between is gone: nothing tells but silence."""
    async with watched(directory, socket, HASTY) as (control, stream, store):
        await stream.send(snapshot_message(3))
        assert (await stream.answer()).accepted.version == 3

        again = await control.watch()

        assert again.hello.served_version == 3
        assert store.version == 3


@pytest.mark.parametrize("garbage", [b"\xff\xff\xff", b"\x0a\x05abc", b"\x0a\x02\x08\x80"])
async def test_garbage_ends_the_stream_only(directory: NodeDir, socket: Path, garbage: bytes) -> None:
    async with watched(directory, socket) as (control, stream, store):
        await stream.send(snapshot_message(3))
        assert (await stream.answer()).accepted.version == 3
        await stream.send_bytes(garbage)

        again = await control.watch()

        assert store.version == 3
        await again.send(snapshot_message(4))
        assert (await again.answer()).accepted.version == 4


@pytest.mark.parametrize("code", [grpc.StatusCode.CANCELLED, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNAUTHENTICATED])
async def test_no_way_to_end_the_stream_ends_the_node(directory: NodeDir, socket: Path, code: grpc.StatusCode) -> None:
    """Also CANCELLED, which grpc.aio tells as if the node's own task had been cancelled."""

    async def refuse(requests: object, context: grpc.aio.ServicerContext[object, object]) -> None:
        streams.append(1)
        await context.abort(code, "no")

    streams: list[int] = []
    async with controlling(socket) as control:
        control._watch = refuse  # type: ignore[method-assign]  # our own fake
        await control.stop()
        await control.start()
        async with following(directory, lambda: control.address):
            await until(lambda: len(streams) >= 3, "three attempts")


async def test_a_socket_that_accepts_and_never_answers_is_left(directory: NodeDir, tmp_path: Path) -> None:
    """A control plane that was stopped (SIGSTOP) looks like this."""
    addresses = [ControlAddress(f"unix:{tmp_path / name}") for name in ("hangs.sock", "control.sock")]
    connections: list[asyncio.StreamWriter] = []

    async def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)

    server = await asyncio.start_unix_server(accept, tmp_path / "hangs.sock")
    async with following(directory, lambda: addresses[0], HASTY) as store:
        await until(lambda: len(connections) >= 2, "a second attempt")
        del addresses[0]
        async with controlling(tmp_path / "control.sock") as control:
            stream = await control.watch()
            await stream.send(snapshot_message(3))
            assert (await stream.answer()).accepted.version == 3
            assert store.version == 3
    server.close()
    for writer in connections:
        writer.close()


async def test_a_control_plane_elsewhere_is_followed_though_the_old_one_hangs(
    directory: NodeDir, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    state.mkdir()
    async with controlling(tmp_path / "a.sock") as old, controlling(tmp_path / "b.sock") as new:
        (state / "control.address").write_text(f"{old.address.target}\n")
        async with following(directory, lambda: control_address(state)):
            await old.watch()
            (state / "control.address").write_text(f"{new.address.target}\n")

            assert (await new.watch()).hello.node_id == NODE.node_id


async def test_a_token_goes_with_every_stream_where_one_is_needed(directory: NodeDir, socket: Path) -> None:
    async with controlling(socket) as control:
        address = ControlAddress(control.address.target, "the-token")
        async with following(directory, lambda: address):
            await control.watch()
            assert control.metadata[-1]["authorization"] == "Bearer the-token"
    assert "the-token" not in repr(address)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"control.address": ""}, None),
        ({"control.address": "unix:/run/c.sock\n"}, ControlAddress("unix:/run/c.sock")),
        ({"control.address": "127.0.0.1:9090\n", "control.token": "t\n"}, ControlAddress("127.0.0.1:9090", "t")),
        ({"control.address": "127.0.0.1:9090\n"}, None),
    ],
)
def test_the_state_directory_says_where_the_control_plane_is(
    tmp_path: Path, files: dict[str, str], expected: ControlAddress | None
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)

    assert control_address(tmp_path) == expected


async def test_losing_the_control_plane_is_told_once(
    directory: NodeDir, socket: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Not for each of thousands of attempts."""
    caplog.set_level("INFO")
    attempts = 0

    def find_control() -> ControlAddress:
        nonlocal attempts
        attempts += 1
        return ControlAddress(f"unix:{socket}")

    async with following(directory, find_control, HASTY):
        await until(lambda: attempts > 5, "some attempts")
        assert caplog.text.count("control_away") == 1
        async with controlling(socket) as control:
            stream = await control.watch()
            await stream.send(snapshot_message(3))
            await stream.answer()
        await until(lambda: caplog.text.count("control_away") == 2, "the second loss")
    assert caplog.text.count("control_connected") == 1
    assert os.environ["GRPC_VERBOSITY"] == "NONE", "or gRPC writes past our log"
