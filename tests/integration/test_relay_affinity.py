"""Prompt caches survive: a session stays where its prefix is, whatever the strategy says of other requests."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ccr_data.core.snapshot import Strategy
from support.ccr import ccr
from support.demo import DemoProcess, demo
from support.kinds import longer
from support.relay import AUTH, BODY, client, config, provider, records, relaying
from support.serving import until
from support.talk import Talk
from support.upstream import MESSAGE, RawUpstream, error_answer, json_answer

STRATEGIES = [strategy.value for strategy in Strategy]
SESSION = "x-claude-code-session-id: 0a0a0a0a-0000-0000-0001-00000000000"
TURNS = 30


@pytest.fixture(scope="module")
def accounts() -> Iterator[list[DemoProcess]]:
    """Three accounts, each with a prompt cache of its own."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(demo(organization=name)) for name in ("one", "two", "three")]


def talk_through(talk: Talk, turns: int) -> Talk:
    for number in range(turns):
        assert talk.say(f"question {number}, " + "with a long explanation of what is meant " * 20).status == 200
    return talk


@pytest.mark.parametrize("strategy", [*STRATEGIES[:4], *longer(*STRATEGIES[4:])])
@pytest.mark.parametrize(
    "session", [SESSION + "1", pytest.param("", marks=pytest.mark.long)], ids=["named", "nameless"]
)
def test_a_session_reads_its_cache_as_if_there_were_no_relay(
    accounts: list[DemoProcess], tmp_path: Path, strategy: str, session: str
) -> None:
    """At least 99 % of what a direct connection reads; nameless clients are told apart by how they begin."""
    model = f"claude-opus-5-{strategy}-{bool(session)}"
    direct = talk_through(Talk(accounts[0].url, f"{model}-direct"), TURNS)
    text = config(
        *(provider(f"p{number}", account.url, priority=1) for number, account in enumerate(accounts)),
        routing={"strategy": strategy},
    )
    with relaying(tmp_path, text) as relay:
        relayed = talk_through(Talk(relay.url, model, *filter(None, [session])), TURNS)

    assert relayed.read_share() >= 0.99 * direct.read_share()
    assert direct.read_share() > 0.9
    assert len({answer.header("x-cc-relay-provider") for answer in relayed.answers}) == 1


def test_when_the_pinned_account_dies_one_turn_is_cold(tmp_path: Path) -> None:
    """The session settles at its new place at once."""
    with demo(organization="one") as first, demo(organization="two") as second:
        text = config(provider("first", first.url, priority=0), provider("second", second.url, priority=1))
        with relaying(tmp_path, text) as relay:
            talk = talk_through(Talk(relay.url, "claude-opus-5", SESSION + "2"), 5)
            first.kill()
            talk_through(talk, 25)

    cold = [turn for turn, usage in enumerate(talk.usages) if usage["cache_read_input_tokens"] == 0]
    assert cold == [0, 5]


@pytest.mark.parametrize(("is_in_loop", "place"), [(True, "first"), (False, "second")])
def test_a_short_rate_limit_is_waited_for_inside_a_tool_loop(tmp_path: Path, *, is_in_loop: bool, place: str) -> None:
    """Between turns the session moves instead, at once."""
    with demo(organization="one") as first, demo(organization="two") as second:
        text = config(provider("first", first.url, priority=0), provider("second", second.url, priority=1))
        with relaying(tmp_path, text) as relay:
            talk = Talk(relay.url, "claude-opus-5", SESSION + "3")
            assert talk.say("[[tool:Read {}]]" if is_in_loop else "a").status == 200
            first.play({"status": 429, "retry_after_s": 2, "times": 1})
            other = Talk(relay.url, "claude-opus-5", SESSION + "4")
            assert other.say("this one is told to wait").status == 200
            last = talk.bring_results() if is_in_loop else talk.say("b")

    assert other.answers[0].header("x-cc-relay-provider") == "second"
    assert last.status == 200
    assert (last.header("x-cc-relay-provider"), last.header("x-cc-relay-attempts")) == (place, "1")


def test_a_worker_that_starts_again_keeps_the_sessions(accounts: list[DemoProcess], tmp_path: Path) -> None:
    """Two workers and then two others: the session never notices."""
    text = config(
        *(provider(f"p{number}", account.url, priority=1) for number, account in enumerate(accounts)),
        routing={"strategy": "round-robin"},
    )
    with relaying(tmp_path, text, "--workers", "2") as relay:
        talk = talk_through(Talk(relay.url, "claude-opus-5-restarted", SESSION + "5"), 1)
        time.sleep(1)  # what is promised: workers know of each other's pins within a second
        talk_through(talk, 5)
        for worker in ("worker-0", "worker-1"):
            os.kill(relay.pids(worker)[-1], signal.SIGKILL)
        until(lambda: len(relay.events("node_ready")) == 4, "two other workers")
        talk_through(talk, 6)

    cold = [turn for turn, usage in enumerate(talk.usages) if usage["cache_read_input_tokens"] == 0]
    assert cold == [0]
    assert len({answer.header("x-cc-relay-provider") for answer in talk.answers}) == 1


