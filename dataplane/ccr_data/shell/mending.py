"""A request that a provider refused for its thinking blocks, on its way there again without them.

Twice at most: first without the blocks from the one on that the provider named, then without any. What helped is remembered for the
session (core/handover.py), so that its later turns lose the same blocks at once. If nothing helps, the client gets the provider's
first answer.
"""

from __future__ import annotations

from ccr_data.core import generations
from ccr_data.core.framing import Body
from ccr_data.core.http1 import AnswerHead
from ccr_data.core.peek import peek
from ccr_data.core.snapshot import Target
from ccr_data.core.thinking import has_thinking, signature_problem, to_drop, without, without_budget
from ccr_data.providers.adapter import ClientRequest
from ccr_data.providers.anthropic_shaped import folded

MAX_TRIES = 2

Pieces = list[tuple[bytes, list[tuple[int, int]]]]  # of an answer, and where their payload is
Refusal = tuple[AnswerHead, Body, Pieces]


class Mending:
    """What is left out for one target."""

    __slots__ = ("_tries", "marks", "refusal", "target")

    def __init__(self, target: Target, refusal: Refusal) -> None:
        self.target = target
        self.refusal = refusal  # the provider's first answer
        self.marks: frozenset[bytes] = frozenset()
        self._tries = 0

    @staticmethod
    def is_possible(request: ClientRequest) -> bool:
        """Whether there is something to leave out."""
        return request.peek is not None and has_thinking(request.body)

    def learn(self, sent: bytes, refusal: Pieces) -> bool:
        """Take in what the provider said of the body that was sent. Returns whether another try may help."""
        if self._tries >= MAX_TRIES:
            return False
        problem = signature_problem(payload_of(refusal))
        if problem is None:
            return False
        self._tries += 1
        marks = to_drop(sent, problem, is_last_try=self._tries == MAX_TRIES)
        self.marks |= marks
        return bool(marks)


def payload_of(pieces: Pieces) -> bytes:
    """An answer's body without the transfer coding."""
    return b"".join(data[start:end] for data, ranges in pieces for start, end in ranges)


def fitted(request: ClientRequest, marks: frozenset[bytes]) -> ClientRequest:
    """The request without the thinking blocks of these marks; the same one if it has none of them."""
    body = without_budget(without(request.body, marks))
    if body is request.body:
        return request
    return ClientRequest(request.head, body, peek(body), request.own_token)


def adjusted(request: ClientRequest, to: generations.Generation) -> ClientRequest:
    """The request as this generation of models takes it; the same one if it does so already."""
    if request.peek is None:
        return request
    body = generations.adjusted(request.body, to, folded)
    return request if body is request.body else ClientRequest(request.head, body, peek(body), request.own_token)
