"""The node's end of the watch stream: each snapshot is checked, served and accepted, or rejected with the reason.

Versions never go back. While the control plane is away the node serves what it has. In between it is asked where requests would go,
and may be told to end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from ccr_rpc.v1 import snapshot_pb2
from google.protobuf.message import DecodeError

from ccr_data.core.errors import SnapshotInvalid
from ccr_data.core.node import NodeIdentity
from ccr_data.core.snapshot import Snapshot
from ccr_data.shell.asking import Answer, Question, understood
from ccr_data.shell.control_link import PATIENT, FindControl, Link, LinkLost, LinkPolicy, read, stay_connected, write
from ccr_data.shell.logs import Log
from ccr_data.shell.store import Offer, SnapshotStore, offered_message
from ccr_data.shell.wire import Parts

WATCH_METHOD = "/ccr.rpc.v1.SnapshotService/WatchSnapshots"
PARSED_ON_LOOP_BYTES = 4 << 10  # takes a few hundred microseconds; larger ones would hold up streams

log = Log("snapshot")


@dataclass(frozen=True, slots=True)
class Refused:
    """A snapshot that must not be served."""

    version: int
    reason: str


@dataclass(frozen=True, slots=True)
class DrainAsked:
    """The node is to finish its requests and end."""


Heard = Offer | Refused | Question | DrainAsked | None
"""What a message of the control plane brings; None: a heartbeat."""


async def follow_snapshots(
    find_control: FindControl,
    node: NodeIdentity,
    store: SnapshotStore,
    policy: LinkPolicy = PATIENT,
    answer: Answer | None = None,
    drain: Callable[[], None] = lambda: None,
) -> None:
    """Keep `store` at the newest snapshot, in memory and on disk. Ends only when cancelled.

    `answer` knows where requests would go; without it questions stay unanswered. `drain` is called if the node is to end.
    """
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(store.keep_saved(), name="snapshot on disk")
        await stay_connected("snapshots", find_control, partial(_watch, node, store, policy, answer, drain), policy)


async def _watch(
    node: NodeIdentity,
    store: SnapshotStore,
    policy: LinkPolicy,
    answer: Answer | None,
    drain: Callable[[], None],
    link: Link,
) -> None:
    """Take snapshots from one stream. Raises LinkLost, TimeoutError or AioRpcError when it ends."""
    parts = Parts()
    async with link.stream(WATCH_METHOD) as call:
        await write(call, _hello(node, store.version), policy.silence_s)
        while True:
            async with asyncio.timeout(policy.silence_s):
                message = await read(call)
            heard = await _understood(message, parts, store.current)
            link.say_alive()
            if isinstance(heard, Question):
                if answer is not None:
                    said = snapshot_pb2.WatchSnapshotsRequest(answer=answer(heard))
                    await write(call, said.SerializeToString(), policy.silence_s)
            elif isinstance(heard, DrainAsked):
                log.info("drain_asked")
                drain()
            elif heard is not None:
                await write(call, _take(store, heard), policy.silence_s)


async def _understood(message: bytes, parts: Parts, served: Snapshot | None) -> Heard:
    if len(message) > PARSED_ON_LOOP_BYTES:
        return await asyncio.to_thread(_parsed, message, parts, served)
    return _parsed(message, parts, served)


def _parsed(message: bytes, parts: Parts, served: Snapshot | None) -> Heard:
    """What a message brings; a snapshot with all made that requests need of it. Raises LinkLost if it cannot be told."""
    try:
        response = snapshot_pb2.WatchSnapshotsResponse.FromString(message)
    except DecodeError:
        raise LinkLost("the control plane sent something that is not in the contract") from None
    if response.WhichOneof("message") == "question":
        return understood(response.question)
    if response.WhichOneof("message") == "drain":
        return DrainAsked()
    if response.WhichOneof("message") != "snapshot":
        return None  # also what a newer control plane may say
    try:
        offer = offered_message(response.snapshot, parts)
    except SnapshotInvalid as error:
        return Refused(response.snapshot.version, str(error))
    if served is not None:
        offer.snapshot.warm(served)
    return offer


def _take(store: SnapshotStore, heard: Offer | Refused) -> bytes:
    """Serve a snapshot if it may be served. Returns the answer to the control plane."""
    match heard:
        case Refused(version, reason):
            return _reject(store, version, reason)
        case Offer(snapshot, _, digest) if snapshot.version == store.version:
            if digest != store.digest:
                return _reject(
                    store, snapshot.version, "this node serves a snapshot of that version with other content"
                )
        case Offer(snapshot) if snapshot.version < store.version:
            return _reject(store, snapshot.version, f"it is older than version {store.version}, which this node serves")
        case Offer(snapshot):
            before = store.version
            store.swap(heard)
            log.info("snapshot_served", version=snapshot.version, version_before=before)
    accepted = snapshot_pb2.SnapshotAccepted(version=store.version)
    return snapshot_pb2.WatchSnapshotsRequest(accepted=accepted).SerializeToString()


def _reject(store: SnapshotStore, version: int, reason: str) -> bytes:
    log.error("snapshot_rejected", version=version, reason=reason, served_version=store.version)
    rejected = snapshot_pb2.SnapshotRejected(version=version, reason=reason)
    return snapshot_pb2.WatchSnapshotsRequest(rejected=rejected).SerializeToString()


def _hello(node: NodeIdentity, served_version: int) -> bytes:
    hello = snapshot_pb2.NodeHello(
        node_id=node.node_id,
        instance_id=node.instance_id,
        software_version=node.software_version,
        pid=node.pid,
        served_version=served_version,
    )
    return snapshot_pb2.WatchSnapshotsRequest(hello=hello).SerializeToString()
