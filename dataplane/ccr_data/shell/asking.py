"""Questions of the control plane on the watch stream: where would this request go? And their answers."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

from ccr_rpc.v1 import snapshot_pb2

from ccr_data.core.client_limits import ClientLimits
from ccr_data.core.errors import SnapshotInvalid
from ccr_data.core.explaining import Explained, Hypothetical, View, explain
from ccr_data.core.pins import Pins
from ccr_data.core.routing import NodeState, Roll
from ccr_data.core.snapshot import Snapshot
from ccr_data.shell.budgeting import Budgeting
from ccr_data.shell.relay import Relay
from ccr_data.shell.wire import fill_decision, to_snapshot

WITHHELD = "withheld"  # stands for the secrets that a candidate snapshot comes without
NOT_READY = 503


@dataclass(frozen=True, slots=True)
class Question:
    """A request that nobody sent."""

    number: int
    of: Hypothetical
    seed: int
    candidate: Snapshot | None = None  # decide by this one instead of the one in force
    refusal: str = ""  # why the candidate would not be served


Answer = Callable[[Question], snapshot_pb2.RouteAnswer]


def understood(message: snapshot_pb2.RouteQuestion) -> Question:
    """The question as values. A large candidate takes a while: not for the loop."""
    asked = message.request
    of = Hypothetical(
        model=asked.model,
        count_tokens=asked.count_tokens,
        streams=asked.streams,
        client=asked.client,
        subagent=asked.subagent,
        thinking=asked.thinking,
        input_tokens=asked.input_tokens,
        images=asked.images,
        documents=asked.documents,
        tools=asked.tools,
        headers=tuple((header.name, header.value) for header in asked.headers),
        session=asked.session,
    )
    if not message.HasField("candidate"):
        return Question(message.id, of, asked.seed)
    try:
        return Question(message.id, of, asked.seed, candidate(message.candidate))
    except SnapshotInvalid as error:
        return Question(message.id, of, asked.seed, refusal=f"this node would reject the configuration: {error}")


def candidate(message: snapshot_pb2.Snapshot) -> Snapshot:
    """A snapshot that is never served, and may lack its secrets. Raises SnapshotInvalid."""
    message.version = message.version or 1
    for provider in message.providers:
        for key in provider.keys:
            if provider.auth_style == snapshot_pb2.AUTH_STYLE_SIGV4:
                key.aws.access_key_id = key.aws.access_key_id or WITHHELD
                key.aws.secret_access_key = key.aws.secret_access_key or WITHHELD
            else:
                key.secret = key.secret or WITHHELD
    return to_snapshot(message)


def answer_of(question: Question, explained: Explained, version: int) -> snapshot_pb2.RouteAnswer:
    """The answer as the contract has it."""
    message = snapshot_pb2.RouteAnswer(
        id=question.number,
        route=explained.route,
        status=explained.status,
        problem=explained.problem,
        snapshot_version=version,
    )
    if explained.decision is not None:
        fill_decision(message.decision, explained.decision, question.of.model, most=None)
    return message


def answer_afresh(question: Question) -> snapshot_pb2.RouteAnswer:
    """The answer of a node that has served nothing yet, by the question's own candidate."""
    if question.candidate is None:
        refusal = question.refusal or "there is no snapshot to decide by"
        return answer_of(question, Explained(status=NOT_READY, problem=refusal), 0)
    limits = Budgeting().looked_at(question.candidate)
    view = View(question.candidate, NodeState(), Pins(), limits, ClientLimits(), b"", 0.0, has_secrets=False)
    return answer_of(question, explain(question.of, view, _roll_of(question)), 0)


def answering(relay: Relay, salt: bytes) -> Answer:
    """What answers by the state of a relay. Nothing of it is moved, and it may be asked at any time."""

    def answer(question: Question) -> snapshot_pb2.RouteAnswer:
        if question.refusal:
            return answer_of(question, Explained(status=NOT_READY, problem=question.refusal), 0)
        snapshot = question.candidate or relay.store.current
        if snapshot is None:
            return answer_of(question, Explained(status=NOT_READY, problem="the node has no snapshot yet"), 0)
        limits = relay.budgeting.looked_at(snapshot)
        view = View(
            snapshot,
            relay.node,
            relay.pins,
            limits,
            relay.clients,
            salt,
            perf_counter(),
            has_secrets=question.candidate is None,
        )
        explained = explain(question.of, view, _roll_of(question))
        return answer_of(question, explained, 0 if question.candidate else snapshot.version)

    return answer


def _roll_of(question: Question) -> Roll:
    return random.Random(question.seed).random  # noqa: S311 - to be replayed
