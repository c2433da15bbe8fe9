"""Journals on their way to the control plane: that of this process, and those of dead ones."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Protocol

from ccr_data.core.batches import Journal
from ccr_data.core.budget import BudgetUse
from ccr_data.core.node import NodeStatus
from ccr_data.shell.slices import in_slices
from ccr_data.shell.spool import Orphan, Spool
from ccr_data.shell.usage_wire import batch_request, journal_suffix, last_suffix, status_suffix

STATUS_SPACING_S = 1.0
FEW_BUDGETS = 64  # what is said of them is written within a millisecond; more than that is no matter for the loop
ORPHAN_WINDOW = 32  # batches of a dead process on their way at once


CountOpen = Callable[[], tuple[tuple[str, int], ...]]
Budgets = Callable[[], Iterable[BudgetUse]]


class Lane(Protocol):
    """The batches of one journal, to be delivered in order."""

    @property
    def sent_as(self) -> str:
        """The name it is delivered under."""
        ...

    @property
    def acknowledged(self) -> int:
        """The control plane has all up to this number."""
        ...

    async def next_request(self, sent: int) -> tuple[int, bytes] | None:
        """What to send when all up to `sent` has been: number and request. None: nothing for now. Raises OSError."""
        ...

    async def ack(self, number: int) -> bool:
        """The control plane has all up to this number; returns whether the lane has ended."""
        ...

    def resume_at(self, expected: int) -> None:
        """The control plane did not take what was sent: it expects this number."""
        ...


class OwnLane:
    """The journal of this process. Its batches also tell how the node is."""

    def __init__(
        self,
        journal: Journal,
        spool: Spool,
        status: Callable[[], NodeStatus],
        now_open: CountOpen,
        budgets: Budgets | None = None,
        has_place: Callable[[], bool] = lambda: True,
    ) -> None:
        """`now_open` is the part of `status` that costs next to nothing: what is open by provider. `budgets`, if given, is the part
        that costs much: each is made when its turn comes.

        While `has_place` says no, another process speaks for the node.
        """
        self._journal = journal
        self._budgets, self._has_place = budgets, has_place
        self._spool = spool
        self._status, self._open = status, now_open
        self._status_sent_s = float("-inf")
        self._open_told: tuple[tuple[str, int], ...] = ()
        self._has_budgets_news = False
        self.is_ending = False  # what is sent from now on says that this process ends

    @property
    def sent_as(self) -> str:
        """The name it is delivered under."""
        return self._journal.waiting.sent_as

    @property
    def acknowledged(self) -> int:
        """The control plane has all up to this number."""
        return self._journal.waiting.acknowledged

    async def next_request(self, sent: int) -> tuple[int, bytes] | None:
        """What to send when all up to `sent` has been."""
        found = self._journal.waiting.after(sent)
        if found is None:
            return None
        number, batch = found
        suffix = _renaming(self._journal.waiting.journal, self.sent_as)
        if self.is_status_due(STATUS_SPACING_S):
            status = self._status()
            self._status_sent_s, self._open_told = time.monotonic(), status.open_by_provider
            self._has_budgets_news = False
            if self._budgets is not None:
                status = replace(status, budgets=tuple(await in_slices(self._budgets())))
            told = status, self._spool.size_bytes, resident_bytes()
            is_long = len(status.budgets) > FEW_BUDGETS
            suffix += await asyncio.to_thread(status_suffix, *told) if is_long else status_suffix(*told)
        return number, batch_request(batch.payload, suffix + last_suffix() if self.is_ending else suffix)

    def tell_status_again(self) -> None:
        """A new stream began: who hears it may know nothing of the node."""
        self._status_sent_s = float("-inf")

    def note_budgets_changed(self) -> None:
        """Leases or limits are others: what the nodes together may spend, and who gets more, waits for hearing that."""
        self._has_budgets_news = True

    def is_status_due(self, every_s: float) -> bool:
        """Whether it was told longer ago than this how the node is, and this process is to tell it."""
        return self._has_place() and time.monotonic() - self._status_sent_s >= every_s

    def is_status_news(self, every_s: float) -> bool:
        """Whether it is worth a batch of its own: it is long ago, or what is open, or budgets, changed since and may be told again."""
        if not self.is_status_due(STATUS_SPACING_S):
            return False
        return self.is_status_due(every_s) or self._has_budgets_news or self._open() != self._open_told

    async def ack(self, number: int) -> bool:
        """The control plane has all up to this number; this lane ends with the process."""
        self._journal.ack(number)
        return False

    def resume_at(self, expected: int) -> None:
        """The control plane expects this number."""
        self._journal.resume_at(expected)


class OrphanLane:
    """The journal of a dead process, read from its spool as it is sent."""

    def __init__(self, orphan: Orphan) -> None:
        self._orphan = orphan

    @property
    def sent_as(self) -> str:
        """The name it is delivered under."""
        return self._orphan.waiting.sent_as

    @property
    def acknowledged(self) -> int:
        """The control plane has all up to this number."""
        return self._orphan.waiting.acknowledged

    async def next_request(self, sent: int) -> tuple[int, bytes] | None:
        """What to send when all up to `sent` has been, unless enough is on its way."""
        waiting = self._orphan.waiting
        found = waiting.after(sent)
        if found is None or (waiting.acknowledged and sent - waiting.acknowledged >= ORPHAN_WINDOW):
            return None
        number, span = found
        payload = await asyncio.to_thread(self._orphan.payload, span)
        return number, batch_request(payload, _renaming(waiting.journal, waiting.sent_as))

    async def ack(self, number: int) -> bool:
        """The control plane has all up to this number; with the last one the file goes."""
        self._orphan.waiting.ack(number)
        if len(self._orphan.waiting):
            return False
        await asyncio.to_thread(self._orphan.remove)
        return True

    def resume_at(self, expected: int) -> None:
        """The control plane expects this number."""
        self._orphan.waiting.resume_at(expected)


def _renaming(journal: str, sent_as: str) -> bytes:
    return b"" if sent_as == journal else journal_suffix(sent_as)


def resident_bytes() -> int:
    """Resident memory of this process; 0 where the system does not tell."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0
