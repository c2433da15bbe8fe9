"""Metrics of the whole fleet in Prometheus's text format. What they say is what the services answer, made when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import version

from ccr_rpc.v1 import config_pb2, fleet_pb2, keys_pb2, providers_pb2, snapshot_pb2, stats_pb2, usage_pb2
from google.protobuf.message import Message
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from ccr_control.core.fleet import MAX_PROVIDERS
from ccr_control.core.ledger import Counters
from ccr_control.core.meters import Histogram, Meters, Use
from ccr_control.core.spending import NANO_PER_MICRO, ClientBudget

MAX_NODES = 256
"""Nodes shown one by one; there are hardly ever more of them than processor cores."""

_OUTCOMES = ("served", "failed", "broken", "client_left", "refused")
_TOKENS = {
    "input": "input_tokens",
    "output": "output_tokens",
    "cache_read": "cache_read_tokens",
    "cache_write_5m": "cache_write_5m_tokens",
    "cache_write_1h": "cache_write_1h_tokens",
}
_CIRCUITS = {
    snapshot_pb2.CIRCUIT_STATE_CLOSED: "closed",
    snapshot_pb2.CIRCUIT_STATE_OPEN: "open",
    snapshot_pb2.CIRCUIT_STATE_HALF_OPEN: "half_open",
}
_USE = ("provider", "model", "client")
_BUDGET = ("provider", "scope", "model_class", "kind")

Spent = Callable[[str], tuple[int, int]]


class _Made:
    """Families that are there already, as prometheus-client wants them."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def exposition(
    meters: Meters,
    parts: Mapping[str, Message],
    budgets: Mapping[str, ClientBudget],
    spent: Spent,
    unknown_names: int,
) -> bytes:
    """Everything, in text format 0.0.4. `parts` are the messages that screens show, by their names there."""
    families = [*_of_requests(meters), *_of_clients(budgets, spent), *_of_process(unknown_names)]
    for message in parts.values():
        match message:
            case stats_pb2.Stats():
                families += _of_totals(message)
            case providers_pb2.ListProvidersResponse():
                families += _of_circuits(message)
            case keys_pb2.ListScopesResponse():
                families += _of_budgets(message)
            case fleet_pb2.ListNodesResponse():
                families += _of_nodes(message)
            case config_pb2.GetConfigResponse():
                families += _of_config(message)
    registry = CollectorRegistry()
    registry.register(_Made(families))
    return generate_latest(registry)


def _of_requests(meters: Meters) -> Iterator[Metric]:
    requests = CounterMetricFamily("ccr_requests", "Finished requests.", labels=(*_USE, "outcome"))
    tokens = CounterMetricFamily("ccr_tokens", "Tokens, as providers reported them.", labels=(*_USE, "kind"))
    cost = CounterMetricFamily("ccr_cost_usd", "What requests cost, in US dollars.", labels=_USE)
    saved = GaugeMetricFamily(
        "ccr_cache_savings_usd",
        "What requests would have cost more without prompt caches, since the start. It can shrink: writing them costs, too.",
        labels=_USE,
    )
    unpriced = CounterMetricFamily("ccr_unpriced_requests", "Requests whose price nobody knows.", labels=_USE)
    for use, counters in sorted(meters.uses.items()):
        _add_use(requests, tokens, use, counters)
        cost.add_metric(use, counters.cost_micro_usd / 1e6)
        saved.add_metric(use, counters.saved_micro_usd / 1e6)
        unpriced.add_metric(use, counters.unpriced_requests)
    attempts = CounterMetricFamily(
        "ccr_attempts", "Upstream requests, by why they were not the answer.", labels=("provider", "key", "reason")
    )
    for tried, count in sorted(meters.attempts.items()):
        attempts.add_metric((tried.provider, tried.key_label, tried.reason or "answered"), count)
    yield from (requests, tokens, cost, saved, unpriced, attempts)
    shown: tuple[tuple[str, str, Callable[[str], Histogram]], ...] = (
        ("ccr_request_duration_seconds", "Total time of requests.", lambda name: meters.timings[name].total),
        ("ccr_first_byte_seconds", "Time to the first byte.", lambda name: meters.timings[name].first_byte),
        ("ccr_overhead_seconds", "Time that the relay itself added.", lambda name: meters.timings[name].overhead),
    )
    for metric, words, histogram_of in shown:
        family = HistogramMetricFamily(metric, words, labels=("provider",))
        for provider in sorted(meters.timings):
            found = histogram_of(provider)
            buckets = [
                ("+Inf" if bound == float("inf") else repr(bound), float(count)) for bound, count in found.cumulated()
            ]
            family.add_metric((provider,), buckets, found.sum_us / 1e6)
        yield family
    yield CounterMetricFamily("ccr_usage_batches", "Batches of usage that were counted.", value=meters.batches)


