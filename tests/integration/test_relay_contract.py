"""The gateway contract of Claude Code, as docs/conformance.yaml lists it: endpoints, credentials, limits, what providers lack."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.client import Answer
from support.relay import AUTH, BODY, KEY, STREAM_BODY, client, config, provider, records, relaying
from support.serving import Relay, until
from support.tls import Certificates
from support.upstream import EVENTS, MESSAGE, RawUpstream, Request, Wire, error_answer, json_answer, stream_answer

CANARY = "sk-ant-oat01-canary-0123456789abcdef"


@pytest.fixture(scope="module")
def home() -> Iterator[RawUpstream]:
    """The provider of type `anthropic`."""
    with RawUpstream() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def other() -> Iterator[RawUpstream]:
    """What stands behind all other providers."""
    with RawUpstream() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def relay(home: RawUpstream, other: RawUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    ids = [f"claude-{n:03}" for n in range(30)]
    models = [*ids, {"id": "claude-test", "display_name": "Test", "created_at": "2026-01-02T03:04:05Z"}]
    text = config(
        provider("home", home.url, models=models, traits={"batches_and_files": True}),
        compatible("folds", other.url, traits={"system_turns": "fold", "count_tokens": False, "documents": False}),
        compatible("rejects", other.url, traits={"system_turns": "reject"}),
        compatible("passes", other.url, traits={"system_turns": "pass"}),
        compatible("drops", other.url, betas="drop"),
        compatible("some", other.url, betas=["effort-2025-11-24", "x"], headers={"x-house": "ours", "x-app": "relay"}),
    )
    with relaying(tmp_path_factory.mktemp("relay"), text) as relay:
        yield relay


def compatible(name: str, url: str, **more: object) -> dict[str, object]:
    """A provider for the models `<name>-…`."""
    return provider(name, url, **{"type": "anthropic-compatible", "serves": [f"{name}-*"], **more})


@pytest.fixture(autouse=True)
def _fresh(home: RawUpstream, other: RawUpstream) -> Iterator[None]:
    for upstream in (home, other):
        upstream.requests.clear()
        upstream.answer = stream_or_message
    yield
    assert not home.failures
    assert not other.failures


def stream_or_message(request: Request, wire: Wire) -> None:
    if b'"stream":true' in request.body:
        stream_answer(request, wire)
    else:
        wire.send(json_answer(MESSAGE))


def of(model: str, body: bytes = BODY) -> bytes:
    return body.replace(b"claude-test", model.encode())


def error_of(answer: Answer) -> tuple[str, str]:
    """Type and message of an error in Anthropic's shape; fails if it has another."""
    assert answer.header("content-type") == "application/json"
    decoded = json.loads(answer.body)
    assert decoded["type"] == "error"
    assert decoded["request_id"] == answer.header("request-id")
    return decoded["error"]["type"], decoded["error"]["message"]


# --- endpoints --------------------------------------------------------------------------------------------------------


@pytest.mark.clause("endpoints.probes")
@pytest.mark.parametrize("path", ["/", "/api/hello", "/health", "/ready"])
@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_probes_need_no_credential(relay: Relay, home: RawUpstream, method: str, path: str) -> None:
    """Claude Code probes at its start, before it has any; load balancers never have any."""
    with client(relay) as connection:
        answer = connection.ask(method, path)
        assert answer.status == 200
        assert answer.body == (b"" if method == "HEAD" else b'{"status":"ok"}')
        assert connection.ask("HEAD", path).status == 200  # the connection is still in step

    assert not home.requests


@pytest.mark.clause("endpoints.unknown")
@pytest.mark.parametrize("path", ["/v1/complete", "/v1/messages/nothing", "/v1/messagesx", "/v2/messages", "/x?y=1"])
def test_an_unknown_path_is_a_404_in_anthropics_shape(relay: Relay, home: RawUpstream, path: str) -> None:
    """SDKs show the message of an error body; a bare 404 would tell nothing."""
    with client(relay) as connection:
        answer = connection.ask("POST", path, BODY, AUTH)

    assert answer.status == 404
    assert error_of(answer) == ("not_found_error", f"no such endpoint: {path.partition('?')[0]}")
    assert not home.requests


