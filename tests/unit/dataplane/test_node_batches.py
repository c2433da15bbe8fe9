"""Numbered batches: what the machine in tests/property does not reach, and how they look on the wire."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ccr_data.core.amounts import NO_LIMITS
from ccr_data.core.batches import Journal, Limits, Waiting
from ccr_data.core.budget import BudgetUse
from ccr_data.core.node import NodeStatus
from ccr_data.core.records import RateLimitSighting
from ccr_data.shell.lanes import FEW_BUDGETS, OwnLane
from ccr_data.shell.node_dir import NodeDir
from ccr_data.shell.slices import SLICE_S
from ccr_data.shell.spool import Spool
from ccr_data.shell.usage_wire import UsageEncoder, batch_request, journal_of, journal_suffix, status_suffix
from ccr_rpc.v1 import usage_pb2
from support.node_values import STARTED_AT_S, record


def waiting(*numbers: int) -> Waiting[str]:
    batches: Waiting[str] = Waiting("j")
    for number in numbers:
        batches.add(number, f"batch {number}")
    return batches


def sealed(journal: Journal) -> usage_pb2.UsageBatch:
    batch = journal.seal(1.0)
    assert batch is not None
    return usage_pb2.UsageBatch.FromString(batch.payload)


# what the control plane expects


def test_a_gap_is_closed_from_the_number_that_is_named() -> None:
    """The batch was lost on the way; it is still here."""
    batches = waiting(5, 6, 7)

    assert batches.resume_at(6) == ["batch 5"]

    assert batches.after(batches.acknowledged) == (6, "batch 6")
    assert batches.sent_as == "j"


def test_a_number_that_is_gone_begins_another_journal() -> None:
    """The control plane's store is older than its acknowledgements: what is left must not wait for ever."""
    batches = waiting(5, 6)

    assert batches.resume_at(3) == []

    assert batches.sent_as == "j.3"
    assert batches.after(batches.acknowledged) == (5, "batch 5")


def test_a_number_that_never_was_begins_another_journal() -> None:
    batches = waiting(5, 6)

    batches.resume_at(9)

    assert batches.sent_as == "j.9"
    assert len(batches) == 2


def test_an_acknowledgement_of_what_was_never_sealed_is_not_believed() -> None:
    journal = Journal("j", UsageEncoder())
    journal.note([record("a")])
    sealed(journal)

    journal.ack(2)
    journal.ack(0)

    assert len(journal.waiting) == 1


def test_a_dead_process_may_have_delivered_more_than_it_left_on_disk() -> None:
    """Its last batches were too young for the disk, and arrived."""
    batches = waiting(1, 2)

    assert batches.ack(7) == ["batch 1", "batch 2"]
    assert len(batches) == 0


# bounds


def test_beyond_the_limit_requests_are_folded_and_told_apart_again_when_there_is_room() -> None:
    """A long absence of the control plane costs detail, neither memory nor counts."""
    journal = Journal("j", UsageEncoder(), Limits(records=2))
    journal.note([record("a"), record("b")])
    assert [one.request_id for one in sealed(journal).records] == ["a", "b"]

    journal.note([record("c")])
    journal.note([record("d")])
    assert journal.seal(1.0) is None

    journal.ack(1)
    batch = sealed(journal)
    assert not batch.records
    assert [(part.requests, part.served, part.tokens.input) for part in batch.sums] == [(2, 2, 10240)]
    assert batch.sums[0].hour.seconds == STARTED_AT_S // 3600 * 3600
    journal.ack(2)
    journal.note([record("e")])
    assert [one.request_id for one in sealed(journal).records] == ["e"]


def test_the_limit_in_bytes_folds_too() -> None:
    journal = Journal("j", UsageEncoder(), Limits(payload_bytes=100))
    journal.note([record("a")])

    assert journal.is_full


# on the wire


def test_a_batch_holds_the_newest_sighting_of_each_key() -> None:
    journal = Journal("j", UsageEncoder())
    for at in (1.0, 2.0):
        journal.sight(RateLimitSighting("p", "k", at, 200, {"retry-after": str(at)}))
    journal.sight(RateLimitSighting("p", "l", 3.0, 429, {}))

    seen = {one.key_label: one for one in sealed(journal).rate_limits}

    assert seen["k"].headers == {"retry-after": "2.0"}
    assert seen["l"].status == 429