def _add_use(requests: CounterMetricFamily, tokens: CounterMetricFamily, use: Use, counters: Counters) -> None:
    for outcome in _OUTCOMES:
        if count := getattr(counters, outcome):
            requests.add_metric((*use, outcome), count)
    for kind, name in _TOKENS.items():
        if count := getattr(counters, name):
            tokens.add_metric((*use, kind), count)


def _of_totals(stats: stats_pb2.Stats) -> Iterator[Metric]:
    yield GaugeMetricFamily("ccr_open_requests", "Requests being served now.", value=stats.total.open_requests)
    by_provider = GaugeMetricFamily(
        "ccr_provider_open_requests", "Requests under way at a provider now.", labels=("provider",)
    )
    for one in stats.providers[:MAX_PROVIDERS]:
        by_provider.add_metric((one.provider,), one.figures.open_requests)
    yield by_provider
    yield GaugeMetricFamily(
        "ccr_cost_today_usd", "What today's requests cost, UTC.", value=stats.total.cost_today_micro_usd / 1e6
    )


def _of_circuits(message: providers_pb2.ListProvidersResponse) -> Iterator[Metric]:
    circuits = GaugeMetricFamily(
        "ccr_circuit_state", "1 for the state that a circuit is in, else 0.", labels=("provider", "scope", "state")
    )
    last = GaugeMetricFamily(
        "ccr_provider_alive", "Whether the newest probe found the provider alive.", labels=("provider",)
    )
    enabled = GaugeMetricFamily("ccr_provider_enabled", "Whether requests may go there.", labels=("provider",))
    for one in message.providers:
        for scope, state in [("", one.circuit), *((scope.scope, scope.circuit) for scope in one.scopes)]:
            for number, word in _CIRCUITS.items():
                circuits.add_metric((one.name, scope, word), float(state == number))
        enabled.add_metric((one.name,), float(one.enabled))
        if one.HasField("last_probe"):
            last.add_metric((one.name,), float(one.last_probe.alive))
    yield from (circuits, enabled, last)


def _of_budgets(message: keys_pb2.ListScopesResponse) -> Iterator[Metric]:
    limits = GaugeMetricFamily("ccr_budget_limit", "What an account may use in a minute.", labels=_BUDGET)
    used = GaugeMetricFamily("ccr_budget_used", "What was used of it in the last minute.", labels=_BUDGET)
    leased = GaugeMetricFamily("ccr_budget_leased", "What nodes have as their parts.", labels=_BUDGET)
    until = GaugeMetricFamily(
        "ccr_budget_exhausted_in_seconds", "Until the tightest limit is reached, if in sight.", labels=_BUDGET[:3]
    )
    for one in message.budgets:
        place = (one.provider, one.scope, one.model_class)
        for kind in ("requests", "input_tokens", "output_tokens", "tokens"):
            if limit := getattr(one.limits, kind):
                limits.add_metric((*place, kind), limit)
                used.add_metric((*place, kind), _amount(one.used, kind))
                leased.add_metric((*place, kind), _amount(one.leased, kind))
        if one.HasField("exhausted_in"):
            until.add_metric(place, one.exhausted_in.seconds + one.exhausted_in.nanos / 1e9)
    yield from (limits, used, leased, until)