@pytest.mark.clause("endpoints.unknown")
@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/messages", "POST"),
        ("PUT", "/v1/messages/count_tokens", "POST"),
        ("POST", "/v1/models", "GET, HEAD"),
        ("DELETE", "/health", "GET, HEAD"),
    ],
)
def test_a_wrong_method_is_a_405(relay: Relay, method: str, path: str, allowed: str) -> None:
    with client(relay) as connection:
        answer = connection.ask(method, path, b"", AUTH)

    assert answer.status == 405
    assert answer.header("allow") == allowed
    assert error_of(answer)[0] == "invalid_request_error"


@pytest.mark.clause("endpoints.messages")
@pytest.mark.parametrize("query", ["", "?beta=true", "?beta=true&x=%2F&x=é".replace("é", "%C3%A9")])
def test_the_query_is_kept(relay: Relay, home: RawUpstream, query: str) -> None:
    with client(relay) as connection:
        assert connection.ask("POST", f"/v1/messages{query}", BODY, AUTH).status == 200

    assert home.requests[0].path == f"/v1/messages{query}"


@pytest.mark.clause("answers.both-modes")
def test_both_stream_modes_are_served(relay: Relay, home: RawUpstream) -> None:
    """After a failed stream Claude Code asks again with `stream: false`."""
    whole = BODY.replace(b"}]}", b'}],"stream":false}')
    with client(relay) as connection:
        streamed = connection.ask("POST", "/v1/messages", STREAM_BODY, AUTH)
        at_once = connection.ask("POST", "/v1/messages", whole, AUTH)

    assert (streamed.header("content-type"), streamed.body) == ("text/event-stream", b"".join(EVENTS))
    assert (at_once.header("content-type"), at_once.body) == ("application/json", MESSAGE)
    assert [request.body for request in home.requests] == [STREAM_BODY, whole]


@pytest.mark.clause("endpoints.models")
def test_model_discovery_gets_every_model_in_one_page(relay: Relay) -> None:
    """Claude Code asks once, for up to 1000, and reads `id` and `display_name`."""
    with client(relay) as connection:
        page = json.loads(connection.ask("GET", "/v1/models?limit=1000", b"", AUTH).body)

    ids = [model["id"] for model in page["data"]]
    assert ids == [*(f"claude-{n:03}" for n in range(30)), "claude-test"]
    assert (page["first_id"], page["last_id"], page["has_more"]) == ("claude-000", "claude-test", False)
    assert page["data"][-1] == {
        "type": "model",
        "id": "claude-test",
        "display_name": "Test",
        "created_at": "2026-01-02T03:04:05Z",
    }


@pytest.mark.clause("endpoints.models")
def test_the_list_has_pages(relay: Relay) -> None:
    """As the SDKs walk it: forwards with after_id, backwards with before_id."""
    with client(relay) as connection:

        def page(query: str) -> tuple[list[str], bool]:
            answer = json.loads(connection.ask("GET", f"/v1/models{query}", b"", AUTH).body)
            return [model["id"][-3:] for model in answer["data"]], answer["has_more"]

        assert page("") == ([f"{n:03}" for n in range(20)], True)
        assert page("?limit=20&after_id=claude-019") == ([*(f"{n:03}" for n in range(20, 30)), "est"], False)
        assert page("?limit=2&before_id=claude-005") == (["003", "004"], True)
        assert page("?before_id=claude-002") == (["000", "001"], False)
        for odd in ("?limit=0", "?limit=1001", "?limit=x", "?after_id=nobody", "?after_id=a&before_id=b"):
            answer = connection.ask("GET", f"/v1/models{odd}", b"", AUTH)
            assert (answer.status, error_of(answer)[0]) == (400, "invalid_request_error")


@pytest.mark.clause("endpoints.models")
def test_a_single_model_can_be_asked_for(relay: Relay) -> None:
    with client(relay) as connection:
        assert json.loads(connection.ask("GET", "/v1/models/claude-test", b"", AUTH).body)["display_name"] == "Test"
        missing = connection.ask("GET", "/v1/models/claude-nobody", b"", AUTH)

    assert (missing.status, error_of(missing)) == (404, ("not_found_error", "model: claude-nobody"))


@pytest.mark.clause("endpoints.count-tokens")
def test_count_tokens_is_passed_on(relay: Relay, home: RawUpstream) -> None:
    counted = b'{"input_tokens":14}'
    home.answer = lambda request, wire: wire.send(json_answer(counted))
    with client(relay) as connection:
        answer = connection.ask("POST", "/v1/messages/count_tokens?beta=true", BODY, AUTH)

    assert (answer.status, answer.body) == (200, counted)
    assert (home.requests[0].path, home.requests[0].body) == ("/v1/messages/count_tokens?beta=true", BODY)


