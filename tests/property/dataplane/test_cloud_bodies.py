"""What leaves for a cloud: only what it does not take is missing, everything else is byte-identical, whatever the headers say."""

from __future__ import annotations

import json
from base64 import b64decode
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

import pytest
from ccr_data.core.errors import BadRequest
from ccr_data.core.http1 import LineMemory, parse_request_head
from ccr_data.core.peek import peek
from ccr_data.core.snapshot import (
    AuthStyle,
    AwsCredentials,
    AwsSigning,
    Key,
    Origin,
    Provider,
    ProviderType,
    WireFormat,
    target,
)
from ccr_data.providers import bedrock, clouds, vertex
from ccr_data.providers.adapter import ClientRequest, UpstreamRequest
from ccr_data.providers.gated import fields_of, leave_out, without_cache_scope
from hypothesis import given
from hypothesis import strategies as st

DROPPED = frozenset(
    (
        "per-turn-control-2026-07-01",
        "mid-conversation-tool-changes-2026-07-01",
        "context-management-2025-06-27",
        "structured-outputs-2025-11-13",
        "mid-conversation-system-clear-at-2026-08-21",
        "thinking-display-updates-2026-08-18",
        "thinking-binding-controls-2026-08-01",
        "fine-grained-tool-streaming-2025-05-14",
    )
)
BEDROCK = Provider(
    "bedrock",
    ProviderType.BEDROCK,
    Origin("https", "bedrock-runtime.us-east-1.amazonaws.com", 443),
    "",
    AuthStyle.BEARER,
    (Key("k", "secret", ""),),
    wire_format=WireFormat.BEDROCK_INVOKE,
    renamed_betas=(("advanced-tool-use-2025-11-20", "tool-search-tool-2025-10-19"),),
    dropped_betas=DROPPED,
)
VERTEX = replace(
    BEDROCK,
    name="vertex",
    type=ProviderType.VERTEX,
    origin=Origin("https", "us-east5-aiplatform.googleapis.com", 443),
    base_path="/v1/projects/p/locations/us-east5/publishers/anthropic/models",
    wire_format=WireFormat.VERTEX,
)
FOUNDRY = replace(
    BEDROCK,
    name="foundry",
    type=ProviderType.AZURE,
    base_path="/anthropic",
    auth_style=AuthStyle.AZURE,
    wire_format=WireFormat.ANTHROPIC,
)
MANTLE = replace(
    BEDROCK,
    name="mantle",
    base_path="/anthropic",
    auth_style=AuthStyle.SIGV4,
    wire_format=WireFormat.ANTHROPIC,
    aws_signing=AwsSigning("us-east-1", "bedrock-mantle"),
    keys=(Key("role", "", "", aws=AwsCredentials("AKID", "s", "token")),),
)
CLOUDS = (BEDROCK, VERTEX, FOUNDRY, MANTLE)


def request(body: bytes, *lines: str, path: str = "/v1/messages?beta=true") -> ClientRequest:
    head = "".join(f"\r\n{line}" for line in ("host: relay", "content-type: application/json", *lines))
    return ClientRequest(
        parse_request_head(f"POST {path} HTTP/1.1{head}".encode(), LineMemory(of_request=True)), body, peek(body)
    )


def sent(provider: Provider, body: bytes, *lines: str, model: str | None = None, **more: str) -> UpstreamRequest:
    return clouds.prepare(request(body, *lines, **more), target(provider, provider.keys[0], model), 1_790_000_000.0)


def body_of(upstream: UpstreamRequest) -> dict[str, Any]:
    whole = b"".join(upstream.body)
    assert f"content-length: {len(whole)}\r\n".encode() in upstream.head
    return dict(json.loads(whole))


