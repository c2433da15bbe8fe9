"""What the dashboard makes of what it is told."""

from __future__ import annotations

import pytest
from ccr_rpc.v1 import (
    access_pb2,
    config_pb2,
    dashboard_pb2,
    events_pb2,
    keys_pb2,
    providers_pb2,
    records_pb2,
    snapshot_pb2,
    stats_pb2,
    usage_pb2,
)
from ccr_tui.core import (
    acts,
    chrome,
    figures,
    filters,
    keys,
    linking,
    overview,
    providers,
    requests,
    routing,
    sessions,
    words,
)
from ccr_tui.core.table import Line
from ccr_tui.core.world import MAX_EVENTS, MAX_RECORDS, Away, Connecting, Live, Unable, World, after
from support.fake_admin import AT_S, at
from support.scenes import budget, key, node, provider, record, session, small

NOW_S = float(AT_S)


def text(lines: list[Line]) -> str:
    return "\n".join("".join(words for words, _ in line) for line in lines)


def told(**parts: object) -> dashboard_pb2.WatchResponse:
    return dashboard_pb2.WatchResponse(at=at(), **parts)  # type: ignore[arg-type] # fields of it


def world_of_small() -> World:
    scene = small()
    said = told(
        stats=scene.stats,
        providers=providers_pb2.ListProvidersResponse(providers=scene.providers),
        config=scene.config,
        events=scene.events,
        series=scene.series,
    )
    return after(World(), said, NOW_S)


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (0, "0"),
        (999, "999"),
        (12_345, "12,345"),
        (99_999, "99,999"),
        (100_000, "100k"),
        (1_234_567, "1.23M"),
        (999_999, "1M"),
    ],
)
def test_counts_are_short(number: int, said: str) -> None:
    """A column of seven is enough for any of them."""
    assert figures.count(number) == said


@pytest.mark.parametrize(
    ("us", "said"),
    [(0, "-"), (310, "0.3 ms"), (9_940, "9.9 ms"), (412_000, "412 ms"), (2_340_000, "2.3 s"), (192e6, "3 m 12 s")],
)
def test_times_are_short(us: float, said: str) -> None:
    """Milliseconds where people expect them, and no false precision."""
    assert figures.micros(us) == said


@pytest.mark.parametrize(
    ("micro_usd", "said"),
    [
        (0, "$0.00"),
        (12, "<$0.0001"),
        (800, "$0.0008"),
        (12_300, "$0.012"),
        (49_380_000, "$49.38"),
        (1_234_000_000, "$1,234"),
        (2_000_000_000_000, "$2M"),
    ],
)
def test_money_is_exact_where_it_is_little(micro_usd: int, said: str) -> None:
    """A single request costs less than a cent, a month of a team thousands."""
    assert figures.money(micro_usd) == said


@pytest.mark.parametrize(
    ("part", "whole", "said"),
    [(0, 0, "-"), (0, 9, "0%"), (9, 9, "100%"), (99_999, 100_000, ">99.9%"), (1, 100_000, "<0.1%"), (1, 3, "33.3%")],
)
def test_almost_all_is_not_all(part: int, whole: int, said: str) -> None:
    """100 % success is a promise."""
    assert figures.share(part, whole) == said


def test_a_part_that_is_not_told_stays() -> None:
    """The stream tells what changed."""
    world = after(World(), told(stats=stats_pb2.Stats(total=stats_pb2.Figures(requests=5))), NOW_S)
    world = after(world, told(nodes=dashboard_pb2.WatchResponse().nodes), NOW_S)
    assert world.stats is not None
    assert world.stats.total.requests == 5
    assert world.nodes is not None
    assert world.providers is None


def test_ages_are_of_the_control_planes_clock() -> None:
    """That of whoever looks may be wrong by hours."""
    world = after(World(), told(), NOW_S - 7200)
    assert world.clock_offset_s == 7200


def test_events_told_again_are_shown_once() -> None:
    """A stream that begins again brings the newest 50."""
    scene = small()
    world = after(World(), told(events=scene.events), NOW_S)
    world = after(world, told(events=[*scene.events, events_pb2.Event(id=9)]), NOW_S)
    assert [one.id for one in world.events] == [9, 3, 2, 1]


def test_events_of_a_store_that_began_anew_are_shown() -> None:
    """Their numbers are lower than those before."""
    world = after(World(), told(events=[events_pb2.Event(id=500)]), NOW_S)
    world = after(world, told(events=[events_pb2.Event(id=1), events_pb2.Event(id=2)]), NOW_S)
    assert [one.id for one in world.events] == [2, 1]


def test_lists_that_grow_are_bounded() -> None:
    """A dashboard that is left open for a week does not fill the machine."""
    world = World()
    for first in range(0, 3000, 200):
        batch = records_pb2.TailRecordsResponse(records=[record(first + n) for n in range(200)], skipped=1)
        happened = [events_pb2.Event(id=first + n) for n in range(200)]
        world = after(world, told(records=batch, events=happened), NOW_S)
    assert world.records is not None
    assert len(world.records) == MAX_RECORDS
    assert world.records[0].record.request_id == "req_002999"
    assert len(world.events) == MAX_EVENTS
    assert world.skipped == 15


