"""How the command line reads and writes moments, money and messages; what the doctor says of odd answers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from ccr_cli.choosing import chosen
from ccr_cli.doctor import path, plane
from ccr_cli.doctor.findings import fail, line, ok, skip, summary, warn
from ccr_cli.doctor.machine import claude_code, credentials, same_place
from ccr_cli.doctor.talk import Answer, Event, Talker
from ccr_cli.failure import Failure
from ccr_cli.plain import plain, words
from ccr_cli.secret import secret_from
from ccr_cli.words import moment_of, money_words, share_words, span_of
from ccr_rpc.v1 import events_pb2, keys_pb2, records_pb2, snapshot_pb2, usage_pb2

NOW = datetime(2026, 11, 21, 12, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("90m", NOW - timedelta(minutes=90)),
        ("24h", NOW - timedelta(days=1)),
        ("2w", NOW - timedelta(days=14)),
        ("2026-11-01", datetime(2026, 11, 1, tzinfo=UTC)),
        ("2026-11-01T08:00:00Z", datetime(2026, 11, 1, 8, tzinfo=UTC)),
        ("2026-11-01T08:00:00+02:00", datetime(2026, 11, 1, 8, tzinfo=timezone(timedelta(hours=2)))),
    ],
)
def test_moments(text: str, moment: datetime) -> None:
    assert moment_of(text, "--since", NOW) == moment


@pytest.mark.parametrize("text", ["", "5", "-1h", "1.5h", "yesterday", "2026-13-01"])
def test_what_is_no_moment_is_told_with_what_is(text: str) -> None:
    with pytest.raises(Failure, match="24h or 7d"):
        moment_of(text, "--since", NOW)
    with pytest.raises(Failure, match="7d"):
        span_of(text, "--expires")


def test_money_and_shares() -> None:
    said = [money_words(amount) for amount in (0, 10, 49, 50, 4200, 12_340_000, 1_234_500_000)]
    assert said == ["-", "<$0.0001", "<$0.0001", "$0.0001", "$0.0042", "$12.34", "$1,234.50"]
    assert [share_words(1, 3), share_words(0, 3), share_words(0, 0)] == ["33 %", "0 %", "-"]


def test_a_message_as_plain_values_has_every_field() -> None:
    one = records_pb2.StoredRecord(node_id="worker-0")
    one.record.outcome = usage_pb2.OUTCOME_CLIENT_LEFT
    one.record.started_at.FromMilliseconds(1_700_000_000_123)
    one.record.total_us = 2**40
    found = plain(one)
    assert found["cost_usd"] is None
    assert found["record"]["outcome"] == "client-left"
    assert found["record"]["started_at"] == "2023-11-14T22:13:20.123Z"
    assert found["record"]["total_us"] == 2**40
    assert found["record"]["attempts"] == []
    assert found["record"]["decision"] is None
    budget = keys_pb2.ScopeBudget()
    budget.exhausted_in.FromMilliseconds(1500)
    assert plain(budget)["exhausted_in_s"] == 1.5
    event = plain(events_pb2.Event(before_json='{"weight": 1}'))
    assert (event["before"], event["after"]) == ({"weight": 1}, None)


def test_words_of_enums() -> None:
    strategies = words(snapshot_pb2.Strategy.DESCRIPTOR)
    assert "unspecified" not in strategies
    assert chosen("LEAST_LOADED", strategies, "x") == chosen("least-loaded", strategies, "x")
    with pytest.raises(Failure, match="x best: must be one of simple-shuffle"):
        chosen("best", strategies, "x")


def test_a_secret_comes_from_a_variable_by_its_name() -> None:
    env = {"NEW": " sk-1 \n", "EMPTY": ""}
    assert secret_from("NEW", env) == secret_from("${NEW}", env) == "sk-1"
    for variable in ("EMPTY", "UNSET", "sk-ant-api03-secret", "$(cat x)"):
        with pytest.raises(Failure) as caught:
            secret_from(variable, env)
        assert "sk-ant" not in str(caught.value)


@pytest.mark.parametrize(
    ("ahead_s", "level"),
    [(0.0, "ok"), (-29.0, "ok"), (31.0, "warn"), (-239.0, "warn"), (241.0, "fail"), (-9e4, "fail")],
)
def test_clocks(ahead_s: float, level: str) -> None:
    (found,) = plane.clock("clock", "it", ahead_s)
    assert found.level == level
    assert bool(found.fix) == (level != "ok")


def streamed(*names: str) -> Answer:
    return Answer(200, {}, events=[Event(name, {"type": name}, 0.1) for name in names])


@pytest.mark.parametrize(
    ("answer", "words_"),
    [
        (streamed("message_start", "ping", "message_stop"), None),
        (streamed(), "empty"),
        (streamed("ping"), "empty"),
        (streamed("message_start", "message_delta"), "ended with message_delta"),
        (streamed("content_block_start", "message_stop"), "began with content_block_start"),
        (streamed("message_start", "content_block_start", "message_stop"), "begun and not ended"),
        (Answer(200, {}, events=[Event("ping", {"type": "pong"}, 0)]), "of the type 'pong'"),
        (
            Answer(529, {}, b'{"error":{"type":"overloaded_error","message":"later"}}'),
            "HTTP 529 overloaded_error: later",
        ),
        (Answer(502, {}, b"<html>"), "HTTP 502"),
        (Answer(200, {}, events=[Event("error", {"type": "error", "error": {"type": "api_error"}}, 0)]), "api_error"),
    ],
)
def test_streams_are_judged(answer: Answer, words_: str | None) -> None:
    said = path.problem(answer)
    assert said is None if words_ is None else words_ in (said or "")


class _Leaves(Talker):
    """A relay that answers with a stream's beginning."""

    def stream(self, body: object, leave_after: int = 0) -> Answer:
        return Answer(200, {"x-cc-relay-request-id": "req_1"}, events=streamed(*["ping"] * leave_after).events)