@pytest.mark.clause("endpoints.count-tokens")
def test_where_nobody_can_count_the_answer_is_404(relay: Relay, other: RawUpstream) -> None:
    """The one optional endpoint: without it Claude Code counts by itself. The provider is not even asked."""
    with client(relay) as connection:
        answer = connection.ask("POST", "/v1/messages/count_tokens", of("folds-1"), AUTH)

    assert (answer.status, error_of(answer)) == (404, ("not_found_error", "no provider for folds-1 can count tokens"))
    assert not other.requests


@pytest.mark.clause("endpoints.batches")
def test_a_batchs_results_lead_back_to_the_relay(relay: Relay, home: RawUpstream) -> None:
    """SDKs follow `results_url` as it stands: unchanged, the relay's key would go straight to the provider."""
    batch = b'{"id": "b1", "results_url": "https://api.anthropic.com/v1/messages/batches/b1/results", "x": 1.10}'
    listed = b'{"data":[{"results_url":"https://api.anthropic.com/v1/a"},{"results_url":null}],"has_more":false}'
    answers = {"/v1/messages/batches": batch, "/v1/messages/batches/b1": batch, "/v1/messages/batches?limit=2": listed}
    home.answer = lambda request, wire: wire.send(json_answer(answers[request.path], "200 OK", "request-id: req_9"))
    own = relay.url.encode()
    with client(relay) as connection:
        for method, path in (("POST", "/v1/messages/batches"), ("GET", "/v1/messages/batches/b1")):
            answer = connection.ask(method, path, b'{"requests":[]}' if method == "POST" else b"", AUTH)
            assert answer.body == batch.replace(b"https://api.anthropic.com", own)
            assert (answer.header("request-id"), answer.header("x-cc-relay-provider")) == ("req_9", "home")
        answer = connection.ask("GET", "/v1/messages/batches?limit=2", b"", AUTH)
        assert answer.body == listed.replace(b"https://api.anthropic.com", own)

    assert [request.header("x-api-key") for request in home.requests] == ["sk-up-home"] * 3


@pytest.mark.clause("endpoints.batches")
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/messages/batches/b1/results"),
        ("POST", "/v1/messages/batches/b1/cancel"),
        ("DELETE", "/v1/messages/batches/b1"),
        ("GET", "/v1/files?limit=1"),
        ("GET", "/v1/files/f1/content"),
        ("POST", "/v1/files"),
    ],
)
def test_batches_and_files_go_to_the_first_anthropic_provider(
    relay: Relay, home: RawUpstream, method: str, path: str
) -> None:
    """What they name lives at one account."""
    content = bytes(range(256)) * 40 + b'\n{"results_url": "left alone in results and files"}\n'
    home.answer = lambda request, wire: wire.send(json_answer(content))
    body = b"--x\r\ncontent-disposition: form-data\r\n\r\n\x00\xff\r\n--x--\r\n" if method == "POST" else b""
    with client(relay) as connection:
        answer = connection.ask(method, path, body, AUTH, "content-type: multipart/form-data; boundary=x")

    assert (answer.status, answer.body) == (200, content)
    request = home.requests[0]
    assert (request.line, request.body) == (f"{method} {path} HTTP/1.1", body)
    assert request.header("content-type") == "multipart/form-data; boundary=x"


# --- credentials ------------------------------------------------------------------------------------------------------


@pytest.mark.clause("credentials.either-header")
@pytest.mark.parametrize(
    "lines",
    [
        [f"x-api-key: {KEY}"],
        [f"Authorization: Bearer {KEY}"],
        [f"authorization: bearer {KEY}"],
        [f"x-api-key: {KEY}", f"authorization: Bearer {KEY}"],
        ["x-api-key: something-else", f"authorization: Bearer {KEY}"],
        [f"x-api-key: {KEY}", "authorization: Bearer something-else"],
    ],
)
def test_the_relays_key_may_come_in_either_header(relay: Relay, home: RawUpstream, lines: list[str]) -> None:
    """Claude Code and the SDKs differ, and an apiKeyHelper sends both. Neither header goes upstream."""
    with client(relay) as connection:
        assert connection.ask("POST", "/v1/messages", BODY, *lines).status == 200

    request = home.requests[0]
    assert request.header("x-api-key") == "sk-up-home"
    assert request.header("authorization") is None
    assert KEY.encode() not in request.head
    assert b"something-else" not in request.head


