"""What Prometheus scrapes is well-formed, agrees with what was reported, and is all that dashboards and alert rules ask for."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import aiohttp
import yaml
from ccr_rpc.v1 import usage_pb2
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from support.control import CONFIG, Control, running_control
from support.fake_node import FakeNode, FakeReporter, batch, record

ROOT = Path(__file__).parents[2]
WITH_METRICS = CONFIG.replace(
    '"127.0.0.1:0"}', '"127.0.0.1:0", web_listen: "127.0.0.1:0", metrics_listen: "127.0.0.1:0"}'
)
WITH_METRICS += "server: {auth: {keys: [{name: laptop, key: key-of-the-laptop, budget: {day: 1 USD}}]}}\n"


async def scrape(control: Control) -> tuple[str, dict[str, Metric]]:
    ready = control.event("control_ready")
    assert ready is not None
    async with aiohttp.ClientSession() as session, session.get(f"http://{ready['metrics']}/metrics") as response:
        assert response.status == 200
        assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        text = await response.text()
    return text, {family.name: family for family in text_string_to_metric_families(text)}


def value(families: dict[str, Metric], name: str, **labels: str) -> float:
    """The sum of a metric's samples with these labels."""
    return sum(
        sample.value
        for family in families.values()
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


async def test_what_was_reported_is_what_is_scraped(tmp_path: Path) -> None:
    now = int(time.time())
    attempts = [
        usage_pb2.Attempt(provider="zai", key_label='odd "name"\\', status=529, reason="overloaded"),
        usage_pb2.Attempt(provider="anthropic", key_label="team-a", status=200),
    ]
    folded = usage_pb2.UsageSum(
        provider="anthropic", key_label="team-a", model_used="claude-sonnet-4-5", client="laptop", requests=8, served=8
    )
    folded.total_us, folded.first_byte_us, folded.overhead_us = 8 * 3_000_000, 8 * 700_000, 8 * 200
    folded.hour.FromSeconds(now - now % 3600)
    folded.tokens.input = 1000
    status = usage_pb2.NodeStatus(open_requests=3, open_connections=5, resident_bytes=10**8)
    status.open.add(provider="anthropic", requests=2)
    status.open.add(provider="zai", requests=1)
    made = batch(
        1, record(started_at_s=now, request_id="a"), record(started_at_s=now, request_id="b", attempts=attempts)
    )
    made.sums.append(folded)
    made.status.CopyFrom(status)
    async with running_control(tmp_path, WITH_METRICS) as control, control.channel() as channel:
        async with FakeNode(channel).watching() as node, FakeReporter(channel).reporting() as reporter:
            await node.got()
            await reporter.report(made)
            text, families = await scrape(control)
        assert value(families, "ccr_requests_total", outcome="served", provider="anthropic", client="laptop") == 10
        assert value(families, "ccr_tokens_total", kind="input") == 1020
        assert value(families, "ccr_cost_usd_total") == (2 * 420 + 3000) / 1e6
        assert value(families, "ccr_attempts_total", provider="zai", reason="overloaded") == 1
        assert value(families, "ccr_attempts_total", reason="answered") == 10
        for histogram in ("ccr_request_duration_seconds", "ccr_first_byte_seconds", "ccr_overhead_seconds"):
            assert value(families, f"{histogram}_count", provider="anthropic") == 10
            assert value(families, f"{histogram}_bucket", le="+Inf") == 10
        assert value(families, "ccr_request_duration_seconds_sum") == 2 * 2 + 8 * 3
        assert value(families, "ccr_open_requests") == 3
        assert value(families, "ccr_provider_open_requests", provider="anthropic") == 2
        assert value(families, "ccr_provider_open_requests", provider="zai") == 1
        assert value(families, "ccr_node_open_connections", node="test/worker-0") == 5
        assert value(families, "ccr_node_snapshot_skew") == 0
        assert value(families, "ccr_node_connected") == 1
        assert value(families, "ccr_circuit_state", provider="anthropic", scope="") == 1
        assert value(families, "ccr_client_spent_usd", client="laptop", period="day") == (2 * 420 + 3000) / 1e6
        for secret in ("not-a-real-key", "key-of-the-laptop", control.token):
            assert secret not in text


async def test_everything_that_dashboards_and_rules_ask_for_is_there(tmp_path: Path) -> None:
    """A metric that is renamed here has to be renamed there."""
    rules = yaml.safe_load((ROOT / "deploy/prometheus/cc-relay.rules.yaml").read_text())
    asked = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    dashboard = json.loads((ROOT / "deploy/grafana/cc-relay.json").read_text())
    asked += [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    names = {name for expression in asked for name in re.findall(r"\bccr_[a-z0-9_]+", expression)}
    assert len(names) > 15
    documented = (ROOT / "docs/reference/metrics.md").read_text()
    async with running_control(tmp_path, WITH_METRICS) as control, control.channel() as channel:
        async with FakeReporter(channel).reporting() as reporter:
            await reporter.report(batch(1, record(started_at_s=int(time.time()))))
        text, families = await scrape(control)
        known = set()
        for line in text.splitlines():
            if line.startswith("# TYPE "):
                _, _, name, kind = line.split()
                known |= (
                    {f"{name}{suffix}" for suffix in ("_bucket", "_sum", "_count")} if kind == "histogram" else {name}
                )
        assert names <= known
        for name, family in families.items():
            shown = f"{name}_total" if family.type == "counter" else name
            assert f"`{shown}`" in documented, f"{shown} is not in docs/reference/metrics.md"
            assert family.documentation
            if family.type == "histogram":
                assert name.endswith("_seconds")


async def test_a_web_page_with_a_name_that_leads_here_reads_nothing(tmp_path: Path) -> None:
    async with running_control(tmp_path, WITH_METRICS) as control, aiohttp.ClientSession() as session:
        ready = control.event("control_ready")
        assert ready is not None
        for host, status in (
            ("evil.example", 421),
            ("127.0.0.1.evil.example:80", 421),
            ("localhost:9092", 200),
            ("127.0.0.1", 200),
        ):
            async with session.get(f"http://{ready['metrics']}/metrics", headers={"Host": host}) as response:
                assert response.status == status, host


async def test_a_port_that_is_taken_is_no_reason_not_to_start(tmp_path: Path) -> None:
    async with running_control(tmp_path / "first", WITH_METRICS) as first:
        ready = first.event("control_ready")
        assert ready is not None
        taken = WITH_METRICS.replace('metrics_listen: "127.0.0.1:0"', f'metrics_listen: "{ready["metrics"]}"')
        async with running_control(tmp_path / "second", taken) as second:
            event = second.event("metrics_unavailable")
            assert event is not None
            assert "(control.metrics_listen)" in event["problem"]
