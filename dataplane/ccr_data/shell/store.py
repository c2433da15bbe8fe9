"""The node's snapshot: in memory for every request, on disk for a start without the control plane.

The file is a header (magic with the format's version, SHA-256 of the rest) and the snapshot as it came. A file that
was torn, damaged, or made for another version of this software is noticed and not served.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from ccr_rpc.v1 import snapshot_pb2

from ccr_data.core.errors import SnapshotInvalid
from ccr_data.core.snapshot import Snapshot
from ccr_data.shell.logs import Log
from ccr_data.shell.node_dir import NodeDir, make_private, replace_file
from ccr_data.shell.wire import Parts, parse_snapshot, to_snapshot

MAGIC = b"ccr-snapshot 1\n"
MAX_FILE_BYTES = 64 << 20

log = Log("snapshot")


@dataclass(frozen=True, slots=True)
class Offer:
    """A checked snapshot, and the bytes it came as."""

    snapshot: Snapshot
    wire: bytes = field(repr=False)
    digest: bytes = field(repr=False)  # SHA-256 of `wire`


class SnapshotStore:
    """Holds the newest accepted snapshot. `current` is None until there is one."""

    def __init__(self, directory: NodeDir) -> None:
        self.current: Snapshot | None = None
        self.digest = b""  # of the bytes that `current` came as
        self._directory = directory
        self._ready = asyncio.Event()
        self._unsaved: Offer | None = None
        self._has_unsaved = asyncio.Event()

    @property
    def version(self) -> int:
        """The version served; 0: none."""
        return self.current.version if self.current is not None else 0

    async def load(self) -> bool:
        """Serve the copy on disk if there is a sound one; returns whether there was. To be called before any swap."""
        try:
            offer = await asyncio.to_thread(read_snapshot, self._directory.snapshot)
        except FileNotFoundError:
            return False
        except (OSError, SnapshotInvalid) as error:
            log.warning("snapshot_copy_ignored", path=str(self._directory.snapshot), reason=str(error))
            return False
        self._serve(offer)
        log.info("snapshot_loaded", version=self.version, path=str(self._directory.snapshot))
        return True

    def swap(self, offer: Offer) -> None:
        """Serve this snapshot for every request that begins from now on. It reaches the disk later (`keep_saved`)."""
        assert offer.snapshot.version > self.version, "snapshots never go back"
        self._serve(offer)
        self._unsaved = offer
        self._has_unsaved.set()

    def _serve(self, offer: Offer) -> None:
        self.current = offer.snapshot
        self.digest = offer.digest
        self._ready.set()

    async def wait_ready(self) -> Snapshot:
        """The current snapshot as soon as there is one. The caller bounds the wait."""
        await self._ready.wait()
        assert self.current is not None
        return self.current

    async def keep_saved(self) -> None:
        """Write each snapshot to the disk, off the loop; of several that came meanwhile the newest. Never returns."""
        while True:
            await self._has_unsaved.wait()
            self._has_unsaved.clear()
            offer, self._unsaved = self._unsaved, None
            if offer is None:
                continue
            try:
                await asyncio.to_thread(write_snapshot, self._directory, offer)
            except OSError as error:
                log.warning(
                    "snapshot_not_saved",
                    version=offer.snapshot.version,
                    path=str(self._directory.snapshot),
                    reason=error.strerror or str(error),
                    consequence="a start without the control plane would serve an older version, or none",
                )


def offered(wire: bytes) -> Offer:
    """A snapshot in serialised form, checked. Raises SnapshotInvalid."""
    return Offer(parse_snapshot(wire), wire, sha256(wire).digest())


def offered_message(message: snapshot_pb2.Snapshot, known: Parts) -> Offer:
    """A snapshot that came as a message, checked. Raises SnapshotInvalid."""
    wire = message.SerializeToString()
    try:
        snapshot = to_snapshot(message, known)
    finally:
        known.forget_others(message)
    return Offer(snapshot, wire, sha256(wire).digest())


def read_snapshot(path: Path) -> Offer:
    """The snapshot in a file. Raises FileNotFoundError, OSError, or SnapshotInvalid if it must not be served."""
    with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW), "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
            raise SnapshotInvalid("others could have written it")
        data = file.read(MAX_FILE_BYTES + 1)
    header_bytes = len(MAGIC) + 32
    if not data.startswith(MAGIC):
        raise SnapshotInvalid("it is not a snapshot of this format")
    digest, wire = data[len(MAGIC) : header_bytes], data[header_bytes:]
    if len(digest) < 32 or sha256(wire).digest() != digest:
        raise SnapshotInvalid("it is damaged: its checksum does not fit")
    return offered(wire)


def write_snapshot(directory: NodeDir, offer: Offer) -> None:
    """Replace the copy on disk. Raises OSError, and leaves the older copy then."""
    make_private(directory.path, directory.state_dir)
    descriptor = replace_file(directory.snapshot, [MAGIC, offer.digest, offer.wire])
    with contextlib.suppress(OSError):
        os.close(descriptor)
