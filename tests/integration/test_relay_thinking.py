"""Sessions with signed thinking move between providers, and nobody notices but the log."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.demo import DemoProcess, demo
from support.relay import AUTH, client, config, provider, records, relaying
from support.serving import until
from support.talk import Talk
from support.upstream import EVENTS, MESSAGE, RawUpstream, Request, Wire, json_answer, stream_answer

SESSION = "x-claude-code-session-id: 0a0a0a0a-0000-0000-0000-00000000000"
BOUND = {"account_bound": True, "prefix_bound": True}
ACCOUNT_BOUND = "claude-sonnet-5-5"  # known to be so: no provider needs to refuse anything
UNKNOWN = "claude-opus-5"  # the relay learns it from a refusal


@pytest.fixture
def pair() -> Iterator[tuple[DemoProcess, DemoProcess]]:
    """Two accounts that do not take each other's thinking."""
    with demo(organization="one", **BOUND) as first, demo(organization="two", **BOUND) as second:
        yield first, second


def two(first: str, second: str, **routing: object) -> str:
    health = {"circuit": {"failures": 1000}}
    return config(
        provider("first", first, priority=0), provider("second", second, priority=1), routing=routing, health=health
    )


@pytest.mark.parametrize(("model", "repairs"), [(ACCOUNT_BOUND, 0), (UNKNOWN, 1)])
def test_a_session_goes_on_elsewhere_when_its_provider_dies(
    pair: tuple[DemoProcess, DemoProcess], tmp_path: Path, model: str, repairs: int
) -> None:
    """With one mended request at most; every later turn is right at once, and the new provider's thinking is kept."""
    first, second = pair
    with relaying(tmp_path, two(first.url, second.url)) as relay:
        talk = Talk(relay.url, model, SESSION + "1")
        for number in range(4):
            assert talk.say(f"question {number}").status == 200
        first.kill()
        for number in range(4, 10):
            assert talk.say(f"question {number}").status == 200
        until(lambda: len(records(relay)) == 10, "all records")
        reasons = [attempt["reason"] for record in records(relay) for attempt in record["attempts"]]  # type: ignore[attr-defined]

        assert reasons.count("signature") == repairs
        assert second.request_count() == 6 + repairs
        last = [attempt["reason"] for attempt in records(relay)[-1]["attempts"]]  # type: ignore[attr-defined]
        assert "signature" not in last
    assert _thoughts(talk) == 10
    assert all(usage["cache_read_input_tokens"] > 0 for usage in talk.usages[5:])


@pytest.mark.parametrize("model", [ACCOUNT_BOUND, UNKNOWN])
def test_a_session_goes_on_elsewhere_inside_a_tool_loop(
    pair: tuple[DemoProcess, DemoProcess], tmp_path: Path, model: str
) -> None:
    """Its open thought cannot be verified there, so it goes, too; the loop ends as if nothing had been."""
    first, second = pair
    with relaying(tmp_path, two(first.url, second.url)) as relay:
        talk = Talk(relay.url, model, SESSION + "2")
        assert talk.say("a").status == 200
        assert talk.say("[[tool:Read {}]]").status == 200
        first.kill()
        assert talk.bring_results().status == 200
        assert talk.say("[[tool:Read {}]]").status == 200
        assert talk.bring_results().status == 200
        until(lambda: len(records(relay)) == 5, "all records")
        reasons = [[attempt["reason"] for attempt in record["attempts"]] for record in records(relay)]  # type: ignore[attr-defined]

    assert "signature" not in reasons[3] + reasons[4]
    assert reasons[2].count("signature") == (0 if model == ACCOUNT_BOUND else 2)


def test_a_tool_loop_of_a_model_with_a_thinking_budget_goes_on_elsewhere(
    pair: tuple[DemoProcess, DemoProcess], tmp_path: Path
) -> None:
    """Such a model wants thinking at the beginning of the loop, or none at all; it thinks again in the next turn."""
    first, second = pair
    with relaying(tmp_path, two(first.url, second.url)) as relay:
        talk = Talk(relay.url, "claude-sonnet-4-5", SESSION + "6")
        talk.mode = {"type": "enabled", "budget_tokens": 2000}
        assert talk.say("[[tool:Read {}]]").status == 200
        first.kill()
        assert talk.bring_results("[[tool:Read {}]]").status == 200
        assert talk.bring_results().status == 200
        assert talk.say("and then?").status == 200
        until(lambda: len(records(relay)) == 4, "all records")
        reasons = [[attempt["reason"] for attempt in record["attempts"]] for record in records(relay)]  # type: ignore[attr-defined]

    assert [one.count("signature") for one in reasons] == [0, 1, 0, 0]
    assert b'"thinking":' in talk.answers[-1].body


