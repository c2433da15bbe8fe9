"""The newest finished requests, for whoever asks why one went where it went. Bounded, and without their text."""

from __future__ import annotations

from collections import OrderedDict

MAX_RECENT = 2000


class Recent:
    """Records by request id, in the contract's serialised form (a few hundred bytes each), oldest first out."""

    def __init__(self, limit: int = MAX_RECENT) -> None:
        self._records: OrderedDict[str, tuple[str, bytes]] = OrderedDict()
        self._limit = limit

    def __len__(self) -> int:
        return len(self._records)

    def note(self, request_id: str, node_id: str, record: bytes) -> None:
        """Keep a record. One that is told twice stays one."""
        self._records[request_id] = (node_id, record)
        self._records.move_to_end(request_id)
        if len(self._records) > self._limit:
            self._records.popitem(last=False)

    def of(self, request_id: str) -> tuple[str, bytes] | None:
        """Node and record of a request; None if it is not among the newest."""
        return self._records.get(request_id)
