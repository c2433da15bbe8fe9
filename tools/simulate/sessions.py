"""Clients: conversations that grow, tool loops and people between them, and retries as Claude Code makes them.

How a session goes on is drawn when it begins, from the seed and its number alone: every policy gets the same sessions.
docs/providers/claude-code.md has the retries: a `retry-after` of up to a minute is waited for, ten times at most.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

from ccr_data.core.pins import SessionKey, key_of

from simulate.clock import Clock
from simulate.plans import Crowd
from simulate.providers import Caches

MAX_RETRIES = 10
MAX_WAIT_S = 60
PROMPTS = 8  # different system prompts of a crowd
_SALT = b"simulated"


class Step(NamedTuple):
    """A turn as it was drawn."""

    pause_s: float
    growth: int
    output: int
    is_loop: bool


class Session:
    """A conversation."""

    __slots__ = ("crowd", "home", "home_s", "key", "machine", "number", "prompt", "steps", "tokens", "turn_count")

    def __init__(self, number: int, crowd: Crowd, machine: int, prompt: object, steps: list[Step]) -> None:
        self.number = number
        self.crowd = crowd
        self.machine = machine
        self.prompt = prompt
        self.steps = steps  # the next one last
        self.tokens = crowd.prefix
        self.turn_count = 0
        self.key: SessionKey = key_of(_SALT, str(number), "", crowd.model)
        self.home: tuple[str, str] | None = None  # provider and key that served it last
        self.home_s = 0.0  # when it was noted to be there


class Turn:
    """A question to the model, until it is answered or given up."""

    __slots__ = ("asked_s", "output", "prompt_tokens", "session", "step", "tries")

    def __init__(self, session: Session, step: Step, now_s: float) -> None:
        self.session = session
        self.step = step
        self.prompt_tokens = session.tokens + step.growth
        self.output = step.output
        self.asked_s = now_s
        self.tries = 0

    @property
    def size_bytes(self) -> int:
        """The size of the request's body."""
        return self.prompt_tokens * 4


class Ending(NamedTuple):
    """How a request ended, as its client sees it."""

    outcome: str  # served, refused (by the provider: a 4xx), failed, broken, lost (with its node)
    status: int = 0
    retry_after_s: int = 0  # 0: not said
    may_retry: bool = True
    cache_read: int = 0
    direct_read: int = 0  # what a direct connection would have read
    arrived_s: float = 0.0


@dataclass(slots=True)
class Seen:
    """What the clients saw."""

    turns: int = 0  # begun
    served: int = 0
    refused: int = 0
    given_up: int = 0
    requests: int = 0
    endings: Counter[str] = field(default_factory=Counter)
    waited_s: float = 0.0  # from a turn's first request to the one that was served
    cache_read: int = 0
    direct_read: int = 0
    cold_turns: int = 0  # that a direct connection would have found warm
    follow_ups: int = 0  # turns that it would have found warm


class Clients:
    """All sessions of a run."""

    def __init__(
        self,
        clock: Clock,
        seed: int,
        crowds: tuple[Crowd, ...],
        machines: int,
        until_s: float,
        send: Callable[[Turn], None],
    ) -> None:
        self._clock, self._seed, self._send = clock, seed, send
        self._machines = machines
        self._until_s = until_s
        self._draw = Random()  # noqa: S311
        self._wait = Random(f"{seed} clients")  # noqa: S311
        self.ideal = Caches()
        self.seen = Seen()
        self.open: dict[int, Turn] = {}  # by session
        self.on_served: list[Callable[[Turn, Ending], None]] = []
        starts = Random(f"{seed} starts")  # noqa: S311
        number = 0
        for at, crowd in enumerate(crowds):
            for _ in range(crowd.sessions):
                begins_s = starts.uniform(crowd.from_s, crowd.until_s)
                clock.after(begins_s - clock.now_s, self._begin, number, at, crowd)
                number += 1

    def _begin(self, number: int, at: int, crowd: Crowd) -> None:
        draw = self._draw
        draw.seed(self._seed << 32 | number)
        turns = crowd.fixed_turns or 1 + int(draw.expovariate(1.0) * (crowd.mean_turns - 0.5))
        steps = []
        for n in range(min(turns, 200)):
            is_loop = n > 0 and draw.random() < crowd.loop_share
            pause_s = draw.uniform(0.3, 4.0) if is_loop else draw.expovariate(1.0 / crowd.think_s)
            if not is_loop and crowd.can_pause and draw.random() < 0.1:
                pause_s += draw.uniform(150, 420)
            growth = int(draw.expovariate(1.0) * crowd.growth) + 60
            steps.append(Step(pause_s if n else 0.0, growth, int(draw.expovariate(1.0 / 280)) + 20, is_loop))
        steps.reverse()
        machine = draw.choice(crowd.machines) if crowd.machines else draw.randrange(self._machines)
        self._next(Session(number, crowd, machine, (at, draw.randrange(PROMPTS)), steps))

    def _next(self, session: Session) -> None:
        if session.steps:
            self._clock.after(session.steps[-1].pause_s, self._ask, session)

    def _ask(self, session: Session) -> None:
        if self._clock.now_s > self._until_s:
            return
        turn = Turn(session, session.steps.pop(), self._clock.now_s)
        session.turn_count += 1
        self.seen.turns += 1
        self.open[session.number] = turn
        self._request(turn)

    def _request(self, turn: Turn) -> None:
        self.seen.requests += 1
        self._send(turn)

    def ended(self, turn: Turn, ending: Ending) -> None:
        """A request of a turn has ended."""
        seen, session = self.seen, turn.session
        seen.endings[ending.outcome] += 1
        if ending.outcome == "served":
            seen.served += 1
            seen.waited_s += ending.arrived_s - turn.asked_s
            seen.cache_read += ending.cache_read
            seen.direct_read += ending.direct_read
            if ending.direct_read > session.crowd.prefix:
                seen.follow_ups += 1
                seen.cold_turns += ending.cache_read <= session.crowd.prefix
            session.tokens = turn.prompt_tokens + turn.output
            for tell in self.on_served:
                tell(turn, ending)
        elif ending.outcome == "refused":
            seen.refused += 1
        elif self._is_tried_again(turn, ending):
            return
        else:
            seen.given_up += 1
            session.steps.clear()
        self.open.pop(session.number, None)
        self._next(session)

    def _is_tried_again(self, turn: Turn, ending: Ending) -> bool:
        turn.tries += 1
        if turn.tries > MAX_RETRIES or not ending.may_retry or ending.retry_after_s > MAX_WAIT_S:
            return False
        if ending.retry_after_s:
            wait_s = ending.retry_after_s + self._wait.uniform(0.1, 0.6)
        else:
            wait_s = min(8.0, 0.5 * 2 ** (turn.tries - 1)) * self._wait.uniform(0.75, 1.25)
        self._clock.after(wait_s, self._request, turn)
        return True
