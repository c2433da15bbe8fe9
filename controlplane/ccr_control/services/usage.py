"""UsageService: takes numbered batches, has them counted, acknowledges what is kept."""

# ruff: noqa: N802 - names and arguments of handlers are the contract's

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import NoReturn, Protocol, TypeAlias

import grpc
import grpc.aio
from ccr_rpc.v1 import usage_pb2, usage_pb2_grpc

from ccr_control.core.fleet import Fleet
from ccr_control.core.health import Evidence
from ccr_control.core.ledger import Duplicate, Finished, Gap, Sums, fold_detail, without_detail
from ccr_control.core.recent import Recent
from ccr_control.core.sightings import Sighting, Sightings
from ccr_control.core.spending import Spent
from ccr_control.core.stats import Stats
from ccr_control.core.unknowns import UnknownName
from ccr_control.services.evidence import evidence_of
from ccr_control.services.opening import ContractBroken, checked_name, first_request, refuse
from ccr_control.services.record_wire import note
from ccr_control.services.wire import Pricing, finished, folded, sighting, status, unpriced
from ccr_control.shell.access import require_node
from ccr_control.shell.log import Log
from ccr_control.store.database import Batch, Counted, Verdict

Requests = AsyncIterator[usage_pb2.ReportUsageRequest]
# A string, because it is generic for type checkers only.
Context: TypeAlias = "grpc.aio.ServicerContext[usage_pb2.ReportUsageRequest, usage_pb2.ReportUsageResponse]"

log = Log("usage")


Heard = Callable[[str, int, list[Evidence]], None]
Sighted = Callable[[str, str, Sighting], None]
LeasesFor = Callable[[str, str, usage_pb2.UsageBatch], list[usage_pb2.Lease]]


class Ledger(Protocol):
    """The part of the store that this service needs."""

    async def count(self, batch: Batch, counted: Callable[[], None]) -> Verdict:
        """Count a batch and wait until it is kept; `counted` is called then, even if nobody waits any more."""


class UsageServicer(usage_pb2_grpc.UsageServiceServicer):
    """One usage stream for each node."""

    def __init__(
        self,
        ledger: Ledger,
        stats: Stats,
        fleet: Fleet,
        sightings: Sightings,
        now: Callable[[], float],
        heard: Heard = lambda *_: None,
        recent: Recent | None = None,
        leases_for: LeasesFor = lambda *_: [],
        sighted: Sighted = lambda *_: None,
        costs: Callable[[Sums], Spent] = lambda _: {},
        note_spent: Callable[[Spent], None] = lambda _: None,
        pricing: Pricing = unpriced,
        arrived: Callable[[], None] = lambda: None,
        unknown: Callable[[UnknownName, int], None] = lambda *_: None,
    ) -> None:
        """`heard` gets what each batch, by journal and number, says about the providers' health, at once.

        `sighted` gets the rate-limit headers of each key.

        `leases_for` gets a node, its instance and its batch, and says which leases to answer.

        `pricing` prices requests. `costs` says what clients spend by the sums of a batch; `note_spent` gets what it said
        once the batch is kept. `arrived` is called when there are new records, `unknown` for names that nodes do not know.
        """
        self._pricing, self._arrived, self._unknown = pricing, arrived, unknown
        self._costs, self._note_spent = costs, note_spent
        self._leases_for, self._sighted = leases_for, sighted
        self._recent = recent if recent is not None else Recent()
        self._ledger, self._stats, self._fleet, self._sightings, self._now = ledger, stats, fleet, sightings, now
        self._heard = heard

    async def ReportUsage(self, request_iterator: Requests, context: Context) -> None:  # type: ignore[override]  # it writes
        """Count batch after batch, until the node hangs up."""
        try:
            hello = await _read_hello(request_iterator)
            if hello is None:
                return
            node_id = hello.node_id
            async for request in request_iterator:
                if request.WhichOneof("message") is None:
                    continue  # what a newer node may say
                batch = _checked(request)
                match await self._take(node_id, batch):
                    case Counted():
                        acknowledged = batch.number
                    case Duplicate(acknowledged):
                        log.info("usage_duplicate", node=node_id, journal=batch.journal, number=batch.number)
                    case Gap(expected):
                        await _end_at_gap(context, node_id, batch, expected)
                leases = self._leases_for(node_id, hello.instance_id, batch)
                await context.write(
                    usage_pb2.ReportUsageResponse(journal=batch.journal, acknowledged=acknowledged, leases=leases)
                )
        except ContractBroken as error:
            await refuse(context, error)

    async def _take(self, node_id: str, batch: usage_pb2.UsageBatch) -> Verdict:
        """Have a batch counted; wait until it is kept."""
        self._heard(batch.journal, batch.number, evidence_of(batch))  # circuits do not wait for a disk
        requests = [finished(record, self._pricing) for record in batch.records]
        self._note_now(node_id, batch, requests)
        parts = [folded(part, self._pricing) for part in batch.sums]
        detail = fold_detail(requests, parts)
        sums = without_detail(detail)
        spent = self._costs(sums)

        def counted() -> None:
            self._stats.count(requests, sums, self._now(), parts)
            self._note_spent(spent)
            for seen in batch.unknowns:
                self._unknown(UnknownName(seen.kind, seen.name, seen.said_by), seen.count)

        return await self._ledger.count(Batch(batch.journal, batch.number, sums, spent, detail), counted)

    def _note_now(self, node_id: str, batch: usage_pb2.UsageBatch, requests: Sequence[Finished]) -> None:
        """What is news whether or not the batch was counted before."""
        for record, request in zip(batch.records, requests, strict=True):
            note(self._recent, node_id, record, request)
        if requests:
            self._arrived()
        if batch.HasField("status"):
            self._fleet.reported(node_id, status(batch.status), self._now())
        for seen in batch.rate_limits:
            found = sighting(seen)
            self._sightings.note(seen.provider, seen.key_label, found)
            self._sighted(seen.provider, seen.key_label, found)


def _checked(request: usage_pb2.ReportUsageRequest) -> usage_pb2.UsageBatch:
    """The batch that the request carries. Raises ContractBroken."""
    if request.WhichOneof("message") != "batch":
        raise ContractBroken("after the hello every request is a batch")
    checked_name("journal", request.batch.journal)
    if request.batch.number < 1:
        raise ContractBroken("batches are numbered from 1")
    return request.batch


async def _end_at_gap(context: Context, node_id: str, batch: usage_pb2.UsageBatch, expected: int) -> NoReturn:
    """End the call: the node has to begin again with the number that is missing."""
    log.warning("usage_gap", node=node_id, journal=batch.journal, expected_number=expected, number=batch.number)
    await context.abort(
        grpc.StatusCode.FAILED_PRECONDITION,
        f"journal {batch.journal}: expected number {expected}, got {batch.number}",
    )


async def _read_hello(requests: Requests) -> usage_pb2.ReporterHello | None:
    """Who reports; None if nobody does. Raises ContractBroken, or Forbidden if it may not be that node."""
    request = await first_request(requests)
    if request is None:
        return None
    if request.WhichOneof("message") != "hello":
        raise ContractBroken("the first request must be a hello")
    require_node(checked_name("node_id", request.hello.node_id))
    return request.hello