def line_of(upstream: UpstreamRequest) -> str:
    return upstream.head.partition(b"\r\n")[0].decode()


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)),
    max_leaves=8,
)
BLOCK = st.one_of(
    st.fixed_dictionaries({"type": st.just("text"), "text": st.text(max_size=20)}),
    st.fixed_dictionaries({"type": st.just("tool_use"), "id": st.text(max_size=5), "input": JSON}),
    st.fixed_dictionaries({"type": st.just("tool_addition"), "tools": JSON}),
    st.fixed_dictionaries({"type": st.just("thinking"), "thinking": st.text(max_size=9), "signature": st.text()}),
)
TURN = st.fixed_dictionaries(
    {
        "role": st.sampled_from(("user", "assistant", "system")),
        "content": st.one_of(st.text(), st.lists(BLOCK, max_size=3)),
    },
    optional={"output_config": JSON, "clear_at": JSON, "new_field": JSON},
)
TOOL = st.fixed_dictionaries(
    {"name": st.text(max_size=8), "input_schema": JSON},
    optional={"strict": st.booleans(), "eager_input_streaming": st.booleans(), "defer_loading": st.booleans()},
)
ASKED = st.fixed_dictionaries(
    {"model": st.just("claude-opus-5-5"), "messages": st.lists(TURN, max_size=4)},
    optional={
        "stream": st.booleans(),
        "tools": st.lists(TOOL, max_size=3),
        "system": JSON,
        "thinking": st.fixed_dictionaries(
            {"type": st.just("adaptive")},
            optional={"display": st.sampled_from(("updates", "omitted")), "block_binding": JSON},
        ),
        "context_management": st.fixed_dictionaries(
            {"edits": st.lists(st.sampled_from(({"type": "clear_thinking_20251015"}, {"type": "compact_20260112"})))}
        ),
        "output_config": JSON,
        "future_field": JSON,
    },
)


def expected(asked: dict[str, Any]) -> dict[str, Any]:
    """What a provider with DROPPED gets, in the plainest way to say it."""
    body: dict[str, Any] = json.loads(json.dumps(asked))
    for turn in body["messages"]:
        turn.pop("output_config", None)
        turn.pop("clear_at", None)
        if isinstance(turn["content"], list):
            kept = [block for block in turn["content"] if block["type"] not in ("tool_addition", "tool_removal")]
            if len(kept) < len(turn["content"]):
                turn["content"] = kept or [{"type": "text", "text": "(no content)"}]
    for tool in body.get("tools", []):
        tool.pop("strict", None)
        tool.pop("eager_input_streaming", None)
    if "thinking" in body:
        body["thinking"].pop("block_binding", None)
        if body["thinking"].get("display") == "updates":
            del body["thinking"]["display"]
    if "context_management" in body:
        edits = [edit for edit in body["context_management"]["edits"] if edit["type"].startswith("compact_")]
        body["context_management"]["edits"] = edits
        if not edits:
            del body["context_management"]
    return body


@given(asked=ASKED)
def test_what_is_missing_is_what_the_provider_does_not_take(asked: dict[str, Any]) -> None:
    """And nothing else; unknown fields stay. (output_config is a beta's only inside of turns.)"""
    wanted = expected(asked)
    body = json.dumps(asked).encode()
    found = body_of(sent(BEDROCK, body))

    assert found.pop("anthropic_version") == bedrock.OLD_VERSION
    wanted.pop("stream", None)
    assert found == {name: value for name, value in wanted.items() if name != "model"}


@given(asked=ASKED)
def test_values_without_such_fields_are_byte_identical(asked: dict[str, Any]) -> None:
    """Prompt caches and thinking signatures are about bytes."""
    body = json.dumps(expected(asked), separators=(", ", " : ")).encode()
    fields = fields_of(body)
    before = {name: bytes(value) for name, value in fields.items()}

    assert not leave_out(fields, BEDROCK)
    assert {name: bytes(value) for name, value in fields.items()} == before
    found = b"".join(sent(BEDROCK, body).body)
    assert all(value in found for name, value in before.items() if name not in ("model", "stream"))


@given(asked=ASKED, betas=st.lists(st.sampled_from(sorted(DROPPED)), max_size=4))
def test_the_conversation_does_not_depend_on_the_betas_of_a_request(asked: dict[str, Any], betas: list[str]) -> None:
    """They vary from turn to turn; the prefix must not."""
    body = json.dumps(asked).encode()
    lines = (f"anthropic-beta: {','.join(betas)}",) if betas else ()

    assert body_of(sent(BEDROCK, body, *lines)) == body_of(sent(BEDROCK, body))


@given(asked=ASKED)
def test_a_provider_that_takes_all_gets_all(asked: dict[str, Any]) -> None:
    """Byte by byte, where only the model's place differs."""
    plain = replace(FOUNDRY, dropped_betas=frozenset())
    body = json.dumps(asked).encode()

    assert b"".join(sent(plain, body).body) == body