def test_a_tool_loop_waits_for_its_home_and_says_so(tmp_path: Path) -> None:
    """The wait is neither the provider's time nor the relay's own, and no reason to say that the session left."""
    answers = [error_answer("429 Too Many", "rate_limit_error", "retry-after: 1")]
    loop = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "x", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "ok"}]},
    ]
    body = json.dumps({"model": "claude-test", "max_tokens": 9, "messages": loop}).encode()
    with RawUpstream() as home, RawUpstream() as other:
        text = config(provider("home", home.url), provider("other", other.url, priority=1))
        with relaying(tmp_path, text) as relay, client(relay) as connection:
            assert connection.ask("POST", "/v1/messages", BODY, AUTH, SESSION + "2").status == 200
            home.answer = lambda request, wire: wire.send(answers.pop() if answers else json_answer(MESSAGE))
            assert connection.ask("POST", "/v1/messages", BODY, AUTH).header("x-cc-relay-provider") == "other"
            answer = connection.ask("POST", "/v1/messages", body, AUTH, SESSION + "2")
            until(lambda: len(records(relay)) == 3, "its record")
            record = records(relay)[-1]
            told = ccr("explain", str(record["request_id"]), "--state-dir", str(relay.state)).stdout

    assert answer.header("x-cc-relay-provider") == "home"
    assert "passed_over" not in record
    queued_ms = float(str(record["queued_ms"]))
    assert queued_ms > 0
    assert float(str(record["total_ms"])) >= queued_ms
    assert record["attempts"][0]["total_ms"] + record["overhead_ms"] < queued_ms  # type: ignore[index]
    assert "its session's pin was kept" in told
    assert "waited" in told


def test_a_session_stays_with_one_of_several_models_of_a_provider(tmp_path: Path) -> None:
    """Prompt caches are of a model. The next worker knows which it was."""
    to = [{"provider": "only", "model": model} for model in ("first", "second", "third")]
    routing = {"routes": [{"name": "split", "match": {"model": "*"}, "strategy": "round-robin", "to": to}]}
    with (
        RawUpstream() as upstream,
        relaying(tmp_path, config(provider("only", upstream.url), routing=routing)) as relay,
    ):
        for _ in range(2):
            for session in "345":
                for _ in range(2):
                    with client(relay) as connection:
                        assert connection.ask("POST", "/v1/messages", BODY, AUTH, SESSION + session).status == 200
            relay.signal(signal.SIGUSR2)
            until(lambda: relay.events("workers_replaced"), "the next worker", within_s=60.0)
        asked = [(one.header("x-claude-code-session-id"), json.loads(one.body)["model"]) for one in upstream.requests]

    assert len(asked) == 12
    assert sorted(model for _, model in set(asked)) == ["first", "second", "third"]


def test_what_is_asked_beside_a_conversation_does_not_move_it(tmp_path: Path) -> None:
    """Its titles are made elsewhere, by the same model's name. Each of the two stays where it is."""
    routes = [{"name": "background", "match": {"request_class": "background"}, "to": [{"provider": "cheap"}]}]
    main = BODY.replace(b'"messages"', b'"tools":[{"name":"x","input_schema":{"type":"object"}}],"messages"')
    with RawUpstream() as home, RawUpstream() as cheap:
        providers = [provider("home", home.url), provider("cheap", cheap.url, priority=1)]
        text = config(*providers, routing={"routes": routes})
        with relaying(tmp_path, text) as relay, client(relay) as connection:
            asked = [
                connection.ask("POST", "/v1/messages", body, AUTH, SESSION + "6").header("x-cc-relay-provider")
                for body in (main, BODY, main, BODY, main)
            ]
            told = [
                ccr("route", "--model", "claude-test", "--session", SESSION.partition(": ")[2] + "6", *more).stdout
                for more in (("--tools", "--state-dir", str(relay.state)), ("--state-dir", str(relay.state)))
            ]

    assert asked == ["home", "cheap", "home", "cheap", "home"]
    assert "would go to home" in told[0]
    assert "would go to cheap" in told[1]
