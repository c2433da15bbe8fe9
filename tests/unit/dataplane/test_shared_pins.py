"""Workers of a machine know where each other's sessions live, and so does the next worker."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from time import perf_counter

import pytest
from ccr_data.core.handover import Handovers
from ccr_data.core.pins import Pins
from ccr_data.shell import shared_pins
from ccr_data.shell.shared_pins import SharedPins, salt


class Worker:
    def __init__(self, state: Path, name: str) -> None:
        salt(state)
        self.pins, self.handovers = Pins(), Handovers()
        self.shared = SharedPins(state, name, self.pins, self.handovers)
        self.log = state / "pins" / f"{name}.log"

    def put(self, session: bytes, provider: str) -> None:
        self.pins.put(session, provider, "k", perf_counter(), "anthropic")

    def where(self, session: bytes) -> str | None:
        pin = self.pins.of(session, perf_counter())
        return pin.provider if pin else None

    async def tell(self) -> None:
        """One round, as it happens a few times a second."""
        task = asyncio.create_task(self.shared.run())
        await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def started(state: Path, name: str) -> Worker:
    worker = Worker(state, name)
    await worker.shared.load()
    return worker


async def test_a_worker_that_starts_again_knows_its_sessions(tmp_path: Path) -> None:
    first = await started(tmp_path, "worker-0")
    first.put(b"s1", "a")
    first.handovers.moves(b"s1", [b"m" * 8], "anthropic/x/y")
    await first.tell()
    again = await started(tmp_path, "worker-0")

    assert again.where(b"s1") == "a"
    assert again.pins.home(b"s1").reader == "anthropic"  # type: ignore[union-attr]
    assert again.handovers.foreign(b"s1", "anthropic") == {b"m" * 8}


async def test_the_newest_note_counts(tmp_path: Path) -> None:
    """Whichever worker wrote it, and in whatever order the logs are read."""
    first, second = await started(tmp_path, "worker-0"), await started(tmp_path, "worker-1")
    first.put(b"s1", "old")
    await first.tell()
    second.put(b"s1", "new")
    await second.tell()
    await first.shared.load()

    assert first.where(b"s1") == "new"
    assert (await started(tmp_path, "worker-2")).where(b"s1") == "new"


async def test_a_log_that_cannot_be_read_keeps_no_other_back(tmp_path: Path) -> None:
    """Neither what others noted, nor what is noted here from then on."""
    other, worker = await started(tmp_path, "worker-9"), await started(tmp_path, "worker-1")
    (tmp_path / "pins" / "alien.log").mkdir()
    for name in ("a", "b"):
        worker.put(name.encode(), name)
        other.put(b"o" + name.encode(), name)
        for one in (other, worker, worker):
            news = one.shared._news()
            one.shared._exchange(news)
            one.shared._learn(news.notes)
    late = await started(tmp_path, "worker-5")

    assert [worker.where(session) for session in (b"oa", b"ob")] == ["a", "b"]
    assert [late.where(session) for session in (b"a", b"b", b"oa", b"ob")] == ["a", "b", "a", "b"]


async def test_a_line_that_was_cut_off_costs_only_itself(tmp_path: Path) -> None:
    first = await started(tmp_path, "worker-0")
    first.put(b"s1", "a")
    first.put(b"s2", "b")
    await first.tell()
    first.log.write_bytes(first.log.read_bytes()[:-9])
    again = await started(tmp_path, "worker-0")
    again.put(b"s3", "c")
    await again.tell()
    third = await started(tmp_path, "worker-0")

    assert [third.where(session) for session in (b"s1", b"s2", b"s3")] == ["a", None, "c"]


async def test_a_long_log_is_written_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_pins, "MAX_LOG_BYTES", 2000)
    first, second = await started(tmp_path, "worker-0"), await started(tmp_path, "worker-1")
    for turn in range(100):
        first.put(b"s1", f"p{turn}")
        await first.tell()
    await second.shared.load()

    assert second.where(b"s1") == "p99"
    assert first.log.stat().st_size < 3000


async def test_without_a_place_to_write_serving_goes_on(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    worker = await started(tmp_path / "file", "worker-0")
    worker.put(b"s1", "a")
    await worker.tell()

    assert worker.where(b"s1") == "a"


def test_the_salt_is_of_the_installation(tmp_path: Path) -> None:
    """Names of sessions can be compared between workers, and with nothing else."""
    assert salt(tmp_path) == salt(tmp_path)
    assert salt(tmp_path) != salt(tmp_path / "other")
    assert (tmp_path / "pins" / "salt").stat().st_mode & 0o777 == 0o600
