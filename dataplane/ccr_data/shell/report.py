"""Tells the control plane what happened: takes records on the request path, hands over numbered batches beside it.

Three tasks share one journal, whose decisions are core/batches.py's: one collects and seals, one delivers
(shell/deliver.py), one keeps on disk what waits too long. None of them waits for another. What dead processes of
this machine left on disk is delivered on the same stream.

Lost with a killed process is at most what was noted in the last COLLECT_WITHIN_S, and, if the control plane went
away or hung in the second before (CUT_OFF_AFTER_S), what was on its way there.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence

from ccr_data.core.batches import LIMITS, Journal, Limits
from ccr_data.core.budget import Lease
from ccr_data.core.drift import UnknownName
from ccr_data.core.folding import Detail
from ccr_data.core.node import NodeIdentity, NodeStatus
from ccr_data.core.records import RateLimitSighting, Reason, Record
from ccr_data.shell.control_link import PATIENT, FindControl, LinkPolicy, stay_connected
from ccr_data.shell.deliver import Delivery
from ccr_data.shell.lanes import Budgets, CountOpen, OrphanLane, OwnLane
from ccr_data.shell.logs import Log
from ccr_data.shell.node_dir import NodeDir
from ccr_data.shell.spool import MAX_SPOOL_BYTES, Adoption, Spool
from ccr_data.shell.usage_wire import UsageEncoder

COLLECT_WITHIN_S = 0.25
URGENT_SPACING_S = 0.02  # failures come in crowds; the first is told at once
SLICE_RECORDS = 64  # well under a millisecond's work, then the streams have their turn
STATUS_EVERY_S = 5.0  # when there is nothing else to tell
SPOOL_EVERY_S = 0.25
SPOOL_RETRY_S = 5.0
ADOPT_EVERY_S = 5.0

log = Log("usage")


class Reporter:
    """Where a node's records go."""

    def __init__(
        self,
        node: NodeIdentity,
        directory: NodeDir,
        find_control: FindControl,
        *,
        journal: str,
        log_requests: Callable[[Sequence[Record]], None] = lambda _: None,
        status: Callable[[], NodeStatus] = NodeStatus,
        now_open: CountOpen = tuple,
        policy: LinkPolicy = PATIENT,
        limits: Limits = LIMITS,
        max_spool_bytes: int = MAX_SPOOL_BYTES,
        take_lease: Callable[[Lease], None] = lambda _: None,
        budgets: Budgets | None = None,
        has_place: Callable[[], bool] = lambda: True,
    ) -> None:
        """`journal` names this process's batches: random, unique for ever, fit for a file name.

        `now_open` is what `status` says of open requests by provider: a change of it is told within a second. `budgets` and
        `has_place` are as in shell/lanes.py.
        """
        self._directory = directory
        self._find_control = find_control
        self._log_requests = log_requests
        self._policy = policy
        self._noted: list[Record] = []
        self._loop: asyncio.AbstractEventLoop | None = None  # while it runs
        self._urgent = asyncio.Event()
        self._detail = Detail(limits.told_a_period)
        self._journal = Journal(journal, UsageEncoder(), limits)
        self._spool = Spool(directory, journal, max_spool_bytes)
        self._own_lane = OwnLane(self._journal, self._spool, status, now_open, budgets, has_place)

        def lease_came(lease: Lease) -> None:
            take_lease(lease)
            self.note_budgets_changed()

        self._delivery = Delivery(node, [self._own_lane], policy, lease_came, self.tell_status)
        self._sealed = asyncio.Event()  # there is a new batch
        self._disk = asyncio.Lock()
        self._is_disk_broken = False

    # --- called on the request path -----------------------------------------------------------------------------------

    def note(self, record: Record) -> None:
        """A request has finished, and nobody changes its record any more. Returns at once and never raises."""
        noted = self._noted
        noted.append(record)
        if len(noted) == SLICE_RECORDS and self._loop is not None:  # while they are still in the processor's cache
            self._loop.call_soon(self._take_slice)
        if record.has_failed_attempt:
            self._urgent.set()

    def note_sighting(self, sighting: RateLimitSighting) -> None:
        """An answer told about limits. Returns at once and never raises."""
        self._journal.sight(sighting)

    def note_failure(self, provider: str, reason: Reason, key_label: str = "", scope: str = "") -> None:
        """An attempt failed, whatever becomes of its request. Returns at once and never raises."""
        if self._journal.sight_failure(provider, reason, time.time(), key_label, scope):
            self._urgent.set()

    def note_unknown(self, name: UnknownName) -> None:
        """Somebody said a name that is not known. Returns at once and never raises."""
        self._journal.sight_unknown(name)

    # --- tasks --------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Collect, deliver and keep on disk. Ends only when cancelled; `flush` before that."""
        self._loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._collect(), name="usage collecting")
            tasks.create_task(self._keep_spooled(), name="usage on disk")
            tasks.create_task(self._adopt_orphans(), name="usage of dead processes")
            await stay_connected("usage", self._find_control, self._delivery.talk, self._policy)

    async def flush(self, timeout_s: float = 1.0) -> None:
        """Bring home what was noted: to the control plane if it takes it in time, else to the disk."""
        await self._take_in()
        self._own_lane.is_ending = True
        self._journal.seal(time.monotonic(), even_if_empty=self._delivery.is_talking)
        self._delivery.has_news()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._until_acknowledged()
        async with self._disk:
            rest = self._journal.everything()
            if not rest:
                await asyncio.to_thread(self._spool.remove)
                return
            try:
                await asyncio.to_thread(self._spool.write, rest, rest)
            except OSError as error:
                log.error("usage_lost", batches=len(self._journal.waiting), reason=str(error))  # noqa: TRY400
            else:
                log.info("usage_spooled", batches=len(self._journal.waiting), path=str(self._spool.path))
            self._spool.close()

    async def _until_acknowledged(self) -> None:
        while True:
            self._delivery.acked.clear()
            self._seal()
            if not (self._delivery.is_talking and self._journal.has_any):
                return
            await self._delivery.acked.wait()

    async def _collect(self) -> None:
        sealed_s = 0.0
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(COLLECT_WITHIN_S):
                    await self._urgent.wait()
            if self._urgent.is_set():
                await asyncio.sleep(sealed_s + URGENT_SPACING_S - time.monotonic())
                self._urgent.clear()
            await self._take_in()
            self._seal()
            sealed_s = time.monotonic()

    async def _take_in(self) -> None:
        """Move what was noted into the journal and the log, letting the streams have their turn in between."""
        while self._noted:
            self._take_slice()
            await asyncio.sleep(0)

    def _take_slice(self) -> None:
        records = self._noted[:SLICE_RECORDS]
        del self._noted[:SLICE_RECORDS]
        try:
            self._log_requests(records)
        except Exception:  # what is not logged is still told to the control plane
            log.exception("requests_not_logged", requests=len(records))
        try:
            self._journal.note(*self._detail.split(records, time.monotonic()))
        except Exception:  # records hold what others sent; a mistake in telling of it must not end the node
            log.exception("usage_not_noted", requests=len(records))

    def tell_status(self) -> None:
        """Tell how the node is: the control plane may be a new one, and leases depend on what it hears."""
        self._own_lane.tell_status_again()
        self._urgent.set()

    def note_budgets_changed(self) -> None:
        """Leases or limits are others: to be told within a second, also if nothing else is."""
        self._own_lane.note_budgets_changed()

    def _seal(self) -> None:
        is_status_due = self._delivery.is_talking and self._own_lane.is_status_news(STATUS_EVERY_S)
        if self._journal.seal(time.monotonic(), even_if_empty=is_status_due) is not None:
            self._delivery.has_news()
            self._sealed.set()

    async def _adopt_orphans(self) -> None:
        """Take over what dead processes left on disk; also what is left later, as by one that drains beside its successor."""
        adoption = Adoption(self._directory)
        while True:
            for orphan in await asyncio.to_thread(adoption.look):
                self._delivery.add(OrphanLane(orphan))
            await asyncio.sleep(ADOPT_EVERY_S)

    async def _keep_spooled(self) -> None:
        while True:
            if self._is_disk_broken:
                await asyncio.sleep(SPOOL_RETRY_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SPOOL_EVERY_S):
                    await self._sealed.wait()  # while cut off a batch is on disk at once
            self._sealed.clear()
            if self._journal.is_spool_spent or self._journal.is_cut_off(time.monotonic()):
                async with self._disk:
                    await self._spool_once()

    async def _spool_once(self) -> None:
        journal = self._journal
        try:
            if journal.is_spool_spent:
                await asyncio.to_thread(self._spool.remove)
                journal.spool_emptied()
            elif new := journal.unspooled():
                journal.spooled(await asyncio.to_thread(self._spool.write, new, journal.everything()))
        except OSError as error:
            if not self._is_disk_broken:
                reason = error.strerror or str(error)
                log.warning(
                    "usage_not_spooled",
                    path=str(self._spool.path),
                    reason=reason,
                    consequence="usage waits in memory only, until the control plane is back or there is room",
                )
            self._is_disk_broken = True
        else:
            self._is_disk_broken = False