def test_a_session_returns_to_its_first_provider(pair: tuple[DemoProcess, DemoProcess], tmp_path: Path) -> None:
    """What was made elsewhere is left out, what was made there is still taken: no 400 on the way."""
    first, second = pair
    with relaying(tmp_path, two(first.url, second.url, affinity="none")) as relay:
        talk = Talk(relay.url, ACCOUNT_BOUND, SESSION + "3")
        places = []
        for number in range(12):
            if number in (4, 8):
                first.play({"status": 529, "times": 1})
            assert talk.say(f"question {number}").status == 200
            places.append(talk.answers[-1].header("x-cc-relay-provider"))
        until(lambda: len(records(relay)) == 12, "all records")
        reasons = [attempt["reason"] for record in records(relay) for attempt in record["attempts"]]  # type: ignore[attr-defined]

    assert set(places) == {"first", "second"}
    assert "signature" not in reasons


def test_unsigned_thinking_does_not_reach_a_provider_that_verifies(tmp_path: Path) -> None:
    """Another vendor's blocks have no signature that Anthropic would take."""
    with demo() as vendor, demo(**BOUND) as anthropic:
        other = {**provider("vendor", vendor.url, priority=0), "type": "anthropic-compatible"}
        text = config(other, provider("first", anthropic.url, priority=1), health={"circuit": {"failures": 1000}})
        with relaying(tmp_path, text) as relay:
            talk = Talk(relay.url, UNKNOWN, SESSION + "4")
            for number in range(3):
                assert talk.say(f"question {number}").status == 200
            vendor.kill()
            for number in range(3):
                assert talk.say(f"question {number}").status == 200
            until(lambda: len(records(relay)) == 6, "all records")
            reasons = [attempt["reason"] for record in records(relay) for attempt in record["attempts"]]  # type: ignore[attr-defined]

    assert "signature" not in reasons


def test_a_lone_provider_is_mended_without_any_session(tmp_path: Path) -> None:
    """Blocks from another life of the conversation; the client names no session."""
    with (
        demo(organization="one", **BOUND) as elsewhere,
        demo(organization="two", **BOUND) as here,
        relaying(tmp_path, config(provider("first", here.url))) as relay,
    ):
        talk = Talk(elsewhere.url, UNKNOWN)
        for number in range(3):
            assert talk.say(f"question {number}").status == 200
        talk.url = relay.url
        for number in range(3):
            assert talk.say(f"question {number}").status == 200

    assert talk.attempts() == [0, 0, 0, 2, 1, 1]


SIGNATURE_ERROR = (
    b'{"type":"error","error":{"type":"invalid_request_error","message":"messages.1.content.0: Invalid `signature` in '
    b'`thinking` block"},"request_id":"req_up"}'
)
OTHER_ERROR = SIGNATURE_ERROR.replace(b"Invalid `signature` in `thinking` block", b"something else")
TURNS = [
    {"role": "user", "content": "a"},
    {
        "role": "assistant",
        "content": [{"type": "thinking", "thinking": "", "signature": "x"}, {"type": "text", "text": "b"}],
    },
    {"role": "user", "content": "c"},
]


def _asking(*, stream: bool) -> bytes:
    return json.dumps({"model": "claude-test", "max_tokens": 9, "messages": TURNS, "stream": stream}).encode()