@pytest.mark.clause("credentials.refused")
@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens", "/v1/messages/batches", "/v1/files"])
@pytest.mark.parametrize(
    "lines",
    [
        [],
        ["x-api-key: wrong"],
        ["authorization: Bearer wrong"],
        [f"authorization: Basic {KEY}"],
        [f"authorization: Bearer {CANARY}"],
        [f"x-api-key: {KEY}x"],
    ],
)
def test_a_wrong_credential_is_a_401_and_nothing_goes_upstream(
    relay: Relay, home: RawUpstream, other: RawUpstream, path: str, lines: list[str]
) -> None:
    with client(relay) as connection:
        answer = connection.ask("POST", path, BODY, *lines)

    assert (answer.status, error_of(answer)[0]) == (401, "authentication_error")
    assert CANARY.encode() not in answer.body
    assert not home.requests
    assert not other.requests


@pytest.mark.clause("credentials.refused")
def test_the_list_of_models_is_not_for_strangers(relay: Relay) -> None:
    with client(relay) as connection:
        assert connection.ask("GET", "/v1/models").status == 401


@pytest.fixture(scope="module")
def claude(certificates: Certificates) -> Iterator[RawUpstream]:
    """The origin that subscription tokens belong to."""
    with RawUpstream(tls=certificates.server_context()) as upstream:
        yield upstream


@pytest.fixture(scope="module")
def subscription_relay(
    claude: RawUpstream, other: RawUpstream, certificates: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Relay]:
    """Subscription tokens may go to `claude` only, which comes last in every other respect."""
    server = {
        "auth": {
            "keys": [{"name": "tester", "key": KEY}],
            "allow_subscription": True,
            "subscription_origins": [claude.url],
        }
    }
    text = config(
        compatible("zai", other.url, type="zai", serves=["*"], priority=0),
        provider("another-anthropic", other.url, priority=1),
        provider("claude", claude.url, keys=[], ca_file=str(certificates.ca_file), priority=2),
        server=server,
    )
    with relaying(tmp_path_factory.mktemp("subscription"), text) as relay:
        yield relay


@pytest.mark.clause("credentials.subscription")
@pytest.mark.parametrize("answered", ["200 OK", "401 No", "429 Too Many", "529 Overloaded", "reset"])
@pytest.mark.parametrize("path", ["/v1/messages?beta=true", "/v1/messages/count_tokens", "/v1/messages/batches"])
def test_a_subscription_token_goes_unchanged_to_its_own_origin_and_nowhere_else(
    subscription_relay: Relay, claude: RawUpstream, other: RawUpstream, answered: str, path: str
) -> None:
    """Also when that origin fails and others could serve; and never into a log or the relay's state."""

    claude.requests.clear()

    def answer(request: Request, wire: Wire) -> None:
        if answered == "reset":
            wire.reset()
        else:
            wire.send(error_answer(answered, "odd_error") if answered != "200 OK" else json_answer(MESSAGE))

    claude.answer = answer
    lines = [f"authorization: Bearer {CANARY}", "anthropic-beta: oauth-2025-04-20,claude-code-20250219"]
    with client(subscription_relay) as connection:
        got = connection.ask("POST", path, BODY, *lines)

    assert got.status == (502 if answered == "reset" else int(answered[:3]))
    assert {request.header("authorization") for request in claude.requests} == {f"Bearer {CANARY}"}
    assert {request.header("anthropic-beta") for request in claude.requests} == {
        "oauth-2025-04-20,claude-code-20250219"
    }
    assert {request.header("x-api-key") for request in claude.requests} == {None}
    assert not other.requests


@pytest.mark.clause("credentials.subscription")
def test_the_limit_of_one_subscription_is_nothing_to_another(subscription_relay: Relay, claude: RawUpstream) -> None:
    """The next to ask has a limit of its own: nothing rests, and a tool loop does not wait at its home."""
    first, second = (f"authorization: Bearer sk-ant-oat01-{name}" for name in ("first", "second"))

    def answer(request: Request, wire: Wire) -> None:
        is_limited = request.header("authorization") == first.partition(": ")[2]
        wire.send(
            error_answer("429 Too Many", "rate_limit_error", "retry-after: 2") if is_limited else json_answer(MESSAGE)
        )

    claude.answer = answer
    call = {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "x", "input": {}}]}
    result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "ok"}]}
    fields = json.loads(BODY)
    loop = json.dumps({**fields, "messages": [*fields["messages"], call, result]}).encode()
    session = "x-claude-code-session-id: 0a0a0a0a-0000-0000-0000-00000000000d"
    with client(subscription_relay) as connection:
        assert connection.ask("POST", "/v1/messages", BODY, second, session).status == 200
        assert connection.ask("POST", "/v1/messages", BODY, first).status == 429
        answered = connection.ask("POST", "/v1/messages", loop, second, session)
    request_id = answered.header("x-cc-relay-request-id")

    def found() -> list[dict[str, object]]:
        return [one for one in records(subscription_relay) if one["request_id"] == request_id]

    until(found, "the record")
    assert answered.status == 200
    assert "queued_ms" not in found()[0]
    assert all("cooling down" not in why for why in found()[0].get("passed_over", []))  # type: ignore[attr-defined]


