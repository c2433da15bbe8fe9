"""What a later version may say, said to the present one: known parts are understood, unknown ones passed over, and nothing by half.

The later contract is the present one with more in it, made here from descriptors.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from ccr_cli.reading import provider_health
from ccr_data.core.errors import SnapshotInvalid
from ccr_data.shell.control_link import LinkPolicy
from ccr_data.shell.node_dir import NodeDir
from ccr_data.shell.store import SnapshotStore, offered, read_snapshot
from ccr_data.shell.watch import follow_snapshots
from ccr_rpc.v1 import providers_pb2, snapshot_pb2, usage_pb2
from ccr_tui.core.words import provider_type
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.message import Message
from support.control import running_control, until
from support.fake_control import controlling
from support.fake_node import batch, record
from support.node_values import NODE, snapshot_message

FIRST_NEW = 900  # numbers that no version has given away yet
POLICY = LinkPolicy(first_pause_s=0.01, longest_pause_s=0.05, first_wait_s=0.0)
ENUMS = {  # fields of a snapshot with choices, each with whether a node may serve a choice that it does not know
    "auth.mode": False,
    "providers[0].type": False,
    "providers[0].auth_style": False,
    "providers[0].wire_format": False,
    "providers[0].key_selection": False,
    "providers[0].traits.system_turns": False,
    "providers[0].circuit": True,  # the control plane has no say in what a request is, only in where it goes
    "providers[0].keys[0].state": False,
    "providers[0].keys[0].circuit": True,
    "routes[0].strategy": False,
}


def later_contract() -> descriptor_pool.DescriptorPool:
    """The present contract, with a new field in every message of a snapshot and more to say on both streams."""
    pool = descriptor_pool.DescriptorPool()
    for module in (usage_pb2, snapshot_pb2):
        for needed in module.DESCRIPTOR.dependencies:
            if needed.package == "google.protobuf":
                pool.AddSerializedFile(needed.serialized_pb)
        file = FileDescriptorProto.FromString(module.DESCRIPTOR.serialized_pb)
        for message in file.message_type:
            one = message.field.add(name="only_for_some", number=FIRST_NEW)
            one.type, one.label = FieldDescriptorProto.TYPE_STRING, FieldDescriptorProto.LABEL_OPTIONAL
            if message.oneof_decl and message.name in (
                "WatchSnapshotsResponse",
                "WatchSnapshotsRequest",
                "ReportUsageRequest",
            ):
                one.oneof_index = 0
        pool.Add(file)  # type: ignore[attr-defined]
    return pool


LATER = later_contract()


def later(name: str, present: Message) -> Any:
    """A message of the later contract with what a present one says."""
    made = message_factory.GetMessageClass(LATER.FindMessageTypeByName(f"ccr.rpc.v1.{name}"))()
    made.MergeFromString(present.SerializeToString())
    return made


def every_message(message: Message) -> Iterator[Any]:
    """A message and all below it."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None and field.message_type.file.package == "ccr.rpc.v1":
            for one in value if field.is_repeated else [value]:
                yield from every_message(one)


def at(message: Any, path: str) -> tuple[Any, str]:
    """Where a field is."""
    *parents, name = path.replace("[0]", ".0").split(".")
    for part in parents:
        message = message[0] if part == "0" else getattr(message, part)
    return message, name


def test_fields_that_are_not_known_are_passed_over_and_kept() -> None:
    """What is on disk is what came, so that a newer version that starts from it misses nothing."""
    made = later("Snapshot", snapshot_message(5))
    for one in every_message(made):
        one.only_for_some = "a thing of the future"
    wire = made.SerializeToString()
    found, known = offered(wire), offered(snapshot_message(5).SerializeToString())
    for part in ("version", "auth", "providers", "relay", "prices"):
        assert getattr(found.snapshot, part) == getattr(known.snapshot, part)
    assert found.wire == wire


@pytest.mark.parametrize("path", ENUMS)
def test_a_choice_that_is_not_known_is_rejected_or_harmless(path: str) -> None:
    message = snapshot_message(5)
    parent, name = at(message, path)
    setattr(parent, name, FIRST_NEW)
    if ENUMS[path]:
        snapshot = offered(message.SerializeToString()).snapshot
        assert not snapshot.providers["p0"].is_open
        return
    with pytest.raises(SnapshotInvalid, match="unknown to this node") as refused:
        offered(message.SerializeToString())
    assert "sk-ant" not in str(refused.value)


def test_every_choice_of_a_snapshot_is_looked_at_here() -> None:
    """A new enum in the snapshot is added above, with what a node does about values that it does not know."""
    found = set(enum_fields(snapshot_pb2.Snapshot.DESCRIPTOR))
    assert found == {path.replace("[0]", "") for path in ENUMS} | {"routes.conditions.classes"}


def test_a_class_of_requests_that_is_not_known_is_rejected() -> None:
    """The route would be for others, too."""
    message = snapshot_message(5)
    message.routes[0].conditions.classes.append(FIRST_NEW)  # type: ignore[arg-type]
    with pytest.raises(SnapshotInvalid, match="a request class is unknown to this node"):
        offered(message.SerializeToString())


def enum_fields(described: Any, path: str = "") -> Iterator[str]:
    for field in described.fields:
        if field.enum_type is not None:
            yield path + field.name
        elif field.message_type is not None and field.message_type.file.package == "ccr.rpc.v1":
            yield from enum_fields(field.message_type, f"{path}{field.name}.")


