"""Strategies and matches, through real processes."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from support.ccr import ccr
from support.relay import AUTH, BODY, STREAM_BODY, client, config, provider, relaying
from support.serving import Relay, until
from support.upstream import EVENTS, MESSAGE, RawUpstream, Request, Wire, error_answer, json_answer, stream_answer

Configured = Callable[[str], Relay]
NO_AFFINITY = {"affinity": "none"}


def served_by(
    relay: Relay, body: bytes = BODY, *lines: str, count: int = 1, path: str = "/v1/messages"
) -> Counter[str]:
    """Which providers answered."""
    with client(relay) as connection:
        answers = [connection.ask("POST", path, body, AUTH, *lines) for _ in range(count)]
    assert {answer.status for answer in answers} == {200}
    return Counter(str(answer.header("x-cc-relay-provider")) for answer in answers)


def test_the_cheapest_provider_serves(configured: Configured) -> None:
    """By its own model's price: from the table, from the configuration, with its factor; an unknown price comes last."""
    with RawUpstream() as upstream:
        providers = [
            provider("unknown", upstream.url, model_mapping={"claude-*": "nobody-knows"}),
            provider("opus", upstream.url, model_mapping={"claude-*": "claude-opus-5-5"}),
            provider("own", upstream.url, prices={"claude-*": {"input": 1, "output": 4, "cache_read": 0.1}}),
            provider("glm", upstream.url, model_mapping={"claude-*": "glm-4.7"}),
        ]
        to = [{"provider": name} for name in ("unknown", "opus")]
        routes = [
            {"match": {"model": "claude-a"}, "to": to},
            {"match": {"model": "claude-b"}, "to": [*to, {"provider": "own"}]},
            {"match": {"model": "claude-c"}, "to": [*to, {"provider": "own"}, {"provider": "glm"}]},
        ]
        relay = configured(config(*providers, routing={"strategy": "cost-based", "routes": routes, **NO_AFFINITY}))
        firsts = [
            served_by(relay, BODY.replace(b"claude-test", name), count=5)
            for name in (b"claude-a", b"claude-b", b"claude-c")
        ]

    assert firsts == [{"opus": 5}, {"own": 5}, {"glm": 5}]


def test_the_fastest_provider_serves_and_a_slow_one_is_only_tried(configured: Configured) -> None:
    """Time to the first content, not to the head."""

    def slow(request: Request, wire: Wire) -> None:
        wire.begin_stream()
        time.sleep(0.25)
        for piece in EVENTS:
            wire.chunk(piece)
        wire.end_stream()

    with RawUpstream(slow) as first, RawUpstream(stream_answer) as second:
        text = config(
            provider("slow", first.url),
            provider("fast", second.url),
            routing={"strategy": "latency-based", **NO_AFFINITY},
        )
        relay = configured(text)
        firsts = served_by(relay, STREAM_BODY, count=20)

    assert firsts["slow"] <= 2
    assert firsts["fast"] >= 18


def test_load_is_spread_while_requests_are_open(configured: Configured) -> None:
    """Four at once over two keys: two each, whatever the dice say."""
    together = threading.Barrier(4, timeout=10)

    def wait_for_all(request: Request, wire: Wire) -> None:
        together.wait()
        wire.send(json_answer(MESSAGE))

    keys = [{"label": label, "key": f"sk-{label}"} for label in ("a", "b")]
    with RawUpstream(wait_for_all) as upstream:
        relay = configured(config(provider("spread", upstream.url, keys=keys), routing=NO_AFFINITY))
        asking = [threading.Thread(target=served_by, args=(relay,)) for _ in range(4)]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join()
        used = Counter(request.header("x-api-key") for request in upstream.requests)

    assert used == {"sk-a": 2, "sk-b": 2}


def test_routes_match_on_what_a_request_shows(configured: Configured) -> None:
    matches: dict[str, dict[str, object]] = {
        "counting": {"request_class": "count_tokens"},
        "sub": {"agent": "subagent"},
        "team": {"headers": {"x-team": "blue*"}},
        "thinking": {"thinking": True},
        "images": {"images": True},
        "documents": {"documents": True},
        "long": {"min_input_tokens": 10_000},
        "tools": {"tools": True, "client": "tester"},
        "other-client": {"client": "nobody"},
        "background": {"request_class": ["background"], "max_input_tokens": 10_000},
    }
    with RawUpstream() as upstream:
        providers = [provider(name, upstream.url) for name in matches]
        routes = [{"name": name, "match": match, "to": [{"provider": name}]} for name, match in matches.items()]
        relay = configured(config(*providers, routing={"routes": routes}))

        def goes_to(body: bytes, *lines: str, path: str = "/v1/messages") -> str:
            (name,) = served_by(relay, body, *lines, path=path)
            return name

        def having(more: bytes) -> bytes:
            return BODY[:-1] + b"," + more + b"}"

        assert goes_to(BODY) == "background"
        assert goes_to(BODY, path="/v1/messages/count_tokens") == "counting"
        assert goes_to(BODY, "x-claude-code-agent-id: a1") == "sub"
        assert goes_to(BODY, "X-Team: blue whale") == "team"
        assert goes_to(BODY, "X-Team: red") == "background"
        assert goes_to(having(b'"thinking":{"budget_tokens":2000,"type":"enabled"}')) == "thinking"
        assert goes_to(having(b'"thinking":{"type":"disabled"}')) == "background"
        assert goes_to(BODY.replace(b'"hi"', b'[{"type":"image","source":{}}]')) == "images"
        assert goes_to(BODY.replace(b'"hi"', b'[{"type": "document","source":{}}]')) == "documents"
        assert goes_to(BODY.replace(b'"hi"', b'"{\\"type\\":\\"image\\"}"')) == "background"
        assert goes_to(BODY.replace(b"hi", b"x" * 36_000)) == "long"
        assert goes_to(having(b'"tools":[{"name":"t"}]')) == "tools"
        assert goes_to(having(b'"tools":[]')) == "background"


