"""Figures between our values and the contract's messages. Pure; used by the servicers only."""

from __future__ import annotations

from collections.abc import Mapping

from ccr_rpc.v1 import ledger_pb2, stats_pb2, usage_pb2

from ccr_control.core.fleet import Open
from ccr_control.core.history import DAY, HOUR, MINUTE, QUARTER, Slice, Span
from ccr_control.core.ledger import Counters
from ccr_control.core.report import Dimension
from ccr_control.core.sessions import Agent, Session, Tally
from ccr_control.core.stats import SHARES, WINDOW_S, Report
from ccr_control.core.stats import Figures as TotalFigures
from ccr_control.services.wire import timestamp

DIMENSIONS: dict[int, Dimension] = {
    ledger_pb2.DIMENSION_CLIENT: "client",
    ledger_pb2.DIMENSION_PROVIDER: "provider",
    ledger_pb2.DIMENSION_SCOPE: "scope",
    ledger_pb2.DIMENSION_KEY: "key",
    ledger_pb2.DIMENSION_MODEL: "model",
    ledger_pb2.DIMENSION_SESSION: "session",
    ledger_pb2.DIMENSION_REQUEST_CLASS: "request_class",
    ledger_pb2.DIMENSION_HOUR: "hour",
    ledger_pb2.DIMENSION_DAY: "day",
    ledger_pb2.DIMENSION_ENDPOINT: "endpoint",
    ledger_pb2.DIMENSION_AGENT: "agent",
}
WINDOWS: dict[int, Span] = {
    stats_pb2.WINDOW_UNSPECIFIED: MINUTE,
    stats_pb2.WINDOW_1M: MINUTE,
    stats_pb2.WINDOW_15M: QUARTER,
    stats_pb2.WINDOW_1H: HOUR,
    stats_pb2.WINDOW_24H: DAY,
}


def stats_message(report: Report, at_s: float, now_open: Open) -> stats_pb2.Stats:
    """Statistics as of `at_s`."""
    message = stats_pb2.Stats(at=timestamp(at_s), total=_figures(report.total))
    message.total.cost_today_micro_usd = report.cost_today_micro_usd
    message.total.saved_today_micro_usd = report.saved_today_micro_usd
    message.total.open_requests = now_open.requests
    message.window.FromSeconds(WINDOW_S)
    for name in sorted(report.providers.keys() | now_open.by_provider.keys()):
        line = message.providers.add(provider=name)
        if (figures := report.providers.get(name)) is not None:
            line.figures.CopyFrom(_figures(figures))
            line.failed_attempts = figures.counters.failed_attempts
        line.figures.open_requests = now_open.by_provider.get(name, 0)
    return message


def _figures(figures: TotalFigures) -> stats_pb2.Figures:
    return stats_pb2.Figures(
        **_counts(figures.counters),
        tokens=token_usage(figures.counters),
        requests_per_s=figures.requests_per_s,
        first_byte=percentiles(figures.first_byte_us),
        total=percentiles(figures.total_us),
        overhead=percentiles(figures.overhead_us),
    )


def slice_figures(part: Slice, seconds: float) -> stats_pb2.Figures:
    """The figures of what ended within so many seconds."""
    return stats_pb2.Figures(
        **_counts(part.counters),
        tokens=token_usage(part.counters),
        requests_per_s=part.counters.requests / seconds,
        first_byte=percentiles(part.first_byte.quantiles(SHARES)),
        total=percentiles(part.total.quantiles(SHARES)),
        overhead=percentiles(part.overhead.quantiles(SHARES)),
    )


def _counts(counters: Counters) -> Mapping[str, int]:
    return {
        "requests": counters.requests,
        "served": counters.served,
        "failed": counters.failed + counters.broken,
        "cost_micro_usd": counters.cost_micro_usd,
        "saved_micro_usd": counters.saved_micro_usd,
    }


def point_message(began_s: int, span: Span, part: Slice) -> stats_pb2.SeriesPoint:
    """What happened in one bucket of a window."""
    counters = part.counters
    message = stats_pb2.SeriesPoint(
        at=timestamp(began_s),
        requests=counters.requests,
        failed=counters.failed + counters.broken,
        failed_attempts=counters.failed_attempts,
        tokens=token_usage(counters),
        cost_micro_usd=counters.cost_micro_usd,
        first_byte=percentiles(part.first_byte.quantiles(SHARES)),
        total=percentiles(part.total.quantiles(SHARES)),
        overhead=percentiles(part.overhead.quantiles(SHARES)),
    )
    message.span.FromSeconds(span.bucket_s)
    return message


def cost_line(values: tuple[str, ...], counters: Counters) -> ledger_pb2.CostLine:
    """One line of a report."""
    return ledger_pb2.CostLine(
        values=values,
        **_counts(counters),
        tokens=token_usage(counters),
        unpriced_requests=counters.unpriced_requests,
    )


def session_message(session: Session) -> stats_pb2.Session:
    """A conversation and its agents: the main one first, then by name."""
    total = Tally()
    message = stats_pb2.Session(
        session=session.name,
        client=session.client,
        first_at=timestamp(session.first_s),
        last_at=timestamp(session.last_s),
    )
    for agent in sorted(session.agents.values(), key=lambda one: one.name):
        used = agent.used()
        total.merge(used)
        message.agents.append(_agent_message(agent, used))
    message.requests, message.cost_micro_usd = total.requests, total.cost_micro_usd
    message.tokens.CopyFrom(_tally_tokens(total))
    return message


def _agent_message(agent: Agent, used: Tally) -> stats_pb2.SessionAgent:
    return stats_pb2.SessionAgent(
        agent=agent.name,
        requests=used.requests,
        tokens=_tally_tokens(used),
        cost_micro_usd=used.cost_micro_usd,
        provider=agent.provider,
        key_label=agent.key_label,
        model=agent.model,
        last_at=timestamp(agent.last_s),
    )


def _tally_tokens(tally: Tally) -> usage_pb2.TokenUsage:
    return usage_pb2.TokenUsage(
        input=tally.input,
        output=tally.output,
        cache_read=tally.cache_read,
        cache_write_5m=tally.cache_write_5m,
        cache_write_1h=tally.cache_write_1h,
        thinking=tally.thinking,
    )


def token_usage(counters: Counters) -> usage_pb2.TokenUsage:
    """Tokens by kind."""
    return usage_pb2.TokenUsage(
        input=counters.input_tokens,
        output=counters.output_tokens,
        cache_read=counters.cache_read_tokens,
        cache_write_5m=counters.cache_write_5m_tokens,
        cache_write_1h=counters.cache_write_1h_tokens,
        thinking=counters.thinking_tokens,
    )


def percentiles(of_shares: tuple[int, ...] | list[int]) -> stats_pb2.Percentiles:
    """Those of `SHARES`."""
    p50_us, p90_us, p99_us = of_shares
    return stats_pb2.Percentiles(p50_us=p50_us, p90_us=p90_us, p99_us=p99_us)