@pytest.mark.clause("credentials.subscription")
def test_a_subscription_token_is_kept_nowhere(subscription_relay: Relay) -> None:
    line = f"authorization: Bearer {CANARY}"
    with client(subscription_relay) as connection:
        connection.ask("POST", "/v1/messages", of(f"claude-{CANARY}"), line)
    until(lambda: records(subscription_relay), "the record")

    assert CANARY not in subscription_relay.output
    for path in subscription_relay.state.rglob("*"):
        if path.is_file():
            assert CANARY.encode() not in path.read_bytes(), path


@pytest.mark.clause("credentials.subscription")
def test_with_a_relay_key_beside_it_the_token_stays_here(
    subscription_relay: Relay, claude: RawUpstream, other: RawUpstream
) -> None:
    """The relay's key decides: its own credentials are used, the client's token goes nowhere."""
    claude.requests.clear()
    with client(subscription_relay) as connection:
        assert connection.ask("POST", "/v1/messages", BODY, AUTH, f"authorization: Bearer {CANARY}").status == 200

    assert len(other.requests) == 1
    assert CANARY.encode() not in other.requests[0].head
    assert not claude.requests


@pytest.fixture(scope="module")
def open_relay(home: RawUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    text = config(provider("home", home.url), server={"auth": {"mode": "none"}})
    with relaying(tmp_path_factory.mktemp("open"), text) as relay:
        yield relay


@pytest.mark.clause("credentials.web-pages")
@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["host: 127.0.0.1:8787"], 200),
        (["host: localhost:8787", "x-api-key: anything"], 200),
        (["host: [::1]:8787", "authorization: Bearer anything"], 200),
        (["host: localhost", "origin: http://localhost:3000"], 200),
        (["host: evil.example:8787"], 403),
        (["host: 127.0.0.1.evil.example"], 403),
        (["host: localhost", "origin: https://evil.example"], 403),
        (["host: localhost", "origin: null"], 403),
    ],
)
def test_a_relay_without_keys_answers_this_machine_and_no_web_page(
    open_relay: Relay, home: RawUpstream, lines: list[str], status: int
) -> None:
    """Without keys a page on the web could spend the user's money, also by DNS rebinding."""
    with client(open_relay) as connection:
        head = "".join(f"{line}\r\n" for line in lines)
        connection.sock.sendall(
            f"POST /v1/messages HTTP/1.1\r\n{head}content-length: {len(BODY)}\r\n\r\n".encode() + BODY
        )
        answer = connection.answer()

    assert answer.status == status
    assert len(home.requests) == (status == 200)
    if status == 403:
        assert error_of(answer)[0] == "permission_error"
    else:
        assert home.requests[0].header("x-api-key") == "sk-up-home"
        assert b"anything" not in home.requests[0].head


# --- what providers lack ----------------------------------------------------------------------------------------------

SYSTEM_TURN = (
    b'{"role":"system","content":[{"type":"text","text":"Today is \\u00e9.","cache_control":{"type":"ephemeral"}}],'
    b'"output_config":{"effort":"medium"}}'
)
FIRST_TURN = b'{"role":"user","content":"hi"}'
BLOCKS_TURN = b'{ "role": "user", "content": [ {"type":"text","text":"hi","big":12345678901234567890} ] }'


def conversation(model: str, *turns: bytes) -> bytes:
    return b'{"model":"%b","max_tokens":9,"messages":[%b],"x":1.10}' % (model.encode(), b",".join(turns))


@pytest.mark.clause("capabilities.system-turns")
def test_system_turns_pass_where_they_are_known(relay: Relay, other: RawUpstream) -> None:
    body = conversation("passes-1", FIRST_TURN, SYSTEM_TURN)
    with client(relay) as connection:
        assert connection.ask("POST", "/v1/messages", body, AUTH).status == 200

    assert other.requests[0].body == body


