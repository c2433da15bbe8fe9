"""Errors of the demo provider: status, type and wording of the API, as the official SDK sees them."""

import copy
import json
from typing import Any

import aiohttp
import anthropic
import pytest
from ccr_demo import DemoServer, Settings
from ccr_demo.api import Api
from ccr_demo.request import Request
from ccr_demo.script import Script
from hypothesis import given
from hypothesis import strategies as st

ASSISTANT_CALL = {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "Bash", "input": {}}]}
USER = {"role": "user", "content": "hi"}
SYSTEM_TURN = {"role": "system", "content": "be kind"}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"max_tokens": None}, "max_tokens: Field required"),
        ({"max_tokens": 0}, "max_tokens: Input should be greater than or equal to 1"),
        ({"model": None}, "model: Field required"),
        ({"messages": None}, "messages: Field required"),
        ({"messages": []}, "messages: at least one message is required"),
        ({"messages": [{"role": "robot", "content": "hi"}]}, "messages.0.role: Input should be"),
        ({"messages": [ASSISTANT_CALL]}, 'first message must use the "user" role'),
        ({"messages": [USER, ASSISTANT_CALL, USER]}, "`tool_use` ids were found without `tool_result` blocks"),
        (
            {"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_9"}]}]},
            "unexpected `tool_use_id` found in `tool_result` blocks: toolu_9",
        ),
        ({"messages": [USER, SYSTEM_TURN, USER]}, "`system` message must follow"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": ""}]}]}, "must be non-empty"),
        ({"messages": [USER, {"role": "assistant", "content": "so"}]}, "does not support assistant message prefill"),
        ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, 'thinking.type: "enabled"'),
        (
            {"model": "claude-opus-4-6", "messages": [USER, SYSTEM_TURN]},
            "role 'system' is not supported on this model",
        ),
        (
            {"system": [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}] * 5},
            "A maximum of 4 blocks with cache_control may be provided. Found 5.",
        ),
    ],
)
async def test_invalid_requests_get_the_api_wording(
    demo: DemoServer, ask: dict[str, Any], changes: dict[str, Any], problem: str
) -> None:
    """Claude Code recovers from some of them by their words."""
    body = {key: value for key, value in {**ask, **changes}.items() if value is not None}
    status, answer = await post(demo, json.dumps(body).encode())

    assert status == 400
    assert answer["error"]["type"] == "invalid_request_error"
    assert problem in answer["error"]["message"]


async def post(demo: DemoServer, body: bytes, **headers: str) -> tuple[int, dict[str, Any]]:
    """Status and body of a bare request; `headers` replace the usual ones."""
    usual = {"x-api-key": "sk-demo", "anthropic-version": "2023-06-01", "content-type": "application/json"}
    sent = {**usual, **{name.replace("_", "-"): value for name, value in headers.items()}}
    sent = {name: value for name, value in sent.items() if value}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{demo.url}/v1/messages?beta=true", data=body, headers=sent) as response,
    ):
        answer = await response.json()
        assert answer["request_id"] == response.headers["request-id"]
        assert ("anthropic-organization-id" in response.headers) == (response.status not in (401, 413))
        return response.status, answer


@pytest.mark.parametrize(
    ("headers", "status", "problem"),
    [
        ({"x_api_key": ""}, 401, "x-api-key header is required"),
        ({"x_api_key": "sk-bad"}, 401, "invalid x-api-key"),
        ({"x_api_key": "", "authorization": "Bearer sk-bad"}, 401, "Invalid bearer token"),
    ],
)
async def test_bad_credentials_get_401(
    demo: DemoServer, ask: dict[str, Any], headers: dict[str, str], status: int, problem: str
) -> None:
    answered = await post(demo, json.dumps(ask).encode(), **headers)
    assert answered[0] == status
    assert answered[1]["error"] == {"type": "authentication_error", "message": problem}


