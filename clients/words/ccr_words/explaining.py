"""Why a request went where it went, and where one would go, line by line.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccr_words.decisions import PIN, place, score_words

if TYPE_CHECKING:
    from ccr_rpc.v1 import routes_pb2, usage_pb2


def lines(record: usage_pb2.RequestRecord, node_id: str) -> list[str]:
    """The explanation of a finished request."""
    said = [
        f"{record.request_id}: {record.model_asked or '-'}, status {record.status}, on {node_id}",
        f"route {record.route or '-'} of snapshot {record.snapshot_version}",
    ]
    if record.HasField("decision"):
        said += decision_lines(record.decision)
    else:
        said.append("there was nothing to choose")
    if record.queued_us:
        said.append(f"waited {record.queued_us / 1000:.0f} ms for room in the rate limits")
    return said + [_attempt(number, attempt) for number, attempt in enumerate(record.attempts, 1)]


def decision_lines(decision: usage_pb2.Decision) -> list[str]:
    """What there was to choose from, and what was passed over."""
    said = [f"strategy {decision.strategy}; {PIN[decision.pin]}"]
    said += [
        f"candidate {number}: {place(one.provider, one.key_label)} as {one.model}{score_words(decision.strategy, one)}"
        for number, one in enumerate(decision.candidates, 1)
    ]
    more = decision.candidate_count - len(decision.candidates)
    if more > 0:
        said.append(f"and {more} more")
    return said + [f"passed over: {one.what}: {one.why}" for one in decision.passed_over]


def _attempt(number: int, attempt: usage_pb2.Attempt) -> str:
    how = attempt.reason or "served"
    status = f" {attempt.status}" if attempt.status else ""
    return (
        f"attempt {number}: {place(attempt.provider, attempt.key_label)}: {how}{status} "
        f"after {attempt.total_us / 1000:.0f} ms"
    )


def summary(model: str, found: routes_pb2.ExplainRouteResponse, config_name: str) -> list[str]:
    """Where a request would go that nobody sent, without what there is to choose from."""
    answer = found.answer
    asked = f", asked of {found.node_id}" if found.node_id else ""
    first = answer.decision.candidates[0] if answer.decision.candidates and not answer.status else None
    if first is not None:
        said = [f"{model} would go to {place(first.provider, first.key_label)} as {first.model}"]
        said += [f"but not at once: {answer.problem}"] if answer.problem else []
    else:
        said = [f"{model} would be refused: {answer.status} {answer.problem}"]
    if answer.route:
        by = f"snapshot {answer.snapshot_version}" if answer.snapshot_version else config_name
        said.append(f"route {answer.route} of {by}{asked}")
        said.append(f"strategy {answer.decision.strategy}; {PIN[answer.decision.pin]}")
    return said
