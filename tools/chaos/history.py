"""What happened in an episode, as all sides saw it. Plain values, so that it can be written to a file and made up by tests.

Times are seconds of the harness's monotonic clock.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

# How a request ended, as its client saw it.
COMPLETE = "complete"  # a provider's whole answer
REFUSED = "refused"  # an error in one piece, with a status
ERROR_EVENT = "error event"  # a stream that ended in an error event
CUT = "cut"  # the connection ended before the answer did
HUNG = "hung"  # nothing for longer than anything may take
WRONG = "wrong"  # something that no provider said

HARNESS = "harness"
"""The subject of a span "stopped" in which this process itself, clients and providers, did not get its turn."""

# How a provider dealt with a request.
ANSWERED = "answered"
LEFT = "left"  # the relay hung up first


@dataclass(slots=True)
class Request:
    """A request as its client saw it."""

    number: int
    session: str
    streamed: bool
    began_s: float
    ended_s: float = 0.0
    head_s: float = 0.0  # 0: no head came
    outcome: str = HUNG
    status: int = 0
    node: str = ""  # what is the same in all ids that one process of the data plane gives
    request_id: str = ""
    mark: str = ""  # the configuration that the answer speaks of
    provider: str = ""  # that the answer speaks of
    has_content: bool = False  # of a stream: something after its prelude
    what: str = ""  # what was wrong, or what the error said
    is_on_used_connection: bool = False
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Arrival:
    """A request as a provider saw it."""

    number: int
    provider: str
    at_s: float
    mark: str  # of the configuration: from the header that it adds
    model: str
    key: str  # the credential that came with it
    ended_s: float = 0.0
    outcome: str = LEFT
    input_tokens: int = 0  # as the whole answer tells them
    output_tokens: int = 0
    has_told_input: bool = False  # the part of the answer that tells input tokens was sent
    strange: str = ""  # what should not have come


@dataclass(slots=True)
class Span:
    """Something that was so for a while."""

    kind: (
        str  # "unwell", "disabled", "revoked", "stopped", "cut off", "replaced", or what happened at a moment: "killed"
    )
    subject: str
    from_s: float
    to_s: float
    detail: str = ""

    def touches(self, from_s: float, to_s: float) -> bool:
        """Whether any of it was between two times."""
        return self.from_s <= to_s and self.to_s >= from_s


@dataclass(slots=True)
class Configuration:
    """A text that was offered as the configuration."""

    mark: str
    is_valid: bool
    offered_s: float
    targets: list[list[str]]  # provider, credential; those that it lets requests go to
    rpm_limit: int = 0
    limited_key: str = ""


@dataclass(slots=True)
class NodeLine:
    """A line of a node's log about snapshots."""

    node: str  # worker-0
    process: int  # number of its start
    event: str  # snapshot_loaded, snapshot_served, snapshot_rejected
    version: int
    at_s: float


@dataclass(slots=True)
class Record:
    """A line of a node's log about a request."""

    request_id: str
    node: str
    process: int
    version: int  # of the snapshot it went by
    passed_over: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Sums:
    """Sums of a ledger."""

    requests: int = 0
    served: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


@dataclass(slots=True)
class History:
    """Everything of one episode."""

    seed: int
    requests: list[Request] = field(default_factory=list)
    arrivals: list[Arrival] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    configurations: list[Configuration] = field(default_factory=list)
    node_lines: list[NodeLine] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    counted: Sums = field(default_factory=Sums)  # what the ledger grew by
    is_ledger_whole: bool = True  # no file that held usage was damaged
    leaks: list[str] = field(default_factory=list)  # what was found where it must not be
    unhealed: list[str] = field(default_factory=list)  # what did not come back by itself
    instance_of: dict[str, str] = field(default_factory=dict)  # beginning of request ids → "worker-0 3", where known
    max_attempts: int = 10
    failover_s: float = 60.0
    _by_number: dict[int, list[Arrival]] = field(default_factory=dict, repr=False)
    _indexed: int = 0  # arrivals that are in it

    def of(self, *kinds: str) -> list[Span]:
        """The spans of some kinds."""
        return [span for span in self.spans if span.kind in kinds]

    def arrivals_of(self, number: int) -> list[Arrival]:
        """Where a request arrived, in order."""
        if self._indexed != len(self.arrivals):
            self._by_number.clear()
            self._indexed = len(self.arrivals)
            for one in self.arrivals:
                self._by_number.setdefault(one.number, []).append(one)
        return self._by_number.get(number, [])

    def write(self, path: Path) -> None:
        """Keep it as JSON lines."""
        with path.open("w") as file:
            for name, value in asdict(self).items():
                if name.startswith("_"):
                    continue
                for one in value if isinstance(value, list) else [value]:
                    file.write(json.dumps({name: one}) + "\n")

    def last_events(self, count: int = 25) -> list[str]:
        """What happened last, in order, for people."""
        lines = [
            (
                one.ended_s,
                f"request {one.number} of {one.session}, begun {one.began_s:.3f}: {one.outcome} {one.status} {one.what}",
            )
            for one in self.requests
        ]
        lines += [
            (one.at_s, f"arrival of {one.number} at {one.provider} by {one.mark} with {one.key}: {one.outcome}")
            for one in self.arrivals
        ]
        lines += [(one.from_s, f"{one.kind} {one.subject} until {one.to_s:.3f} {one.detail}") for one in self.spans]
        lines += [(one.at_s, f"{one.node} {one.process}: {one.event} {one.version}") for one in self.node_lines]
        return [f"{at_s:.3f} {line}" for at_s, line in sorted(lines)[-count:]]