@pytest.mark.parametrize(
    ("headers", "changes", "problem"),
    [
        ({"anthropic_version": "2020-01-01"}, {}, "is not a valid version"),
        ({"anthropic_version": ""}, {}, "anthropic-version: header is required"),
        ({"anthropic_version": "2026-10-21"}, {"temperature": 1}, "temperature: Extra inputs are not permitted"),
        ({"anthropic_beta": "ok-2025-11-24, what-2030-01-01"}, {}, "`what-2030-01-01` for the `anthropic-beta`"),
    ],
)
async def test_versions_and_betas_are_checked(
    demo: DemoServer, ask: dict[str, Any], headers: dict[str, str], changes: dict[str, Any], problem: str
) -> None:
    demo.configure(known_betas=["ok-2025-11-24"])

    status, answer = await post(demo, json.dumps({**ask, **changes}).encode(), **headers)

    assert status == 400
    assert problem in answer["error"]["message"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"text"', b"\xff\xfe{}", b"[" * 100_000])
async def test_bodies_that_are_no_object_get_400(demo: DemoServer, body: bytes) -> None:
    assert (await post(demo, body))[0] == 400


async def test_a_body_above_the_limit_gets_413(demo: DemoServer, ask: dict[str, Any]) -> None:
    demo.configure(max_body_bytes=10_000)
    ask["system"] = "x" * 10_000

    status, answer = await post(demo, json.dumps(ask).encode())

    assert (status, answer["error"]["type"]) == (413, "request_too_large")


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (402, anthropic.PaymentRequiredError),
        (403, anthropic.PermissionDeniedError),
        (404, anthropic.NotFoundError),
        (409, anthropic.ConflictError),
        (500, anthropic.InternalServerError),
        (503, anthropic.ServiceUnavailableError),
        (504, anthropic.GatewayTimeoutError),
        (529, anthropic.OverloadedError),
    ],
)
async def test_scripted_errors_have_the_type_of_their_status(
    demo: DemoServer,
    client: anthropic.AsyncAnthropic,
    ask: dict[str, Any],
    status: int,
    error: type[anthropic.APIStatusError],
) -> None:
    demo.play({"status": status})

    with pytest.raises(error) as caught:
        await client.messages.create(**ask)
    assert caught.value.response.headers["request-id"] == caught.value.request_id


async def test_a_spelled_out_error_is_sent_as_it_stands(
    demo: DemoServer, client: anthropic.AsyncAnthropic, ask: dict[str, Any]
) -> None:
    details = {"error_code": "enforced_spend_limit_reached"}
    demo.play(
        {
            "status": 429,
            "error": {"type": "rate_limit_error", "message": "no more", "details": details},
            "retry_after_s": 7,
            "should_retry": False,
            "headers": {"x-odd": "1", "cf-ray": ""},
        }
    )

    with pytest.raises(anthropic.RateLimitError) as caught:
        await client.messages.create(**ask)

    headers = caught.value.response.headers
    assert caught.value.response.json()["error"] == {
        "details": details,
        "type": "rate_limit_error",
        "message": "no more",
    }
    assert (headers["retry-after"], headers["x-should-retry"], headers["x-odd"]) == ("7", "false", "1")
    assert "cf-ray" not in headers


async def test_a_web_page_is_an_answer_too(
    demo: DemoServer, client: anthropic.AsyncAnthropic, ask: dict[str, Any]
) -> None:
    """Load balancers answer like that."""
    demo.play({"status": 502, "html": True})

    with pytest.raises(anthropic.InternalServerError) as caught:
        await client.messages.create(**ask)
    assert caught.value.response.headers["content-type"].startswith("text/html")
    assert caught.value.response.text.startswith("<!DOCTYPE html>")


async def test_limits_are_shown_and_enforced_on_request(
    demo: DemoServer, client: anthropic.AsyncAnthropic, ask: dict[str, Any]
) -> None:
    """The relay learns its budgets from these headers."""
    demo.configure(enforce_limits=True, requests_per_minute=2)

    first = await client.messages.with_raw_response.create(**ask)
    await client.messages.create(**ask)
    with pytest.raises(anthropic.RateLimitError) as caught:
        await client.messages.create(**ask)

    assert first.headers["anthropic-ratelimit-requests-limit"] == "2"
    assert first.headers["anthropic-ratelimit-requests-remaining"] == "1"
    assert first.headers["anthropic-ratelimit-input-tokens-reset"].endswith("Z")
    assert 1 <= int(caught.value.response.headers["retry-after"]) <= 30


