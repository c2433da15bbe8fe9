"""What ccr-control shows of requests, over real processes: breakdowns, series, sessions, records, costs, and dashboards."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from ccr_rpc.v1 import (
    dashboard_pb2,
    dashboard_pb2_grpc,
    events_pb2,
    events_pb2_grpc,
    fleet_pb2,
    fleet_pb2_grpc,
    ledger_pb2,
    ledger_pb2_grpc,
    records_pb2,
    records_pb2_grpc,
    stats_pb2,
    stats_pb2_grpc,
    usage_pb2,
)
from support.control import CONFIG, Control, running_control, until
from support.fake_node import FakeNode, FakeReporter, batch, record

COST = 10 * 3 + 20 * 15 + round(300 * 0.3)  # of one such record, in micro-USD: claude-sonnet-4-5 costs 3 and 15
SAVED = 300 * 3 - round(300 * 0.3)


def told(number: int, **fields: Any) -> usage_pb2.RequestRecord:
    return record(started_at_s=int(time.time()) - 3, **{"request_id": f"req_{number}", **fields})


def failed_over(number: int, **fields: Any) -> usage_pb2.RequestRecord:
    attempts = [
        usage_pb2.Attempt(provider="zai", key_label="z", scope="zs", status=529, reason="overloaded"),
        usage_pb2.Attempt(provider="anthropic", key_label="team-a", scope="org", status=200),
    ]
    return told(number, attempts=attempts, **fields)


async def breakdown(
    channel: grpc.aio.Channel, by: int, window: int = stats_pb2.WINDOW_1M, limit: int = 0
) -> stats_pb2.GetBreakdownResponse:
    request = stats_pb2.GetBreakdownRequest(window=window, by=by, limit=limit)  # type: ignore[arg-type]
    return await stats_pb2_grpc.StatsServiceStub(channel).GetBreakdown(request)


async def report(channel: grpc.aio.Channel, *by: int, **fields: Any) -> ledger_pb2.GetCostReportResponse:
    stub = ledger_pb2_grpc.UsageLedgerServiceStub(channel)
    return await stub.GetCostReport(ledger_pb2.GetCostReportRequest(by=by, **fields))  # type: ignore[arg-type]


async def reason(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), dict(caught.value.trailing_metadata() or ()).get("ccr-reason", "")


MIXED = [
    lambda: told(1, session="s1"),
    lambda: told(2, session="s1", agent="explore"),
    lambda: failed_over(3, session="s2", client="desk"),
    lambda: told(4, outcome=usage_pb2.OUTCOME_FAILED, status=529, model_used="unheard-of"),
    lambda: told(5, endpoint=usage_pb2.ENDPOINT_COUNT_TOKENS, attempts=[], model_used=""),
]


@pytest.fixture(scope="module")
def mixed(control: Control) -> Control:
    """A control plane that was told of MIXED, by journal-1, and of nothing else."""

    async def tell() -> None:
        async with control.channel() as channel, FakeReporter(channel).reporting() as reporter:
            await reporter.report(batch(1, *(one() for one in MIXED)))

    asyncio.run(tell())
    return control


async def test_every_breakdown_adds_up_to_its_total(tmp_path: Path) -> None:
    """By each dimension and in each window; what a node folded counts, and has no session."""
    now = int(time.time())
    folded = usage_pb2.UsageSum(
        provider="anthropic",
        key_label="team-a",
        model_used="claude-sonnet-4-5",
        client="laptop",
        endpoint=usage_pb2.ENDPOINT_MESSAGES,
        requests=7,
        served=7,
        tokens=usage_pb2.TokenUsage(input=70),
    )
    folded.hour.FromSeconds(now - now % 3600)
    folded.ended_at.FromSeconds(now - 1)
    made = batch(1, *(one() for one in MIXED))
    made.sums.append(folded)
    async with running_control(tmp_path) as control, control.channel() as channel:
        async with FakeReporter(channel).reporting() as reporter:
            await reporter.report(made)
        for window in (stats_pb2.WINDOW_1M, stats_pb2.WINDOW_15M, stats_pb2.WINDOW_1H, stats_pb2.WINDOW_24H):
            for by in ledger_pb2.Dimension.values():
                if not by:
                    continue
                for limit in (0, 1, 2):
                    shown = await breakdown(channel, by, window, limit)
                    assert shown.total.requests == 12
                    assert shown.total.cost_micro_usd == 3 * COST + 210
                    for field in ("requests", "served", "failed", "cost_micro_usd", "saved_micro_usd"):
                        assert sum(getattr(one.figures, field) for one in shown.lines) == getattr(shown.total, field)
                    for kind in ("input", "output", "cache_read"):
                        in_lines = sum(getattr(one.figures.tokens, kind) for one in shown.lines)
                        assert in_lines == getattr(shown.total.tokens, kind)
        by_session = await breakdown(channel, ledger_pb2.DIMENSION_SESSION)
        assert {one.name: one.figures.requests for one in by_session.lines} == {"other": 7, "s1": 2, "s2": 1, "": 2}
        by_class = await breakdown(channel, ledger_pb2.DIMENSION_REQUEST_CLASS)
        assert {one.name: one.figures.requests for one in by_class.lines} == {
            "other": 7,
            "main": 3,
            "subagent": 1,
            "count_tokens": 1,
        }
        assert by_class.total.total.p50_us == pytest.approx(2_000_000, rel=0.02)
        bad = stats_pb2.GetBreakdownRequest(by=99)  # type: ignore[arg-type]
        stub = stats_pb2_grpc.StatsServiceStub(channel)
        assert await reason(stub.GetBreakdown(bad)) == (grpc.StatusCode.INVALID_ARGUMENT, "BAD_DIMENSION")
        wide = stats_pb2.GetBreakdownRequest(by=ledger_pb2.DIMENSION_MODEL, limit=5000)
        assert await reason(stub.GetBreakdown(wide)) == (grpc.StatusCode.INVALID_ARGUMENT, "OUT_OF_RANGE")


async def test_a_series_has_every_bucket_and_a_provider_its_own(tmp_path: Path) -> None:
    async with running_control(tmp_path) as control, control.channel() as channel:
        async with FakeReporter(channel).reporting() as reporter:
            await reporter.report(batch(1, *(one() for one in MIXED)))
        stub = stats_pb2_grpc.StatsServiceStub(channel)
        sizes = {stats_pb2.WINDOW_1M: (60, 1), stats_pb2.WINDOW_15M: (90, 10)}
        sizes |= {stats_pb2.WINDOW_1H: (120, 30), stats_pb2.WINDOW_24H: (96, 900)}
        for window, (count, seconds) in sizes.items():
            points = (await stub.GetSeries(stats_pb2.GetSeriesRequest(window=window))).points
            assert len(points) == count
            assert {one.span.seconds for one in points} == {seconds}
            assert [one.at.seconds for one in points] == sorted({one.at.seconds for one in points})
            assert sum(one.requests for one in points) == 5
            assert sum(one.failed_attempts for one in points) == 1
            assert sum(one.cost_micro_usd for one in points) == 3 * COST
        of_zai = await stub.GetSeries(stats_pb2.GetSeriesRequest(window=stats_pb2.WINDOW_1H, provider="zai"))
        assert (sum(p.requests for p in of_zai.points), sum(p.failed_attempts for p in of_zai.points)) == (0, 1)


async def test_sessions_show_their_agents_and_where_they_live(mixed: Control) -> None:
    async with mixed.channel() as channel:
        stub = stats_pb2_grpc.StatsServiceStub(channel)
        first = await stub.ListSessions(stats_pb2.ListSessionsRequest(page_size=1))
        rest = await stub.ListSessions(stats_pb2.ListSessionsRequest(page_token=first.next_page_token))
        assert rest.next_page_token == ""
        sessions = {one.session: one for one in (*first.sessions, *rest.sessions)}
        assert sessions.keys() == {"s1", "s2"}
        assert [(one.agent, one.requests, one.provider) for one in sessions["s1"].agents] == [
            ("", 1, "anthropic"),
            ("explore", 1, "anthropic"),
        ]
        assert (sessions["s1"].requests, sessions["s1"].cost_micro_usd) == (2, 2 * COST)
        of_desk = await stub.ListSessions(stats_pb2.ListSessionsRequest(client="desk"))
        assert [one.session for one in of_desk.sessions] == ["s2"]


async def test_totals_know_what_was_spent_today_also_after_a_restart(tmp_path: Path) -> None:
    async with running_control(tmp_path) as control:
        for restarts in range(2):
            async with control.channel() as channel:
                stub = stats_pb2_grpc.StatsServiceStub(channel)
                if not restarts:
                    async with FakeReporter(channel).reporting() as reporter:
                        old = record(started_at_s=int(time.time()) - 3 * 86_400, request_id="old")
                        await reporter.report(batch(1, told(1), told(2), old))
                total = (await stub.GetStats(stats_pb2.GetStatsRequest())).stats.total
                assert (total.cost_micro_usd, total.saved_micro_usd) == (3 * COST, 3 * SAVED)
                assert (total.cost_today_micro_usd, total.saved_today_micro_usd) == (2 * COST, 2 * SAVED)
            control.kill()
            await control.start()


async def test_records_are_listed_filtered_and_paged(mixed: Control) -> None:
    async with mixed.channel() as channel:
        stub = records_pb2_grpc.RecordServiceStub(channel)

        async def listed(**fields: Any) -> list[str]:
            which = records_pb2.RecordFilter(**fields)
            answer = await stub.ListRecords(records_pb2.ListRecordsRequest(filter=which))
            return [one.record.request_id for one in answer.records]

        assert await listed() == ["req_5", "req_4", "req_3", "req_2", "req_1"]
        assert await listed(session="s1") == ["req_2", "req_1"]
        assert await listed(client="desk") == ["req_3"]
        assert await listed(provider="zai") == ["req_3"]
        assert await listed(provider="zai", key_label="team-a") == []
        assert await listed(with_failed_attempt=True) == ["req_3"]
        assert await listed(min_status=500) == await listed(outcome=usage_pb2.OUTCOME_FAILED) == ["req_4"]
        assert await listed(model="claude-*") == await listed()
        assert await listed(model="gpt-*") == await listed(min_total_us=3_000_000) == []
        page = await stub.ListRecords(records_pb2.ListRecordsRequest(page_size=2))
        following = await stub.ListRecords(records_pb2.ListRecordsRequest(page_size=3, page_token=page.next_page_token))
        assert [one.record.request_id for one in following.records] == ["req_3", "req_2", "req_1"]
        assert following.next_page_token == ""
        stored = {one.record.request_id: one for one in (*page.records, *following.records)}
        assert stored["req_1"].node_id == "test/worker-0"
        assert stored["req_1"].cost_usd == pytest.approx(COST / 1e6)
        assert not stored["req_4"].HasField("cost_usd"), "nobody knows what it costs"
        bad = stub.ListRecords(records_pb2.ListRecordsRequest(page_token="x"))
        assert await reason(bad) == (grpc.StatusCode.INVALID_ARGUMENT, "PAGE_TOKEN")


async def test_a_tail_shows_the_backlog_then_what_comes_and_tells_a_slow_reader_what_it_missed(tmp_path: Path) -> None:
    async with running_control(tmp_path) as control, control.channel() as channel:
        stub = records_pb2_grpc.RecordServiceStub(channel)
        async with FakeReporter(channel).reporting() as reporter:
            await reporter.report(batch(1, *(told(n) for n in range(20))))
            which = records_pb2.RecordFilter(client="laptop")
            tail: Any = stub.TailRecords(records_pb2.TailRecordsRequest(filter=which, backlog=5))
            first = await tail.read()
            assert [one.record.request_id for one in first.records] == [f"req_{n}" for n in range(15, 20)]
            seen, skipped, number = 0, 0, 2
            while number < 60:  # nobody reads meanwhile: gRPC's windows fill up, then the server waits
                few = (told(number * 1000 + n, route="x" * 5000) for n in range(500))
                await reporter.report(batch(number, *few))
                number += 1
            async with asyncio.timeout(20):
                await reporter.report(batch(number, told(999_999)))
                while True:
                    message = await tail.read()
                    seen, skipped = seen + len(message.records), skipped + message.skipped
                    if message.records and message.records[-1].record.request_id == "req_999999":
                        break
            assert skipped > 0
            assert seen + skipped == 58 * 500 + 1
            tail.cancel()


async def test_a_cost_report_adds_up_by_any_three_dimensions(tmp_path: Path) -> None:
    async with running_control(tmp_path) as control, control.channel() as channel:
        async with FakeReporter(channel).reporting() as reporter:
            await reporter.report(batch(1, *(one() for one in MIXED)))
        for restarts in range(2):
            for by in (
                (),
                (ledger_pb2.DIMENSION_DAY, ledger_pb2.DIMENSION_MODEL, ledger_pb2.DIMENSION_CLIENT),
                (ledger_pb2.DIMENSION_SESSION, ledger_pb2.DIMENSION_AGENT, ledger_pb2.DIMENSION_REQUEST_CLASS),
                (ledger_pb2.DIMENSION_HOUR, ledger_pb2.DIMENSION_SCOPE, ledger_pb2.DIMENSION_KEY),
                (ledger_pb2.DIMENSION_PROVIDER, ledger_pb2.DIMENSION_ENDPOINT),
            ):
                for limit in (0, 1, 2):
                    shown = await report(channel, *by, limit=limit)
                    assert all(len(one.values) == len(by) for one in shown.lines)
                    assert (shown.total.requests, shown.total.cost_micro_usd) == (5, 3 * COST)
                    assert shown.total.unpriced_requests == 2
                    for field in ("requests", "served", "failed", "cost_micro_usd", "saved_micro_usd"):
                        assert sum(getattr(one, field) for one in shown.lines) == getattr(shown.total, field)
            if not restarts:
                control.kill()
                await control.start()
        only = ledger_pb2.DimensionValue(dimension=ledger_pb2.DIMENSION_SESSION, value="s1")
        of_s1 = await report(channel, ledger_pb2.DIMENSION_AGENT, where=[only])
        assert [(one.values[0], one.requests) for one in of_s1.lines] == [("", 1), ("explore", 1)]


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"by": [99]}, "BAD_DIMENSION"),
        ({"by": [1, 2, 3, 4]}, "TOO_MANY_DIMENSIONS"),
        ({"by": [1, 1]}, "DIMENSION_TWICE"),
        ({"limit": -1}, "BAD_LIMIT"),
        ({"by": [6], "since": 3 * 86_400}, "TOO_OLD"),
        ({"where": [ledger_pb2.DimensionValue(dimension=ledger_pb2.DIMENSION_DAY, value="today")]}, "BAD_TIME"),
    ],
)
async def test_a_report_that_cannot_be_is_refused(control: Control, fields: dict[str, Any], why: str) -> None:
    request = ledger_pb2.GetCostReportRequest(**{name: value for name, value in fields.items() if name != "since"})
    if "since" in fields:
        request.since.FromSeconds(int(time.time()) - fields["since"])
    async with control.channel() as channel:
        call = ledger_pb2_grpc.UsageLedgerServiceStub(channel).GetCostReport(request)
        assert await reason(call) == (grpc.StatusCode.INVALID_ARGUMENT, why)


async def test_prices_have_their_date_source_and_bands_and_the_configuration_comes_last(tmp_path: Path) -> None:
    text = CONFIG.replace(
        "key: sk-ant-api03-not-a-real-key}]", "key: sk-x}]\n    prices: {house: {input: 2, output: 8}}"
    )
    text += "  - {name: regional, type: anthropic, keys: [{key: sk-r}], price_factor: 1.1}\n"
    async with running_control(tmp_path, text) as control, control.channel() as channel:
        stub = ledger_pb2_grpc.UsageLedgerServiceStub(channel)
        prices = (await stub.ListPrices(ledger_pb2.ListPricesRequest())).prices
        by_name = {(one.provider, one.pattern, one.above_prompt_tokens): one for one in prices}
        assert by_name["", "claude-haiku-5-5", 100_000].input == 0.5
        assert by_name["", "claude-haiku-5-5", 0].as_of == "2026-10-07"
        assert all(one.source for one in prices)
        assert by_name["anthropic", "house", 0].output == 8
        assert by_name["regional", "claude-sonnet-4-5", 0].cache_write_1h == pytest.approx(6.6)
        assert [bool(one.provider) for one in prices] == sorted(bool(one.provider) for one in prices)


async def test_budgets_of_clients_say_what_is_spent(tmp_path: Path) -> None:
    auth = (
        "server: {auth: {keys: [{name: laptop, key: k-1, budget: {day: 1 USD, month: 20 USD}}, {name: b, key: k-2}]}}"
    )
    async with running_control(tmp_path, f"{CONFIG}{auth}\n") as control, control.channel() as channel:
        async with FakeReporter(channel).reporting() as reporter:
            await reporter.report(batch(1, told(1), told(2)))
        stub = ledger_pb2_grpc.UsageLedgerServiceStub(channel)
        budgets = (await stub.ListClientBudgets(ledger_pb2.ListClientBudgetsRequest())).budgets
        assert [(one.client, one.period, one.limit_micro_usd, one.spent_micro_usd) for one in budgets] == [
            ("laptop", "day", 1_000_000, 2 * COST),
            ("laptop", "month", 20_000_000, 2 * COST),
        ]
        assert time.time() < budgets[0].ends_at.seconds <= budgets[1].ends_at.seconds


async def test_a_dashboard_gets_everything_at_once_and_then_what_changed(tmp_path: Path) -> None:
    async with (
        running_control(tmp_path) as control,
        control.channel() as channel,
        FakeReporter(channel).reporting() as reporter,
    ):
        await reporter.report(batch(1, told(1, session="s1")))
        request = dashboard_pb2.WatchRequest(
            stats=True, providers=True, keys=True, nodes=True, config=True, events=True, sessions=True, series=True
        )
        request.records.client = "laptop"
        request.interval.FromMilliseconds(100)
        call: Any = dashboard_pb2_grpc.DashboardServiceStub(channel).Watch(request)
        first = await call.read()
        assert first.stats.total.requests == 1
        assert [one.name for one in first.providers.providers] == ["anthropic"]
        assert [one.label for one in first.keys.keys] == ["team-a"]
        assert first.HasField("scopes")
        assert first.config.config_hash
        assert not first.config.redacted_yaml
        assert [one.session for one in first.sessions.sessions] == ["s1"]
        assert [one.record.request_id for one in first.records.records] == ["req_1"]
        assert len(first.series) == 120
        assert first.HasField("nodes")
        await reporter.report(batch(2, told(2, session="s2")))
        news = dashboard_pb2.WatchResponse()
        last = {name: getattr(first, name) for name in ("config", "providers", "keys")}
        points = {one.at.seconds: one.requests for one in first.series}
        async with asyncio.timeout(20):
            while not (
                news.HasField("records")
                and news.HasField("sessions")
                and news.stats.total.requests == 2
                and sum(points.values()) == 2  # of one point, or of two where another has begun meanwhile
            ):
                message = await call.read()
                for name, before in last.items():
                    if message.HasField(name):
                        last[name] = getattr(message, name)
                        assert last[name] != before, f"{name} has not changed"
                news.MergeFrom(message)
                points |= {one.at.seconds: one.requests for one in news.series}
        assert [one.record.request_id for one in news.records.records] == ["req_2"]
        assert {one.session for one in news.sessions.sessions} == {"s2", "s1"}
        call.cancel()


async def test_a_dashboard_hears_of_an_older_point_that_grew(tmp_path: Path) -> None:
    """A node tells late what ended before the newest point began."""
    async with (
        running_control(tmp_path) as control,
        control.channel() as channel,
        FakeReporter(channel).reporting() as reporter,
    ):
        call: Any = dashboard_pb2_grpc.DashboardServiceStub(channel).Watch(dashboard_pb2.WatchRequest(series=True))
        points = {one.at.seconds: one.requests for one in (await call.read()).series}
        await reporter.report(batch(1, record(request_id="req_1", started_at_s=int(time.time()) - 90)))
        async with asyncio.timeout(20):
            while sum(points.values()) == 0:
                points |= {one.at.seconds: one.requests for one in (await call.read()).series}
        assert list(points.values())[-1] == 0
        call.cancel()


async def test_a_dashboard_shows_what_is_in_flight_where(tmp_path: Path) -> None:
    """Also at a provider that has not finished a request yet; a node that is away says nothing of now."""
    told_open = usage_pb2.NodeStatus(open_requests=3)
    told_open.open.add(provider="anthropic", requests=1)
    told_open.open.add(provider="zai", requests=2)
    made = batch(1, told(1))
    made.status.CopyFrom(told_open)
    async with running_control(tmp_path) as control, control.channel() as channel:
        stats = stats_pb2_grpc.StatsServiceStub(channel)

        async def shown() -> dict[str, int]:
            found = (await stats.GetStats(stats_pb2.GetStatsRequest())).stats
            return {one.provider: one.figures.open_requests for one in found.providers}

        async with FakeNode(channel).watching() as node, FakeReporter(channel).reporting() as reporter:
            await node.got()
            await reporter.report(made)
            assert await shown() == {"anthropic": 1, "zai": 2}
            nodes = await fleet_pb2_grpc.FleetServiceStub(channel).ListNodes(fleet_pb2.ListNodesRequest())
            assert nodes.nodes[0].status.open == told_open.open
            request = dashboard_pb2.WatchRequest(stats=True)
            call: Any = dashboard_pb2_grpc.DashboardServiceStub(channel).Watch(request)
            first = await call.read()
            call.cancel()
            assert [one.figures.open_requests for one in first.stats.providers] == [1, 2]

        async def is_none() -> bool:
            return not any((await shown()).values())

        await until(is_none, "the node is away")


async def test_a_dashboard_that_asked_for_nothing_hears_that_it_is_heard(control: Control) -> None:
    async with control.channel() as channel:
        stub = dashboard_pb2_grpc.DashboardServiceStub(channel)
        call: Any = stub.Watch(dashboard_pb2.WatchRequest())
        assert (await call.read()).ListFields()[0][0].name == "at"
        call.cancel()
        fast = dashboard_pb2.WatchRequest()
        fast.interval.FromMilliseconds(10)
        refused: Any = stub.Watch(fast)
        assert await reason(refused.read()) == (grpc.StatusCode.INVALID_ARGUMENT, "OUT_OF_RANGE")


async def test_names_that_nodes_do_not_know_are_listed_and_told_of_once(tmp_path: Path) -> None:
    """A batch that comes twice counts once; what looks like a value is not kept, whoever sent it."""
    made = batch(1, told(1))
    client = "claude-cli/2.1.329"
    for number in range(2):
        made.unknowns.add(kind="beta", name="brand-new-2027-01-31", said_by=client, count=3 + number)
    made.unknowns.add(kind="beta", name="brand-new-2027-01-31", said_by="claude-cli/2.2.0", count=1)
    made.unknowns.add(kind="body_key", name="a value", said_by=client, count=1)
    made.unknowns.add(kind="nonsense", name="name", said_by=client, count=1)
    async with running_control(tmp_path) as control, control.channel() as channel:
        async with FakeReporter(channel).reporting() as reporter:
            await reporter.report(made)
            await reporter.report(made)
        stub = stats_pb2_grpc.StatsServiceStub(channel)
        shown = (await stub.ListUnknowns(stats_pb2.ListUnknownsRequest())).unknowns
        assert [(one.kind, one.name, one.said_by, one.count) for one in shown] == [
            ("beta", "brand-new-2027-01-31", client, 7),
            ("beta", "brand-new-2027-01-31", "claude-cli/2.2.0", 1),
        ]
        events = events_pb2_grpc.EventServiceStub(channel)
        request = events_pb2.ListEventsRequest(kind=events_pb2.EVENT_KIND_DRIFT)
        await until(lambda: _any(events.ListEvents(request)), "it is an event")
        found = (await events.ListEvents(request)).events
        assert [(one.action, one.resource) for one in found] == [("unknown.seen", "unknowns/beta/brand-new-2027-01-31")]


async def _any(call: Any) -> bool:
    return bool((await call).events)