@pytest.mark.clause("capabilities.system-turns")
def test_a_system_turn_is_refused_in_words_that_claude_code_recovers_from(relay: Relay, other: RawUpstream) -> None:
    """It folds the turn itself and sends again, on hearing exactly this."""
    with client(relay) as connection:
        answer = connection.ask("POST", "/v1/messages", conversation("rejects-1", FIRST_TURN, SYSTEM_TURN), AUTH)
        again = connection.ask("POST", "/v1/messages", conversation("rejects-1", FIRST_TURN), AUTH)

    assert answer.status == 400
    message = "messages: role 'system' is not supported on this model"
    assert error_of(answer) == ("invalid_request_error", message)
    assert again.status == 200
    assert len(other.requests) == 1


@pytest.mark.clause("capabilities.system-turns")
def test_a_system_turn_is_folded_into_the_user_turn_before_it(relay: Relay, other: RawUpstream) -> None:
    with client(relay) as connection:
        assert (
            connection.ask("POST", "/v1/messages", conversation("folds-1", FIRST_TURN, SYSTEM_TURN), AUTH).status == 200
        )

    sent = json.loads(other.requests[0].body)
    assert sent["messages"] == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "hi"},
                {
                    "type": "text",
                    "text": "<system-reminder>\nToday is é.\n</system-reminder>",
                    "cache_control": {"type": "ephemeral"},
                },
            ],
        }
    ]
    assert (sent["model"], sent["max_tokens"], sent["x"]) == ("folds-1", 9, 1.1)


@pytest.mark.clause("capabilities.stable-rewrites")
def test_a_folded_conversation_keeps_its_prefix(relay: Relay, other: RawUpstream) -> None:
    """Every later turn begins with the same bytes: prompt caches and signed thinking hang on them."""
    answer = b'{"role":"assistant","content":[{"type":"thinking","thinking":"","signature":"EqQB+/=="}]}'
    turns = [BLOCKS_TURN, SYSTEM_TURN, answer, FIRST_TURN, SYSTEM_TURN, answer, BLOCKS_TURN]
    with client(relay) as connection:
        for end in (2, 5, 7):
            connection.ask("POST", "/v1/messages", conversation("folds-1", *turns[:end]), AUTH)

    sent = [request.body for request in other.requests]
    ends = [body.rindex(b"]", 0, body.rindex(b',"x":')) for body in sent]
    assert sent[1].startswith(sent[0][: ends[0]])
    assert sent[2].startswith(sent[1][: ends[1]])
    assert answer in sent[1]
    assert b'"big":12345678901234567890' in sent[1]
    assert sent[2].endswith(BLOCKS_TURN + b'],"x":1.10}')


@pytest.mark.clause("capabilities.documents")
def test_a_provider_that_drops_documents_is_warned_of(relay: Relay, other: RawUpstream) -> None:
    """A document must not vanish silently: a header for the client, a line for the operator."""
    document = b'{"role":"user","content":[{"type":"document","source":{"type":"text","data":"x"}}]}'
    with client(relay) as connection:
        answer = connection.ask("POST", "/v1/messages", conversation("folds-1", document), AUTH)
        plain = connection.ask("POST", "/v1/messages", conversation("folds-1", FIRST_TURN), AUTH)

    warning = "provider folds does not read document blocks"
    assert (answer.status, answer.header("x-cc-relay-warning")) == (200, warning)
    assert plain.header("x-cc-relay-warning") is None
    request_id = answer.header("x-cc-relay-request-id")
    until(lambda: [r for r in records(relay) if r["request_id"] == request_id and r["warning"] == warning], "the line")


BETAS = "anthropic-beta: claude-code-20250219, effort-2025-11-24"


@pytest.mark.clause("request.headers")
@pytest.mark.parametrize(
    ("model", "betas"),
    [("passes-1", BETAS[16:]), ("drops-1", None), ("some-1", "effort-2025-11-24")],
)
def test_beta_values_pass_unless_the_configuration_says_otherwise(
    relay: Relay, other: RawUpstream, model: str, betas: str | None
) -> None:
    """By default nothing is filtered: a value without its field, or the reverse, is a 400."""
    with client(relay) as connection:
        assert connection.ask("POST", "/v1/messages", of(model), AUTH, BETAS).status == 200

    assert other.requests[0].header("anthropic-beta") == betas