def test_a_point_told_again_takes_its_place() -> None:
    """The newest is not over yet when it is told first."""
    first = [stats_pb2.SeriesPoint(at=at(60), requests=1), stats_pb2.SeriesPoint(at=at(30), requests=1)]
    world = after(World(), told(series=first), NOW_S)
    world = after(world, told(series=[stats_pb2.SeriesPoint(at=at(30), requests=7)]), NOW_S)
    assert [point.requests for point in world.series] == [1, 7]
    world = after(world, told(series=[stats_pb2.SeriesPoint(at=at(60), requests=3)]), NOW_S)
    assert [point.requests for point in world.series] == [3, 7], "told late; the newer one stays"


def test_the_overview_says_what_is_wrong_first() -> None:
    """What hinders requests before what only might."""
    world = world_of_small()
    drained = provider("zai", state=providers_pb2.PROVIDER_STATE_DRAINING)
    said = told(
        providers=providers_pb2.ListProvidersResponse(providers=[drained, small().providers[2]]),
        config=config_pb2.GetConfigResponse(restart_needed=["server.listen"]),
    )
    lines = text(overview.attention(after(world, said, NOW_S), NOW_S)).splitlines()
    assert lines == [
        "✗ local is passed by for 40s, its circuit is open: connect",
        "! takes effect with the next start: server.listen",
        "! zai is draining",
    ]


def test_all_is_well_when_nothing_is_wrong() -> None:
    """Or nobody would look at it any more."""
    said = told(providers=providers_pb2.ListProvidersResponse(providers=[provider("zai")]))
    assert overview.attention(after(World(), said, NOW_S), NOW_S) == []


def test_a_refused_configuration_names_line_and_mistake() -> None:
    """Somebody has just saved a file and wonders why nothing changes."""
    problem = config_pb2.ConfigProblem(file="ccr.yaml", line=3, column=5, path="providers[0]", message="has no name")
    config = config_pb2.GetConfigResponse(refusal=config_pb2.ConfigRefusal(refused_at=at(5), problems=[problem]))
    said = text(overview.attention(after(World(), told(config=config), NOW_S), NOW_S))
    assert said == "✗ the changed configuration was refused: ccr.yaml:3:5: providers[0]: has no name"


def test_one_account_passed_by_does_not_look_like_all_of_them() -> None:
    """The provider still serves with its other keys."""
    scopes = [
        providers_pb2.ScopeStatus(scope="a", circuit=snapshot_pb2.CIRCUIT_STATE_OPEN),
        providers_pb2.ScopeStatus(scope="b", circuit=snapshot_pb2.CIRCUIT_STATE_CLOSED),
    ]
    assert providers.circuit(provider("zai", scopes=scopes)) == ("◐ 1/2 acct", "warn")


def test_states_can_be_told_apart_without_colours() -> None:
    """NO_COLOR, and people who do not see red."""
    for names in (words.CIRCUITS, words.PROVIDER_STATES, words.KEY_STATES, words.OUTCOMES):
        by_tone: dict[str, set[str]] = {}
        for said, tone in names.values():
            by_tone.setdefault(said, set()).add(tone)
        assert all(len(tones) == 1 for tones in by_tone.values())


def test_an_unknown_number_is_shown_as_one() -> None:
    """A newer control plane has states that we do not know."""
    assert words.named(words.CIRCUITS, 99) == ("? 99", "warn")


def test_the_fullest_limit_is_the_one_in_the_table() -> None:
    """Whichever runs out first matters."""
    one = budget("zai", "org", used=500, limit=1000)
    assert [meter.what for meter in keys.meters(one)] == ["input", "requests"]
    one.used.requests = 990
    assert [meter.what for meter in keys.meters(one)] == ["requests", "input"]


def test_a_used_up_limit_divides_by_nothing() -> None:
    """Limits nobody knows are 0."""
    assert keys.meters(keys_pb2.ScopeBudget(used=usage_pb2.BudgetAmounts(requests=5))) == []


def test_agents_follow_their_session() -> None:
    """Only of those that are unfolded."""
    scene = [session("one", agents=("", "explorer")), session("two", agents=("", "planner"))]
    listing = sessions.listing(scene, NOW_S, {"two"})
    assert list(listing.keys) == ["one", "two", f"two{sessions.AGENT}", f"two{sessions.AGENT}planner"]
    assert [listing.cells(row)[0][0] for row in range(4)] == [
        "▸ one",
        "▸ two".replace("▸", "▾"),
        "  ├─ main",
        "  └─ planner",
    ]


