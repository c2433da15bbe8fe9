"""Whatever is asked for by whatever, the lines add up to the total, and memory is bounded."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import pytest
from ccr_control.core.errors import Malformed
from ccr_control.core.history import DAY, HOUR, MINUTE, QUARTER, SPANS, History, Slice
from ccr_control.core.ledger import COUNTERS, OTHER, Counters, Finished, FoldedSum, LedgerKey, Tokens, without_detail
from ccr_control.core.ledger import fold_detail as detail_of
from ccr_control.core.report import DETAILED, MAX_DIMENSIONS, Dimension, arranged, question
from ccr_control.core.sessions import KEPT_HOURS, MAX_AGENTS, Sessions
from ccr_control.services.stats import ranked
from ccr_control.store.database import Batch, Database
from hypothesis import given, settings
from hypothesis import strategies as st

NOW = 1_790_000_000  # 40 s before a new hour
DIMENSIONS: tuple[Dimension, ...] = get_args(Dimension)

few = st.sampled_from
names = few(["", "a", "b", "other"])
finished = st.builds(
    Finished,
    started_at_s=st.integers(NOW - 90_000, NOW + 10),
    provider=few(["", "anthropic", "zai"]),
    key_label=names,
    model_used=names,
    client=names,
    endpoint=few(["messages", "count_tokens"]),
    outcome=few(["served", "failed", "broken", "client_left", "refused"]),
    first_byte_us=st.integers(0, 10**6),
    total_us=st.integers(0, 10**8),
    tokens=st.builds(Tokens, st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6)),
    left_behind=st.lists(st.tuples(few(["anthropic", "zai"]), names, names), max_size=2).map(tuple),
    scope=names,
    session=few(["", "s1", "s2", "s3"]),
    agent=few(["", "x", "y"]),
    request_class=few(["main", "subagent"]),
    cost_micro_usd=st.integers(0, 10**7),
    saved_micro_usd=st.integers(-(10**6), 10**7),
    unpriced=st.integers(0, 1),
)
folded = st.builds(
    FoldedSum,
    key=st.builds(
        LedgerKey, st.just(NOW // 3600), few(["anthropic", "zai"]), names, names, names, few(["messages"]), names
    ),
    counters=st.builds(Counters, requests=st.integers(1, 500), cost_micro_usd=st.integers(0, 10**7)),
    ended_at_s=few([0, NOW - 100, NOW - 1]),
)


def total_of(parts: Iterable[Counters]) -> Counters:
    total = Counters()
    for part in parts:
        total.add(part)
    return total


@given(st.lists(finished, max_size=15), st.lists(folded, max_size=3), few(DIMENSIONS), few(SPANS), st.integers(1, 5))
def test_a_breakdown_adds_up_to_what_ended_in_its_window(
    requests: list[Finished], sums: list[FoldedSum], by: Dimension, span: object, limit: int
) -> None:
    history = History()
    history.count(requests, sums, NOW)
    last: dict[str, Slice] = {}
    assert isinstance(span, type(MINUTE))
    for last in history.breakdown(span, by, NOW):  # noqa: B007 - the last one counts
        pass
    lines, total = ranked(last, limit)
    first = (NOW // span.bucket_s - span.buckets + 1) * span.bucket_s
    ended = [(min(NOW, one.started_at_s + one.total_us // 10**6), one) for one in requests]
    expected = sum(first <= at for at, _ in ended) + sum(
        one.counters.requests for one in sums if one.ended_at_s >= first
    )
    assert total.counters.requests == expected
    shown = total_of(part.counters for _, part in lines)
    for name in COUNTERS:
        if name != "failed_attempts":  # lines without a request are not shown
            assert getattr(shown, name) == getattr(total.counters, name)
    assert len(lines) <= limit
    assert len({name for name, _ in lines}) == len(lines)
    in_series = total_of(part.counters for _, part in history.series(span, NOW))
    assert in_series.requests == expected
    assert in_series.failed_attempts == sum(len(one.left_behind) for at, one in ended if first <= at)


@given(st.integers(0, 100), st.integers(0, 2 * DAY.seconds))
def test_what_ended_leaves_each_window_in_its_time(age_s: int, later_s: int) -> None:
    history = History()
    request = Finished(NOW - age_s, "p", "", "", "", "messages", "served")
    history.count([request], [], NOW)
    history.count([], [], NOW + later_s)
    for span in SPANS:
        seen = sum(part.counters.requests for _, part in history.series(span, NOW + later_s))
        if age_s + later_s <= span.seconds - span.bucket_s:
            assert seen == 1
        if age_s + later_s > span.seconds:
            assert seen == 0


@pytest.mark.long
def test_memory_is_bounded_whatever_clients_ask_for_and_nothing_is_lost() -> None:
    """A thousand models and sessions each second for an hour and more of virtual time."""
    history, count = History(), 0
    sizes = []
    for second in range(0, 2 * HOUR.seconds, 30):
        crowd = [
            Finished(
                NOW + second,
                f"p{n % 3}",
                "k",
                f"model-{second}-{n}",
                "c",
                "messages",
                "served",
                session=f"s{second}-{n}",
            )
            for n in range(700)
        ]
        history.count(crowd, [], NOW + second)
        count += len(crowd)
        sizes.append(len(history))
    assert max(sizes) <= sum(span.buckets * 2 * (span.kinds + span.sessions) for span in SPANS)
    assert sizes[-1] <= 1.1 * sizes[-HOUR.buckets // 2] + 2000, "it does not grow for ever"
    by_provider: dict[str, Slice] = {}
    for by_provider in history.breakdown(DAY, "provider", NOW + second):  # noqa: B007
        pass
    assert sum(part.counters.requests for part in by_provider.values()) == count
    assert {"p0", "p1", "p2"} <= by_provider.keys()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.lists(finished, max_size=6), st.lists(folded, max_size=2)), max_size=4),
    st.lists(few(DIMENSIONS), max_size=MAX_DIMENSIONS, unique=True),
    st.integers(0, 6),
)
def test_a_cost_report_adds_up_and_both_tables_agree(
    batches: list[tuple[list[Finished], list[FoldedSum]]], by: list[Dimension], limit: int
) -> None:
    """To the token and the millionth of a dollar, whatever it is asked by."""
    with tempfile.TemporaryDirectory() as folder:
        database = Database.open(Path(folder) / "control.db", NOW)
        everything = []
        for number, (requests, sums) in enumerate(batches, 1):
            detail = detail_of(requests, sums)
            everything += [(key, counters) for key, counters in detail.items()]
            database.count([Batch("j", number, without_detail(detail), {}, detail)], NOW)
        asked = question(by, [], None, None, NOW)
        report = arranged(database.report(asked), by, limit)
        database.close()
    expected = total_of(
        counters for key, counters in everything if asked.since_hour <= key.line.hour < asked.until_hour
    )
    assert report.total == expected
    assert total_of(counters for _, counters in report.lines) == expected
    assert len(report.lines) <= (limit or 100)


def test_what_is_older_than_is_kept_leaves_the_hours_and_stays_in_the_totals(tmp_path: Path) -> None:
    database = Database.open(tmp_path / "control.db", NOW)
    database.keep_ledger_for(2 * 86_400)
    for number, age_s in enumerate((0, 86_400, 3 * 86_400), 1):
        detail = detail_of(
            [Finished(NOW - age_s, "p", "k", "m", "c", "messages", "served", cost_micro_usd=7, session="s")]
        )
        database.count([Batch("j", number, without_detail(detail), {}, detail)], NOW)
    database.count([Batch("j", 4, {})], NOW + 3600)
    asked = question(["day"], [], NOW - 30 * 86_400, None, NOW + 3600)
    assert len(database.report(asked)) == 2
    assert (database.totals()["p"].requests, database.totals()["p"].cost_micro_usd) == (3, 21)
    sessions = question(["session"], [], None, None, NOW + 3600)
    assert sum(line.counters.requests for line in database.report(sessions)) == 1
    database.close()
    again = Database.open(tmp_path / "control.db", NOW)
    assert again.totals()["p"].requests == 3
    again.close()


def test_a_ledger_of_an_older_release_is_taken_over(tmp_path: Path) -> None:
    """Its requests had no price: they are counted as such, not as free."""
    path = tmp_path / "control.db"
    database = Database.open(path, NOW)
    connection = database._connection
    old = ", ".join(f"{name} INTEGER NOT NULL" for name in COUNTERS[:15])
    connection.executescript(f"""
        DROP TABLE ledger; DROP TABLE detail; DROP TABLE forgotten;
        CREATE TABLE ledger (hour INTEGER NOT NULL, provider TEXT NOT NULL, key_label TEXT NOT NULL, model_used TEXT NOT NULL,
          client TEXT NOT NULL, endpoint TEXT NOT NULL, {old},
          PRIMARY KEY (hour, provider, key_label, model_used, client, endpoint)) WITHOUT ROWID;
        INSERT INTO ledger VALUES ({NOW // 3600}, 'p', 'k', 'm', 'c', 'messages', {", ".join(map(str, range(5, 20)))});
        INSERT INTO journals VALUES ('j', 41, {NOW});
        PRAGMA user_version = 1;
    """)
    database.close()
    for _ in range(2):  # and a second start finds it as it is
        database = Database.open(path, NOW)
        found = database.totals()["p"]
        assert [getattr(found, name) for name in COUNTERS[:15]] == [*range(5, 20)]
        assert (found.cost_micro_usd, found.unpriced_requests) == (0, 5)
        database.close()
    database = Database.open(path, NOW)
    assert len(database.count([Batch("j", 42, {})], NOW)) == 1
    database.close()


@pytest.mark.parametrize(
    ("by", "where", "since_s", "why"),
    [
        (["client"] * 2, [], None, "DIMENSION_TWICE"),
        ([*DIMENSIONS[:4]], [], None, "TOO_MANY_DIMENSIONS"),
        ([], [("session", "s")], NOW - 2 * 86_400, "TOO_OLD"),
        ([], [("hour", "noon")], None, "BAD_TIME"),
    ],
)
def test_what_cannot_be_answered_is_refused(
    by: list[Dimension], where: list[tuple[Dimension, str]], since_s: float | None, why: str
) -> None:
    with pytest.raises(Malformed) as caught:
        question(by, where, since_s, None, NOW)
    assert caught.value.reason == why


@given(few(["2026-11-21T13:00:00Z", "2026-11-21T13:00:00+00:00", "2026-11-21T14:00:00+01:00"]))
def test_an_hour_means_the_same_however_it_is_written(text: str) -> None:
    asked = question([], [("hour", text)], None, None, NOW)
    assert asked.where == (("hour", int(datetime(2026, 11, 21, 13, tzinfo=UTC).timestamp()) // 3600),)
    assert not {name for name, _ in asked.where} & DETAILED


@given(st.lists(finished, max_size=20), st.integers(0, 3))
def test_sessions_are_sums_of_their_agents_newest_first(requests: list[Finished], limit: int) -> None:
    sessions = Sessions(limit=limit + 1)
    sessions.count(requests, NOW)
    shown = list(sessions.newest(NOW))
    assert len(shown) <= limit + 1
    assert [one.last_s for one in shown] == sorted((one.last_s for one in shown), reverse=True)
    if limit >= 2:  # there are three
        oldest = NOW - KEPT_HOURS * 3600
        known = {one.session for one in requests if one.session and one.started_at_s > oldest}
        assert {one.name for one in shown} <= known
        for session in shown:
            mine = [one for one in requests if one.session == session.name and one.started_at_s > oldest]
            assert sum(agent.used().requests for agent in session.agents.values()) <= len(mine)
            assert session.agents.keys() <= {one.agent for one in mine}


def test_a_session_with_a_crowd_of_agents_is_bounded() -> None:
    sessions = Sessions()
    sessions.count(
        [Finished(NOW, "p", "k", "m", "c", "messages", "served", session="s", agent=f"a{n}") for n in range(500)], NOW
    )
    (session,) = sessions.newest(NOW)
    assert len(session.agents) == MAX_AGENTS + 1
    assert session.agents[OTHER].used().requests == 500 - MAX_AGENTS
    assert list(sessions.newest(NOW + KEPT_HOURS * 3600 + 1)) == []
    assert len(sessions) == 0
    assert QUARTER.seconds == 15 * 60