def test_a_deprecated_key_keeps_its_sessions_and_gets_no_others(tmp_path: Path) -> None:
    """A rotation: the new key takes over, nobody loses a prompt cache."""
    old, new = {"label": "old", "key": "sk-old"}, {"label": "new", "key": "sk-new"}
    session = "x-claude-code-session-id: 11111111-0000-4000-8000-000000000000"
    with RawUpstream() as upstream:
        with relaying(tmp_path, config(provider("one", upstream.url, keys=[old]))) as relay:
            served_by(relay, BODY, session)
            text = config(provider("one", upstream.url, keys=[old | {"state": "deprecated"}, new]))
            (tmp_path / "ccr.yaml").write_text(text)
            deadline_s = time.monotonic() + 20
            while upstream.requests[-1].header("x-api-key") != "sk-new":
                assert time.monotonic() < deadline_s
                served_by(relay)
                time.sleep(0.02)
            before = len(upstream.requests)
            served_by(relay, BODY, session, count=3)
            served_by(relay, count=3)
        used = [request.header("x-api-key") for request in upstream.requests[before:]]

    assert used == ["sk-old"] * 3 + ["sk-new"] * 3


def test_a_decision_can_be_explained(configured: Configured) -> None:
    """By the id that the answer carries; the log tells what was passed over."""
    with RawUpstream() as upstream, RawUpstream() as broken:
        broken.answer = lambda request, wire: wire.send(error_answer("529 Overloaded", "overloaded_error"))
        text = config(provider("first", broken.url), provider("second", upstream.url), routing={"cooldown": "60s"})
        relay = configured(text)
        with client(relay) as connection:
            asked = ("POST", "/v1/messages", BODY, AUTH, "x-claude-code-session-id: explained")
            ids = [str(connection.ask(*asked).header("x-cc-relay-request-id")) for _ in range(2)]
        where = ("--state-dir", str(relay.state))
        until(lambda: ccr("explain", ids[1], *where).returncode == 0, "the record is known")
        moved, passed = (json.loads(ccr("explain", one, *where, "--json").stdout)["record"] for one in ids)
        words = ccr("explain", ids[1], *where).stdout
        unknown = ccr("explain", "req_ccr_none", *where)
        logged = {str(event["request_id"]): event for event in relay.events("request_done")}

    candidates = [
        {"provider": name, "key_label": f"{name}-key", "model": "claude-test"} for name in ("first", "second")
    ]
    assert moved["decision"] == {"strategy": "failover", "candidates": candidates, "candidate_count": 2}
    assert [attempt.get("reason") for attempt in moved["attempts"]] == ["overloaded", None]
    assert passed["decision"]["candidates"] == candidates[::-1]
    assert passed["decision"]["passed_over"] == [{"what": "first/first-key", "why": "cooling down"}]
    assert "candidate 1: second/second-key as claude-test" in words
    assert "passed over: first/first-key: cooling down" in words
    assert unknown.returncode == 2
    assert "passed_over" not in logged[ids[0]]
    assert logged[ids[1]]["passed_over"] == ["first/first-key: cooling down"]


def test_a_request_for_another_generation_is_made_fit_where_a_mapping_says_so(configured: Configured) -> None:
    """And only there: without the option it goes as it came, but for the name."""
    asked = {"model": "claude-opus-5", "max_tokens": 100_000, "thinking": {"type": "adaptive"}, "messages": []}
    body = json.dumps(asked).encode()
    with RawUpstream(lambda request, wire: wire.send(json_answer(MESSAGE))) as upstream:
        mapping = {"claude-opus-5": "claude-sonnet-4-5"}
        providers = [
            provider("fit", upstream.url, model_mapping=mapping, adjust_renamed=True),
            provider("plain", upstream.url, model_mapping=mapping),
        ]
        routes = [{"match": {"headers": {"x-to": name}}, "to": [{"provider": name}]} for name in ("fit", "plain")]
        relay = configured(config(*providers, routing={"routes": routes}))
        for name in ("fit", "plain"):
            assert served_by(relay, body, f"x-to: {name}") == {name: 1}
        fit, plain = (json.loads(request.body) for request in upstream.requests)
    assert fit == asked | {
        "model": "claude-sonnet-4-5",
        "max_tokens": 64_000,
        "thinking": {"type": "enabled", "budget_tokens": 32_000},
    }
    assert plain == asked | {"model": "claude-sonnet-4-5"}