@pytest.mark.parametrize(("outcome", "level"), [("client-left", "ok"), ("served", "fail"), ("broken", "fail")])
def test_a_request_that_is_finished_though_its_client_left_is_told(outcome: str, level: str) -> None:
    """It would be billed to its end."""
    told: list[str] = []

    def outcome_of(request_id: str) -> str | None:
        told.append(request_id)
        return outcome if len(told) > 2 else None

    (found,) = path.cancel(_Leaves("http://h", None, "s"), "m", path.TO_MODEL, outcome_of)
    assert found.level == level
    assert set(told) == {"req_1"}


def test_places_are_compared_not_their_spelling() -> None:
    assert same_place("http://localhost:8787/", "http://127.0.0.1:8787")
    assert not same_place("http://127.0.0.1:8788", "http://127.0.0.1:8787")
    assert not same_place("https://127.0.0.1:8787", "http://127.0.0.1:8787")
    assert not same_place("http://[::1", "http://127.0.0.1:8787")


def test_what_hides_a_login_is_told() -> None:
    config = {"server": {"auth": {"allow_subscription": True}}, "providers": [{"type": "zai", "keys": [1]}]}
    env = {"CLAUDE_CODE_OAUTH_TOKEN": "x", "ANTHROPIC_AUTH_TOKEN": "y"}
    (found,) = credentials(config, env, None)
    assert (found.level, "hides" in found.found) == ("warn", True)
    (api_key,) = claude_code({"ANTHROPIC_BASE_URL": "http://h:1", "ANTHROPIC_API_KEY": "k"}, {}, "http://h:1")
    assert (api_key.level, "ANTHROPIC_API_KEY" in api_key.found) == ("warn", True)


def test_the_last_line() -> None:
    assert summary([ok("a", ""), warn("b", "", "f")]) == "all is well: 1 checks, 1 warn"
    assert summary([fail("a", "", "f"), skip("b", "")]) == "1 of 2 checks failed, 0 warn"
    assert line(fail("auth", "no key", "set one"), 6) == "fail  auth    no key → set one"