def test_what_a_snapshot_needs_is_understood_or_it_is_not_served() -> None:
    """A restriction in a field that is passed over would be no restriction."""
    message = snapshot_message(5)
    message.needs.append("client-models")
    with pytest.raises(SnapshotInvalid, match=r"does not understand \(client-models\)"):
        offered(message.SerializeToString())


@asynccontextmanager
async def following(tmp_path: Path) -> Any:
    """A node of the present version with a control plane of a later one."""
    store = SnapshotStore(NodeDir(tmp_path / "state", "worker-0"))
    async with controlling(tmp_path / "control.sock") as control:
        task = asyncio.create_task(follow_snapshots(lambda: control.address, NODE, store, POLICY))
        try:
            yield store, await control.watch()
        finally:
            task.cancel()
            await asyncio.wait([task])


async def test_a_node_goes_on_under_a_later_control_plane(tmp_path: Path) -> None:
    """It serves what it understands, says why it does not serve the rest, and takes no harm from messages that it does not know."""
    async with following(tmp_path) as (store, stream):
        await stream.send_bytes(response(snapshot_message(3)))
        assert (await stream.answer()).accepted.version == 3
        await stream.send_bytes(later("WatchSnapshotsResponse", said("a new message")).SerializeToString())
        restricted = snapshot_message(4)
        restricted.needs.append("client-models")
        await stream.send_bytes(response(restricted))
        rejected = (await stream.answer()).rejected
        assert (rejected.version, "client-models" in rejected.reason, store.version) == (4, True, 3)
        await stream.send_bytes(response(snapshot_message(5)))
        assert (await stream.answer()).accepted.version == 5
        path = tmp_path / "state" / "nodes" / "worker-0" / "snapshot.pb"
        await until(lambda: path.exists() and read_snapshot(path).snapshot.version == 5, "the copy on disk")
        assert b"a thing of the future" in path.read_bytes()


def response(snapshot: snapshot_pb2.Snapshot) -> bytes:
    """A snapshot as the later control plane sends it, with something new in every part."""
    made = later("WatchSnapshotsResponse", snapshot_pb2.WatchSnapshotsResponse(snapshot=snapshot))
    for one in every_message(made.snapshot):
        one.only_for_some = "a thing of the future"
    return bytes(made.SerializeToString())


def said(words: str) -> Message:
    """Something new on the watch stream."""
    made = later("WatchSnapshotsResponse", snapshot_pb2.WatchSnapshotsResponse())
    made.only_for_some = words
    return made  # type: ignore[no-any-return]


async def test_a_control_plane_counts_what_a_later_node_reports(tmp_path: Path) -> None:
    """New fields, outcomes, endpoints and messages: every request is counted once, and the stream goes on."""
    async with running_control(tmp_path) as control, control.channel() as channel:
        call = channel.stream_stream(
            "/ccr.rpc.v1.UsageService/ReportUsage", bytes, usage_pb2.ReportUsageResponse.FromString
        )()
        hello = usage_pb2.ReporterHello(node_id="test/worker-0", instance_id="instance-1")
        await call.write(usage_pb2.ReportUsageRequest(hello=hello).SerializeToString())
        new = later("ReportUsageRequest", usage_pb2.ReportUsageRequest())
        new.only_for_some = "a new message"
        await call.write(new.SerializeToString())
        odd = record(outcome=FIRST_NEW, endpoint=FIRST_NEW)
        made = later("ReportUsageRequest", usage_pb2.ReportUsageRequest(batch=batch(1, record(), odd)))
        for one in every_message(made.batch):
            one.only_for_some = "a thing of the future"
        await call.write(made.SerializeToString())
        async with asyncio.timeout(10):
            assert (await call.read()).acknowledged == 1
        call.cancel()

        watch = channel.stream_stream(
            "/ccr.rpc.v1.SnapshotService/WatchSnapshots", bytes, snapshot_pb2.WatchSnapshotsResponse.FromString
        )()
        greeting = snapshot_pb2.NodeHello(node_id="test/worker-0", instance_id="instance-1", software_version="9.0.0")
        await watch.write(snapshot_pb2.WatchSnapshotsRequest(hello=greeting).SerializeToString())
        async with asyncio.timeout(10):
            assert (await watch.read()).snapshot.version == 1
        new = later("WatchSnapshotsRequest", snapshot_pb2.WatchSnapshotsRequest())
        new.only_for_some = "a new message"
        await watch.write(new.SerializeToString())
        accepted = snapshot_pb2.SnapshotAccepted(version=1)
        await watch.write(snapshot_pb2.WatchSnapshotsRequest(accepted=accepted).SerializeToString())
        await until(lambda: control.event("snapshot_accepted"), "the stream goes on")
        watch.cancel()
        assert requests(control.state_dir / "control.db") == 2


def requests(path: Path) -> int:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        return int(database.execute("SELECT sum(requests) FROM ledger").fetchone()[0])


def test_screens_show_a_type_of_provider_that_they_do_not_know() -> None:
    one = providers_pb2.ProviderStatus(name="new", type=FIRST_NEW)  # type: ignore[arg-type]
    assert provider_health(one).type == provider_type(FIRST_NEW) == str(FIRST_NEW)