@pytest.mark.long
@pytest.mark.clause("errors.unmodified")
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("chunked", [False, True])
def test_what_cannot_be_mended_goes_back_as_it_came(tmp_path: Path, *, stream: bool, chunked: bool) -> None:
    """The provider's first words, also if the second attempt was refused in other words."""
    refusals = [OTHER_ERROR, SIGNATURE_ERROR, OTHER_ERROR]

    def answer(request: Request, wire: Wire) -> None:
        body = refusals.pop(0)
        if chunked:
            half = len(body) // 2
            wire.send(
                b"HTTP/1.1 400 Bad\r\nx-own: 1\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
            )
            wire.chunk(body[:half])
            wire.chunk(body[half:])
            wire.send(b"0\r\n\r\n")
        else:
            wire.send(json_answer(body, "400 Bad", "x-own: 1"))

    with RawUpstream() as upstream:
        upstream.answer = answer
        with relaying(tmp_path, config(provider("first", upstream.url))) as relay, client(relay) as connection:
            asked = _asking(stream=stream)
            other = connection.ask("POST", "/v1/messages", asked, AUTH)
            signature = connection.ask("POST", "/v1/messages", asked, AUTH)

    assert (other.status, other.body, other.header("x-own")) == (400, OTHER_ERROR, "1")
    assert other.header("x-cc-relay-attempts") == "1"
    assert (signature.status, signature.body, signature.header("x-own")) == (400, SIGNATURE_ERROR, "1")
    assert signature.header("x-cc-relay-attempts") == "2"
    assert (signature.header("transfer-encoding") == "chunked") == chunked
    assert [request.body == asked for request in upstream.requests] == [True, True, False]


def test_only_the_blocks_are_missing(tmp_path: Path) -> None:
    """All other bytes of the conversation are those of the client."""
    answers = [json_answer(SIGNATURE_ERROR, "400 Bad"), json_answer(MESSAGE), json_answer(MESSAGE)]
    block = json.dumps(TURNS[1]["content"][0]).encode()  # type: ignore[index]
    with RawUpstream() as upstream:
        upstream.answer = lambda request, wire: wire.send(answers.pop(0))
        with relaying(tmp_path, config(provider("first", upstream.url))) as relay, client(relay) as connection:
            asked = _asking(stream=False)
            for _ in range(2):
                assert connection.ask("POST", "/v1/messages", asked, AUTH, SESSION + "5").status == 200

    expected = asked.replace(block + b", ", b"")
    assert expected != asked
    assert [request.body for request in upstream.requests] == [asked, expected, expected]


def _thoughts(talk: Talk) -> int:
    return sum(block["type"] == "thinking" for turn in talk.messages for block in turn["content"])


@pytest.mark.long
@pytest.mark.parametrize("helps", [True, False])
def test_a_late_refusal_is_mended_behind_the_relays_pings(tmp_path: Path, *, helps: bool) -> None:
    """The client has a stream by then: it goes on with the second answer, or ends in the provider's first words."""
    answers = [json_answer(SIGNATURE_ERROR, "400 Bad")]

    def answer(request: Request, wire: Wire) -> None:
        if answers:
            time.sleep(1.2)
            wire.send(answers.pop())
        elif helps:
            stream_answer(request, wire)
        else:
            wire.send(json_answer(OTHER_ERROR, "400 Bad"))

    with RawUpstream() as upstream:
        upstream.answer = answer
        text = config(provider("first", upstream.url), routing={"silence_bound": "500ms"})
        with relaying(tmp_path, text) as relay, client(relay) as connection:
            got = connection.ask("POST", "/v1/messages", _asking(stream=True), AUTH)

    assert got.status == 200
    assert got.body.startswith(b"event: ping\n")
    if helps:
        assert got.body.endswith(b"".join(EVENTS))
    else:
        assert got.body.endswith(b"event: error\ndata: " + SIGNATURE_ERROR + b"\n\n")
    assert len(upstream.requests) == 2


def test_a_refusal_that_never_ends_reaches_the_client(tmp_path: Path) -> None:
    """What looks like a 400 and is a long page, or stalls, is passed on as it comes."""

    def answer(request: Request, wire: Wire) -> None:
        wire.send(b"HTTP/1.1 400 Bad\r\ncontent-length: 100000\r\n\r\n" + b"x" * 70_000)
        wire.send(b"y" * 30_000)

    with RawUpstream() as upstream:
        upstream.answer = answer
        with relaying(tmp_path, config(provider("first", upstream.url))) as relay, client(relay) as connection:
            got = connection.ask("POST", "/v1/messages", _asking(stream=False), AUTH)

    assert (got.status, got.body) == (400, b"x" * 70_000 + b"y" * 30_000)
