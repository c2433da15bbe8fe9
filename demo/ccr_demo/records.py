"""What the demo provider remembers of each request, and its counters. Times are seconds of time.monotonic()."""

import base64
import json
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Record:
    """One request as it came, and what became of its answer."""

    number: int
    method: str
    target: str
    http_version: str
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    arrived_s: float
    step: str = ""  # the scripted step that answered
    status: int | None = None
    events_sent: int = 0
    ended_s: float | None = None
    aborted_s: float | None = None  # when the client was found gone
    event_times_s: list[float] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """For GET /__demo/requests; the body in base64."""
        return {
            "number": self.number,
            "method": self.method,
            "target": self.target,
            "http_version": self.http_version,
            "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in self.headers],
            "body": base64.b64encode(self.body).decode(),
            "step": self.step,
            "status": self.status,
            "events_sent": self.events_sent,
            "arrived_s": self.arrived_s,
            "ended_s": self.ended_s,
            "aborted_s": self.aborted_s,
        }

    def header(self, name: str) -> str | None:
        """The first header of that name, in any case."""
        wanted = name.lower().encode()
        return next((value.decode("latin-1") for key, value in self.headers if key.lower() == wanted), None)

    def json(self) -> Any:
        """The decoded body."""
        return json.loads(self.body)


@dataclass(slots=True)
class Stats:
    """Counters since the start or the last reset."""

    requests: int = 0
    open_connections: int = 0
    open_streams: int = 0  # answers being sent, streamed or not
    aborted_streams: int = 0  # the client left before the end
    connections: int = 0