def test_suffixes_add_to_a_batch_without_parsing_it() -> None:
    """A batch's bytes never change once it has a number; status and another name are appended."""
    journal = Journal("j", UsageEncoder())
    journal.note([record("a")] * 500)
    batch = journal.seal(1.0)
    assert batch is not None

    suffix = journal_suffix("j.7") + status_suffix(NodeStatus(open_requests=3), 10, 20)
    request = usage_pb2.ReportUsageRequest.FromString(batch_request(batch.payload, suffix))

    assert (request.batch.journal, request.batch.number, len(request.batch.records)) == ("j.7", 1, 500)
    assert (request.batch.status.open_requests, request.batch.status.spooled_bytes) == (3, 10)
    assert journal_of(batch.payload, 1) == "j"
    assert journal_of(batch.payload, 2) is None
    assert journal_of(b"\xff", 1) is None


@pytest.mark.parametrize("count", [FEW_BUDGETS, FEW_BUDGETS + 1])
async def test_a_status_with_many_budgets_is_written_beside_the_streams(tmp_path: Path, count: int) -> None:
    """A thousand take as long as a hundred requests."""
    journal = Journal("j", UsageEncoder())
    journal.seal(1.0, even_if_empty=True)
    uses = tuple(BudgetUse(("p", f"s{n}"), "", NO_LIMITS, NO_LIMITS, NO_LIMITS, n, 0) for n in range(count))
    lane = OwnLane(journal, Spool(NodeDir(tmp_path, "n"), "j"), lambda: NodeStatus(budgets=uses), tuple)

    sending = asyncio.create_task(lane.next_request(0))
    await asyncio.sleep(0)
    assert sending.done() == (count <= FEW_BUDGETS)

    found = await sending
    assert found is not None
    batch = usage_pb2.ReportUsageRequest.FromString(found[1]).batch
    assert [use.asked for use in batch.budgets] == [*range(count)]


async def test_many_budgets_are_looked_at_in_turns_with_the_streams(tmp_path: Path) -> None:
    """The same is told as if all had been looked at in one go, also of one that finishes while it is told."""
    journal = Journal("j", UsageEncoder())
    journal.seal(1.0, even_if_empty=True)
    turns = []

    def uses() -> Iterator[BudgetUse]:
        for n in range(5):
            time.sleep(SLICE_S)  # each takes as long as a slice may
            turns.append(others)
            yield BudgetUse(("p", f"s{n}"), "", NO_LIMITS, NO_LIMITS, NO_LIMITS, n, 0)

    others = 0
    lane = OwnLane(journal, Spool(NodeDir(tmp_path, "n"), "j"), NodeStatus, tuple, uses)
    sending = asyncio.create_task(lane.next_request(0))
    while not sending.done():
        await asyncio.sleep(0)
        others += 1
    found = sending.result()
    assert found is not None
    batch = usage_pb2.ReportUsageRequest.FromString(found[1]).batch
    assert [use.asked for use in batch.budgets] == [*range(5)]
    assert turns == sorted(set(turns)), "others had a turn before each"


async def test_only_who_has_the_place_speaks_for_the_node(tmp_path: Path) -> None:
    """What two workers of one name say would be taken for one that goes back and forth."""
    journal = Journal("j", UsageEncoder())
    journal.seal(1.0, even_if_empty=True)
    has_place = [False]
    lane = OwnLane(journal, Spool(NodeDir(tmp_path, "n"), "j"), NodeStatus, tuple, has_place=lambda: has_place[0])
    assert not lane.is_status_news(0.0)
    found = await lane.next_request(0)
    assert found is not None
    assert not usage_pb2.ReportUsageRequest.FromString(found[1]).batch.HasField("status")
    has_place[0] = True
    assert lane.is_status_news(0.0)
    found = await lane.next_request(0)
    assert found is not None
    assert usage_pb2.ReportUsageRequest.FromString(found[1]).batch.HasField("status")