def test_a_providers_own_headers_replace_the_clients(relay: Relay, other: RawUpstream) -> None:
    with client(relay) as connection:
        assert connection.ask("POST", "/v1/messages", of("some-1"), AUTH, "X-App: cli", "x-other: 1").status == 200

    names = [name for name, _ in other.requests[0].headers]
    assert (other.requests[0].header("x-house"), other.requests[0].header("x-app")) == ("ours", "relay")
    assert names.count("x-app") == 1
    assert other.requests[0].header("x-other") == "1"


@pytest.mark.clause("request.system-blocks")
def test_the_systems_first_block_stays_first_and_alone(relay: Relay, home: RawUpstream) -> None:
    """The attribution block: Anthropic takes it off there, and only there."""
    system = (
        b'[{"type":"text","text":"x-anthropic-billing-header: cc_version=2.1.329.abc; cc_entrypoint=sdk-cli;"},'
        b'{"type":"text","text":"You are \\u2026","cache_control":{"type":"ephemeral"}}]'
    )
    body = BODY[:-1] + b',"system":' + system + b"}"
    with client(relay) as connection:
        assert connection.ask("POST", "/v1/messages", body, AUTH).status == 200

    assert home.requests[0].body == body


@pytest.mark.clause("errors.own")
def test_a_model_that_nobody_serves_is_a_404(relay: Relay, home: RawUpstream) -> None:
    """Not a 400: that would make Claude Code try again without some of its features."""
    with client(relay) as connection:
        answer = connection.ask("POST", "/v1/messages", of("gpt-nobody"), AUTH)

    assert (answer.status, error_of(answer)[0]) == (404, "not_found_error")
    assert not home.requests


@pytest.mark.clause("errors.own")
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"max_tokens":1}', b'{"model":7}', b'{"model":"\xff"}'])
def test_a_body_that_is_no_request_is_a_400(relay: Relay, home: RawUpstream, body: bytes) -> None:
    """The one 400 that is the relay's to give: the client's mistake."""
    with client(relay) as connection:
        answer = connection.ask("POST", "/v1/messages", body, AUTH)
        assert connection.ask("POST", "/v1/messages", BODY, AUTH).status == 200

    assert (answer.status, error_of(answer)[0]) == (400, "invalid_request_error")
    assert len(home.requests) == 1


# --- limits -----------------------------------------------------------------------------------------------------------

MAX_BODY = 64 << 10


