"""The snapshot on disk: served after a restart if it is sound, and never otherwise."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from ccr_data.core.errors import SnapshotInvalid
from ccr_data.shell.node_dir import NodeDir, make_private
from ccr_data.shell.store import SnapshotStore, offered, read_snapshot, write_snapshot
from support.node_values import snapshot_message

WIRE = snapshot_message(7).SerializeToString()


@pytest.fixture
def directory(tmp_path: Path) -> NodeDir:
    return NodeDir(tmp_path / "state", "worker-0")


@pytest.fixture
def saved(directory: NodeDir) -> Path:
    write_snapshot(directory, offered(WIRE))
    return directory.snapshot


async def test_a_node_starts_with_the_snapshot_that_it_served_last(directory: NodeDir, saved: Path) -> None:
    store = SnapshotStore(directory)

    assert await store.load()

    assert store.version == 7
    assert (await store.wait_ready()) is store.current
    assert store.digest == offered(WIRE).digest


async def test_without_a_copy_a_node_waits(directory: NodeDir) -> None:
    store = SnapshotStore(directory)

    assert not await store.load()
    assert store.current is None


def test_others_cannot_read_it(directory: NodeDir, saved: Path) -> None:
    """It holds the providers' keys."""
    os.umask(os.umask(0))  # whatever the user's umask is
    assert stat.S_IMODE(saved.stat().st_mode) == 0o600
    for path in (saved.parent, saved.parent.parent):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert sorted(path.name for path in saved.parent.iterdir()) == ["snapshot.pb"]


def test_a_torn_file_is_refused_wherever_it_was_torn(saved: Path) -> None:
    whole = saved.read_bytes()
    for length in range(len(whole)):
        saved.write_bytes(whole[:length])
        with pytest.raises(SnapshotInvalid):
            read_snapshot(saved)


def test_a_changed_byte_is_noticed_wherever_it_is(saved: Path) -> None:
    whole = saved.read_bytes()
    for place in range(len(whole)):
        saved.write_bytes(whole[:place] + bytes([whole[place] ^ 0x20]) + whole[place + 1 :])
        with pytest.raises(SnapshotInvalid):
            read_snapshot(saved)


def test_a_file_that_others_could_have_written_is_refused(saved: Path) -> None:
    """Whoever writes it decides where the keys go."""
    saved.chmod(0o622)

    with pytest.raises(SnapshotInvalid, match="others"):
        read_snapshot(saved)


def test_a_link_is_not_followed(saved: Path) -> None:
    saved.rename(saved.with_name("elsewhere"))
    saved.symlink_to(saved.with_name("elsewhere"))

    with pytest.raises(OSError, match="symbolic links"):
        read_snapshot(saved)


async def test_a_sound_file_with_an_unfit_snapshot_is_not_served(directory: NodeDir, saved: Path) -> None:
    """Another version of this software may have accepted what this one would not."""
    message = snapshot_message(8)
    sound = offered(message.SerializeToString())
    message.ClearField("routes")
    wire = message.SerializeToString()
    unfit = type(sound)(sound.snapshot, wire, __import__("hashlib").sha256(wire).digest())
    write_snapshot(directory, unfit)
    store = SnapshotStore(directory)

    assert not await store.load()
    assert store.current is None


def test_a_failed_save_leaves_the_older_copy(directory: NodeDir, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk may be full."""

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_snapshot(directory, offered(snapshot_message(8).SerializeToString()))

    assert read_snapshot(saved).snapshot.version == 7
    assert [path.name for path in saved.parent.iterdir()] == ["snapshot.pb"]


def test_versions_never_go_back(directory: NodeDir) -> None:
    store = SnapshotStore(directory)
    store.swap(offered(WIRE))

    with pytest.raises(AssertionError):
        store.swap(offered(snapshot_message(6).SerializeToString()))


@pytest.mark.parametrize("name", ["", "..", "a/b", ".hidden", "a\n", "x" * 101])
def test_a_node_name_cannot_leave_its_directory(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="node name"):
        NodeDir(tmp_path, name)


def test_only_what_is_below_the_state_directory_is_made(tmp_path: Path) -> None:
    state = tmp_path / "state"
    make_private(state / "a" / "b", state)

    assert all(stat.S_IMODE(path.stat().st_mode) == 0o700 for path in (state, state / "a", state / "a" / "b"))
