"""Sessions and their agents, as a tree.

Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from ccr_rpc.v1 import stats_pb2
from ccr_words.decisions import place

from ccr_tui.core import figures, words
from ccr_tui.core.table import Cell, Column, Listing, dim, plain

COLUMNS = (
    Column("session", 15, 0, grows=3),
    Column("last", 4, 0, is_number=True),
    Column("requests", 8, 1, is_number=True),
    Column("tokens", 7, 2, is_number=True),
    Column("cached", 6, 1, is_number=True),
    Column("cost", 8, 0, is_number=True),
    Column("now on", 17, 0, grows=2),
    Column("client", 10, 4, grows=1),
    Column("model", 17, 3, grows=2),
    Column("began", 5, 5, is_number=True),
)
AGENT = "\x1f"  # between a session and its agent in the key of a row


def listing(shown: Sequence[stats_pb2.Session], now_s: float, unfolded: AbstractSet[str], match: str = "") -> Listing:
    """Sessions, newest first; those in `unfolded` with their agents below them."""
    rows: list[tuple[stats_pb2.Session, int]] = []
    for one in shown:
        if match and match not in f"{one.session} {one.client}":
            continue
        rows.append((one, -1))
        if one.session in unfolded:
            rows += [(one, number) for number in range(len(one.agents))]
    keys = [one.session if at < 0 else f"{one.session}{AGENT}{one.agents[at].agent}" for one, at in rows]
    return Listing(
        COLUMNS, keys, lambda row: _cells(*rows[row], now_s, unfolded), "no session fits" if match else "no sessions"
    )


def with_older(
    live: Sequence[stats_pb2.Session] | None, older: Sequence[stats_pb2.Session]
) -> Sequence[stats_pb2.Session]:
    """What the stream tells, then what was asked for besides."""
    newest = live or ()
    known = {one.session for one in newest}
    return [*newest, *(one for one in older if one.session not in known)] if older else newest


def newest_agent(one: stats_pb2.Session) -> stats_pb2.SessionAgent:
    """The agent that spoke last."""
    return max(
        one.agents, key=lambda agent: (agent.last_at.seconds, agent.last_at.nanos), default=stats_pb2.SessionAgent()
    )


def _cells(one: stats_pb2.Session, at: int, now_s: float, unfolded: AbstractSet[str]) -> Sequence[Cell]:
    if at >= 0:
        return _agent_cells(one, at, now_s)
    last = newest_agent(one)
    has_more = len(one.agents) > 1 or any(agent.agent for agent in one.agents)
    sign = ("▾ " if one.session in unfolded else "▸ ") if has_more else "  "
    return (
        (sign + one.session, "strong"),
        plain(words.ago(one.last_at, now_s)),
        plain(figures.count(one.requests)),
        plain(figures.count(words.tokens(one.tokens))),
        plain(words.cache_share(one.tokens)),
        plain(figures.money(one.cost_micro_usd)),
        plain(place(last.provider, last.key_label) or figures.NOTHING),
        plain(one.client or figures.NOTHING),
        dim(last.model or figures.NOTHING),
        dim(words.ago(one.first_at, now_s)),
    )


def _agent_cells(one: stats_pb2.Session, at: int, now_s: float) -> Sequence[Cell]:
    agent = one.agents[at]
    sign = "└─" if at == len(one.agents) - 1 else "├─"
    return (
        plain(f"  {sign} {agent.agent or 'main'}"),
        plain(words.ago(agent.last_at, now_s)),
        plain(figures.count(agent.requests)),
        plain(figures.count(words.tokens(agent.tokens))),
        plain(words.cache_share(agent.tokens)),
        plain(figures.money(agent.cost_micro_usd)),
        plain(place(agent.provider, agent.key_label) or figures.NOTHING),
        plain(""),
        dim(agent.model or figures.NOTHING),
        plain(""),
    )
