"""`ccr explain`: why a request went where it went."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from ccr_cli import places
from ccr_cli.decisions import PIN, place, score_words
from ccr_cli.options import Control, Json, StateDir
from ccr_cli.screen import print_json

if TYPE_CHECKING:
    from ccr_rpc.v1 import routes_pb2, usage_pb2

RequestId = Annotated[
    str, typer.Argument(metavar="REQUEST-ID", help="As in the answer's x-cc-relay-request-id, or the log's request_id.")
]


def explain(request_id: RequestId, control: Control = None, state_dir: StateDir = None, as_json: Json = False) -> None:
    """Show why a request went where it went: its route, the candidates in order, what was passed over, each attempt.

    Exit codes: 0 it is known, 2 it is not among the newest requests.
    """
    from ccr_cli.control import dialled  # noqa: PLC0415 - gRPC takes 0.1 s to import

    state = places.state_dir(state_dir, os.environ)
    with dialled(places.control_door(control, state, os.environ)) as plane:
        found = plane.explain(request_id)
    if as_json:
        from google.protobuf.json_format import MessageToDict  # noqa: PLC0415 - only needed here

        print_json(MessageToDict(found, preserving_proto_field_name=True))
    else:
        print("\n".join(lines(found)))


def lines(found: routes_pb2.ExplainRequestResponse) -> list[str]:
    """The explanation in words."""
    record = found.record
    said = [
        f"{record.request_id}: {record.model_asked or '-'}, status {record.status}, on {found.node_id}",
        f"route {record.route or '-'} of snapshot {record.snapshot_version}",
    ]
    if record.HasField("decision"):
        said += _decision(record.decision)
    else:
        said.append("there was nothing to choose")
    if record.queued_us:
        said.append(f"waited {record.queued_us / 1000:.0f} ms for room in the rate limits")
    return said + [_attempt(number, attempt) for number, attempt in enumerate(record.attempts, 1)]


def _decision(decision: usage_pb2.Decision) -> list[str]:
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