MODELS = st.text(min_size=1, max_size=40).filter(
    lambda name: name.partition(";")[0] not in ("", ".", "..") and name.isprintable()
)


@given(model=MODELS)
def test_a_model_is_one_segment_of_the_path(model: str) -> None:
    """Whatever a mapping calls it: no slash, no query, no other path."""
    body = json.dumps({"model": "claude-x", "messages": []}).encode()
    for provider, suffix in ((BEDROCK, "/invoke"), (VERTEX, ":rawPredict")):
        _, path, _ = line_of(sent(provider, body, model=model)).split(" ")
        ours = path.removeprefix(provider.base_path).removeprefix("/model").removesuffix(suffix)

        assert unquote(ours) == f"/{model}"
        assert ours.count("/") == 1
        assert not set(ours) & set("?# ")


@pytest.mark.parametrize("model", [".", "..", ";x", "..;x"])
@pytest.mark.parametrize("path_id", [bedrock.path_id, vertex.path_id])
def test_a_model_that_would_be_another_path_is_refused(model: str, path_id: Any) -> None:
    """As the official SDK refuses it."""
    with pytest.raises(BadRequest):
        path_id(model)


@pytest.mark.parametrize(
    ("model", "asked", "header", "version"),
    [
        ("us.anthropic.claude-opus-5-5", "claude-opus-5-5", "2026-10-21", "2026-10-21"),
        ("us.anthropic.claude-opus-4-7", "claude-opus-4-7", "2026-10-21", "2026-10-21"),
        ("us.anthropic.claude-opus-5-5", "claude-opus-5-5", "2023-06-01", "bedrock-2023-05-31"),
        ("us.anthropic.claude-opus-5-5", "claude-opus-5-5", "", "bedrock-2023-05-31"),
        ("anthropic.claude-opus-4-6-v1", "claude-opus-4-6", "2026-10-21", "bedrock-2023-05-31"),
        ("anthropic.claude-sonnet-4-5-20250929-v1:0", "x", "2026-10-21", "bedrock-2023-05-31"),
        ("anthropic.claude-opus-4-20250514-v1:0", "x", "2026-10-21", "bedrock-2023-05-31"),
        ("anthropic.claude-3-5-sonnet-20241022-v2:0", "x", "2026-10-21", "bedrock-2023-05-31"),
        ("arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/a1", "x", "2026-10-21", "2026-10-21"),
        (
            "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/a1",
            "claude-haiku-4-5",
            "2026-10-21",
            "bedrock-2023-05-31",
        ),
    ],
)
def test_the_version_is_one_that_the_model_takes(model: str, asked: str, header: str, version: str) -> None:
    """The client's, as far as Bedrock serves it for the model."""
    body = json.dumps({"model": asked, "messages": []}).encode()
    lines = (f"anthropic-version: {header}",) if header else ()

    assert body_of(sent(BEDROCK, body, *lines, model=model))["anthropic_version"] == version


@pytest.mark.parametrize(("header", "version"), [("2026-10-21", "2026-10-21"), ("2023-06-01", "vertex-2023-10-16")])
def test_vertex_gets_the_clients_version(header: str, version: str) -> None:
    """By its own name for the older one."""
    upstream = sent(VERTEX, b'{"model":"claude-x","stream":true}', f"anthropic-version: {header}")

    assert body_of(upstream) == {"stream": True, "anthropic_version": version}
    assert line_of(upstream) == f"POST {VERTEX.base_path}/claude-x:streamRawPredict HTTP/1.1"
    assert b"anthropic-version" not in upstream.head


def test_what_the_client_says_of_versions_and_betas_in_the_body_counts() -> None:
    """As with the official SDK: the relay only fills in."""
    body = b'{"model":"claude-x","anthropic_version":"v","anthropic_beta":["b"]}'

    assert body_of(sent(BEDROCK, body, "anthropic-beta: c")) == {"anthropic_version": "v", "anthropic_beta": ["b"]}


def test_betas_travel_in_the_body_by_bedrocks_names() -> None:
    """And in the header, where the official SDK leaves them."""
    betas = "anthropic-beta: advanced-tool-use-2025-11-20, context-1m-2025-08-07,per-turn-control-2026-07-01"
    upstream = sent(BEDROCK, b'{"model":"claude-x"}', betas)

    assert body_of(upstream)["anthropic_beta"] == ["tool-search-tool-2025-10-19", "context-1m-2025-08-07"]
    assert b"anthropic-beta: tool-search-tool-2025-10-19,context-1m-2025-08-07\r\n" in upstream.head


