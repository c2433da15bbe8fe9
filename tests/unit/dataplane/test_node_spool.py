"""Spools: written by one process, found and delivered by another when it is dead."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from ccr_data.core.batches import Batch, Draft, Unspooled
from ccr_data.shell.node_dir import NodeDir
from ccr_data.shell.spool import Adoption, Orphan, Spool, adopt_orphans
from ccr_data.shell.usage_wire import UsageEncoder
from support.node_values import record


def batch(number: int, name: str = "", journal: str = "j") -> Batch:
    encoder = UsageEncoder()
    payload = encoder.head(journal, number) + encoder.records([record(name or f"r{number}")])
    return Batch(number, payload, 1, 0.0)


def unspooled(*batches: Batch, draft: Batch | None = None) -> Unspooled:
    return Unspooled(batches, Draft(draft.number, draft.payload, 1) if draft else None)


def contents(orphan: Orphan) -> list[tuple[str, int, bytes]]:
    numbered = []
    number = 0
    while (found := orphan.waiting.after(number)) is not None:
        number, span = found
        numbered.append((orphan.waiting.journal, number, orphan.payload(span)))
    return numbered


@pytest.fixture
def directory(tmp_path: Path) -> NodeDir:
    return NodeDir(tmp_path / "state", "worker-0")


@pytest.fixture
def spool(directory: NodeDir) -> Spool:
    return Spool(directory, "j")


def written(spool: Spool, *batches: Batch) -> None:
    spool.write(unspooled(*batches), unspooled(*batches))


def test_a_dead_process_s_batches_are_found_whatever_its_name_was(directory: NodeDir, spool: Spool) -> None:
    written(spool, batch(3), batch(4))
    spool.close()

    [orphan] = adopt_orphans(NodeDir(directory.state_dir, "worker-7"))

    assert contents(orphan) == [("j", 3, batch(3).payload), ("j", 4, batch(4).payload)]
    orphan.remove()
    assert not spool.path.exists()


def test_a_living_process_keeps_its_spool(directory: NodeDir, spool: Spool) -> None:
    """The lock decides, not the name or the age of the file."""
    written(spool, batch(1))

    assert adopt_orphans(directory) == []

    spool.close()
    [orphan] = adopt_orphans(directory)
    assert adopt_orphans(directory) == [], "nor do two processes deliver the same file"
    orphan.close()


def test_a_spool_replaced_by_a_smaller_one_is_locked_all_the_time(directory: NodeDir) -> None:
    spool = Spool(directory, "j", max_bytes=500)
    written(spool, batch(1), batch(2))
    spool.write(unspooled(batch(3)), unspooled(batch(3)))

    assert adopt_orphans(directory) == []
    assert spool.size_bytes == spool.path.stat().st_size < 500
    spool.close()
    [orphan] = adopt_orphans(directory)
    assert [number for _, number, _ in contents(orphan)] == [3]
    orphan.close()


def test_a_later_draft_and_at_last_the_batch_replace_what_they_were(directory: NodeDir, spool: Spool) -> None:
    written(spool, batch(1))
    for name in ("draft", "longer draft"):
        spool.write(unspooled(draft=batch(2, name)), unspooled())
    spool.write(unspooled(batch(2, "sealed"), batch(3)), unspooled())
    spool.close()

    [orphan] = adopt_orphans(directory)

    assert [payload for _, _, payload in contents(orphan)] == [
        batch(1).payload,
        batch(2, "sealed").payload,
        batch(3).payload,
    ]
    orphan.close()


def test_a_full_disk_leaves_no_half_frame_behind(
    directory: NodeDir, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written when there is room again must be readable."""
    written(spool, batch(1))
    real_write = os.write

    def takes_ten_bytes(descriptor: int, data: memoryview) -> int:
        if len(data) > 10:
            return real_write(descriptor, data[: len(data) - 10])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", takes_ten_bytes)
        with pytest.raises(OSError, match="No space"):
            written(spool, batch(2))
    written(spool, batch(2))
    spool.close()

    [orphan] = adopt_orphans(directory)
    assert [number for _, number, _ in contents(orphan)] == [1, 2]
    orphan.close()


def test_what_is_sound_of_a_damaged_spool_is_delivered(
    directory: NodeDir, spool: Spool, caplog: pytest.LogCaptureFixture
) -> None:
    written(spool, batch(1), batch(2), batch(3))
    spool.close()
    data = bytearray(spool.path.read_bytes())
    data[-20] ^= 1
    spool.path.write_bytes(data)

    [orphan] = adopt_orphans(directory)

    assert [number for _, number, _ in contents(orphan)] == [1, 2]
    assert "usage_spool_cut" in caplog.text
    orphan.close()


@pytest.mark.parametrize("content", [b"", b"ccr-spool 2\n", b"something else"])
def test_a_file_of_another_format_is_left_alone(directory: NodeDir, spool: Spool, content: bytes) -> None:
    """A newer version may have written it, and may come back."""
    spool.path.parent.mkdir(parents=True)
    spool.path.write_bytes(content)

    assert adopt_orphans(directory) == []
    assert spool.path.exists()


def test_a_spool_of_two_journals_is_trusted_up_to_the_second(directory: NodeDir, spool: Spool) -> None:
    written(spool, batch(1), batch(2, journal="another"))
    spool.close()

    [orphan] = adopt_orphans(directory)

    assert len(orphan.waiting) == 1
    orphan.close()


def test_the_oldest_spool_comes_first(directory: NodeDir) -> None:
    for age_s, journal in ((10, "newer"), (99, "older")):
        spool = Spool(directory, journal)
        written(spool, batch(1, journal=journal))
        os.utime(spool.path, (1e9 - age_s, 1e9 - age_s))
        spool.close()

    orphans = adopt_orphans(directory)

    assert [orphan.waiting.journal for orphan in orphans] == ["older", "newer"]
    for orphan in orphans:
        orphan.close()


def test_others_cannot_read_it(spool: Spool) -> None:
    written(spool, batch(1))

    assert stat.S_IMODE(spool.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(spool.path.parent.stat().st_mode) == 0o700
    spool.remove()
    assert list(spool.path.parent.iterdir()) == []


def test_what_is_left_later_is_found_at_the_next_look(directory: NodeDir, spool: Spool) -> None:
    """A worker that drains beside its successor may leave something when that has looked already."""
    adoption = Adoption(directory)
    assert adoption.look() == []

    written(spool, batch(1))
    spool.close()
    [orphan] = adoption.look()

    assert contents(orphan) == [("j", 1, batch(1).payload)]
    assert adoption.look() == [], "it is being delivered"
    orphan.remove()


def test_what_is_wrong_with_a_spool_is_told_once(directory: NodeDir, caplog: pytest.LogCaptureFixture) -> None:
    """A file of another format, and one that may not be read, at every look."""
    folder = directory.path / "spool"
    folder.mkdir(parents=True)
    (folder / "other.spool").write_bytes(b"something else")
    (folder / "directory.spool").mkdir()
    adoption = Adoption(directory)

    assert [adoption.look(), adoption.look()] == [[], []]

    assert caplog.text.count("usage_spool_unreadable") == 2