def test_a_request_that_the_relay_answered_itself_has_no_target() -> None:
    """It names nobody instead of an empty provider."""
    stored = records_pb2.StoredRecord(record=usage_pb2.RequestRecord(request_id="r", status=400))
    cells = requests.listing([stored], NOW_S).cells(0)
    assert cells[3][0] == "the relay itself"
    assert ("unknown", "dim") in cells


def test_routes_are_read_from_whatever_the_configuration_is() -> None:
    """It is another process's text."""
    for document in (None, [], {"routing": None}, {"routing": {"routes": [None, {"match": 5, "to": [7]}]}}):
        routing.listing(routing.read(document))


def test_a_strategy_of_run_time_is_the_one_shown() -> None:
    """The configuration does not know it."""
    read = routing.read(
        {"routing": {"strategy": "failover", "routes": [{"name": "a", "to": []}, {"name": "b", "to": []}]}}
    )
    entries = [
        config_pb2.OverlayEntry(resource="routes/a", field="strategy", value="cost-based"),
        config_pb2.OverlayEntry(resource="routing", field="strategy", value="least-loaded"),
    ]
    shown = routing.with_overlay(read, entries)
    assert (shown.strategy, [row.strategy for row in shown.routes]) == ("least-loaded", ["cost-based", ""])


@pytest.mark.parametrize("words_", ["", "   ", "model nonsense", "model tokens=", "model tokens=-1", "model header:=x"])
def test_bad_questions_are_refused_here(words_: str) -> None:
    """With what would be right."""
    with pytest.raises(routing.BadQuestion, match="thinking"):
        routing.question(words_)


@pytest.mark.parametrize(
    "words_",
    [
        "statu=5",
        "status>=5",
        "status>=4xx",
        "total>=soon",
        "total>=9999999999999999m",
        "outcome=fine",
        '"open',
        "provider=",
    ],
)
def test_bad_filters_are_refused_here(words_: str) -> None:
    """And say which word it is."""
    with pytest.raises(filters.BadFilter):
        filters.parse(words_)


@pytest.mark.parametrize("number", ["", "-1", "0", "1.5", "1000001", "many", "٣", "99999999999"])
def test_bad_weights_are_refused_here(number: str) -> None:
    """Nothing is sent."""
    with pytest.raises(acts.BadNumber):
        acts.provider_number(provider("zai"), "weight", number)


def test_roles_are_only_ever_a_reason_when_known() -> None:
    """A control plane that does not say who we are decides by itself."""
    viewer = access_pb2.WhoAmIResponse(name="bob", role=access_pb2.ROLE_VIEWER)
    operator = access_pb2.WhoAmIResponse(name="eve", role=access_pb2.ROLE_OPERATOR)
    assert acts.why_not(acts.OPERATOR, viewer) == "this takes the role operator; bob is viewer"
    assert acts.why_not(acts.OPERATOR, operator) == ""
    assert acts.why_not(acts.ADMIN, operator)
    assert acts.why_not(acts.ADMIN, None) == ""
    assert acts.why_not(acts.ADMIN, access_pb2.WhoAmIResponse()) == ""


def test_a_change_names_the_state_it_is_made_upon() -> None:
    """Two people at two screens do not undo one another unseen."""
    for act in (
        acts.provider_state(provider("zai"), providers_pb2.PROVIDER_STATE_DISABLED),
        acts.provider_number(provider("zai"), "weight", "3"),
    ):
        assert act.request.etag == "etag-zai"
    assert acts.key_state(key("zai", "a"), snapshot_pb2.KEY_STATE_DISABLED).request.etag == "etag-a"


def test_the_line_says_what_is_wrong_with_it() -> None:
    """Old figures must not look like a quiet relay."""
    assert linking.banner(Live(), Live()) == ""
    assert linking.banner(Live(), None) == ""
    assert "last ones known" in linking.banner(Away("no control plane answers", NOW_S), None)
    assert linking.banner(Live(), Unable("not allowed: x")) == "rows: not allowed: x"
    assert linking.light(Away("", NOW_S + 3), NOW_S)[0] == "✗ away, again in 3 s"
    assert linking.light(Connecting(), NOW_S)[0] == "◐ connecting"


def test_the_top_line_drops_what_matters_least() -> None:
    """The state of the line is always there."""
    world = world_of_small()
    for width in (20, 40, 80, 200):
        said = "".join(part for part, _ in chrome.top(world, Live(), "unix:/run/ccr.sock", NOW_S, width))
        assert said.startswith("ccr ● live")
        assert len(said) <= max(width, 10)


def test_details_never_fail_for_want_of_a_field() -> None:
    """An older control plane leaves out what it does not know."""
    assert providers.detail(providers_pb2.ProviderStatus(name="x"), None, NOW_S)
    assert keys.key_detail(keys_pb2.KeyStatus(), World(), NOW_S)
    assert keys.scope_detail(keys_pb2.ScopeBudget(), NOW_S)
    assert requests.detail(records_pb2.StoredRecord(), NOW_S)
    assert node("x")
