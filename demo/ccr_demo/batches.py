"""`/v1/messages/batches`: created, worked off at the next look, listed, cancelled, deleted; in memory.

Holds state, does no input or output. A batch is `in_progress` in the answer that creates it and `ended` at the
next `GET`, so that clients that poll have something to see and tests need not wait.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from ccr_demo.catalogue import page
from ccr_demo.errors import ApiError, error_object

Json = dict[str, Any]


@dataclass(slots=True)
class Batch:
    """One batch: what was asked, and the results once it has ended."""

    id: str
    requests: Sequence[Json]
    created_at: datetime
    results: list[Json] | None = None
    cancelled_at: datetime | None = None
    ended_at: datetime | None = None

    def as_json(self, base_url: str) -> Json:
        """The `message_batch` object; `results_url` is absolute, on the host that the client asked."""
        counts = dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), 0)
        for result in self.results or ():
            counts[result["result"]["type"]] += 1
        counts["processing"] = 0 if self.results is not None else len(self.requests)
        waiting = "canceling" if self.cancelled_at else "in_progress"
        return {
            "id": self.id,
            "type": "message_batch",
            "processing_status": "ended" if self.results is not None else waiting,
            "request_counts": counts,
            "created_at": rfc3339(self.created_at),
            "expires_at": rfc3339(self.created_at + timedelta(hours=24)),
            "ended_at": rfc3339(self.ended_at) if self.ended_at else None,
            "cancel_initiated_at": rfc3339(self.cancelled_at) if self.cancelled_at else None,
            "archived_at": None,
            "results_url": f"{base_url}/v1/messages/batches/{self.id}/results" if self.results is not None else None,
        }


class Batches:
    """All batches; `answer` makes the message for the params of one request, or raises ApiError."""

    def __init__(self, answer: Callable[[Json], Json]) -> None:
        self._answer = answer
        self._batches: dict[str, Batch] = {}

    def create(self, body: object, batch_id: str, now: datetime) -> Batch:
        """Raises ApiError (400) for a body without usable requests."""
        requests = body.get("requests") if isinstance(body, dict) else None
        if not isinstance(requests, list) or not requests:
            raise ApiError(400, "requests: Field required")
        for i, each in enumerate(requests):
            if not isinstance(each, dict) or not isinstance(each.get("custom_id"), str):
                raise ApiError(400, f"requests.{i}.custom_id: Field required")
            if not isinstance(each.get("params"), dict):
                raise ApiError(400, f"requests.{i}.params: Field required")
        self._batches[batch_id] = Batch(batch_id, requests, now)
        return self._batches[batch_id]

    def look_at(self, batch_id: str, now: datetime) -> Batch:
        """The batch, worked off by now. Raises ApiError (404)."""
        batch = self._get(batch_id)
        if batch.results is None:
            batch.results = [self._result(each, batch) for each in batch.requests]
            batch.ended_at = now
        return batch

    def cancel(self, batch_id: str, now: datetime) -> Batch:
        """Marks the batch; its requests end as `canceled`. Raises ApiError (404; 400 if it has ended)."""
        batch = self._get(batch_id)
        if batch.results is not None:
            raise ApiError(400, f"Batch {batch_id} cannot be canceled because it has already ended.")
        batch.cancelled_at = now
        return batch

    def delete(self, batch_id: str) -> Json:
        """Raises ApiError (404; 400 while it is being worked on)."""
        if self._get(batch_id).results is None:
            raise ApiError(400, f"Batch {batch_id} cannot be deleted while it is in progress.")
        del self._batches[batch_id]
        return {"id": batch_id, "type": "message_batch_deleted"}

    def results(self, batch_id: str, now: datetime) -> bytes:
        """One JSON line for each request. Raises ApiError (404)."""
        lines = self.look_at(batch_id, now).results or []
        return "".join(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n" for line in lines).encode()

    def page(self, query: Mapping[str, str], base_url: str) -> Json:
        """One page, newest first."""
        return page([batch.as_json(base_url) for batch in reversed(self._batches.values())], query)

    def _get(self, batch_id: str) -> Batch:
        if batch_id not in self._batches:
            raise ApiError(404, f"Batch {batch_id} not found.")
        return self._batches[batch_id]

    def _result(self, request: Json, batch: Batch) -> Json:
        result: Json
        if batch.cancelled_at:
            result = {"type": "canceled"}
        else:
            try:
                result = {"type": "succeeded", "message": self._answer(request["params"])}
            except ApiError as error:
                result = {"type": "errored", "error": error_object("invalid_request_error", error.message)}
        return {"custom_id": request["custom_id"], "result": result}


def rfc3339(moment: datetime) -> str:
    """Like `2026-11-21T09:00:00Z`."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
