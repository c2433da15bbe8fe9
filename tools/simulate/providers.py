"""Upstreams: accounts that count as providers do, prompt caches that are theirs alone, and all that can go wrong.

Sliding minutes are exact: a request that arrives at t counts in every minute that holds t. Buckets are Anthropic's: full at first,
refilled evenly. Caches are kept per account; an entry lives for five minutes from the start of the request that last used it
(docs/providers/anthropic.md).
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from typing import TYPE_CHECKING, NamedTuple

from ccr_data.core.records import Tokens

from simulate.clock import EPOCH_S
from simulate.plans import ProviderPlan, ScopePlan, Spell

if TYPE_CHECKING:
    from simulate.sessions import Turn

CACHE_S = 300.0
MINUTE_S = 60.0
TAIL_TOKENS = 12  # behind the last cache marker
OUTPUT_PER_S = 80.0
NO_TOKENS = Tokens()


class Answer(NamedTuple):
    """What an upstream request comes to. Times are from its arrival."""

    status: int  # 0: no connection
    first_byte_s: float
    total_s: float
    special: dict[bytes, bytes]
    tokens: Tokens
    error_event: bool = False  # instead of content
    is_cut: bool = False  # breaks off in the middle


class Caches:
    """The prompt caches of one account, by conversation and by system prompt."""

    __slots__ = ("_ends_s", "_tokens")

    def __init__(self) -> None:
        self._tokens: dict[object, int] = {}
        self._ends_s: dict[object, float] = {}

    def read(self, turn: Turn, now_s: float) -> int:
        """Tokens of the prompt that are cached, if it arrives now."""
        for name in (turn.session.number, turn.session.prompt):
            if self._ends_s.get(name, 0.0) > now_s:
                return min(self._tokens[name], turn.prompt_tokens)
        return 0

    def write(self, turn: Turn, arrived_s: float) -> None:
        """The answer to a prompt that arrived then has begun: from here on it can be read."""
        session = turn.session
        self._tokens[session.number] = turn.prompt_tokens - TAIL_TOKENS
        self._tokens[session.prompt] = session.crowd.prefix
        self._ends_s[session.number] = self._ends_s[session.prompt] = arrived_s + CACHE_S


@dataclass(slots=True)
class Tally:
    """What an account saw."""

    attempts: int = 0
    served: int = 0
    served_warm: int = 0  # after the warm-up
    limited_requests: int = 0  # refused for too many requests
    limited_tokens: int = 0  # refused for too many tokens
    peak: int = 0  # most requests in a sliding minute, refused ones included


class Account:
    """One scope at its provider."""

    def __init__(self, plan: ScopePlan, warm_up_s: float) -> None:
        self.plan = plan
        self.caches = Caches()
        self.tally = Tally()
        self._warm_up_s = warm_up_s
        self._arrived: deque[float] = deque()
        self._seen: deque[float] = deque()
        self._tokens: deque[tuple[float, int]] = deque()
        self._used_tokens = 0
        self._level = [float(plan.rpm), float(plan.itpm)]
        self._level_s = 0.0
        self.rests_until_s = 0.0  # what the last refusal said

    def has_room(self, now_s: float) -> bool:
        """Whether a request that arrives now would not be refused."""
        return self._wait_s(now_s) <= 0

    def _wait_s(self, now_s: float) -> float:
        plan = self.plan
        if plan.counting == "bucket":
            passed_s, self._level_s = now_s - self._level_s, now_s
            waits = [0.0]
            for at, limit in enumerate((plan.rpm, plan.itpm)):
                if limit:
                    level = self._level[at] = min(float(limit), self._level[at] + passed_s * limit / MINUTE_S)
                    waits.append((1.0 - level) * MINUTE_S / limit)
            return max(waits)
        arrived, tokens = self._arrived, self._tokens
        while arrived and arrived[0] <= now_s - MINUTE_S:
            arrived.popleft()
        while tokens and tokens[0][0] <= now_s - MINUTE_S:
            self._used_tokens -= tokens.popleft()[1]
        wait_s = 0.0
        if plan.rpm and len(arrived) >= plan.rpm:
            wait_s = arrived[0] + MINUTE_S - now_s
        if plan.itpm and self._used_tokens >= plan.itpm:
            wait_s = max(wait_s, tokens[0][0] + MINUTE_S - now_s)
        return wait_s

    def arrives(self, now_s: float) -> float:
        """A request arrives: how long it should have waited. 0: it is served."""
        tally = self.tally
        tally.attempts += 1
        seen = self._seen
        while seen and seen[0] <= now_s - MINUTE_S:
            seen.popleft()
        seen.append(now_s)
        tally.peak = max(tally.peak, len(seen))
        wait_s = self._wait_s(now_s)
        if wait_s > 0:
            is_full = (
                self._level[0] < 1.0 if self.plan.counting == "bucket" else len(self._arrived) >= self.plan.rpm
            ) and self.plan.rpm
            if is_full:
                tally.limited_requests += 1
            else:
                tally.limited_tokens += 1
            self.rests_until_s = now_s + wait_s
            return wait_s
        tally.served += 1
        if now_s >= self._warm_up_s:
            tally.served_warm += 1
        self._arrived.append(now_s)
        self._level[0] -= 1.0
        return 0.0

    def takes(self, tokens: int, now_s: float) -> None:
        """A served request counts so many input tokens."""
        if self.plan.itpm:
            self._tokens.append((now_s, tokens))
            self._used_tokens += tokens
            self._level[1] -= tokens

    def told(self, now_s: float) -> dict[bytes, bytes]:
        """Rate-limit headers, as Anthropic has them."""
        plan = self.plan
        found: dict[bytes, bytes] = {}
        if not plan.rpm and not plan.itpm:
            return found
        is_bucket = plan.counting == "bucket"
        left_requests = self._level[0] if is_bucket else plan.rpm - len(self._arrived)
        left_tokens = self._level[1] if is_bucket else plan.itpm - self._used_tokens
        reset = (
            datetime.fromtimestamp(math.ceil(EPOCH_S + now_s + MINUTE_S), UTC).strftime("%Y-%m-%dT%H:%M:%SZ").encode()
        )
        if plan.rpm:
            _tell(found, b"requests", plan.rpm, left_requests, reset)
        if plan.itpm:
            _tell(found, b"input-tokens", plan.itpm, left_tokens, reset)
        return found


def _tell(found: dict[bytes, bytes], kind: bytes, limit: int, left: float, reset: bytes) -> None:
    found[b"anthropic-ratelimit-%b-limit" % kind] = b"%d" % limit
    found[b"anthropic-ratelimit-%b-remaining" % kind] = b"%d" % max(0, int(left))
    found[b"anthropic-ratelimit-%b-reset" % kind] = reset


class Upstream:
    """A provider."""

    def __init__(self, plan: ProviderPlan, spells: tuple[Spell, ...], seed: int, warm_up_s: float) -> None:
        self.plan = plan
        self.accounts = {scope.name: Account(scope, warm_up_s) for scope in plan.scopes}
        self._spells = sorted((one for one in spells if one.provider == plan.name), key=lambda one: one.from_s)
        self._roll = Random(f"{seed} {plan.name}")  # noqa: S311
        self.refused_malformed = 0

    def spell(self, scope: str, now_s: float) -> Spell | None:
        """What is wrong with it now."""
        for one in self._spells:
            if one.from_s <= now_s < one.until_s and one.scope in ("", scope):
                return one
        return None

    def was_troubled(self, scope: str, from_s: float, until_s: float) -> bool:
        """Whether anything was wrong with it at some time between these."""
        return any(
            one.from_s <= until_s and from_s < one.until_s and one.scope in ("", scope) and one.kind != "slow"
            for one in self._spells
        )

    def is_alive(self, scope: str, now_s: float) -> bool:
        """What a probe finds, of a scope or of the whole."""
        one = self.spell(scope, now_s)
        return one is None or one.kind in ("slow", "refuses", "stream_errors", "cuts")

    def answer(self, scope: str, turn: Turn, now_s: float) -> Answer:
        """A request arrives, with a key of that account."""
        account, roll = self.accounts[scope], self._roll
        one = self.spell(scope, now_s)
        kind = one.kind if one is not None else ""
        if kind in ("down", "dead"):
            return Answer(0, 0.0, 0.02, {}, NO_TOKENS)
        if kind == "hangs":
            account.arrives(now_s)
            return Answer(200, math.inf, math.inf, {}, NO_TOKENS)
        if kind in ("errors", "overloaded"):
            status = 529 if kind == "overloaded" else (500, 502, 503)[int(roll.random() * 3)]
            return Answer(status, 0.05, 0.06, {}, NO_TOKENS)
        if kind == "refuses":
            return Answer(400, 0.05, 0.06, {}, NO_TOKENS)
        wait_s = account.arrives(now_s)
        if wait_s > 0:
            special = account.told(now_s)
            special[b"retry-after"] = b"%d" % math.ceil(wait_s)
            return Answer(429, 0.03, 0.03, special, NO_TOKENS)
        read = account.caches.read(turn, now_s)
        written = max(0, turn.prompt_tokens - read - TAIL_TOKENS)
        account.takes(written + TAIL_TOKENS, now_s)
        first_byte_s = (self.plan.first_byte_s + written / 40_000) * roll.lognormvariate(0.0, 0.25)
        if kind == "slow":
            first_byte_s *= 8
        total_s = first_byte_s + turn.output / OUTPUT_PER_S
        if kind == "stream_errors":
            return Answer(200, first_byte_s, first_byte_s + 0.01, {}, NO_TOKENS, error_event=True)
        account.caches.write(turn, now_s)
        tokens = Tokens(
            input=TAIL_TOKENS,
            output=turn.output,
            cache_read=min(read, turn.prompt_tokens - TAIL_TOKENS),
            cache_write_5m=written,
        )
        is_cut = kind == "cuts" and roll.random() < 0.5
        return Answer(200, first_byte_s, total_s, account.told(now_s), tokens, is_cut=is_cut)