def _amount(of: usage_pb2.BudgetAmounts, kind: str) -> float:
    return float(getattr(of, kind))


def _of_nodes(message: fleet_pb2.ListNodesResponse) -> Iterator[Metric]:
    gauges = {
        "connected": GaugeMetricFamily(
            "ccr_node_connected", "Whether a node follows the configuration.", labels=("node",)
        ),
        "skew": GaugeMetricFamily(
            "ccr_node_snapshot_skew", "How many versions a node is behind the newest snapshot.", labels=("node",)
        ),
        "rejected": GaugeMetricFamily(
            "ccr_node_snapshot_rejected",
            "Whether a node refused the newest snapshot that it was sent.",
            labels=("node",),
        ),
        "requests": GaugeMetricFamily("ccr_node_open_requests", "Requests that a node is serving.", labels=("node",)),
        "connections": GaugeMetricFamily(
            "ccr_node_open_connections", "Client connections that a node has open.", labels=("node",)
        ),
        "resident": GaugeMetricFamily("ccr_node_resident_bytes", "Resident memory of a node.", labels=("node",)),
        "spooled": GaugeMetricFamily("ccr_node_spooled_bytes", "Usage that waits on a node's disk.", labels=("node",)),
    }
    refused = CounterMetricFamily(
        "ccr_node_unauthorized", "Requests refused for a wrong or missing credential.", labels=("node",)
    )
    for node in message.nodes[:MAX_NODES]:
        name, status = (node.node_id,), node.status
        gauges["connected"].add_metric(name, float(node.connected))
        if node.connected:
            gauges["skew"].add_metric(name, max(0, message.newest_version - node.served_version))
        gauges["rejected"].add_metric(name, float(node.rejected_version != 0))
        gauges["requests"].add_metric(name, status.open_requests)
        gauges["connections"].add_metric(name, status.open_connections)
        gauges["resident"].add_metric(name, status.resident_bytes)
        gauges["spooled"].add_metric(name, status.spooled_bytes)
        refused.add_metric(name, status.unauthorized_total)
    yield from gauges.values()
    yield refused
    yield GaugeMetricFamily("ccr_snapshot_version", "Version of the newest snapshot.", value=message.newest_version)


def _of_config(message: config_pb2.GetConfigResponse) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "ccr_config_refused", "Whether a change of the file was refused.", value=float(message.HasField("refusal"))
    )
    yield GaugeMetricFamily(
        "ccr_config_loaded_timestamp_seconds",
        "When the configuration in force was loaded.",
        value=message.loaded_at.seconds,
    )


def _of_clients(budgets: Mapping[str, ClientBudget], spent: Spent) -> Iterator[Metric]:
    limit = GaugeMetricFamily("ccr_client_budget_usd", "What a client may spend.", labels=("client", "period"))
    used = GaugeMetricFamily("ccr_client_spent_usd", "What it has spent.", labels=("client", "period"))
    for client, budget in sorted(budgets.items()):
        today, this_month = spent(client)
        periods = (("day", budget.day_usd, today), ("month", budget.month_usd, this_month))
        for period, allowed, nano in periods:
            if allowed is not None:
                limit.add_metric((client, period), float(allowed))
                used.add_metric((client, period), nano / NANO_PER_MICRO / 1e6)
    yield from (limit, used)


def _of_process(unknown_names: int) -> Iterator[Metric]:
    build = GaugeMetricFamily("ccr_build_info", "Always 1; the version is a label.", labels=("version",))
    build.add_metric((version("cc-relay"),), 1)
    yield build
    yield GaugeMetricFamily(
        "ccr_unknown_names", "Names that clients or providers say and this version does not know.", value=unknown_names
    )