@pytest.mark.parametrize(
    ("model", "base"),
    [
        ("us.anthropic.claude-opus-5-5", "anthropic.claude-opus-5-5"),
        ("us-gov.anthropic.claude-opus-5-5", "anthropic.claude-opus-5-5"),
        ("anthropic.claude-haiku-4-5-20251001-v1:0", "anthropic.claude-haiku-4-5-20251001-v1:0"),
        ("arn:aws:bedrock:us-east-1:123456789012:inference-profile/global.anthropic.claude-x", "anthropic.claude-x"),
        (
            "arn:aws:bedrock:us-east-1:1:application-inference-profile/a1",
            "arn:aws:bedrock:us-east-1:1:application-inference-profile%2Fa1",
        ),
    ],
)
def test_tokens_are_counted_for_base_models(model: str, base: str) -> None:
    """Profiles cannot count."""
    body = b'{"model":"x","messages":[],"thinking":{"type":"enabled","budget_tokens":4000}}'
    upstream = sent(BEDROCK, body, model=model, path="/v1/messages/count_tokens")
    inner = json.loads(b64decode(body_of(upstream)["input"]["invokeModel"]["body"]))

    assert line_of(upstream) == f"POST /model/{base}/count-tokens HTTP/1.1"
    assert inner.pop("max_tokens") > 4000
    assert inner == {"messages": [], "anthropic_version": bedrock.OLD_VERSION, "thinking": json.loads(body)["thinking"]}


def test_vertex_counts_for_a_model_in_the_body_without_its_date() -> None:
    upstream = sent(
        VERTEX, b'{"model":"x","messages":[]}', model="claude-haiku-4-5@20251001", path="/v1/messages/count_tokens"
    )

    assert line_of(upstream) == f"POST {VERTEX.base_path}/count-tokens:rawPredict HTTP/1.1"
    assert body_of(upstream)["model"] == "claude-haiku-4-5"


def test_lone_surrogates_pass() -> None:
    """JavaScript can send half a character; msgspec does not read it, and Anthropic does."""
    body = b'{"model":"claude-x","messages":[{"role":"user","content":"\\ud83d"}]}'

    assert b'"\\ud83d"' in b"".join(sent(BEDROCK, body).body)


def test_cache_control_has_no_scope_in_clouds_that_know_none() -> None:
    """Everything around it stays as it was."""
    block = (
        b'{"type":"text","text":"say \\"cache_control\\": {\\"scope\\": 1}",'
        b'"cache_control": {"type":"ephemeral","scope":"global"} }'
    )

    assert without_cache_scope(block) == block.replace(b',"scope":"global"', b"")
    assert (
        without_cache_scope(b'{"cache_control":{"type":"ephemeral"},"scope":1}')
        == b'{"cache_control":{"type":"ephemeral"},"scope":1}'
    )


def test_mantle_reads_the_user_profile_in_the_body() -> None:
    """As the official SDK's client for it sends it."""
    upstream = sent(
        MANTLE, b'{"model":"anthropic.claude-x"}', "anthropic-user-profile-id: up_1", "anthropic-version: 1"
    )

    assert body_of(upstream) == {"user_profile_id": "up_1", "model": "anthropic.claude-x"}
    assert b"user-profile" not in upstream.head
    assert b"anthropic-version: 1\r\n" in upstream.head
    assert b"SignedHeaders=content-type;host;x-amz-date;x-amz-security-token, " in upstream.head


@pytest.mark.parametrize("provider", CLOUDS, ids=lambda one: one.name)
def test_credentials_are_the_clouds_own(provider: Provider) -> None:
    """One kind for each, and never a client's."""
    upstream = sent(
        provider, b'{"model":"claude-x"}', "x-api-key: relay-key", "authorization: Bearer c", "x-amz-date: 1"
    )
    head = upstream.head.decode().lower()

    assert "relay-key" not in head
    assert head.count("authorization: ") == (provider is not FOUNDRY)
    assert head.count("x-amz-date: ") == (provider is MANTLE)
    assert ("x-api-key: secret\r\napi-key: secret\r\n" in head) == (provider is FOUNDRY)