async def test_an_unknown_model_is_a_404_where_models_are_strict(
    demo: DemoServer, client: anthropic.AsyncAnthropic, ask: dict[str, Any]
) -> None:
    ask["model"] = "glm-5"
    await client.messages.create(**ask)
    demo.configure(strict_models=True)

    with pytest.raises(anthropic.NotFoundError, match="model: glm-5"):
        await client.messages.create(**ask)


async def test_a_refused_request_leaves_the_script_alone(
    demo: DemoServer, client: anthropic.AsyncAnthropic, ask: dict[str, Any]
) -> None:
    """Otherwise a test could not tell a lost step from a wrong answer."""
    demo.play({"text": "for a valid request"})
    with pytest.raises(anthropic.BadRequestError):
        await client.messages.create(**{**ask, "max_tokens": 0})

    assert "for a valid request" in str((await client.messages.create(**ask)).content)


async def test_anything_goes_where_nothing_is_validated(demo: DemoServer) -> None:
    """For relays that must pass on what they do not understand."""
    demo.configure(validate=False)

    for body in (b"{}", b'{"messages": 7, "tools": "x"}', b"not json"):
        status, _ = await post_unchecked(demo, body)
        assert status == 200


async def post_unchecked(demo: DemoServer, body: bytes) -> tuple[int, bytes]:
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{demo.url}/v1/messages", data=body, headers={"x-api-key": "sk-demo"}) as response,
    ):
        return response.status, await response.read()


VALID: dict[str, Any] = {
    "model": "claude-opus-5",
    "max_tokens": 9,
    "system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}],
    "thinking": {"type": "adaptive"},
    "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": {"required": ["a"]}}},
    "tools": [{"name": "t", "input_schema": {"required": ["a"], "properties": {"a": {"type": "string"}}}}],
    "messages": [
        {"role": "user", "content": "[[tools:1]]"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "i", "name": "t", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "i", "content": "r"}]},
    ],
}
PLACES: list[tuple[Any, ...]] = [
    *[(name,) for name in VALID],
    ("system", 0),
    ("system", 0, "text"),
    ("system", 0, "cache_control"),
    ("thinking", "type"),
    ("output_config", "format"),
    ("output_config", "format", "schema"),
    ("output_config", "format", "schema", "required"),
    ("tools", 0),
    ("tools", 0, "name"),
    ("tools", 0, "input_schema"),
    ("tools", 0, "input_schema", "properties"),
    ("tools", 0, "input_schema", "properties", "a"),
    ("messages", 0),
    ("messages", 0, "role"),
    ("messages", 0, "content"),
    ("messages", 1, "content", 0),
    ("messages", 1, "content", 0, "type"),
    ("messages", 1, "content", 0, "id"),
    ("messages", 2, "content", 0, "content"),
]
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.sampled_from(["text", "thinking", "user"]),
    lambda each: st.lists(each, max_size=2) | st.dictionaries(st.sampled_from(["type", "text", "role", "x"]), each),
    max_leaves=4,
)


@given(place=st.sampled_from(PLACES), value=JSON_VALUES, validate=st.booleans(), stream=st.booleans())
def test_no_body_breaks_the_demo(place: tuple[Any, ...], value: Any, validate: bool, stream: bool) -> None:
    """Whatever stands in whatever field: an answer or a 400, never a fault of the demo's own."""
    body = copy.deepcopy({**VALID, "stream": stream})
    holder: Any = body
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = value
    api = Api(Settings(validate=validate), Script())
    headers = ((b"x-api-key", b"k"), (b"anthropic-version", b"2023-06-01"))

    performance, _ = api.answer(Request("POST", "/v1/messages", headers, json.dumps(body).encode(), "http://h"), 0.0)

    assert performance.head is not None
    assert performance.head.status in ((200, 400) if validate else (200,))
