"""Sessions of the last day and their agents: who works, where each lives, what it has used.

Pure and bounded: beyond the limits the session that was heard of least recently is forgotten, and further agents of one share a line.
Times are seconds since 1970, given by the caller.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ccr_control.core.ledger import MAX_LABEL_CHARS, OTHER, Finished, Tokens

MAX_SESSIONS = 2000
MAX_AGENTS = 50
KEPT_HOURS = 24


@dataclass(slots=True)
class Tally:
    """What was used. Mutable: it is an accumulator."""

    requests: int = 0
    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    thinking: int = 0
    cost_micro_usd: int = 0

    def add(self, request: Finished) -> None:
        """Count one request."""
        self.requests += 1
        self._add_tokens(request.tokens)
        self.cost_micro_usd += request.cost_micro_usd

    def _add_tokens(self, tokens: Tokens) -> None:
        self.input += tokens.input
        self.output += tokens.output
        self.cache_read += tokens.cache_read
        self.cache_write_5m += tokens.cache_write_5m
        self.cache_write_1h += tokens.cache_write_1h
        self.thinking += tokens.thinking

    def merge(self, other: Tally) -> None:
        """Count everything in `other`, too."""
        self.requests += other.requests
        self.input += other.input
        self.output += other.output
        self.cache_read += other.cache_read
        self.cache_write_5m += other.cache_write_5m
        self.cache_write_1h += other.cache_write_1h
        self.thinking += other.thinking
        self.cost_micro_usd += other.cost_micro_usd


@dataclass(slots=True)
class Agent:
    """An agent of a session, and where its newest request went."""

    name: str  # empty: the main agent
    provider: str = ""
    key_label: str = ""
    model: str = ""  # that it asked for
    last_s: float = 0.0
    hours: dict[int, Tally] = field(default_factory=dict)

    def used(self) -> Tally:
        """What it used in the hours that are kept."""
        total = Tally()
        for tally in self.hours.values():
            total.merge(tally)
        return total


@dataclass(slots=True)
class Session:
    """A conversation and its agents, by name."""

    name: str
    client: str
    first_s: float
    last_s: float
    agents: dict[str, Agent] = field(default_factory=dict)


class Sessions:
    """Those of the last day."""

    def __init__(self, limit: int = MAX_SESSIONS) -> None:
        self._limit = limit
        self._sessions: OrderedDict[str, Session] = OrderedDict()  # the one heard of last is last
        self.changes = 0  # grows whenever anything was counted

    def __len__(self) -> int:
        return len(self._sessions)

    def count(self, finished: Iterable[Finished], now_s: float) -> None:
        """Count the requests of a batch that name a session."""
        for request in finished:
            if request.session and request.started_at_s > now_s - KEPT_HOURS * 3600:
                self._count(request, now_s)

    def _count(self, request: Finished, now_s: float) -> None:
        self.changes += 1
        name, at_s = request.session[:MAX_LABEL_CHARS], min(now_s, float(request.started_at_s))
        session = self._sessions.get(name)
        if session is None:
            session = self._sessions[name] = Session(name, request.client, at_s, at_s)
            if len(self._sessions) > self._limit:
                self._sessions.popitem(last=False)
        session.first_s, session.last_s = min(session.first_s, at_s), max(session.last_s, at_s)
        self._sessions.move_to_end(name)
        agent_name = request.agent[:MAX_LABEL_CHARS]
        if agent_name not in session.agents and len(session.agents) >= MAX_AGENTS:
            agent_name = OTHER
        agent = session.agents.get(agent_name)
        if agent is None:
            agent = session.agents[agent_name] = Agent(agent_name)
        if at_s >= agent.last_s:
            agent.last_s, agent.model = at_s, request.model_asked
            if request.provider:
                agent.provider, agent.key_label = request.provider, request.key_label
        hour = request.started_at_s // 3600
        tally = agent.hours.get(hour)
        if tally is None:
            tally = agent.hours[hour] = Tally()
            for old in [one for one in agent.hours if one <= int(now_s) // 3600 - KEPT_HOURS]:
                del agent.hours[old]
        tally.add(request)

    def newest(self, now_s: float, since_s: float = 0.0, client: str = "") -> Iterator[Session]:
        """Those with a request since then, of one client or of all; the one with the newest request first."""
        since_s = max(since_s, now_s - KEPT_HOURS * 3600)
        while self._sessions and (oldest := next(iter(self._sessions.values()))).last_s <= now_s - KEPT_HOURS * 3600:
            del self._sessions[oldest.name]
        found = [one for one in self._sessions.values() if one.last_s > since_s and client in ("", one.client)]
        return iter(sorted(found, key=lambda one: (-one.last_s, one.name)))
