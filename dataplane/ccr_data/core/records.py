"""What is remembered of a finished request: everything but its text. Times are seconds unless a name says otherwise."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

MAX_COUNT = 1 << 53  # providers may say anything; a thousand of these still fit the contract's integers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ccr_data.core.snapshot import Choice, Strategy, Target


class Endpoint(enum.StrEnum):
    """Which API a request used."""

    MESSAGES = "messages"
    COUNT_TOKENS = "count_tokens"
    BATCHES = "batches"
    FILES = "files"


class Outcome(enum.StrEnum):
    """How a request ended."""

    SERVED = "served"  # the provider's whole answer reached the client; 4xx answers are answers, too
    FAILED = "failed"  # no target could serve it
    BROKEN = "broken"  # the answer broke off after the client had its beginning
    CLIENT_LEFT = "client_left"
    REFUSED = "refused"  # by the relay, before any attempt


class Reason(enum.StrEnum):
    """Why an attempt was not the answer."""

    CONNECT = "connect"  # no connection, or no TLS
    FIRST_BYTE_TIMEOUT = "first_byte_timeout"
    IDLE_TIMEOUT = "idle_timeout"
    BROKEN = "broken"  # hung up, or not HTTP
    RATE_LIMITED = "rate_limited"  # 429
    OVERLOADED = "overloaded"  # 529, 503
    SERVER_ERROR = "server_error"  # other 5xx
    KEY_REFUSED = "key_refused"  # 401 or 403 for a key of the relay's, or its credential has ended
    STREAM_ERROR = "stream_error"  # an error event before any content
    TOTAL_TIMEOUT = "total_timeout"
    HEDGED = "hedged"  # not needed: another attempt beside it was faster
    CLIENT_LEFT = "client_left"
    SIGNATURE = "signature"  # 400 for thinking blocks; sent again without them
    NOT_THERE = "not_there"  # 404 for a batch or file; another account was asked
    STOPPED = "stopped"  # the worker ended before the answer did

    @property
    def is_of_provider(self) -> bool:
        """Whether another key of the same provider would most likely fail in the same way."""
        return self not in _NOT_OF_PROVIDER


_NOT_OF_PROVIDER = (
    Reason.RATE_LIMITED,
    Reason.KEY_REFUSED,
    Reason.CLIENT_LEFT,
    Reason.SIGNATURE,
    Reason.HEDGED,
    Reason.NOT_THERE,
    Reason.STOPPED,
)


class Tokens:
    """Tokens by kind, as the provider reported them; the last report of a stream counts."""

    def __init__(
        self,
        input: int = 0,  # noqa: A002 (as everywhere in the API)
        output: int = 0,
        cache_read: int = 0,
        cache_write_5m: int = 0,
        cache_write_1h: int = 0,
        thinking: int = 0,
    ) -> None:
        self.input = input
        self.output = output
        self.cache_read = cache_read
        self.cache_write_5m = cache_write_5m
        self.cache_write_1h = cache_write_1h
        self.thinking = thinking


class AttemptRecord:
    """One upstream request."""

    def __init__(
        self,
        provider: str,
        key_label: str,
        scope: str,
        model: str,
        began_s: float,
        status: int = 0,
        reason: Reason | None = None,
        first_byte_s: float = 0.0,
        total_s: float = 0.0,
    ) -> None:
        self.provider = provider
        self.key_label = key_label
        self.scope = scope
        self.model = model
        self.began_s = began_s  # of the loop's clock
        self.status = status
        self.reason = reason
        self.first_byte_s = first_byte_s  # from its beginning; 0: none came
        self.total_s = total_s


class PinUse(enum.Enum):
    """What became of a session's pin."""

    NONE = "none"  # the session had none
    KEPT = "kept"
    LEFT = "left"


Scored: TypeAlias = "tuple[Sequence[Choice], Sequence[float] | None]"
"""Choices and, place for place, what a strategy ordered them by; None: their rank. Kept as the ordering made it, for nothing."""


class Decision:
    """Why a request went where it went."""

    def __init__(
        self,
        strategy: Strategy,
        targets: tuple[Target, ...],
        passed_over: list[tuple[str, str]],
        pin: PinUse = PinUse.NONE,
        scored: Scored | None = None,
    ) -> None:
        self.strategy = strategy
        self.targets = targets  # best first
        self.passed_over = passed_over  # provider (or provider/key) → a fixed phrase; put last, or left out
        self.pin = pin
        self.scored = scored

    def scores(self) -> dict[tuple[str, str], float]:
        """What the strategy ordered by, as far as it is known: by provider and its own name of the model.

        USD per million tokens, seconds, or open requests for the weight. Empty if it ordered by nothing of the kind.
        """
        if self.scored is None:
            return {}
        choices, figures = self.scored
        found = zip(choices, figures if figures is not None else [one.rank for one in choices], strict=True)
        return {(one.provider.name, one.model): figure for one, figure in found if figure < math.inf}


class Record:
    """One finished request."""

    request_id: str
    endpoint: Endpoint
    started_at_s: float  # Unix time
    client: str
    attempts: list[AttemptRecord]
    tokens: Tokens
    session: str = ""
    agent: str = ""
    model_asked: str = ""
    route: str = ""
    streamed: bool = False
    status: int = 0
    outcome: Outcome = Outcome.REFUSED
    first_byte_s: float = 0.0
    total_s: float = 0.0
    overhead_s: float = 0.0
    request_bytes: int = 0
    answer_bytes: int = 0
    snapshot_version: int = 0
    upstream_request_id: str = ""
    warning: str = ""
    decision: Decision | None = None  # None: there was nothing to choose
    queued_s: float = 0.0  # of `total_s`: waited for room in the rate limits

    def __init__(self, request_id: str, endpoint: Endpoint, started_at_s: float, client: str = "") -> None:
        self.request_id = request_id
        self.endpoint = endpoint
        self.started_at_s = started_at_s
        self.client = client
        self.attempts = []
        self.tokens = Tokens()

    @property
    def has_failed_attempt(self) -> bool:
        """Whether the control plane should hear of it at once."""
        for attempt in self.attempts:  # noqa: SIM110 (a generator takes three times as long, for every request)
            if attempt.reason is not None and attempt.reason is not Reason.CLIENT_LEFT:
                return True
        return False


@dataclass(frozen=True, slots=True)
class RateLimitSighting:
    """The rate-limit headers of an answer, lower-case name → value."""

    provider: str
    key_label: str
    seen_at_s: float  # Unix time
    status: int
    headers: dict[str, str]


def make_sound(record: Record) -> None:
    """Leave text that UTF-8 can hold and counts in [0, MAX_COUNT], whatever others made us note."""
    record.session = sound_text(record.session)
    record.agent = sound_text(record.agent)
    record.model_asked = sound_text(record.model_asked)
    record.upstream_request_id = sound_text(record.upstream_request_id)
    record.warning = sound_text(record.warning)
    for attempt in record.attempts:
        attempt.model = sound_text(attempt.model)
    tokens = record.tokens
    record.tokens = Tokens(
        within(tokens.input),
        within(tokens.output),
        within(tokens.cache_read),
        within(tokens.cache_write_5m),
        within(tokens.cache_write_1h),
        within(tokens.thinking),
    )


def sound_text(text: str) -> str:
    """The text with a question mark for what UTF-8 cannot hold."""
    return text.encode("utf-8", "replace").decode()


def within(count: int) -> int:
    """The count in [0, MAX_COUNT]."""
    return min(max(count, 0), MAX_COUNT)