@pytest.fixture(scope="module")
def strict_relay(home: RawUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    text = config(provider("home", home.url), server={"max_body": "64KiB", "read_timeout": "700ms"})
    with relaying(tmp_path_factory.mktemp("strict"), text) as relay:
        yield relay


@pytest.mark.clause("request.too-large")
@pytest.mark.parametrize("framing", ["content-length", "chunked"])
def test_a_body_beyond_the_limit_is_a_413(strict_relay: Relay, home: RawUpstream, framing: str) -> None:
    """The client reads the answer although it is still sending."""
    body = BODY.replace(b'"hi"', b'"' + b"x" * 3 * MAX_BODY + b'"')
    with client(strict_relay) as connection:
        if framing == "content-length":
            connection.request("POST", "/v1/messages", body, AUTH)
        else:
            head = f"POST /v1/messages HTTP/1.1\r\nhost: relay\r\n{AUTH}\r\ntransfer-encoding: chunked\r\n\r\n"
            connection.sock.sendall(head.encode() + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
        answer = connection.answer()

    assert (answer.status, answer.header("connection")) == (413, "close")
    kind, message = error_of(answer)
    assert kind == "request_too_large"
    assert str(MAX_BODY) in message
    assert not home.requests


@pytest.mark.clause("request.too-large")
def test_a_body_at_the_limit_passes(strict_relay: Relay, home: RawUpstream) -> None:
    body = BODY.replace(b'"hi"', b'"' + b"x" * (MAX_BODY - len(BODY) + 2) + b'"')
    assert len(body) == MAX_BODY
    with client(strict_relay) as connection:
        assert connection.ask("POST", "/v1/messages", body, AUTH).status == 200

    assert home.requests[0].body == body


@pytest.mark.clause("request.framing")
@pytest.mark.parametrize("size_kb", [130, 1024])
def test_a_head_beyond_the_limit_is_a_431(relay: Relay, home: RawUpstream, size_kb: int) -> None:
    with client(relay) as connection:
        head = f"POST /v1/messages HTTP/1.1\r\nhost: relay\r\n{AUTH}\r\nx-big: "
        connection.sock.sendall(head.encode() + b"x" * (size_kb << 10) + b"\r\ncontent-length: 0\r\n\r\n")
        answer = connection.answer()
        assert connection.is_closed()

    assert (answer.status, error_of(answer)[0]) == (431, "invalid_request_error")
    assert not home.requests


@pytest.mark.clause("request.framing")
@pytest.mark.parametrize("sent", [b"POST /v1/mess", b"head", b"head and half a body"])
def test_a_client_that_stops_sending_is_answered_408(strict_relay: Relay, home: RawUpstream, sent: bytes) -> None:
    """Half a request must not hold a connection for ever."""
    head = f"POST /v1/messages HTTP/1.1\r\nhost: relay\r\n{AUTH}\r\ncontent-length: {len(BODY)}\r\n\r\n".encode()
    data = {b"head": head, b"head and half a body": head + BODY[:20]}.get(sent, sent)
    with client(strict_relay) as connection:
        connection.sock.sendall(data)
        began = time.monotonic()
        answer = connection.answer()
        assert connection.is_closed()

    assert 0.5 < time.monotonic() - began < 10
    assert (answer.status, error_of(answer)[0]) == (408, "timeout_error")
    assert not home.requests


@pytest.mark.clause("request.framing")
def test_a_slow_client_that_keeps_sending_is_served(strict_relay: Relay, home: RawUpstream) -> None:
    """The limit is for each part, not for the whole."""
    pause = threading.Event()
    with client(strict_relay) as connection:
        head = f"POST /v1/messages HTTP/1.1\r\nhost: relay\r\n{AUTH}\r\ncontent-length: {len(BODY)}\r\n\r\n"
        connection.sock.sendall(head.encode())
        for start in range(0, len(BODY), 20):
            pause.wait(0.25)  # slowness is what this is about
            connection.sock.sendall(BODY[start : start + 20])
        assert connection.answer().status == 200

    assert home.requests[0].body == BODY


@pytest.mark.clause("request.framing")
def test_pipelined_requests_are_answered_in_order(relay: Relay, home: RawUpstream) -> None:
    home.answer = lambda request, wire: wire.send(json_answer(request.body))
    bodies = [of(f"claude-{n:03}") for n in range(20)]
    with client(relay) as connection:
        request = f"POST /v1/messages HTTP/1.1\r\nhost: relay\r\n{AUTH}\r\ncontent-length: {len(bodies[0])}\r\n\r\n"
        connection.sock.sendall(b"".join(request.encode() + body for body in bodies))
        answers = [connection.answer().body for _ in bodies]

    assert answers == bodies


@pytest.mark.clause("request.framing")
@pytest.mark.parametrize("body", [BODY, STREAM_BODY])
def test_an_http_10_client_is_served(relay: Relay, body: bytes) -> None:
    """Without chunks; the end of the connection is the end of the answer."""
    with client(relay) as connection:
        connection.request("POST", "/v1/messages", body, AUTH, version="1.0")
        answer = connection.answer()
        assert connection.is_closed()

    assert answer.header("transfer-encoding") is None
    assert (answer.status, answer.body) == (200, b"".join(EVENTS) if body is STREAM_BODY else MESSAGE)


@pytest.mark.clause("errors.timers")
def test_default_timeouts_outlast_the_clients_own(home: RawUpstream, tmp_path: Path) -> None:
    """Claude Code waits 360 s for a head and 300 s between bytes: the relay must not be the one to give up first."""
    from ccr_control.core.provider_schema import TimeoutsConfig
    from ccr_control.core.schema import RoutingConfig

    assert TimeoutsConfig().first_byte.total_seconds() > 360
    assert TimeoutsConfig().idle.total_seconds() > 300
    assert RoutingConfig().silence_bound.total_seconds() < 180


@pytest.mark.clause("errors.retries")
def test_the_same_request_again_is_the_same_bytes_again(relay: Relay, home: RawUpstream) -> None:
    """Claude Code repeats a failed request as it was; the relay counts nothing down and changes nothing."""
    home.answer = lambda request, wire: wire.send(error_answer("529 Overloaded", "overloaded_error"))
    with client(relay) as connection:
        assert [connection.ask("POST", "/v1/messages?beta=true", BODY, AUTH).status for _ in range(10)] == [529] * 10

    assert {request.head for request in home.requests} == {home.requests[0].head}
    assert {request.body for request in home.requests} == {BODY}
